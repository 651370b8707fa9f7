"""act_frac_saturated: how much of an activation is too flat to pass a gradient on."""

import dataclasses
import math
from collections import defaultdict

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "entries with |slope| below 0.01 of the steepest, over entries"
COLUMNS = ("rms slope", "open fraction")


@measure(unit=UNIT, needs=("activation.frac_saturated", "activation.slope_rms", "activation.frac_open"))
def act_frac_saturated(case: Case, record: Record) -> Profile | None:
    """Fraction of the entries of every activation where |φ'(x)| is below 0.01 of the largest |φ'|.

    Works for any elementwise function: the slope is that of the operation at its own input. Half of the
    entries of a ReLU are saturated in this sense when all is well. Sigmoids that multiply another signal
    are gates and are not listed here.

    Cost: the slope, and four passes over every activation. No side effects.

    Args:
        case: Not used.
        record: A record with `activation.frac_saturated`, `activation.slope_rms`, `activation.frac_open`.

    Returns:
        From 0 to 1 per activation, in the order in which they ran; labels name the function, with
        ``(output)`` where it makes the model's output. Rows: root mean square of φ', and the fraction of
        entries where |φ'| is at least half of the largest. Facts: the mean per function. None where the
        model has no activation.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain._registry import MEASURES
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        >>> _ = nn.init.constant_(model[0].bias, 9.0)
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = act_frac_saturated(case, observe(case, MEASURES["act_frac_saturated"].needs))
        >>> profile.values, profile.labels
        ((1.0,), ('tanh (output)',))
    """
    profile = record.profile("activation.frac_saturated", name="act_frac_saturated", unit=UNIT)
    if not profile:
        return None
    by_label: dict[str, list[float]] = defaultdict(list)
    for value, label in zip(profile.values, profile.labels, strict=True):
        by_label[label].append(value)
    slope, wide = record.values["activation.slope_rms"], record.values["activation.frac_open"]
    return dataclasses.replace(
        profile,
        columns=COLUMNS,
        rows=tuple((slope[site][0], wide[site][0]) for site in profile.sites),
        facts={label: math.fsum(values) / len(values) for label, values in by_label.items()},
    )
