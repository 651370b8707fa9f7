"""Which part of a target lies beyond what the activation behind the prediction can put out."""

import math
import re
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unitygain.probe.leaves import observable
from unitygain.stats.operations import variance_beyond

if TYPE_CHECKING:
    from unitygain.probe.ops import Watch

STATISTICS = ("beyond",)
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
_ARRANGE = re.compile(
    r"(View|UnsafeView|ReshapeAlias|Squeeze|Unsqueeze|Select|Slice|Index|Gather|Permute|Transpose|T|Clone|ToCopy"
    r"|Alias|Unbind|Split)Backward\d*$"
)


def watch(into: "Watch", name: str, args: tuple[Any, ...], *, inside: bool) -> None:
    """Note a difference of a prediction and a target in the watch, where an activation bounds the first.

    Args:
        into: The watch.
        name: The operation.
        args: Its arguments.
        inside: Whether a module is running, whose differences are no losses.
    """
    if not into.wanted.get("reach") or len(args) < 2 or (name == "sub" and inside):
        return
    one, other = args[:2]
    if not (observable(one) and observable(other) and one.shape == other.shape and one.numel()):
        return
    for prediction, target in ((one, other), (other, one)):
        if prediction.requires_grad and not target.requires_grad:
            found = _bounded_by(prediction)
            if found is not None:
                seen = into.add("reach", found.lower(), prediction)
                seen.numbers["beyond"] = variance_beyond(target, *_ENDS[found])


def _bounded_by(prediction: Tensor) -> str | None:
    """Return the activation that made a prediction, whatever arranged it since; None for others."""
    node = prediction.grad_fn
    while node is not None and _ARRANGE.match(node.name()):
        node = node.next_functions[0][0]
    name = node.name().partition("Backward")[0] if node is not None else ""
    return name if name in _ENDS else None
