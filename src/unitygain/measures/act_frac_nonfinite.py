"""act_frac_nonfinite: how much of every output is infinite or NaN."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "non-finite entries over entries of the output"


@measure(unit=UNIT, needs=("output.frac_nonfinite",))
def act_frac_nonfinite(case: Case, record: Record) -> Profile | None:
    """Fraction of the output of every leaf module call that is infinite or NaN.

    Cost: one reduction per output. No side effects.

    Args:
        case: Not used.
        record: A record with `output.frac_nonfinite`.

    Returns:
        From 0 to 1 per leaf call, in forward order.
        Labels are the module types. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = act_frac_nonfinite(case, observe(case, ["output.frac_nonfinite"]))
        >>> profile.values
        (0.0, 0.0, 0.0)
    """
    return record.profile("output.frac_nonfinite", name="act_frac_nonfinite", unit=UNIT) or None
