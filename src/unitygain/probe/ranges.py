"""Logits of a bounded range: products of vectors of fixed length, as cosines are, and squashed ones."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unitygain.probe.leaves import observable
from unitygain.probe.reach import ARRANGES
from unitygain.stats import norm
from unitygain.stats.moments import row_lengths
from unitygain.stats.operations import ends

if TYPE_CHECKING:
    from unitygain.probe.ops import Watch

STATISTICS = ("least", "most", "classes")
OPERATIONS = frozenset({"_log_softmax", "binary_cross_entropy_with_logits"})
_SQUASHES = {"TanhBackward0": ("tanh", -1.0, 1.0), "SigmoidBackward0": ("sigmoid", 0.0, 1.0)}
# Nodes that hide some logits, beside those that arrange them.
_HIDES = re.compile(r"(MaskedFill|MaskedSelect|Where|Expand)Backward\d*$")
# Nodes between a norm and the vector that is divided by it.
_WITHIN = re.compile(r"(Expand|ClampMin|Clamp|Maximum|Add|Unsqueeze|View|Clone)Backward\d*$")
_NORMS = ("LinalgVectorNormBackward", "NormBackward")
# Lengths that differ by less are those of vectors that were divided by their norm.
_ALIKE = 1e-3


@dataclass(frozen=True)
class Range:
    """What logits can reach, and what bounds them: ``cosines``, ``tanh`` or ``sigmoid``."""

    least: float
    most: float
    by: str

    def times(self, factor: float) -> "Range":
        """Return the range of logits that are multiplied."""
        ends = sorted((factor * self.least, factor * self.most))
        return Range(ends[0], ends[1], self.by)


def watch(into: "Watch", name: str, args: tuple[Any, ...]) -> None:
    """Note logits of a bounded range in the watch, where they enter a softmax or sigmoid of a loss."""
    if not into.wanted.get("logit_range") or not observable(args[0]) or not args[0].requires_grad:
        return
    found = logit_range(args[0])
    if found is not None:
        classes = args[0].shape[args[1]] if name == "_log_softmax" else 1
        seen = into.add("logit_range", found.by, args[0])
        seen.numbers |= {"least": found.least, "most": found.most, "classes": float(classes)}


def logit_range(logits: Tensor) -> Range | None:
    """Return what logits can reach with any weights; None where nothing bounds them.

    They are bounded where each is a product of two vectors that were divided by their norm, or are constants
    of one length, or what a tanh or a sigmoid puts out, times constant factors. A scale that is learned
    bounds nothing. It is read from the autograd graph.

    Example:
        >>> import torch
        >>> from torch.nn.functional import normalize
        >>> x, w = torch.randn(4, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
        >>> logit_range(normalize(x) @ normalize(w).T / 0.1)
        Range(least=-10.0, most=10.0, by='cosines')
        >>> logit_range(x.sigmoid() @ w.T)
    """
    return _range(logits.grad_fn)


def _range(node: Any) -> Range | None:
    factor = 1.0
    while node is not None:
        name, behind = node.name(), [following for following, _ in node.next_functions]
        if name in _SQUASHES:
            by, least, most = _SQUASHES[name]
            return Range(least, most, by).times(factor)
        if name.startswith("CatBackward"):
            return _union([_range(part) for part in behind], factor)
        if (lengths := _lengths(node, name, behind)) is not None:
            return None if None in lengths else _cosines(factor, *filter(None, lengths))
        if (by := constant(node)) is not None:
            factor *= by
        elif not (ARRANGES.match(name) or _HIDES.match(name)):
            return None
        node = behind[0]
    return None


def _union(parts: list[Range | None], factor: float) -> Range | None:
    known = [part.times(factor) for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    return Range(min(part.least for part in known), max(part.most for part in known), known[0].by)


def _lengths(node: Any, name: str, behind: list[Any]) -> tuple[float | None, float | None] | None:
    """Return the lengths of the vectors whose products a node is; None where it is none of products."""
    if name.startswith(("MmBackward", "BmmBackward")):
        return _length(node, 0, "_saved_self", -1), _length(node, 1, "_saved_mat2", -2)
    if name.startswith("SumBackward1") and behind[0] is not None and behind[0].name() == "MulBackward0":
        return _length(behind[0], 0, "_saved_self", -1), _length(behind[0], 1, "_saved_other", -1)
    return None


def _cosines(factor: float, *lengths: float) -> Range:
    most = round(abs(factor) * lengths[0] * lengths[1], 6)
    return Range(-most, most, "cosines")


def _length(node: Any, index: int, saved: str, dim: int) -> float | None:
    """Return the length that all vectors of an operand have; None where they are free to grow."""
    behind, factor = node.next_functions[index][0], 1.0
    if behind is None:
        value = getattr(node, saved, None)
        return _common(value.movedim(dim, -1).flatten(0, -2)) if isinstance(value, Tensor) else None
    while behind is not None:
        if (by := constant(behind)) is not None:
            factor *= by
        elif behind.name() == "DivBackward0":
            return abs(factor) if _is_norm(behind.next_functions[1][0]) else None
        elif not ARRANGES.match(behind.name()) and not behind.name().startswith("Expand"):
            return None
        behind = behind.next_functions[0][0]
    return None


def _common(rows: Tensor) -> float | None:
    """Return the length of all rows; None where they are not alike."""
    least, most = ends(row_lengths(rows)).tolist()
    return float(norm(rows)) / len(rows) ** 0.5 if 0 < most * (1 - 2 * _ALIKE) <= least else None


def constant(node: Any) -> float | None:
    """Return what a node multiplies by, if that is one number that nobody learns."""
    divides = node.name() == "DivBackward0"
    if not (divides or node.name() == "MulBackward0") or node.next_functions[1][0] is not None:
        return None
    other = node._saved_other
    if not isinstance(other, Tensor) or other.numel() != 1:
        return None
    by = float(other)
    return (1 / by if by else None) if divides else by


def _is_norm(node: Any) -> bool:
    while node is not None and _WITHIN.match(node.name()):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith(_NORMS)
