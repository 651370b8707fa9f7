"""restore_logit_scale: divide the logits of attention by the root of the head width, where that is missing.

Cures the cause of logits that are too large from the first step on, where others hide it.

What it changes:
    Attention is found by what runs: a softmax of products of queries and keys that come from linear maps.
    Where the logits are not divided by sqrt(d), d numbers per head, the queries are multiplied by what is
    missing, behind their map. No weight is touched.

Why it helps:
    A product of two independent vectors of d unit numbers has a standard deviation of sqrt(d). Without the
    division the softmax takes nearly one key alone, its derivative is near zero, and queries and keys get
    no gradient.

When it does not help:
    Where the logits are divided already: nothing is found. Where weights of queries and keys are too large
    by themselves, use calm_attention or qk_norm. A trained model has learnt with the scale that it had.
    Models that divide by d on purpose (muP) are left, as their logits are smaller, not larger.

What it costs:
    Nothing worth speaking of. The map's parameters are saved under ``NAME.held``.

References:
    Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), section 3.2.1 and footnote 4.
"""

import math

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.attention import Attends, find_attention
from unitygain.probe.sites import Select
from unitygain.remedies._attend import Times
from unitygain.remedies._beside import Followed
from unitygain.remedies._norm_order import put
from unitygain.remedies._snapshot import Undo, all_or_nothing, backwards

# Logits of at least this many times the usual ones have no scale; sqrt(d) is 4 for 16 numbers per head.
MISSING = 1.5
# Rounding of the parts in 16 bits.
AGREE = 0.02


@remedy(
    treats=("UG701", "UG702"), changes="architecture", instead_of=("calm_attention", "restore_logit_scale")
)
def restore_logit_scale(case: Case, *, sites: Select = None) -> Undo:
    """Divide logits by sqrt(d) in the chosen attention modules that do not.

    Args:
        case: The case; maps of queries are held by modules that scale what they return.
        sites: Which attention modules, by path; all when left out.

    Returns:
        What puts the maps back.

    Raises:
        ValueError: If no chosen attention lacks its scale, or the queries cannot be told from the rest.

    Side effects:
        The model's submodules. Costs two forward passes of copies of the model.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class Attention(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.q, self.k = nn.Linear(16, 16), nn.Linear(16, 16)
        ...     def forward(self, x):
        ...         return torch.softmax(self.q(x) @ self.k(x).mT, -1) @ x
        >>> case = Case(Attention(), loss=lambda m, x: m(x).sum(), data=[torch.randn(2, 3, 16)])
        >>> undo = restore_logit_scale(case)
        >>> case.model.q.behind.factor
        0.25
    """
    found = find_attention(case, sites)
    lacking = {one.query.path: one for one in found if _missing(one) >= MISSING}
    if not lacking:
        seen = ", ".join(f"{one.path}: {one.scale:.3g} for {one.width} numbers" for one in found[:3])
        raise ValueError(
            f"no chosen attention lacks its scale of 1/sqrt(d) ({seen or 'no maps of queries were found'})"
        )
    with all_or_nothing() as undos:
        for one in lacking.values():
            undos.append(_scale(case, one))
        scaled = {one.query.path for one in find_attention(case, sites) if abs(_missing(one) - 1) < AGREE}
        wrong = [one.path for path, one in lacking.items() if f"{path}.held" not in scaled]
        if wrong:
            raise ValueError(f"the queries of {wrong[0]} are not the first part of what one map returns")
    return backwards(undos)


def _missing(one: Attends) -> float:
    """What the logits are too large by."""
    return one.scale * math.sqrt(one.width)


def _scale(case: Case, one: Attends) -> Undo:
    held = case.model.get_submodule(one.query.path)
    times = Times(1 / _missing(one), one.query.columns)
    return put(case.model, held, Followed(held, times).train(held.training))
