"""weight_mean: how far the weights of every layer lie to one side."""

import math

from torch import Tensor

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.measures._fan_in import weights_of
from unitygain.probe.record import Record
from unitygain.stats import mean, rms

UNIT = "sqrt(fan_in) · mean over standard deviation of the weight"
CLOSE = 0.999
CONSTANT = "infinite: a weight with one value in every entry has no spread; NaN: it is all zero, or on meta"


@measure(unit=UNIT, needs=("output.rms",))
def weight_mean(case: Case, record: Record) -> Profile | None:
    """Mean of every weight over its standard deviation, times the root of fan_in.

    An output sums fan_in products. For inputs that are all alike, what the mean of the weight adds to the
    sum is this many times what their spread adds. A symmetric draw has about 1/sqrt(fan_out) here; far below
    zero, and behind a ReLU (whose outputs have one sign), every sum is negative.

    Cost: two reductions per weight; three and a copy of a nearly constant one. No side effects.

    Args:
        case: Its model's weights are read.
        record: A record with `output.rms`; tells which modules ran.

    Returns:
        One value per weight that ran, in forward order, at its module, or at its parameter's name where the
        module has several; infinite for a constant weight. None where no weight ran.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> layer = nn.Linear(4, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[-1.0, -3.0, -1.0, -3.0]]))
        >>> case = Case(layer, loss=lambda m, x: m(x).mean(), data=[torch.ones(2, 4)])
        >>> round(weight_mean(case, observe(case, ["output.rms"])).values[0], 9)
        -4.0
    """
    modules = dict(case.model.named_modules())
    values: dict[Site, float] = {}
    for path in dict.fromkeys(place.site.path for place in record.of("output")):
        found = weights_of(modules[path])
        for name, (weight, fan_in) in found.items():
            site = Site(path) if len(found) == 1 else Site(f"{path}.{name}" if path else name)
            values[site] = math.sqrt(fan_in) * _standardised(weight)
    if not values:
        return None
    note = "" if all(map(math.isfinite, values.values())) else CONSTANT
    return Profile("weight_mean", UNIT, tuple(values), tuple(values.values()), note=note)


def _standardised(weight: Tensor) -> float:
    """Mean over standard deviation."""
    if weight.is_meta:
        return math.nan
    middle, size = float(mean(weight)), float(rms(weight))
    if abs(middle) < CLOSE * size:
        return middle / math.sqrt(size**2 - middle**2)
    # What is left of the difference of two squares that are nearly one has too few digits.
    spread = float(rms(weight.detach().double() - middle))
    return middle / spread if spread else math.copysign(math.inf, middle) if middle else math.nan
