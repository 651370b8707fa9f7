"""param_grad_frac_zero: how much of every parameter gets no gradient at all."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "zero entries over entries of dL/d(parameter)"


@measure(unit=UNIT, needs=("parameter_grad.frac_zero",))
def param_grad_frac_zero(case: Case, record: Record) -> Profile | None:
    """Fraction of the gradient of every parameter that is exactly zero.

    Cost: one reduction per parameter. No side effects.

    Args:
        case: Not used.
        record: A record with `parameter_grad.frac_zero`.

    Returns:
        From 0 to 1 per parameter with a gradient, in the model's order.
        Labels are dtypes. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = param_grad_frac_zero(case, observe(case, ["parameter_grad.frac_zero"]))
        >>> len(profile)
        4
    """
    return record.profile("parameter_grad.frac_zero", name="param_grad_frac_zero", unit=UNIT) or None
