"""param_grad_rms: how large the gradient of every parameter is."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "rms of dL/d(parameter)"


@measure(unit=UNIT, needs=("parameter_grad.rms",))
def param_grad_rms(case: Case, record: Record) -> Profile | None:
    """Root mean square of the loss's gradient with respect to every parameter.

    A parameter that no gradient reached is absent; the report lists it as skipped.

    Cost: one reduction per parameter. No side effects.

    Args:
        case: Not used.
        record: A record with `parameter_grad.rms`.

    Returns:
        One value per parameter with a gradient, in the model's order.
        Labels are dtypes. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = param_grad_rms(case, observe(case, ["parameter_grad.rms"]))
        >>> [str(site) for site in profile.sites][:2]
        ['0.weight', '0.bias']
    """
    return record.profile("parameter_grad.rms", name="param_grad_rms", unit=UNIT) or None
