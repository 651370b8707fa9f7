"""Matrices that a module holds by itself, as parameters of any name, and multiplies by hand."""

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
OPERATIONS = frozenset({"mm", "addmm", "bmm", "baddbmm"})
_LISTS = (nn.ParameterList, nn.ParameterDict)


class Matrices:
    """Tells which matrices were multiplied, each once."""

    def __init__(self) -> None:
        self._names: WeakKeyDictionary[nn.Module, dict[int, str]] = WeakKeyDictionary()
        self._seen: set[tuple[int, int]] = set()

    def watch(self, into: "Watch", call: Call | None, args: tuple[Any, ...]) -> str:
        """Note a product with a matrix of the running module in the watch, and return the matrix's path."""
        if call is None or type(call.module).__module__.startswith("torch.nn."):
            return ""
        names = self._names.setdefault(call.module, _own(call.module))
        for tensor, summed in zip(args[-2:], (-1, -2), strict=True):
            name = names.get(key(tensor), "") if observable(tensor) else ""
            if not name:
                continue
            place = key(tensor), tensor.storage_offset()
            if into.wanted.get("matrix") and place not in self._seen:
                self._seen.add(place)
                seen = into.add("matrix", name, tensor)
                seen.numbers["gain"] = math.sqrt(tensor.shape[summed]) * rms(tensor)
                _note_signal(seen, args[-2 if summed == -2 else -1])
            return f"{call.path}.{name}" if call.path else name
        return ""


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

    One that is named ``weight`` is known as any layer's.
    """
    held = dict(module.named_parameters(recurse=False))
    for name, child in module.named_children():
        if isinstance(child, _LISTS):
            held |= {f"{name}.{own}": value for own, value in child.named_parameters(recurse=False)}
    return {key(value): name for name, value in held.items() if value.ndim >= 2 and name != "weight"}
