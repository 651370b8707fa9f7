"""Dropout as modules and operations show it: the share that is dropped where it runs in this pass."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from unitygain.probe.leaves import observable, unwrap
from unitygain.probe.sites import Call
from unitygain.probe.trail import Origin, key

if TYPE_CHECKING:
    from unitygain.probe.ops import Watch

STATISTICS = ("rate",)
# Modules that say themselves what they drop; what runs inside of them is that, and is not told twice.
KINDS = (_DropoutNd, nn.RNNBase, nn.MultiheadAttention)
# On devices: `native_dropout` is given the share to drop, `_fused_dropout` the share to keep.
_WHOLE = frozenset({"native_dropout", "_fused_dropout"})


def module_rate(module: nn.Module) -> float:
    """Return the share that a module drops by its own settings, whatever its mode; 0 where it has none.

    Example:
        >>> module_rate(nn.Dropout(0.3)), module_rate(nn.LSTM(2, 2, 1)), module_rate(nn.Linear(2, 2))
        (0.3, 0.0, 0.0)
    """
    if isinstance(module, _DropoutNd):
        return float(module.p)
    if isinstance(module, nn.RNNBase):
        return float(module.dropout) if module.num_layers > 1 else 0.0
    return float(module.dropout) if isinstance(module, nn.MultiheadAttention) else 0.0


def left(into: "Watch", call: Call, output: Any) -> None:
    """Note what a module dropped whose call ended."""
    if not into.wanted.get("dropout") or not (isinstance(call.module, KINDS) and call.module.training):
        return
    rate = module_rate(call.module)
    first = unwrap(output)
    first = first[0] if isinstance(first, tuple) else first
    if rate > 0 and observable(first):
        seen = into.add("dropout", type(call.module).__name__, first, numbers={"rate": rate})
        seen.call, seen.whole = call, True


class Draws:
    """Dropout that is called as a function, by the operations that torch makes it of.

    On the CPU it is drawn as zeros and ones, put to scale, and multiplied with the signal; one that drops
    everything multiplies with a zero of no dimensions. Masks that are not put to scale are another thing
    (tokens that are hidden), and so is one number per row (whole branches that are left out).
    """

    def __init__(self) -> None:
        self._zero = 0

    def watch(self, into: "Watch", call: Call | None, name: str, args: Sequence[Any], out: Any) -> None:
        """Note a dropout in the watch."""
        if not into.wanted.get("dropout") or (call is not None and isinstance(call.module, KINDS)):
            return
        zero, self._zero = self._zero, key(out) if name == "zeros" and args and not args[0] else 0
        if name == "bernoulli" and len(args) > 1 and isinstance(args[1], float):
            into.trail.mark(out, Origin("drawn", facts={"rate": 1 - args[1]}))
        elif name in {"div", "mul"} and len(args) > 1 and not isinstance(args[1], Tensor):
            origin = into.trail.origin(args[0])
            if origin is not None and origin.kind == "drawn":
                into.trail.mark(out, Origin("mask", facts=origin.facts))
        elif name == "mul" and len(args) > 1:
            rate = _rate(into, args, zero if call is not None else 0)
            if rate:
                into.add("dropout", "dropout", out, numbers={"rate": rate})
        elif name in _WHOLE and args[1] and (name != "native_dropout" or args[2]):
            rate = float(args[1]) if name == "native_dropout" else 1 - float(args[1])
            into.add("dropout", "dropout", out[0], numbers={"rate": rate})


def _rate(into: "Watch", args: Sequence[Any], zero: int) -> float:
    """Return the share that a product drops; 0 where neither factor is a mask of a dropout."""
    for signal, mask in ((args[0], args[1]), (args[1], args[0])):
        if not (observable(signal) and isinstance(mask, Tensor) and signal.ndim):
            continue
        if zero and key(mask) == zero:
            return 1.0
        origin = into.trail.origin(mask)
        rows = mask.shape[0] if mask.ndim else 1
        if origin is not None and origin.kind == "mask" and (mask.ndim < 2 or mask.numel() > rows):
            return float(origin.facts["rate"])
    return 0.0
