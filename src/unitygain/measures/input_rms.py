"""input_rms: how large the model's inputs are."""

import dataclasses

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "rms of the model's input"


@measure(unit=UNIT, needs=("input.rms",))
def input_rms(case: Case, record: Record) -> Profile | None:
    """Root mean square of every floating input of the model.

    Cost: one reduction per input. No side effects.

    Args:
        case: Not used.
        record: A record with `input.rms`.

    Returns:
        One value per floating input; labels are dtypes. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = input_rms(case, observe(case, ["input.rms"]))
        >>> str(profile.sites[0]), profile.values
        ('(model)(input 0)', (1.0,))
    """
    profile = record.profile("input.rms", name="input_rms", unit=UNIT)
    dtypes = {place.site: place.dtype for place in record.of("input")}
    return dataclasses.replace(profile, labels=tuple(dtypes[site] for site in profile.sites)) or None
