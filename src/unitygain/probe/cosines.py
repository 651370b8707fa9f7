"""Logits that are cosines: what a product of vectors of fixed length can reach at most."""

import re
from typing import Any

from torch import Tensor
from torch.linalg import vector_norm

from unitygain.probe.reach import ARRANGES

# Nodes that hide some logits, beside those that arrange them.
_HIDES = re.compile(r"(MaskedFill|MaskedSelect|Where|Expand)Backward\d*$")
# Nodes between a norm and the vector that is divided by it.
_WITHIN = re.compile(r"(Expand|ClampMin|Clamp|Maximum|Add|Unsqueeze|View|Clone)Backward\d*$")
_NORMS = ("LinalgVectorNormBackward", "NormBackward")
# Lengths that differ by less are those of vectors that were divided by their norm.
_ALIKE = 1e-3


def logit_bound(logits: Tensor) -> float | None:
    """Return the largest |logit| that vectors of the same lengths can make; None where nothing bounds it.

    Logits are bounded where each is a product of two vectors that were divided by their norm, or are
    constants of one length, times constant factors; a scale that is learned bounds nothing. It is read from
    the autograd graph.

    Example:
        >>> import torch
        >>> from torch.nn.functional import normalize
        >>> x, w = torch.randn(4, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
        >>> logit_bound(normalize(x) @ normalize(w).T / 0.1), logit_bound(x @ w.T)
        (10.0, None)
    """
    bound = _bound(logits.grad_fn)
    return None if bound is None else round(bound, 6)


def _bound(node: Any) -> float | None:
    factor = 1.0
    while node is not None:
        name, behind = node.name(), [following for following, _ in node.next_functions]
        if name.startswith("CatBackward"):
            parts = [_bound(part) for part in behind]
            known = [part for part in parts if part is not None]
            return factor * max(known) if parts and len(known) == len(parts) else None
        if name.startswith(("MmBackward", "BmmBackward")):
            lengths = _length(node, 0, "_saved_self", -1), _length(node, 1, "_saved_mat2", -2)
            return _times(factor, *lengths)
        if name.startswith("SumBackward1") and behind[0] is not None and behind[0].name() == "MulBackward0":
            lengths = _length(behind[0], 0, "_saved_self", -1), _length(behind[0], 1, "_saved_other", -1)
            return _times(factor, *lengths)
        if (by := _constant(node)) is not None:
            factor *= by
        elif not (ARRANGES.match(name) or _HIDES.match(name)):
            return None
        node = behind[0]
    return None


def _times(factor: float, *lengths: float | None) -> float | None:
    for length in lengths:
        if length is None:
            return None
        factor *= length
    return factor


def _length(node: Any, index: int, saved: str, dim: int) -> float | None:
    """Return the length that all vectors of an operand have; None where they are free to grow."""
    behind, factor = node.next_functions[index][0], 1.0
    if behind is None:
        value = getattr(node, saved, None)
        return None if not isinstance(value, Tensor) else _common(vector_norm(value.double(), dim=dim))
    while behind is not None:
        if (by := _constant(behind)) is not None:
            factor *= by
        elif behind.name() == "DivBackward0":
            return factor if _is_norm(behind.next_functions[1][0]) else None
        elif not ARRANGES.match(behind.name()) and not behind.name().startswith("Expand"):
            return None
        behind = behind.next_functions[0][0]
    return None


def _common(lengths: Tensor) -> float | None:
    least, most = (float(value) for value in lengths.aminmax())
    return most if 0 < most * (1 - _ALIKE) <= least else None


def _constant(node: Any) -> float | None:
    """Return what a node multiplies by, if that is one number that nobody learns."""
    divides = node.name() == "DivBackward0"
    if not (divides or node.name() == "MulBackward0") or node.next_functions[1][0] is not None:
        return None
    other = node._saved_other
    if not isinstance(other, Tensor) or other.numel() != 1:
        return None
    by = abs(float(other))
    return (1 / by if by else None) if divides else by


def _is_norm(node: Any) -> bool:
    while node is not None and _WITHIN.match(node.name()):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith(_NORMS)
