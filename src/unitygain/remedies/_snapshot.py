"""What makes a change undoable bit for bit: copies of tensors, and modules that change places."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from unitygain.probe.sites import Select, selects

Undo = Callable[[], None]


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
    found = [
        (parent, name, child, new)
        for path, parent in model.named_modules()
        for name, child in parent.named_children()
        if selects(sites, f"{path}.{name}" if path else name, child) and (new := make(child)) is not None
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
