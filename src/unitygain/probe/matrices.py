"""Matrices and kernels that a module holds by itself, as parameters of any name, and multiplies by hand."""

import math
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from unitygain.probe.hooks import Hooks
from unitygain.probe.leaves import observable
from unitygain.probe.sites import Call
from unitygain.probe.trail import Seen, key
from unitygain.stats import norm, rms

if TYPE_CHECKING:
    from unitygain.probe.ops import Watch

STATISTICS = ("gain", "entering", "arriving")
OPERATIONS = frozenset({"mm", "addmm", "bmm", "baddbmm", "convolution"})
_LISTS = (nn.ParameterList, nn.ParameterDict)


class Matrices:
    """Tells which matrices were multiplied, each once."""

    def __init__(self) -> None:
        self._names: WeakKeyDictionary[nn.Module, dict[int, str]] = WeakKeyDictionary()
        self._seen: set[tuple[int, int]] = set()

    def watch(self, into: "Watch", call: Call | None, name: str, args: tuple[Any, ...]) -> str:
        """Note a product with a matrix of the running module in the watch, and return the matrix's path."""
        if call is None or type(call.module).__module__.startswith("torch.nn."):
            return ""
        names = self._names.setdefault(call.module, _own(call.module))
        held = [each for each in _operands(name, args) if observable(each[0]) and key(each[0]) in names]
        if not held:
            return ""
        # Of two, as a learned query and the matrix that maps it, the larger one is the matrix.
        tensor, summed, entering = max(held, key=lambda each: each[0].numel())
        own = names[key(tensor)]
        place = key(tensor), tensor.storage_offset()
        if into.wanted.get("matrix") and place not in self._seen:
            self._seen.add(place)
            seen = into.add("matrix", own, tensor)
            fan_in = math.prod(tensor.shape[dim] for dim in summed)
            seen.numbers["gain"] = math.sqrt(fan_in) * rms(tensor)
            _note_signal(seen, entering)
        return f"{call.path}.{own}" if call.path else own


def _operands(name: str, args: tuple[Any, ...]) -> list[tuple[Any, tuple[int, ...], Any]]:
    """Return what may be a matrix, the dimensions that a product sums over, and what it multiplies."""
    if name == "convolution":
        kernel = args[1]
        # Of a transposed one, how much overlaps is a matter of the stride.
        return [] if args[6] else [(kernel, tuple(range(1, kernel.ndim)), args[0])]
    return [(args[-2], (-1,), args[-1]), (args[-1], (-2,), args[-2])]


def _note_signal(seen: Seen, entering: Any) -> None:
    """Note the size of what is multiplied, and of its gradient once that arrives."""
    if not observable(entering):
        return
    seen.numbers["entering"] = rms(entering)

    def arrived(gradient: Tensor) -> None:
        seen.numbers["arriving"] = norm(gradient)

    if entering.requires_grad:
        Hooks().change_gradient(entering, arrived)


def _own(module: nn.Module) -> dict[int, str]:
    """Return the names of a module's own matrices by their memory, those in its lists of parameters too.

    One that is named ``weight`` is known as any layer's, where the module is a leaf.
    """
    leaf = next(module.children(), None) is None
    held = dict(module.named_parameters(recurse=False))
    for name, child in module.named_children():
        if isinstance(child, _LISTS):
            held |= {f"{name}.{own}": value for own, value in child.named_parameters(recurse=False)}
    return {
        key(value): name
        for name, value in held.items()
        if value.ndim >= 2 and not (leaf and name == "weight")
    }
