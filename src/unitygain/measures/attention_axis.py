"""attention_axis: whether the product with the values sums over the dimension of the softmax."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.measures._attention import over_attention
from unitygain.probe.record import Record

UNIT = "1 where the product with the values sums over the softmax's dimension, else 0"
COLUMNS = ("dim", "summed", "dimensions", "queries", "sum_least", "sum_most", "tokens")


@measure(unit=UNIT, needs=tuple(f"softmax.{name}" for name in ("contracted", *COLUMNS[:2], *COLUMNS[3:6])))
def attention_axis(case: Case, record: Record) -> Profile | None:
    """Whether the weights of an attention are a mean: a softmax over what its product sums over.

    The logits must come of a product of two things that are learnt and no parameters, over scales, biases,
    masks and caps at most; the weights go into a product as they are, or over views, dropout and masks.
    Dimensions are known by their strides, which a view keeps. Weights that are divided by something else
    after the softmax, as slot attention does, are followed no further; where the product sums over another
    dimension the matrix must be square; a softmax that one of several products sums over counts as 1.

    Cost: beside what `attention_entropy` says of fused attention, one pass over the weights where the
    dimensions differ. No side effects.

    Args:
        case: Not used.
        record: A record with these statistics of its softmaxes.

    Returns:
        1 or 0 per attention that could be followed, in the order in which they ran. Columns: ``dim`` (of the
        softmax), ``summed`` (the dimension that the product sums over), ``dimensions`` (how many there are),
        ``queries`` (1 where the softmax runs over the other dimension of the product's matrix), ``sum_least``
        and ``sum_most`` (of the weights over ``summed``), ``tokens`` (its length). None where there is none.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> class Attention(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.q, self.k = nn.Linear(4, 4), nn.Linear(4, 4)
        ...     def forward(self, x):
        ...         return torch.softmax(self.q(x) @ self.k(x).mT, 1) @ x
        >>> case = Case(Attention(), loss=lambda m, x: m(x).sum(), data=[torch.randn(2, 3, 4)])
        >>> profile = attention_axis(case, observe(case, [f"softmax.{name}" for name in (
        ...     "contracted", "dim", "summed", "queries", "sum_least", "sum_most")]))
        >>> profile.values, profile.rows[0][:4]
        ((0.0,), (1.0, 2.0, 3.0, 1.0))

    References:
        Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), equation 1.
    """
    found = over_attention(record, "softmax.contracted", name="attention_axis", unit=UNIT)
    if found is None:
        return None
    shapes = {place.site: place.shape for place in record.of("softmax")}
    rows = []
    for site in found.sites:
        read = {name: record.values[f"softmax.{name}"][site][0] for name in COLUMNS if name not in _SHAPES}
        summed, shape = int(read["summed"]), shapes[site]
        read |= {"dimensions": float(len(shape)), "tokens": float(shape[summed])}
        rows.append(tuple(read[name] for name in COLUMNS))
    return Profile("attention_axis", UNIT, found.sites, found.values, columns=COLUMNS, rows=tuple(rows))


_SHAPES = frozenset({"dimensions", "tokens"})
