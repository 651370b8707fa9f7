"""act_headroom: how many powers of two lie between an output and the end of its dtype."""

import math

import torch

from unitygain._case import Case, CaseFailure
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.observe import observe
from unitygain.probe.record import Record

UNIT = "log2 of the dtype's largest number over the largest |output|"
NARROW = ("float16", "float8_e4m3fn", "float8_e5m2")


@measure(
    unit=UNIT, needs=("output.absmax",), passes="1 in float64 where a float16 output is not finite, else 0"
)
def act_headroom(case: Case, record: Record) -> Profile | None:
    """Room between the largest entry of every leaf module's output and the largest number of its dtype.

    Where a float16 or float8 output is infinite or NaN the pass is repeated in float64 without autocast,
    so that the size it would have had is known; a negative value says by how many powers of two the
    dtype is too small. Where float64 is not finite either, the value is minus infinity.

    Cost: one reduction per output; the second pass only where needed. No side effects on the case.

    Args:
        case: An isolated case.
        record: A record with `output.absmax`.

    Returns:
        One value per leaf call in forward order; infinite for an output of zeros. Labels are the dtypes.
        None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> case = Case(nn.Linear(2, 1), loss=lambda m, x: m(x).sum(), data=[torch.zeros(1, 2)])
        >>> torch.nn.init.constant_(case.model.bias, 2.0**120).item() == 2.0**120
        True
        >>> round(act_headroom(case, observe(case, ["output.absmax"])).values[0])
        8
    """
    seen = {site: numbers[0] for site, numbers in record.values.get("output.absmax", {}).items()}
    if not seen:
        return None
    dtypes = {place.site: place.dtype for place in record.of("output")}
    if any(dtypes[site] in NARROW and not math.isfinite(absmax) for site, absmax in seen.items()):
        wide = _observe_wide(case)
        lost = [s for s, absmax in seen.items() if dtypes[s] in NARROW and not math.isfinite(absmax)]
        seen |= {site: wide.get(site, math.inf) for site in lost}
    values = tuple(_bits(absmax, dtypes[site]) for site, absmax in seen.items())
    return Profile("act_headroom", UNIT, tuple(seen), values, labels=tuple(dtypes[site] for site in seen))


def _observe_wide(case: Case) -> dict[Site, float]:
    twin = case.copy()
    twin.precision = None
    twin.move(dtype=torch.float64)
    try:
        values = observe(twin, ("output.absmax",)).values
    except CaseFailure:
        return {}
    return {site: numbers[0] for site, numbers in values["output.absmax"].items()}


def _bits(absmax: float, dtype: str) -> float:
    if math.isnan(absmax) or absmax == math.inf:
        return -math.inf
    return math.log2(torch.finfo(getattr(torch, dtype)).max / absmax) if absmax else math.inf
