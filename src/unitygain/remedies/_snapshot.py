"""What makes a change undoable bit for bit: copies of tensors, modules that change places, steps in turn."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unitygain.probe.sites import Select, selects

Undo = Callable[[], None]


def backwards(undos: Sequence[Undo]) -> Undo:
    """Return what undoes the steps of a change, the last one first."""

    def undo() -> None:
        for step in reversed(undos):
            step()

    return undo


@contextmanager
def all_or_nothing() -> Iterator[list[Undo]]:
    """Yield a list for the undos of the steps of a change; if one raises, those before it are undone."""
    undos: list[Undo] = []
    try:
        yield undos
    except BaseException:
        backwards(undos)()
        raise


def keep(tensors: Iterable[Tensor]) -> Undo:
    """Copy `tensors` and return what writes the copies back into the same tensors.

    Side effects:
        Memory for the copies until the returned function is dropped.
    """
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]

    def undo() -> None:
        with torch.no_grad():
            for tensor, before in kept:
                tensor.copy_(before)

    return undo


def swap(model: nn.Module, sites: Select, make: Callable[[nn.Module], nn.Module | None], what: str) -> Undo:
    """Put ``make(module)`` in the place of every chosen module for which it is not None.

    Args:
        model: The model; its containers keep their order.
        sites: Which module paths may be replaced.
        make: Returns the replacement, or None to leave the module.
        what: What is being replaced, for the message.

    Returns:
        What puts the very same modules back.

    Raises:
        ValueError: If no module was replaced.
    """
    # A module that stands in several places gets one replacement, in all of those that are chosen.
    once = functools.cache(make)
    found = [
        (parent, name, child, new)
        for path, parent in model.named_modules()
        for name, child in parent._modules.items()
        if child is not None
        and selects(sites, f"{path}.{name}" if path else name, child)
        and (new := once(child)) is not None
    ]
    if not found:
        raise ValueError(
            f"no module is {what} here; it may be a function call, which has no module to replace"
        )
    for parent, name, child, new in found:
        parent._modules[name] = new.train(child.training)

    def undo() -> None:
        for parent, name, child, _ in found:
            parent._modules[name] = child

    return undo
