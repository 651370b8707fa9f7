"""act_rms: how large the output of every leaf module is."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "rms of the output"


@measure(unit=UNIT, needs=("output.rms",))
def act_rms(case: Case, record: Record) -> Profile | None:
    """Root mean square of the output of every leaf module call.

    Cost: one reduction per output. No side effects.

    Args:
        case: Not used.
        record: A record with `output.rms`.

    Returns:
        One value per leaf call, in forward order, in the unit of the output.
        Labels are the module types. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = act_rms(case, observe(case, ["output.rms"]))
        >>> [str(site) for site in profile.sites]
        ['0', '1', '2']
    """
    return record.profile("output.rms", name="act_rms", unit=UNIT) or None
