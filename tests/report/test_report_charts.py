"""What charts are made of: thinning, axes, marks, and the ranges of the number formats."""

import math
import re

import hypothesis.strategies as st
from hypothesis import given, settings

from unitygain._types import Profile, Site
from unitygain.report._chart import Chart, Panel, Series
from unitygain.report._heat import FORMATS
from unitygain.report._panels import three_numbers
from unitygain.report._scale import fit
from unitygain.report._svg import draw, tick_step
from unitygain.report._thin import keep, merge


@settings(deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=400), st.integers(10, 60))
def test_thinning_keeps_every_extreme(values: list[float], limit: int) -> None:
    kept = keep([values], len(values), limit)
    assert kept == sorted(set(kept))
    assert len(kept) <= max(limit, 5)
    finite = [v for v in values if math.isfinite(v)]
    shown = [values[k] for k in kept if math.isfinite(values[k])]
    if finite:
        assert (min(shown), max(shown)) == (min(finite), max(finite))
    assert any(not math.isfinite(values[k]) for k in kept) == (len(finite) < len(values))


def test_merging_keeps_what_is_farthest_from_zero() -> None:
    assert merge([[1.0, -3.0], [-2.0, 1.0], [0.5, math.nan]], 2) == ([[-2.0, -3.0], [0.5, math.nan]], 2)


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9), st.booleans())
def test_axes_hold_their_values(values: list[float], log: bool) -> None:
    scale = fit(values, 180.0, log)
    for value in values:
        place = scale.place(value)
        assert place is None if log and value <= 0 else place is not None and -0.1 <= place <= 180.1
    assert 2 <= len(scale.lines()) <= 40


def test_ticks() -> None:
    assert [text for _, text in fit([0.0, 10.0], 180.0, False).lines()] == ["0", "2", "4", "6", "8", "10"]
    assert [text for _, text in fit([1e-9, 1.0], 180.0, True).lines()] == [
        "10⁻⁸",
        "10⁻⁶",
        "10⁻⁴",
        "10⁻²",
        "10⁰",
    ]
    assert [tick_step(count, 10) for count in (5, 24, 100, 101)] == [1, 5, 10, 20]


def test_bars_and_lines_stand_where_their_values_are() -> None:
    series = (Series("a", "back", [-2.0, math.nan, 4.0], "bars"),)
    svg = draw(Chart("k", "t", "", "", ["x", "y", "z"], (Panel("p", series, height=132.0, baseline=0.0),)))
    # 12 pixels are padding; the other 120 hold -2 .. 4, so that zero is 86 from the top.
    assert re.search(r'class="bar back" d="M0\.12 86\.0V126\.0h[\d.]+V86\.0zM2\.12 86\.0V6\.0h', svg)
    assert 'class="gap back" d="M1.5 0V132.0"' in svg


def test_three_numbers_are_read_from_either_spelling() -> None:
    sites = (Site("(model).(bound)"), Site("", leaf=".(typical)"), Site("other"))
    profile = Profile("chain_gain", "", sites, (22.0, -1.0, 3.0))
    assert [(name, value) for name, value, _ in three_numbers({"chain_gain": profile})] == [
        ("bound", 22.0),
        ("typical", -1.0),
    ]


def test_the_formats_agree_with_their_definitions() -> None:
    import torch

    dtypes = {"e5m2": torch.float8_e5m2, "e4m3": torch.float8_e4m3fn}
    for name, tiny, normal, largest in FORMATS:
        info = torch.finfo(dtypes.get(name) or getattr(torch, name))
        assert math.frexp(info.smallest_normal)[1] - 1 == normal
        assert math.frexp(info.max)[1] - 1 == largest
        # A format with m fraction bits has eps = 2^-m, and its smallest subnormal is smallest_normal * eps.
        assert math.frexp(info.smallest_normal * info.eps)[1] - 1 == tiny
