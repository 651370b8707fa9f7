"""The loss as the operations show it: what enters it, p - y, and what a uniform prediction would cost."""

import itertools
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unitygain.probe.leaves import observable
from unitygain.probe.passes import leading_to
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
# Nodes of the autograd graph that add, average, scale or arrange what they are given.
_LINEAR = re.compile(
    r"(Mean|Sum|NanSum|Add|Sub|RSub|Neg|Div|Mul|View|UnsafeView|ReshapeAlias|Squeeze|Unsqueeze|Select|Slice"
    r"|Index|Expand|Permute|Transpose|T|Stack|Cat|Clone|ToCopy|Where|MaskedFill)Backward\d*$"
)

# The derivative of the backward pass of a piecewise linear activation.
_SECOND = re.compile(r"(Threshold|LeakyRelu|Hardtanh)BackwardBackward\d*$")
_SPELLED = {"Threshold": "ReLU", "LeakyRelu": "LeakyReLU", "Hardtanh": "Hardtanh"}

_STEPS = re.compile(r"(Sign|Sgn|Round|Floor|Ceil|Trunc|Fix)Backward\d*$")


def watch(into: "Watch", name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Note an operation that is part of a loss in the watch."""
    if not into.wanted.get("loss") or not args or not observable(args[0]):
        return
    if not (args[0].requires_grad or any(observable(a) and a.requires_grad for a in args[1:])):
        return
    if name == "_log_softmax":
        facts = {"classes": args[0].shape[args[1]], "dim": args[1]}
        facts["softmax_before"] = float(is_probability(args[0], args[1]))
        into.trail.mark(out, Origin("log_probability", facts=facts))
    elif name == "log":
        _log(into, args[0], out)
    elif name in _NLL:
        _labels(into, args[0], args[1], args[4])
    elif name in _PICKS:
        _picked(into, args[0], out)
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


def is_made_of_squares(loss: Tensor, output: int | None = None) -> bool:
    """Whether every term of a loss is a sum or mean of squares, read from the graph behind it.

    Args:
        loss: The loss, with its graph.
        output: The age of the node that made the model's output; terms that do not depend on it, such as a
            divergence of a code, are left out. None counts all terms.
    """
    waiting, seen, squares = [loss.grad_fn], set(), 0

    def counts(node: Any) -> bool:
        return output is None or any(n._sequence_nr() == output for n in leading_to([node], output))

    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        behind = [following for following, _ in node.next_functions if following is not None]
        twice = node.name().startswith("MulBackward") and len(behind) == 2
        power = node.name() == "PowBackward0" and getattr(node, "_saved_exponent", None) == 2
        if power or node.name() == "MseLossBackward0" or (twice and behind[0] is behind[1]):
            squares += counts(node)
        elif twice or not behind or not _LINEAR.match(node.name()):
            if counts(node):
                return False
        else:
            waiting += behind
    return squares > 0


def smallest_product(loss: Tensor, output: int | None) -> float:
    """Return the largest entry of the smallest `torch.prod` between the output and the loss; NaN without any.

    Args:
        loss: The loss, with its graph.
        output: The age of the node that made the model's output; None looks at the whole graph.
    """
    products = [
        float(absmax(node._saved_result))
        for node in leading_to([loss.grad_fn], output or 0)
        if node.name().startswith("ProdBackward")
    ]
    return min(products, default=math.nan)


def step_function(loss: Tensor) -> str:
    """Return a function of steps, whose slope is zero, that the loss goes through; empty without one."""
    found = (_STEPS.match(node.name()) for node in leading_to([loss.grad_fn], 0))
    return next((match.group(1).lower() for match in found if match), "")


def flat_products(loss: Tensor) -> tuple[str, int]:
    """Return the piecewise linear activation whose slope a loss differentiates, and what is lost by it.

    The slope of such an activation is constant, and its derivative zeros that later operations multiply.

    Returns:
        The activation, empty where none is differentiated twice, and the number of products with zeros.
    """
    nodes = list(leading_to([loss.grad_fn], 0))
    names = [found.group(1) for node in nodes if (found := _SECOND.match(node.name()))]
    count = sum(map(_multiplies_zeros, nodes)) if names else 0
    return (_SPELLED[names[0]], count) if count else ("", 0)


def _multiplies_zeros(node: Any) -> bool:
    if not node.name().startswith(("MmBackward", "BmmBackward", "AddmmBackward", "ConvolutionBackward")):
        return False
    saved = [getattr(node, name, None) for name in ("_saved_self", "_saved_mat1", "_saved_input")]
    return any(isinstance(value, Tensor) and value.numel() > 0 and not value.any() for value in saved)


def _add(
    into: "Watch",
    kind: str,
    tensor: Tensor,
    numbers: Mapping[str, Tensor | float],
    *,
    rows: float,
    classes: float,
    softmax_before: float = 0.0,
) -> Seen:
    seen = into.add("loss", kind, tensor)
    seen.numbers |= {**numbers, "rows": rows, "classes": classes, "softmax_before": softmax_before}
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
    before = origin.facts["softmax_before"] if origin is not None and origin.facts else 0.0
    numbers: dict[str, Tensor | float] = {"absmax": label_residual(picked), "expected": math.log(classes)}
    numbers["mean"] = -mean(picked)
    kind = "cross_entropy" if origin is not None and origin.kind == "log_probability" else "nll"
    _add(into, kind, log_probabilities, numbers, rows=len(picked), classes=classes, softmax_before=before)


def _picked(into: "Watch", log_probabilities: Tensor, out: Tensor) -> None:
    origin = into.trail.origin(log_probabilities)
    if origin is None or origin.kind != "log_probability" or out.numel() * 2 > log_probabilities.numel():
        return
    classes = origin.facts["classes"]
    numbers: dict[str, Tensor | float] = {"absmax": label_residual(out), "expected": math.log(classes)}
    numbers["mean"] = -mean(out)
    before = origin.facts["softmax_before"]
    _add(into, "cross_entropy", out, numbers, rows=out.numel(), classes=classes, softmax_before=before)


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
        before = origin.facts["softmax_before"]
        rows = value.numel() // classes
        _add(into, "soft_cross_entropy", value, numbers, rows=rows, classes=classes, softmax_before=before)


def _binary(into: "Watch", name: str, args: tuple[Any, ...]) -> None:
    logits = name.endswith("logits")
    origin = into.trail.origin(args[0])
    squashed = origin is not None and origin.seen is not None and origin.seen.operation == "sigmoid"
    wide = args[0].detach() if args[0].dtype is torch.float64 else args[0].detach().float()
    p = wide.sigmoid() if logits else wide
    numbers: dict[str, Tensor | float] = {"absmax": absmax(p - args[1]), "expected": math.log(2)}
    numbers["mean"] = _binary_mean(args[0].detach(), args[1], logits=logits)
    before = float(logits and squashed)
    _add(into, name, args[0], numbers, rows=args[0].numel(), classes=2, softmax_before=before)


def _binary_mean(prediction: Tensor, target: Tensor, *, logits: bool) -> Tensor:
    function = torch.nn.functional
    loss = function.binary_cross_entropy_with_logits if logits else function.binary_cross_entropy
    return loss(prediction.double(), target.double())
