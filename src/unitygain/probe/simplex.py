"""What losses of log-probabilities are given: what they add up to, and along which dimension to one."""

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unitygain.probe.leaves import observable
from unitygain.probe.trail import Origin
from unitygain.stats.operations import ends, farthest_log_sum

if TYPE_CHECKING:
    from unitygain.probe.ops import Watch

SUMS = ("log_sum", "classes_along", "ones_along")
TARGETS = ("target_least", "target_most")
STATISTICS = (*SUMS, "single", *TARGETS)
# Where the classes lie, by operation.
_CLASSES = {"nll_loss_forward": 1, "nll_loss2d_forward": 1, "_ctc_loss": 2, "_cudnn_ctc_loss": 2}
# What compares a probability with a target.
_COMPARES = frozenset({"nll_loss_forward", "binary_cross_entropy", "mse_loss", "mul", "sub"})
_BINARY = frozenset({"binary_cross_entropy", "binary_cross_entropy_with_logits"})
OPERATIONS = _CLASSES.keys() | _COMPARES | _BINARY
_SOFTMAXES = frozenset({"softmax", "log_probability"})
# Of |ln(sum)|, as rounding leaves it in a narrow dtype.
_ONE = 0.02


def watch(into: "Watch", name: str, args: tuple[Any, ...], *, inside: bool) -> None:
    """Note a loss in the watch: what rows add up to, a softmax over one entry, targets of a binary loss.

    Args:
        into: The watch.
        name: The operation.
        args: Its arguments.
        inside: Whether a module is running, whose products are no losses.
    """
    if not into.wanted.get("simplex") or not observable(args[0]) or not args[0].requires_grad:
        return
    if name in _COMPARES and not inside and _is_single(into.trail.origin(args[0])):
        into.add("simplex", "softmax", args[0]).numbers["single"] = 1.0
    if name in _CLASSES:
        _note_sums(into, name, args[0])
    if name in _BINARY and args[1].numel():
        into.add("simplex", name, args[0]).numbers |= dict(zip(TARGETS, ends(args[1]).unbind(), strict=True))


def _is_single(origin: Origin | None) -> bool:
    """Whether it is a softmax, or the logarithm of one, over one entry."""
    return origin is not None and origin.kind in _SOFTMAXES and origin.facts.get("classes") == 1


def _note_sums(into: "Watch", name: str, log_probabilities: Tensor) -> None:
    given = log_probabilities.detach()
    along = min(_CLASSES[name], given.ndim - 1)
    sums = [float(farthest_log_sum(given, dim)) for dim in range(given.ndim)]
    ones = [dim for dim, value in enumerate(sums) if dim != along and abs(value) < _ONE]
    seen = into.add("simplex", name.strip("_").removesuffix("_forward").replace("loss2d", "loss"), given)
    seen.numbers["log_sum"] = sums[along]
    seen.numbers["classes_along"] = float(along)
    seen.numbers["ones_along"] = float(ones[0]) if ones else math.nan
