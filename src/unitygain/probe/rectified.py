"""Logits of a cross-entropy that come out of a ReLU: none is below 0, and those that are 0 have no slope."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from unitygain.probe.leaves import observable
from unitygain.probe.ranges import constant
from unitygain.probe.reach import ARRANGES
from unitygain.stats import frac_zero
from unitygain.stats.operations import ends

if TYPE_CHECKING:
    from unitygain.probe.ops import Watch

# Activations whose slope is zero where they put out 0, by their node of the autograd graph.
_RECTIFIES = {"Relu": "relu", "ClampMin": "clamp", "Clamp": "clamp", "Hardtanh": "relu6"}
# Those whose slope is none of their faults, and which put out numbers above 0 alone.
_POSITIVE = {"Softplus": "softplus", "Exp": "exp"}


def rectified_by(logits: Tensor) -> str:
    """Return what made logits, if it has no slope where it puts out 0, as a ReLU; empty for others.

    Constant factors and what arranges entries may stand behind it. It is read from the autograd graph.

    Example:
        >>> import torch
        >>> z = torch.randn(4, 3, requires_grad=True)
        >>> rectified_by(z.relu().T / 0.1), rectified_by(torch.nn.functional.softplus(z)), rectified_by(z)
        ('relu', '', '')
    """
    return _RECTIFIES.get(_made_by(logits), "")


def _made_by(logits: Tensor) -> str:
    node = logits.grad_fn
    while node is not None and (ARRANGES.match(node.name()) or constant(node) is not None):
        node = node.next_functions[0][0]
    return "" if node is None else node.name().partition("Backward")[0]


def note_labels(into: "Watch", logits: Any, log_probabilities: Tensor, index: Tensor, kept: Tensor) -> None:
    """Note rectified logits in the watch, where a loss takes log-probabilities at the labels.

    Args:
        into: The watch.
        logits: What entered the softmax; None where nothing rectifies it.
        log_probabilities: What left it, arranged for the loss.
        index: The labels, with a dimension of one entry in the place of the classes.
        kept: Which of the labels count, without that dimension.
    """
    dim = 1 if log_probabilities.ndim > 1 else 0
    if isinstance(logits, Tensor) and _is_same(logits, log_probabilities):
        right = logits.detach().reshape(log_probabilities.shape).gather(dim, index).squeeze(dim)
        _note(into, logits, right[kept])


def note_picked(into: "Watch", logits: Any, name: str, args: tuple[Any, ...]) -> None:
    """Note rectified logits in the watch, where the log-probabilities of labels are picked by hand.

    Args:
        into: The watch.
        logits: What entered the softmax; None where nothing rectifies it.
        name: The operation that picks, ``gather`` or ``index``.
        args: Its arguments, the log-probabilities first.
    """
    if isinstance(logits, Tensor) and logits.shape == args[0].shape:
        given = logits.detach()
        _note(into, logits, given.gather(*args[1:3]) if name == "gather" else given[tuple(args[1])])


def note_binary(into: "Watch", logits: Tensor, targets: Tensor) -> None:
    """Note the share of targets below a half in the watch, where an activation keeps all logits above 0."""
    name = (_RECTIFIES | _POSITIVE).get(_made_by(logits), "")
    if into.wanted.get("reach") and name and logits.numel() and float(ends(logits)[0]) >= 0:
        into.add("reach", name, logits).numbers["denied"] = frac_zero(targets >= 0.5)


def _note(into: "Watch", logits: Tensor, right: Tensor) -> None:
    if into.wanted.get("reach") and observable(right) and right.numel():
        into.add("reach", rectified_by(logits), right).numbers["silent"] = frac_zero(right)


def _is_same(logits: Tensor, log_probabilities: Tensor) -> bool:
    """Whether log-probabilities have the order of the logits, with dimensions of one or flat ones."""
    one, other = ([size for size in tensor.shape if size != 1] for tensor in (logits, log_probabilities))
    flat = log_probabilities.ndim == 2 and logits.ndim > 2 and logits.shape[-1] == log_probabilities.shape[-1]
    return one == other or (flat and logits.numel() == log_probabilities.numel())
