"""norm_numbers: over how many numbers every normalisation takes its mean and its spread."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "numbers that share a mean and a spread"


@measure(unit=UNIT, needs=("norm.numbers",))
def norm_numbers(case: Case, record: Record) -> Profile | None:
    """How many numbers every normalisation makes one mean and one spread of.

    Those of a group for GroupNorm, of a channel over the batch and all places for BatchNorm in training mode
    and over the places for InstanceNorm, of the last dimensions for LayerNorm and a fused RMSNorm.
    Normalisations are found as operations, in whatever module they run; what a model writes out with means
    and roots of its own is not. Where it is one number, that number minus its mean is zero.

    Cost: none beyond the pass. No side effects.

    Args:
        case: Not used.
        record: A record with `norm.numbers`.

    Returns:
        One value per normalisation that uses the batch's own statistics, in the order in which they ran,
        named by its module where that is one of torch's norms. Labels are the operations. None where there is
        none.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(3, 6), nn.LayerNorm(6))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = norm_numbers(case, observe(case, ["norm.numbers"]))
        >>> [str(site) for site in profile.sites], profile.values
        (['1', '2'], (2.0, 6.0))

    References:
        Wu and He, "Group Normalization" (2018), section 3, on which numbers each norm takes together.
    """
    return record.profile("norm.numbers", name="norm_numbers", unit=UNIT) or None
