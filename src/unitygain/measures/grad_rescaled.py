"""grad_rescaled: how large the gradient is when no exponent is out of range."""

import math

import torch

from unitygain._case import Case, CaseFailure
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.observe import observe
from unitygain.probe.record import Record
from unitygain.stats import EXPONENT_LOW, NUMBER_RANGES, repairing_loss_scale

UNIT = "log10 of rms of dL/d(output), in float64"
COLUMNS = ("log10_rms", "lost_entries", "lost_energy")
NARROW = ("float16", "float8_e4m3fn", "float8_e5m2")
# In float32 the run is repeated only where a gradient comes within this factor of the smallest normal number.
NEAR = 2.0**10
# Loss scale of the second try: 2^900 leaves a factor of 10^37 for gradients that grow on their way.
REACH = 900
REACH_FLOAT32 = 64
# What may be lost when the repairing loss scale is chosen: a hundredth of the energy moves the rms by 0.5 %.
SPARE = 0.01


@measure(
    unit=UNIT, needs=("grad.rms",), passes="1 in float64 where a gradient is near its dtype's range, else 0"
)
def grad_rescaled(case: Case, record: Record) -> Profile | None:
    """Gradient of every leaf module call in float64, to be held against what the run's own dtype shows.

    The pass is repeated in float64 and without autocast where an output is float16 or float8, or where a
    gradient is zero or within 2^10 of its dtype's smallest normal number. Should float64 show zeros too,
    the loss is multiplied by 2^900, and that is taken off the logarithm again. A model that cannot run in
    float64 is run in float32, with 2^64.

    Cost: nothing on a model in float32 whose gradients have ordinary sizes; else a copy of the model in
    float64 and one pass. Dropout is drawn anew. No side effects on the case.

    Args:
        case: An isolated case.
        record: A record with `grad.rms`.

    Returns:
        One value per leaf call in forward order; minus infinity for a gradient that is truly zero. Rows add
        the fraction of its non-zero entries that the output's own dtype rounds to zero, and the fraction
        of its energy in them. Labels are those dtypes. Facts: the largest of these energy fractions over
        the float16 and float8 sites as ``lost_energy`` with its ``lost_site``, the power of two by which to
        multiply the loss per dtype (``loss_scale_float16``; NaN if none helps), and ``own_step`` (1 where
        the case has a step of its own, which may scale the loss).
        None where the run's own dtype shows all there is.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> x = torch.ones(2, 4)
        >>> case = Case(nn.Linear(4, 1), loss=lambda m, x: m(x).sum() * 1e-30 * 1e-30, data=[x])
        >>> record = observe(case, ["grad.rms"])
        >>> record.values["grad.rms"][record.of("output")[0].site]
        (0.0,)
        >>> round(grad_rescaled(case, record).values[0])
        -60
    """
    dtypes = {place.site: _real(place.dtype) for place in record.of("output")}
    seen = {site: numbers[0] for site, numbers in record.values.get("grad.rms", {}).items()}
    if not any(_needs_room(dtypes[site], rms) for site, rms in seen.items()):
        return None
    wide, shift = _observe_wide(case, seen)
    sites = tuple(site for site in seen if site in wide.values["grad.rms"])
    rows = tuple(_row(wide, site, dtypes[site], shift) for site in sites)
    facts = _facts(sites, rows, wide, dtypes) | {"own_step": float(case.step is not None)}
    return Profile(
        "grad_rescaled",
        UNIT,
        sites,
        tuple(row[0] for row in rows),
        columns=COLUMNS,
        rows=rows,
        labels=tuple(dtypes[site] for site in sites),
        facts=facts,
    )


def _needs_room(dtype: str, rms: float) -> bool:
    smallest = torch.finfo(getattr(torch, dtype)).smallest_normal
    return dtype in NARROW or rms < NEAR * smallest


def _observe_wide(case: Case, seen: dict[Site, float]) -> tuple[Record, int]:
    """Observe one pass with room; return its record and the binary logarithm of the loss's factor.

    Code that insists on float32 fails in float64; then it runs in float32, on both sides of a factor.
    """
    try:
        dtype, shift, record = torch.float64, REACH, _observe(case, torch.float64, 0)
    except CaseFailure:
        dtype, shift, record = torch.float32, REACH_FLOAT32, _observe(case, torch.float32, 0)
    found = record.values.get("grad.rms", {})
    if any(found.get(site, (0.0,))[0] < NEAR * torch.finfo(dtype).smallest_normal for site in seen):
        again = _observe(case, dtype, shift)
        if all(math.isfinite(numbers[0]) for numbers in again.values.get("grad.rms", {}).values()):
            return again, shift
    return record, 0


def _observe(case: Case, dtype: torch.dtype, shift: int) -> Record:
    twin = case.copy()
    twin.precision = None
    twin.move(dtype=dtype)
    loss = twin.loss
    twin.loss = lambda model, batch: loss(model, batch).to(dtype) * 2.0**shift
    return observe(twin, ("grad.rms", "grad.exponents"))


def _row(wide: Record, site: Site, dtype: str, shift: int) -> tuple[float, float, float]:
    rms = wide.values["grad.rms"][site][0]
    value = math.log10(rms) - shift * math.log10(2) if rms > 0 else -math.inf if rms == 0 else rms
    reach = NUMBER_RANGES.get(dtype)
    if reach is None or shift:
        # Two to the minus 149, the least of float32, lies below every histogram that was shifted up.
        lost = float(value < -45.0)
        return value, lost, lost
    counts, energy = _histogram(wide, site)
    # The bin from half the smallest subnormal number up to it rounds up, all bins below round to zero.
    first_kept = round(math.log2(reach.smallest_subnormal)) - 1 - EXPONENT_LOW
    return value, _share(counts, first_kept), _share(energy, first_kept)


def _histogram(wide: Record, site: Site) -> tuple[list[float], list[float]]:
    """Entries and their energy per power of two; x² is taken as even over [2^k, 2^(k+1)): 7/3·4^k."""
    counts = list(wide.values["grad.exponents"][site])
    return counts, [n * 7 / 3 * 4.0 ** (k + EXPONENT_LOW) for k, n in enumerate(counts)]


def _share(numbers: list[float], below: int) -> float:
    total = math.fsum(numbers)
    return math.fsum(numbers[:below]) / total if total else math.nan


def _facts(
    sites: tuple[Site, ...], rows: tuple[tuple[float, ...], ...], wide: Record, dtypes: dict[Site, str]
) -> dict[str, float | str]:
    facts: dict[str, float | str] = {}
    narrow = [(row[2], site) for site, row in zip(sites, rows, strict=True) if dtypes[site] in NARROW]
    judged = [(lost, site) for lost, site in narrow if not math.isnan(lost)]
    if judged:
        worst, where = max(judged, key=lambda pair: pair[0])
        facts |= {"lost_energy": worst, "lost_site": str(where)}
    for dtype in dict.fromkeys(dtypes[site] for _, site in judged):
        ranges = [_range(wide, site) for _, site in judged if dtypes[site] == dtype]
        smallest, largest = min(low for low, _ in ranges), max(high for _, high in ranges)
        facts[f"loss_scale_{dtype}"] = repairing_loss_scale(largest, smallest, dtype)
    return facts


def _range(wide: Record, site: Site) -> tuple[float, float]:
    """Magnitude below which a hundredth of the energy lies, and one that no entry exceeds."""
    _, energy = _histogram(wide, site)
    filled = [k for k, e in enumerate(energy) if e]
    low = next((k for k in filled if _share(energy, k + 1) > SPARE), filled[0])
    return 2.0 ** (low + EXPONENT_LOW), 2.0 ** (filled[-1] + 1 + EXPONENT_LOW)


def _real(dtype: str) -> str:
    return {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
