"""act_absmax: the largest entry of every leaf module's output."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "largest |output|"


@measure(unit=UNIT, needs=("output.absmax",))
def act_absmax(case: Case, record: Record) -> Profile | None:
    """Largest magnitude in the output of every leaf module call.

    Cost: one reduction per output. No side effects.

    Args:
        case: Not used.
        record: A record with `output.absmax`.

    Returns:
        One value per leaf call, in forward order, in the unit of the output.
        Labels are the module types. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = act_absmax(case, observe(case, ["output.absmax"]))
        >>> [str(site) for site in profile.sites]
        ['0', '1', '2']
    """
    return record.profile("output.absmax", name="act_absmax", unit=UNIT) or None
