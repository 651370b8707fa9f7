"""attention_entropy: how widely attention is spread."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.measures._attention import over_attention
from unitygain.probe.record import Record

UNIT = "entropy of the attention row over ln(entries that are not masked)"


@measure(unit=UNIT, needs=("softmax.entropy",))
def attention_entropy(case: Case, record: Record) -> Profile | None:
    """Mean entropy of the rows of every attention softmax, relative to the uniform row.

    1 attends to everything alike, 0 to one entry alone. Rows with fewer than two entries that are not masked
    are left out. Attention is a softmax whose result is multiplied with something that is no weight, in
    whatever module it runs.

    Cost: eight passes over every attention matrix, and fused attention runs as its parts meanwhile, with
    the memory of the whole matrix. No side effects.

    Args:
        case: Not used.
        record: A record with `softmax.entropy`.

    Returns:
        From 0 to 1 per attention softmax, in the order in which they ran. None where there is no attention.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.MultiheadAttention(4, 2)
        >>> data = [torch.zeros(3, 2, 4)]
        >>> case = Case(model, loss=lambda m, x: m(x, x, x)[0].square().mean(), data=data)
        >>> profile = attention_entropy(case, observe(case, ["softmax.entropy"]))
        >>> [str(site) for site in profile.sites], [round(value, 6) for value in profile.values]
        (['(model).(softmax)'], [1.0])
    """
    return over_attention(record, "softmax.entropy", name="attention_entropy", unit=UNIT)
