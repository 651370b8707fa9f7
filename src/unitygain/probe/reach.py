"""Differences of predictions and targets: targets beyond an activation's range, shapes that make pairs."""

import math
import re
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unitygain.probe.leaves import observable
from unitygain.probe.trail import key
from unitygain.stats.operations import variance_beyond

if TYPE_CHECKING:
    from unitygain.probe.ops import Watch

STATISTICS = ("beyond", "pairs", "silent", "denied")
_LOSSES = frozenset({"mse_loss", "smooth_l1_loss", "huber_loss"})
OPERATIONS = _LOSSES | {"sub"}
# The open ends of what leaves an activation, by its node of the autograd graph.
_ENDS = {
    "Relu": (0.0, math.inf),
    "Softplus": (0.0, math.inf),
    "Exp": (0.0, math.inf),
    "Sigmoid": (0.0, 1.0),
    "Hardsigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
}
# Nodes that arrange entries, or pick some, and change none.
ARRANGES = re.compile(
    r"(View|UnsafeView|ReshapeAlias|Squeeze|Unsqueeze|Select|Slice|Index|Gather|Permute|Transpose|T|Clone|ToCopy"
    r"|Alias|Unbind|Split)Backward\d*$"
)


def watch(into: "Watch", name: str, args: tuple[Any, ...], *, inside: bool) -> None:
    """Note a difference of a prediction and a target in the watch: of a bounded prediction, or in pairs.

    Args:
        into: The watch.
        name: The operation.
        args: Its arguments.
        inside: Whether a module is running, whose differences are no losses.
    """
    if not into.wanted.get("reach") or len(args) < 2 or (name == "sub" and inside):
        return
    one, other = args[:2]
    if not (observable(one) and observable(other) and one.numel() and other.numel()):
        return
    for prediction, target in ((one, other), (other, one)):
        if not prediction.requires_grad or target.requires_grad:
            continue
        rows = _pairs(prediction, target, by_hand=name == "sub")
        found = _bounded_by(prediction) if prediction.shape == target.shape else None
        if rows:
            # The trailing dimension of a column is 1.
            column = prediction.ndim > 1 and _own(prediction, 1)[-1] == 1
            seen = into.add("reach", "column" if column else "row", prediction)
            seen.numbers["pairs"] = float(rows)
        elif found is not None:
            seen = into.add("reach", found.lower(), prediction)
            seen.numbers["beyond"] = variance_beyond(target, *_ENDS[found])


def _pairs(prediction: Tensor, target: Tensor, *, by_hand: bool) -> int:
    """Return N where predictions (N, 1) meet targets (N,), or the other way round, as N x N pairs; else 0.

    A loss of torch expands both before its operation, which then sees strides of zero. Pairs that are asked
    for are left alone: two tensors of as many dimensions, a prediction with a dimension put in by hand, and
    one that is compared with itself.
    """
    width = max(prediction.ndim, target.ndim)
    one, other = _own(prediction, width), _own(target, width)
    rows = math.prod(one)
    both = math.prod(max(pair) for pair in zip(one, other, strict=True))
    implied = prediction.ndim != target.ndim or (0 in prediction.stride() and 0 in target.stride())
    if not (implied and rows > 1 and rows == math.prod(other) and both == rows * rows):
        return 0
    if prediction.grad_fn is None or key(prediction) == key(target):
        return 0
    return 0 if by_hand and _is_unsqueezed(prediction) else rows


def _own(tensor: Tensor, width: int) -> tuple[int, ...]:
    """Return the shape before it was expanded, with ones before it up to `width` dimensions."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return (1,) * (width - tensor.ndim) + tuple(1 if stride == 0 else size for size, stride in sizes)


def _is_unsqueezed(prediction: Tensor) -> bool:
    node = prediction.grad_fn
    while node is not None and node.name().startswith("Expand"):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith("Unsqueeze")


def _bounded_by(prediction: Tensor) -> str | None:
    """Return the activation that made a prediction, whatever arranged it since; None for others."""
    node = prediction.grad_fn
    while node is not None and ARRANGES.match(node.name()):
        node = node.next_functions[0][0]
    name = node.name().partition("Backward")[0] if node is not None else ""
    return name if name in _ENDS else None
