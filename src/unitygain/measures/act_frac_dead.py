"""act_frac_dead: how many units of an activation are zero and flat for the whole batch."""

import dataclasses
import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "units that are zero for the whole batch, over units"
NOTE = "NaN where an activation gives one number without a dimension, which has no units"


@measure(unit=UNIT, needs=("activation.frac_dead",))
def act_frac_dead(case: Case, record: Record) -> Profile | None:
    """Fraction of the units of every activation that are exactly zero, and flat, for the whole batch.

    Where the output is zero and the slope is not, as in tanh(0), the gradient passes and nothing is dead.
    Units are channels for images, else the last dimension. A small batch makes units look dead that are
    only rarely active. Activations are found as operations, in whatever module they run.

    Cost: two passes over every activation. No side effects.

    Args:
        case: Not used.
        record: A record with `activation.frac_dead`.

    Returns:
        From 0 to 1 per activation, in the order in which they ran; labels name the function. NaN, with a
        note, for one of a single number without a dimension, such as a learned gate. None where the model has
        no activation.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        >>> _ = nn.init.constant_(model[0].bias, -9.0)
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> act_frac_dead(case, observe(case, ["activation.frac_dead"])).values
        (1.0,)
    """
    profile = record.profile("activation.frac_dead", name="act_frac_dead", unit=UNIT)
    noted = dataclasses.replace(profile, note=NOTE if any(map(math.isnan, profile.values)) else "")
    return noted or None
