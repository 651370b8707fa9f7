"""param_rms: how large every parameter is."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "rms of the parameter"


@measure(unit=UNIT, needs=("parameter.rms",))
def param_rms(case: Case, record: Record) -> Profile | None:
    """Root mean square of every parameter.

    A parameter that several modules share is listed once, by its first name.

    Cost: one reduction per parameter. No side effects.

    Args:
        case: Not used.
        record: A record with `parameter.rms`.

    Returns:
        One value per parameter, in the model's order.
        Labels are dtypes. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = param_rms(case, observe(case, ["parameter.rms"]))
        >>> profile.labels[0]
        'float32'
    """
    return record.profile("parameter.rms", name="param_rms", unit=UNIT) or None
