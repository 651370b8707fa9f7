"""time_grad_rms: how much of the loss's gradient reaches the input of every time step."""

import math
from collections.abc import Sequence

import numpy as np

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.record import Record
from unitygain.stats import NUMBER_RANGES

UNIT = "rms of dL/d(input of the time step)"
CALLS = 8
PAIRS = 1000
Line = tuple[tuple[Site, float], ...]


@measure(unit=UNIT, needs=("sequence_grad.rms_by_time", "sequence.constant_tail", "grad.rms"))
def time_grad_rms(case: Case, record: Record) -> Profile | None:
    """Root mean square of the loss's gradient with respect to the input of each time step.

    For an `nn.RNN`, `nn.LSTM` or `nn.GRU` it is the gradient with respect to x_t. For a cell or layer that
    the model itself calls eight times or more, and that is no block of a trunk, it is the gradient at the
    output of the t-th call. In a model without the former it is also the gradient with respect to a floating
    input of three dimensions, whose second is taken for time: a recurrence may be written without modules.
    Parameter gradients hide what this shows: they sum over the steps.

    Cost: one reduction per sequence. No side effects.

    Args:
        case: Not used.
        record: A record with `sequence_grad.rms_by_time`, `sequence.constant_tail` and `grad.rms`.

    Returns:
        One value per module and time step, the first step first; labels are the modules' paths. Rows add how
        many of the last steps are given the same as the very last, in the median sample (NaN where a loop's
        calls are the steps). Facts, of
        the module (``module``) that most steps get no gradient in, then of the steepest: ``steps``;
        ``slope_db_per_step``, decibels per step back in time, negative where the past gets less (median of
        the slopes between pairs of steps with a normal number); ``zeros``, the number of steps whose
        gradient is exactly zero; ``first_nonzero_step``; ``span_db``, the last step that gets one over the
        first; ``last_over_first``, infinite where the first step gets none. None where there is no sequence.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain._registry import MEASURES
        >>> from unitygain.probe.observe import observe
        >>> rnn = nn.RNN(2, 2, nonlinearity="relu", bias=False)
        >>> _ = rnn.weight_hh_l0.data.copy_(torch.eye(2) / 2), rnn.weight_ih_l0.data.copy_(torch.eye(2))
        >>> case = Case(rnn, loss=lambda m, x: m(x)[0][-1].sum(), data=[torch.ones(9, 1, 2)])
        >>> profile = time_grad_rms(case, observe(case, MEASURES["time_grad_rms"].needs))
        >>> str(profile.sites[0]), round(profile.facts["slope_db_per_step"], 4)
        ('(model)@0', -6.0206)
    """
    # A recurrence of bare parameters shows at the model's input alone: what it calls at every step may be a
    # head, whose gradient tells nothing of it.
    inputs = (line for line in _inputs(record) if len(line) >= CALLS)
    lines = _sequences(record) or [*_calls(record), *inputs]
    if not lines:
        return None
    smallest = {p.site: _smallest(p.dtype) for p in (*record.of("sequence"), *record.of("output"))}
    facts = [_facts(line, smallest.get(_origin(line[0][0]), 0.0)) for line in lines]
    worst = max(facts, key=lambda f: (f["zeros"] / f["steps"], abs(_or_zero(f["slope_db_per_step"]))))
    name = str(_origin(lines[facts.index(worst)][0][0]))
    entries = [entry for line in lines for entry in line]
    tails = {site: numbers[0] for site, numbers in record.values.get("sequence.constant_tail", {}).items()}
    return Profile(
        "time_grad_rms",
        UNIT,
        sites=tuple(site for site, _ in entries),
        values=tuple(value for _, value in entries),
        labels=tuple(site.path for site, _ in entries),
        columns=("time_grad_rms", "constant_tail"),
        rows=tuple((value, tails.get(_origin(site), math.nan)) for site, value in entries),
        facts={"module": name, "modules": float(len(lines)), **worst},
    )


def _sequences(record: Record) -> list[Line]:
    return [line for line in _by_time(record) if line and not line[0][0].leaf]


def _inputs(record: Record) -> list[Line]:
    return [line for line in _by_time(record) if line and line[0][0].leaf]


def _by_time(record: Record) -> list[Line]:
    seen = record.values.get("sequence_grad.rms_by_time", {})
    return [
        tuple((Site(s.path, s.call, s.leaf, time), value) for time, value in enumerate(numbers))
        for s, numbers in seen.items()
    ]


def _calls(record: Record) -> list[Line]:
    """Leaf modules that are called again and again, and are no part of a trunk's block."""
    seen = record.values.get("grad.rms", {})
    paths: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for site, numbers in seen.items():
        if site.call and not any(_inside(site.path, block.path) for block in record.blocks):
            paths.setdefault((site.path, site.leaf), []).append((site.call, numbers[0]))
    return [
        tuple((Site(path, 0, leaf, call - 1), value) for call, value in calls)
        for (path, leaf), calls in paths.items()
        if len(calls) >= CALLS
    ]


def _facts(line: Line, smallest: float) -> dict[str, float]:
    times = [float(site.time or 0) for site, _ in line]
    values = [value for _, value in line]
    zero = [value == 0 for value in values]
    usable = [
        (t, 20 * math.log10(v)) for t, v in zip(times, values, strict=True) if smallest <= v < math.inf and v
    ]
    alive = [v for v in values if 0 < v < math.inf]
    first = values[0]
    return {
        "steps": float(len(values)),
        "slope_db_per_step": -_median_slope(usable),
        "zeros": float(sum(zero)),
        "first_nonzero_step": times[zero.index(False)] if False in zero else math.nan,
        "span_db": 20 * (math.log10(alive[-1]) - math.log10(alive[0])) if alive else math.nan,
        "last_over_first": values[-1] / first if first else (math.inf if values[-1] else math.nan),
    }


def _median_slope(points: Sequence[tuple[float, float]]) -> float:
    """Median slope between pairs of at most a thousand points (Theil and Sen): outliers do not move it."""
    if len(points) < 2:
        return math.nan
    chosen = np.array(points)[:: max(1, len(points) // PAIRS)]
    time, level = chosen.T
    first, second = np.triu_indices(len(time), 1)
    return float(np.median((level[second] - level[first]) / (time[second] - time[first])))


def _smallest(dtype: str) -> float:
    reach = NUMBER_RANGES.get(dtype)
    return reach.smallest_normal if reach else 0.0


def _origin(site: Site) -> Site:
    return Site(site.path, site.call, site.leaf)


def _inside(path: str, block: str) -> bool:
    return path == block or path.startswith(f"{block}.")


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0
