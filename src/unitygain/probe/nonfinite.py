"""Finds the first operation that makes a number that is not finite from numbers that are."""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from unitygain._case import Case
from unitygain._types import Site
from unitygain.probe.hooks import Hooks
from unitygain.probe.isolate import isolated
from unitygain.probe.leaves import in_backward, observable
from unitygain.probe.ledger import dtype_name
from unitygain.stats import absmax, frac_nonfinite

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_TORCH = os.path.dirname(os.path.abspath(torch.__file__))
# Their result is memory that nobody has written yet.
_UNWRITTEN = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "resize")

# They make zeros of minus infinity, but of a row that holds nothing else.
_BOUNDED = ("softmax", "attention")


@dataclass(frozen=True)
class Origin:
    """Where the first number that is not finite came from.

    Args:
        site: The module whose forward or backward was running, the model's input, or a parameter.
        operation: The operation's name; ``input`` or ``parameter`` where the number was there before.
        direction: ``forward`` or ``backward``.
        line: ``file:line`` of the user's code, for an operation of the forward pass.
        kind: ``NaN`` if the result holds one, else ``infinity``.
        dtype: Of the result.
        then: For an infinity through which no gradient passes, the operation that made a NaN of it.
        fed: Whether an operand was infinite, for a NaN.
    """

    site: Site
    operation: str
    direction: str
    line: str = ""
    kind: str = "NaN"
    dtype: str = ""
    then: str = ""
    fed: bool = False


class _Watch(TorchDispatchMode):
    def __init__(self, innermost: Callable[[], str]) -> None:
        super().__init__()
        self.found: Origin | None = None
        self.made_nan: Origin | None = None
        self._innermost = innermost
        # Which operation made the infinity that a tensor holds.
        self._sources = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        asked = self.found is None and name not in _UNWRITTEN
        inputs = pytree.tree_leaves((args, kwargs)) if asked else []
        whole = asked and all(map(_finite, inputs))
        finite = whole and _differentiable(args, kwargs)
        no_nan = asked and self.made_nan is None and not any(map(_has_nan, inputs))
        out = func(*args, **kwargs)
        broken = [value for value in pytree.tree_leaves(out) if not _finite(value)] if asked else []
        if finite and broken:
            self.found = self._here(name, broken[0])
        elif no_nan and broken:
            self._follow(name, inputs, broken, whole)
        return out

    def _follow(self, name: str, inputs: list[Any], broken: list[Any], whole: bool) -> None:
        """Note where the infinity of a result came from, or that a NaN was made of one.

        An infinity that was written by hand, as in a mask, has no source; what softmax makes of a row of them
        is its own doing.
        """
        known = (self._sources.get(value) for value in inputs if isinstance(value, Tensor))
        source = next(filter(None, known), None)
        if not any(map(_has_nan, broken)):
            source = self._here(name, broken[0]) if whole else source
            for value in broken:
                if source is not None and isinstance(value, Tensor):
                    self._sources[value] = source
        elif source is None or any(word in name for word in _BOUNDED):
            self.made_nan = replace(self._here(name, broken[0]), fed=not whole)
        else:
            self.made_nan = replace(source, then=_operation(name))

    def _here(self, name: str, result: Any) -> Origin:
        site = Site(self._innermost())
        return Origin(site, _operation(name), _direction(), _line(), *_describe(result))


def find_origin(case: Case, seed: int = 0, batch: int = 0) -> Origin | None:
    """Run a batch once more on a copy, look at every operation, and return where it went wrong first.

    Masks are not mistaken for it: an operation counts if what enters it is finite, scalar arguments
    included, and if a gradient passes through it. Where there is none, it is the first operation at all that
    makes a NaN from numbers without one, such as the softmax of a row that is masked everywhere; and where
    that NaN came of an infinity that was computed, such as the logarithm of a zero label, what made that.

    Args:
        case: The case, which is not changed.
        seed: Seed of the random numbers, as in the pass that showed the number.
        batch: Which of the case's batches.

    Returns:
        The origin, or None if this pass made only finite numbers.

    Cost: one forward and backward pass, and two looks at every tensor.
    """
    with isolated(case, seed) as (twin, _):
        given = _given(twin, batch)
        return given if given is not None else _run(twin, batch)


def _given(case: Case, batch: int) -> Origin | None:
    for name, parameter in case.model.named_parameters():
        if not _finite(parameter):
            return Origin(Site(name), "parameter", "forward", "", *_describe(parameter))
    for index, value in enumerate(v for v in pytree.tree_leaves(case.batches[batch]) if observable(v)):
        if not _finite(value):
            return Origin(Site("", leaf=f"(input {index})"), "input", "forward", "", *_describe(value))
    return None


def _run(case: Case, batch: int) -> Origin | None:
    calls = _Calls()
    hooks = Hooks()
    watch = _Watch(calls.innermost)
    for path, module in case.model.named_modules():
        hooks.on_call(module, calls.entering(path), calls.leaving)
    case.model.zero_grad(set_to_none=True)
    try:
        with watch:
            loss = case.compute_loss(case.batches[batch])
            if watch.found is None and loss.requires_grad:
                loss.backward()
    finally:
        hooks.remove()
    return watch.found or watch.made_nan


class _Calls:
    """Which module is running; in the backward pass, which one made the node of the graph that is.

    Autograd numbers its nodes as they are made, so that a module call owns the numbers of its time.
    """

    def __init__(self) -> None:
        self._open: list[tuple[str, int]] = []
        self._spans: list[tuple[int, int, str]] = []

    def entering(self, path: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not in_backward():
                self._open.append((path, _next_node()))

        return enter

    def leaving(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not in_backward():
            path, start = self._open.pop()
            self._spans.append((start, _next_node(), path))

    def innermost(self) -> str:
        """Return the path; empty where it is the loss, or cannot be told."""
        if not in_backward():
            return self._open[-1][0] if self._open else ""
        node = _node()
        number = -1 if node is None else node._sequence_nr()
        # The innermost of nested calls was left first.
        return next((path for start, end, path in self._spans if start <= number < end), "")


def _next_node() -> int:
    return torch.autograd._get_sequence_nr()  # pyright: ignore[reportPrivateImportUsage]


def _node() -> Any:
    current = getattr(torch._C, "_current_autograd_node", None)
    return current() if current is not None and in_backward() else None


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return not observable(value) or value.numel() == 0 or float(frac_nonfinite(value)) == 0


def _describe(value: Any) -> tuple[str, str]:
    """Which of the two it is, and the dtype."""
    if isinstance(value, float):
        return ("NaN" if math.isnan(value) else "infinity"), "float64"
    return ("NaN" if math.isnan(float(absmax(value))) else "infinity"), dtype_name(value)


def _has_nan(value: Any) -> bool:
    return observable(value) and value.numel() > 0 and bool(value.isnan().any())


def _differentiable(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a gradient passes through, which in a checkpoint's first pass cannot be told."""
    if in_backward() or not torch.is_grad_enabled():
        return True
    return any(observable(value) and value.requires_grad for value in pytree.tree_leaves((args, kwargs)))


def _direction() -> str:
    return "backward" if in_backward() else "forward"


def _operation(name: str) -> str:
    """The operation; in the backward pass, with the node of the graph that runs it."""
    node = _node()
    return name if node is None else f"{node.name()} ({name})"


def _line() -> str:
    """File and line of the innermost code that is neither ours nor PyTorch's."""
    frame = None if in_backward() else sys._getframe()
    while frame is not None:
        path = os.path.abspath(frame.f_code.co_filename)
        if not path.startswith((_HERE + os.sep, _TORCH + os.sep)):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
