"""grad_exponents: the histogram of every gradient's exponents, to hold against the range of a dtype."""

import dataclasses

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record
from unitygain.stats import EXPONENT_HIGH, EXPONENT_LOW

UNIT = "log2 of the most frequent |dL/d(output)|"
COLUMNS = tuple(f"2^{exponent}" for exponent in range(EXPONENT_LOW, EXPONENT_HIGH + 1))
NOTE = "NaN where no entry of the gradient is finite and other than zero"


@measure(unit=UNIT, needs=("grad.exponents",))
def grad_exponents(case: Case, record: Record) -> Profile | None:
    """Number of entries of the gradient at every leaf module call's output, per power of two.

    Zeros and non-finite entries are not counted. Above 2^20 entries the counts are estimated from every
    k-th entry.

    Cost: about ten passes over at most 2^20 entries per gradient. No side effects.

    Args:
        case: Not used.
        record: A record with `grad.exponents`.

    Returns:
        The most frequent exponent per leaf call (the lowest in a tie), in forward order. Rows: 291 counts;
        column ``2^k`` counts 2^k <= |x| < 2^(k+1), the first and last column everything beyond. Labels are
        the module types. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> case = Case(nn.Linear(4, 1), loss=lambda m, x: m(x).mean(), data=[torch.ones(2, 4)])
        >>> grad_exponents(case, observe(case, ["grad.exponents"])).values
        (-1.0,)
    """
    profile = record.profile("grad.exponents", name="grad_exponents", unit=UNIT, note=NOTE)
    if not profile:
        return None
    rows = tuple(record.values["grad.exponents"][site] for site in profile.sites)
    return dataclasses.replace(profile, values=tuple(map(_mode, rows)), columns=COLUMNS, rows=rows)


def _mode(counts: tuple[float, ...]) -> float:
    most = max(counts)
    return float(EXPONENT_LOW + counts.index(most)) if most > 0 else float("nan")
