"""The loss as its autograd graph shows it: squares, products, functions of steps, slopes of flat pieces."""

import math
import re
from collections.abc import Collection, Iterable
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from unitygain.probe.passes import leading_to
from unitygain.stats import absmax, frac_zero

# Nodes that add, average, scale or arrange what they are given.
_LINEAR = re.compile(
    r"(Mean|Sum|NanSum|Add|Sub|RSub|Neg|Div|Mul|View|UnsafeView|ReshapeAlias|Squeeze|Unsqueeze|Select|Slice"
    r"|Index|Expand|Permute|Transpose|T|Stack|Cat|Clone|ToCopy|Where|MaskedFill)Backward\d*$"
)
# The derivative of the backward pass of a piecewise linear activation.
_SECOND = re.compile(r"(Threshold|LeakyRelu|Hardtanh)BackwardBackward\d*$")
_SPELLED = {"Threshold": "ReLU", "LeakyRelu": "LeakyReLU", "Hardtanh": "Hardtanh"}
_STEPS = re.compile(r"(Sign|Sgn|Round|Floor|Ceil|Trunc|Fix)Backward\d*$")
_MATRICES = ("MmBackward", "BmmBackward", "AddmmBackward", "ConvolutionBackward")


def read_graph(loss: Tensor, output: int | None) -> dict[str, float | str]:
    """Return what the graph behind a loss tells, walked once.

    Args:
        loss: The loss, with its graph.
        output: The age of the node that made the model's output; None looks at the whole graph.

    Returns:
        ``loss_of_squares``: 1 where every term is a sum or mean of squares; terms that do not depend on the
        output, such as a divergence of a code, are left out. ``smallest_product``: the largest entry of the
        smallest `torch.prod` between the output and the loss, NaN without any. ``step_function``: a function
        of steps, whose slope is zero, that the loss goes through, or empty. ``flat_activation`` and
        ``flat_products``: the piecewise linear activation whose slope a loss differentiates, and the number
        of products with the zeros of that derivative; empty and 0 where none is differentiated twice.
        ``custom_functions``: how many calls of autograd functions written in Python there are.
    """
    nodes = [] if loss.grad_fn is None else list(leading_to([loss.grad_fn], 0))
    activation, flat = _flat_products(nodes)
    return {
        "loss_of_squares": float(_is_made_of_squares(loss.grad_fn, _above(nodes, output))),
        "smallest_product": _smallest_product(nodes, output or 0),
        "step_function": _step_function(nodes),
        "flat_activation": activation,
        "flat_products": float(flat),
        "custom_functions": float(sum(isinstance(node, BackwardCFunction) for node in nodes)),
    }


def _above(nodes: Collection[Any], output: int | None) -> Collection[Any]:
    """Return the nodes that depend on the output, which are all of them where none is known."""
    if output is None:
        return nodes
    above: set[Any] = set()
    # A node is younger than those that it leads to.
    for node in sorted(nodes, key=lambda node: node._sequence_nr()):
        if node._sequence_nr() == output or any(below in above for below, _ in node.next_functions):
            above.add(node)
    return above


def _is_made_of_squares(root: Any, counted: Collection[Any]) -> bool:
    waiting, seen, squares = [root], set(), 0
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        behind = [following for following, _ in node.next_functions if following is not None]
        twice = node.name().startswith("MulBackward") and len(behind) == 2
        power = node.name() == "PowBackward0" and getattr(node, "_saved_exponent", None) == 2
        if power or node.name() == "MseLossBackward0" or (twice and behind[0] is behind[1]):
            squares += node in counted
        elif twice or not behind or not _LINEAR.match(node.name()):
            if node in counted:
                return False
        else:
            waiting += behind
    return squares > 0


def _smallest_product(nodes: Iterable[Any], oldest: int) -> float:
    products = [
        float(absmax(node._saved_result))
        for node in nodes
        if node.name().startswith("ProdBackward") and node._sequence_nr() >= oldest
    ]
    return min(products, default=math.nan)


def _step_function(nodes: Iterable[Any]) -> str:
    found = (_STEPS.match(node.name()) for node in nodes)
    return next((match.group(1).lower() for match in found if match), "")


def _flat_products(nodes: Collection[Any]) -> tuple[str, int]:
    """The slope of a piecewise linear activation is constant, and its derivative zeros."""
    names = [found.group(1) for node in nodes if (found := _SECOND.match(node.name()))]
    count = sum(map(_multiplies_zeros, nodes)) if names else 0
    return (_SPELLED[names[0]], count) if count else ("", 0)


def _multiplies_zeros(node: Any) -> bool:
    if not node.name().startswith(_MATRICES):
        return False
    saved = (getattr(node, name, None) for name in ("_saved_self", "_saved_mat1", "_saved_input"))
    return any(isinstance(value, Tensor) and bool(frac_zero(value) == 1) for value in saved)
