"""attention_scale: by how much attention scales the products of queries and keys, against 1/sqrt(d)."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.attention import Attends, read_attention
from unitygain.probe.record import Record
from unitygain.probe.trace import buffers_kept
from unitygain.probe.wiring import wire

UNIT = "logits over the products of queries and keys, times sqrt(d)"
# The lengths of single queries differ by at least this where no norm has made them equal.
VARIES = 1e-3


@measure(unit=UNIT, passes="0.4 where there is attention")
def attention_scale(case: Case, record: Record) -> Profile | None:
    """Scale of the logits of every attention over the usual 1/sqrt(d), with d numbers per head.

    1 is scaled dot-product attention, sqrt(d) the one that lacks its scale, 1/sqrt(d) that of muP. Queries
    and keys are what their linear maps return, so that a scale that is put on them is counted.

    Cost: one forward pass, which holds every tensor of it, with fused attention as its parts. No side
    effects.

    Args:
        case: An isolated case.
        record: A record with `softmax.absmax`.

    Returns:
        One value per module that computes attention from maps that are modules of their own, at its first
        call; NaN where logits are not in proportion to the products (a bias or a cap), and where a norm
        behind the maps sets the length of queries or keys. `rows` hold d, `labels` the paths of the maps of
        queries and keys with a bar between. None where there is none.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> class Attention(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.q, self.k = nn.Linear(16, 16), nn.Linear(16, 16)
        ...     def forward(self, x):
        ...         return torch.softmax(self.q(x) @ self.k(x).mT, -1) @ x
        >>> case = Case(Attention(), loss=lambda m, x: m(x).sum(), data=[torch.randn(2, 3, 16)])
        >>> profile = attention_scale(case, observe(case, ["softmax.absmax"]))
        >>> [round(value, 4) for value in profile.values], profile.rows
        ([4.0], ((16.0,),))

    References:
        Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), section 3.2.1. Yang et al., "Tensor
        Programs V" (2022), definition 4.1, for muP.
    """
    if "attention" not in record.labels("softmax").values():
        return None
    seed = int(record.facts.get("seed", 0))
    with buffers_kept(case.model):
        found = read_attention(wire(case, seed, hold=True), None)
    first = {one.path: one for one in reversed(found)}
    known = [first[path] for path in dict.fromkeys(one.path for one in found)]
    if not known:
        return None
    return Profile(
        "attention_scale",
        UNIT,
        sites=tuple(Site(one.path, 0, ".(softmax)") for one in known),
        values=tuple(_relative(one) for one in known),
        columns=("numbers_per_head",),
        rows=tuple((float(one.width),) for one in known),
        labels=tuple(f"{one.query.path}|{one.key.path}" for one in known),
        note="NaN where a bias, a cap or a norm keeps the scale from being read",
    )


def _relative(one: Attends) -> float:
    return one.scale * math.sqrt(one.width) if one.spread > VARIES else math.nan
