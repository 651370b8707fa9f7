"""attention_before: which tokens the mask of an attention shows, before and after each."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.measures._attention import over_attention
from unitygain.probe.record import Record

UNIT = "share of the earlier tokens that the mask shows"


@measure(unit=UNIT, needs=("softmax.before", "softmax.after"))
def attention_before(case: Case, record: Record) -> Profile | None:
    """Share of the earlier tokens that a token may read, beside that of the later ones.

    Without a mask both are 1; under a causal mask ``after`` is 0, and under one that is transposed ``before``
    is. An entry is masked where its logit is minus infinity, or below -5000 with a weight of exactly zero; so
    are all of a row that shows nothing.

    Cost: five passes over every attention matrix, and what `attention_entropy` says of fused attention. No
    side effects.

    Args:
        case: Not used.
        record: A record with `softmax.before` and `softmax.after`.

    Returns:
        From 0 to 1 per attention of a sequence to itself, in the order in which they ran. Columns: ``after``
        and ``tokens``. None where there is none: queries and keys of different number are not compared.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.MultiheadAttention(4, 2)
        >>> hidden = torch.ones(3, 3).triu(1).bool()
        >>> loss = lambda m, x: m(x, x, x, attn_mask=hidden)[0].square().mean()
        >>> case = Case(model, loss, data=[torch.zeros(3, 2, 4)])
        >>> profile = attention_before(case, observe(case, ["softmax.before", "softmax.after"]))
        >>> profile.values, profile.rows
        ((1.0,), ((0.0, 3.0),))
    """
    before = over_attention(record, "softmax.before", name="attention_before", unit=UNIT)
    if before is None:
        return None
    shapes = {place.site: place.shape for place in record.of("softmax")}
    after = record.values["softmax.after"]
    return Profile(
        "attention_before",
        UNIT,
        before.sites,
        before.values,
        columns=("after", "tokens"),
        rows=tuple((after[site][0], float(shapes[site][-1])) for site in before.sites),
    )
