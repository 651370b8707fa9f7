"""grad_frac_nonfinite: how much of the gradient at every output is infinite or NaN."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "non-finite entries over entries of dL/d(output)"


@measure(unit=UNIT, needs=("grad.frac_nonfinite",))
def grad_frac_nonfinite(case: Case, record: Record) -> Profile | None:
    """Fraction of the gradient at every leaf module call's output that is infinite or NaN.

    Cost: one reduction per gradient. No side effects.

    Args:
        case: Not used.
        record: A record with `grad.frac_nonfinite`.

    Returns:
        From 0 to 1 per leaf call, in forward order.
        Labels are the module types. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = grad_frac_nonfinite(case, observe(case, ["grad.frac_nonfinite"]))
        >>> profile.values
        (0.0, 0.0, 0.0)
    """
    return record.profile("grad.frac_nonfinite", name="grad_frac_nonfinite", unit=UNIT) or None
