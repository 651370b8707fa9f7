"""grad_frac_underflow: how much of the gradient a narrower dtype would round to zero, and what repairs it."""

import dataclasses
import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record
from unitygain.stats import EXPONENT_LOW, UNDERFLOW_DTYPES, repairing_loss_scale

UNIT = "non-zero entries of dL/d(output) that the dtype rounds to zero, over non-zero entries"
KEPT = 0.99


@measure(unit=UNIT, needs=("grad.frac_underflow", "grad.absmax", "grad.exponents"))
def grad_frac_underflow(case: Case, record: Record) -> Profile | None:
    """Fraction of every gradient's non-zero entries that float16, bfloat16 and the two float8 round to zero.

    Beside it stands the loss scale that repairs it: the power of two nearest to 1 that lifts all but the
    smallest 1 % of the non-zero entries of each gradient to the dtype's smallest subnormal number, while
    its largest entry still fits. The smallest entries are known by their power of two.

    Cost: about twenty passes over at most 2^20 entries per gradient. No side effects.

    Args:
        case: Not used.
        record: A record with `grad.frac_underflow`, `grad.absmax` and `grad.exponents`.

    Returns:
        The fraction for float16 per leaf call, in forward order. Rows: float16, bfloat16, float8_e4m3fn and
        float8_e5m2. Facts: ``loss_scale_<dtype>``, the one scale that serves every site, NaN where none
        does. Labels are the module types. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain._registry import MEASURES
        >>> from unitygain.probe.observe import observe
        >>> case = Case(nn.Linear(4, 1), loss=lambda m, x: 1e-9 * m(x).mean(), data=[torch.ones(2, 4)])
        >>> profile = grad_frac_underflow(case, observe(case, MEASURES["grad_frac_underflow"].needs))
        >>> profile.rows, profile.facts["loss_scale_float16"]
        (((1.0, 0.0, 1.0, 1.0),), 128.0)
    """
    note = "NaN where the gradient is exactly zero"
    profile = record.profile("grad.frac_underflow", name="grad_frac_underflow", unit=UNIT, note=note)
    if not profile:
        return None
    rows = tuple(record.values["grad.frac_underflow"][site] for site in profile.sites)
    facts = {f"loss_scale_{dtype}": _scale(record, dtype) for dtype in UNDERFLOW_DTYPES}
    return dataclasses.replace(profile, columns=UNDERFLOW_DTYPES, rows=rows, facts=facts)


def _scale(record: Record, dtype: str) -> float:
    """The loss scale for all sites at once."""
    largest = [numbers[0] for numbers in record.values["grad.absmax"].values() if numbers[0] > 0]
    smallest = [_low(counts) for counts in record.values["grad.exponents"].values() if max(counts) > 0]
    if not largest or not smallest or not all(map(math.isfinite, largest)):
        return math.nan
    return repairing_loss_scale(max(largest), min(min(smallest), max(largest)), dtype)


def _low(counts: tuple[float, ...]) -> float:
    """Power of two that all but the smallest entries reach."""
    spare = (1 - KEPT) * math.fsum(counts)
    for bin_, count in enumerate(counts):
        spare -= count
        if spare < 0:
            return math.ldexp(1.0, EXPONENT_LOW + bin_)
    return math.nan
