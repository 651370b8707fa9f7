"""The loss as the operations show it: what enters it, p - y, and what a uniform prediction would cost."""

import itertools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unitygain.probe.leaves import observable
from unitygain.probe.rectified import note_binary, note_labels, note_picked, rectified_by
from unitygain.probe.trail import Origin, Seen
from unitygain.stats import absmax, mean, rms
from unitygain.stats.operations import is_probability, label_residual, variance

if TYPE_CHECKING:
    from unitygain.probe.ops import Watch

STATISTICS = ("absmax", "expected", "classes", "rows", "softmax_before", "mean", "target_rms")
_NLL = frozenset({"nll_loss_forward", "nll_loss2d_forward"})
_PICKS = frozenset({"gather", "index"})
_BINARY = frozenset({"binary_cross_entropy", "binary_cross_entropy_with_logits"})
OPERATIONS = _NLL | _PICKS | _BINARY | {"_log_softmax", "log", "mul", "xlogy", "mse_loss"}


def watch(into: "Watch", name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Note an operation that is part of a loss in the watch."""
    if not into.wanted.get("loss") or not args or not observable(args[0]):
        return
    if not (args[0].requires_grad or any(observable(a) and a.requires_grad for a in args[1:])):
        return
    if name == "_log_softmax":
        facts: dict[str, Any] = {"classes": args[0].shape[args[1]], "dim": args[1]}
        facts["softmax_before"] = float(is_probability(args[0], args[1]))
        facts["logits"] = args[0] if rectified_by(args[0]) else None
        into.trail.mark(out, Origin("log_probability", facts=facts))
    elif name == "log":
        _log(into, args[0], out)
    elif name in _NLL:
        _labels(into, args[0], args[1], args[4])
    elif name in _PICKS:
        _picked(into, name, args, out)
    elif name == "mul":
        _soft(into, args)
    elif name == "xlogy":
        # Only a divergence from the target has this term: its value at a uniform prediction is not ln C.
        for seen in itertools.islice(reversed(into.seen), 1):
            if seen.operation == "soft_cross_entropy":
                seen.operation = "kl_div"
                seen.numbers["expected"] = math.nan
    elif name in _BINARY:
        _binary(into, name, args)
    elif name == "mse_loss":
        numbers: dict[str, Tensor | float] = {"absmax": absmax(args[0] - args[1])}
        numbers["expected"] = variance(args[1])
        numbers["mean"] = rms(args[0] - args[1]) ** 2
        fixed = [value for value in args[:2] if not value.requires_grad]
        numbers["target_rms"] = rms(fixed[0]) if fixed else math.nan
        _add(into, "mse", args[0], numbers, rows=args[0].numel(), classes=math.nan)


def _add(
    into: "Watch",
    kind: str,
    tensor: Tensor,
    numbers: Mapping[str, Tensor | float],
    *,
    rows: float,
    classes: float,
    before: Mapping[str, Any] = MappingProxyType({}),
) -> Seen:
    seen = into.add("loss", kind, tensor)
    seen.numbers |= {**numbers, "rows": rows, "classes": classes}
    seen.numbers["softmax_before"] = before.get("softmax_before", 0.0)
    return seen


def _log(into: "Watch", probabilities: Tensor, out: Tensor) -> None:
    origin = into.trail.origin(probabilities)
    if origin is not None and origin.kind == "softmax":
        into.trail.mark(out, Origin("log_probability", facts=origin.facts))


def _labels(into: "Watch", log_probabilities: Tensor, target: Tensor, ignored: int) -> None:
    origin = into.trail.origin(log_probabilities)
    dim = 1 if log_probabilities.ndim > 1 else 0
    kept = target != ignored
    index = target.where(kept, 0).unsqueeze(dim)
    picked = log_probabilities.gather(dim, index).squeeze(dim)[kept]
    classes = log_probabilities.shape[dim]
    before = {} if origin is None else origin.facts
    numbers: dict[str, Tensor | float] = {"absmax": label_residual(picked), "expected": math.log(classes)}
    numbers["mean"] = -mean(picked)
    kind = "cross_entropy" if origin is not None and origin.kind == "log_probability" else "nll"
    _add(into, kind, log_probabilities, numbers, rows=len(picked), classes=classes, before=before)
    note_labels(into, before.get("logits"), log_probabilities, index, kept)


def _picked(into: "Watch", name: str, args: tuple[Any, ...], out: Tensor) -> None:
    log_probabilities = args[0]
    origin = into.trail.origin(log_probabilities)
    if origin is None or origin.kind != "log_probability" or out.numel() * 2 > log_probabilities.numel():
        return
    classes = origin.facts["classes"]
    numbers: dict[str, Tensor | float] = {"absmax": label_residual(out), "expected": math.log(classes)}
    numbers["mean"] = -mean(out)
    before = origin.facts
    _add(into, "cross_entropy", out, numbers, rows=out.numel(), classes=classes, before=before)
    note_picked(into, before.get("logits"), name, args)


def _soft(into: "Watch", args: tuple[Any, ...]) -> None:
    tensors = [value for value in args if isinstance(value, Tensor)]
    origins = [into.trail.origin(value) for value in tensors]
    for origin, value, other in zip(origins, tensors, reversed(tensors), strict=True):
        if origin is None or origin.kind != "log_probability" or len(tensors) != 2:
            continue
        if (
            value.shape != other.shape
            or other.requires_grad
            or not is_probability(other, origin.facts["dim"])
        ):
            continue
        classes = origin.facts["classes"]
        numbers: dict[str, Tensor | float] = {"absmax": absmax(value.exp() - other)}
        numbers |= {"expected": math.log(classes), "mean": -classes * mean(value * other)}
        before = origin.facts
        rows = value.numel() // classes
        _add(into, "soft_cross_entropy", value, numbers, rows=rows, classes=classes, before=before)


def _binary(into: "Watch", name: str, args: tuple[Any, ...]) -> None:
    logits = name.endswith("logits")
    origin = into.trail.origin(args[0])
    squashed = origin is not None and origin.seen is not None and origin.seen.operation == "sigmoid"
    wide = args[0].detach() if args[0].dtype is torch.float64 else args[0].detach().float()
    p = wide.sigmoid() if logits else wide
    numbers: dict[str, Tensor | float] = {"absmax": absmax(p - args[1]), "expected": math.log(2)}
    numbers["mean"] = _binary_mean(args[0].detach(), args[1], logits=logits)
    before = {"softmax_before": float(logits and squashed)}
    _add(into, name, args[0], numbers, rows=args[0].numel(), classes=2, before=before)
    if logits:
        note_binary(into, args[0], args[1])


def _binary_mean(prediction: Tensor, target: Tensor, *, logits: bool) -> Tensor:
    function = torch.nn.functional
    loss = function.binary_cross_entropy_with_logits if logits else function.binary_cross_entropy
    return loss(prediction.double(), target.double())
