"""attention_logit_absmax: how large attention logits get."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.measures._attention import over_attention
from unitygain.probe.record import Record

UNIT = "largest |logit| that enters the softmax"


@measure(unit=UNIT, needs=("softmax.absmax",))
def attention_logit_absmax(case: Case, record: Record) -> Profile | None:
    """Largest magnitude among the logits that enter every attention softmax.

    Masked logits are left out: minus infinity, and below -5000 with probability zero. Attention is a
    softmax whose result is multiplied with something that is no weight, in whatever module it runs.

    Cost: eight passes over every attention matrix, and fused attention runs as its parts meanwhile, with
    the memory of the whole matrix. No side effects.

    Args:
        case: Not used.
        record: A record with `softmax.absmax`.

    Returns:
        One value per attention softmax, in the order in which they ran. None where there is no attention.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.MultiheadAttention(4, 2)
        >>> data = [torch.zeros(3, 2, 4)]
        >>> case = Case(model, loss=lambda m, x: m(x, x, x)[0].square().mean(), data=data)
        >>> profile = attention_logit_absmax(case, observe(case, ["softmax.absmax"]))
        >>> [str(site) for site in profile.sites], [round(value, 6) for value in profile.values]
        (['(model).(softmax)'], [0.0])
    """
    return over_attention(record, "softmax.absmax", name="attention_logit_absmax", unit=UNIT)
