"""Time: what is lost on the way is told apart from what is padded, masked, or merely small."""

import dataclasses
import math

import pytest

from unitygain._types import Profile, Site
from unitygain.rules import ug401_vanishing_over_time as ug401
from unitygain.rules import ug402_exploding_over_time as ug402
from unitygain.rules._time import read_passages


def series(*values: float, gates: bool = False, stated: bool = True, path: str = "rnn") -> dict[str, Profile]:
    """Return the profile of one module, with the slope that the measure states."""
    sites = tuple(Site(path, time=time) for time in range(len(values)))
    alive = [(t, 20 * math.log10(v)) for t, v in enumerate(values) if 0 < v < math.inf]
    slope = (alive[0][1] - alive[-1][1]) / (alive[-1][0] - alive[0][0]) if len(alive) > 1 else math.nan
    facts = {"module": path, "slope_db_per_step": slope} if stated else {}
    profiles = {"time_grad_rms": Profile("time_grad_rms", "rms", sites, values, facts=facts)}
    if gates:
        site = (Site(path, leaf=".(forget)"),)
        profiles["gate_mean"] = Profile("gate_mean", "mean", site, (0.5,), labels=("forget",))
    return profiles


def decay(rate: float, steps: int) -> list[float]:
    return [rate ** (steps - 1 - time) for time in range(steps)]


@pytest.mark.parametrize(
    ("rate", "steps", "gates", "severity"),
    [
        (0.5, 8, False, None),
        (0.5, 16, False, "info"),
        (0.5, 30, False, "warning"),
        (0.5, 60, False, "error"),
        (0.64, 28, True, None),
        (0.64, 64, True, "info"),
        (0.64, 150, True, "warning"),
        (0.99, 500, False, None),
    ],
)
def test_severity_follows_what_is_left(rate, steps, gates, severity):
    found = list(ug401.judge(series(*decay(rate, steps), gates=gates)))
    assert [finding.severity for finding in found] == ([severity] if severity else [])


@pytest.mark.parametrize("gates", [False, True])
def test_exactly_zero_after_a_decay_is_an_error(gates):
    values = [0.0] * 50 + decay(0.1, 40)
    (finding,) = ug401.judge(series(*values, gates=gates))
    assert finding.severity == "error"
    assert "exactly 0" in finding.message
    assert finding.value == pytest.approx(-20.0)
    assert finding.evidence["horizon"] == 4


def test_masked_steps_are_not_lost_steps():
    """Exactly zero without a decay before: the step was masked."""
    assert not list(ug401.judge(series(*[0.0] * 30, *[1.0, 0.9] * 20)))


def test_padding_at_the_end_is_no_growth():
    values = [*decay(0.9, 20), *[0.0] * 100]
    assert not list(ug401.judge(series(*values)))
    assert not list(ug402.judge(series(*values)))
    (passage,) = read_passages(series(*values)["time_grad_rms"])
    assert passage.steps == 20


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_left_to_others(bad):
    values = decay(0.1, 40)
    values[3] = bad
    assert not list(ug401.judge(series(*values)))
    assert not list(ug402.judge(series(*values[::-1])))


def test_growth_is_found_and_noise_is_not():
    (finding,) = ug402.judge(series(*decay(1.4, 40)))
    assert finding.severity == "error"
    assert finding.value == pytest.approx(20 * math.log10(1.4))
    noise = [10 ** ((-1) ** time * 2.0) for time in range(40)]
    assert not list(ug402.judge(series(*noise)))


def test_a_value_between_is_enough_of_a_trend_only_if_most_steps_agree():
    """A jump at one step is no decay over time."""
    jump = [1e-6] * 20 + [1.0] * 20
    assert not list(ug401.judge(series(*jump)))


def test_a_module_whose_slope_is_not_stated_is_judged_without_a_prediction():
    profiles = series(*decay(0.5, 40), stated=False)
    (finding,) = ug401.judge(profiles)
    assert finding.fact == ""
    assert finding.reread(profiles) == finding.value == 0.5**39
    assert all(cause.predicted is None for cause in finding.causes)


def test_gates_are_blamed_with_their_opening():
    (finding,) = ug401.judge(series(*decay(0.64, 200), gates=True))
    first = finding.causes[0]
    assert first.remedy == "open_gates"
    assert first.predicted is not None
    assert first.predicted[0] == pytest.approx(20 * math.log10(0.64) / 3)
    assert "0.5" in first.text


def test_recurrent_weights_are_blamed_with_their_gain():
    profiles = series(*decay(0.55, 60))
    site = (Site("rnn.weight_ih_l0"), Site("rnn.weight_hh_l0"))
    profiles["weight_gain"] = Profile("weight_gain", "gain", site, (0.3, 0.577), labels=("RNN", "RNN"))
    (finding,) = ug401.judge(profiles)
    first = finding.causes[0]
    assert first.parameters == {"sites": ("rnn",), "gain": 1.0, "only": "weight_hh*"}
    assert "0.577" in first.text


def test_a_gate_that_is_nearly_shut_is_opened_as_far_as_any():
    profiles = series(*decay(0.1, 100), gates=True)
    shut = profiles["gate_mean"]
    profiles["gate_mean"] = dataclasses.replace(shut, values=(0.007,) * len(shut))
    (finding,) = ug401.judge(profiles)
    bias = finding.causes[0].parameters["bias"]
    assert 1 / (1 + math.exp(-bias) * 0.993 / 0.007) == pytest.approx(1 / (1 + math.exp(-4.0)))


def test_a_loop_of_the_model_s_own_is_named_as_the_cause():
    profiles = series(*decay(0.5, 60))
    sites = tuple(Site("", leaf="(input 0)", time=time) for time in range(60))
    facts = profiles["time_grad_rms"].facts | {"module": "(model)(input 0)"}
    profiles["time_grad_rms"] = dataclasses.replace(profiles["time_grad_rms"], sites=sites, facts=facts)
    (finding,) = ug401.judge(profiles)
    assert finding.causes[0].text.startswith("recurrence: the model's own loop passes 0.5x per step back")


def test_a_layer_that_a_loop_calls_at_every_step_is_blamed_with_its_gain():
    profiles = series(*decay(0.5, 60), path="cell")
    layer = Profile("weight_gain", "gain", (Site("cell"), Site("head")), (0.577, 1.0), labels=("Linear",) * 2)
    (finding,) = ug401.judge({**profiles, "weight_gain": layer})
    first = finding.causes[0]
    assert first.text.startswith("recurrent weights: sqrt(fan_in·var) = 0.577 in cell")
    assert first.parameters == {"sites": ("cell",), "gain": 1.0}
    assert first.predicted is not None
    assert first.predicted[0] < 20 * math.log10(0.5 / 0.577) < first.predicted[1]


def test_the_layers_of_one_loop_are_one_finding():
    names = ("i2h", "h2h", "act")
    parts = [series(*decay(0.5, 60), path=name)["time_grad_rms"] for name in names]
    sites = tuple(site for part in parts for site in part.sites)
    values = tuple(value for part in parts for value in part.values)
    merged = dataclasses.replace(parts[2], sites=sites, values=values)
    gains = Profile("weight_gain", "gain", (Site("i2h"), Site("h2h")), (0.56, 0.58), labels=("Linear",) * 2)
    (finding,) = ug401.judge({"time_grad_rms": merged, "weight_gain": gains})
    assert [site.path for site in finding.sites] == ["act", "i2h", "h2h"]
    assert finding.fact == "slope_db_per_step"
    assert "in i2h, h2h" in finding.causes[0].text
    assert "cannot be told" in finding.causes[0].note
    ends = (Site("i2h.weight_hh_l0"), Site("h2h.weight_hh_l0"))
    own = dataclasses.replace(gains, sites=ends)
    assert len(list(ug401.judge({"time_grad_rms": merged, "weight_gain": own}))) == 3


def test_growth_of_a_gated_cell_with_small_weights_has_a_cause_as_well():
    (finding,) = ug402.judge(series(*decay(1.3, 40), gates=True))
    assert [cause.text for cause in finding.causes] == ["length: 40 steps at 1.3x per step"]


@pytest.mark.parametrize(("other", "blamed"), [(0.56, True), (1.05, True), (1.2, False)])
def test_the_one_layer_of_a_loop_that_is_loud_is_blamed_for_growth(other, blamed):
    """A cell by hand has a map of the input beside that of the state; a quiet one makes nothing grow."""
    parts = [series(*decay(1.7, 60), path=name)["time_grad_rms"] for name in ("cell.W", "cell.U")]
    sites = tuple(site for part in parts for site in part.sites)
    merged = dataclasses.replace(parts[1], sites=sites, values=parts[0].values + parts[1].values)
    gains = Profile(
        "weight_gain", "x", (Site("cell.W"), Site("cell.U")), (other, 12.0), labels=("Linear",) * 2
    )
    (finding,) = ug402.judge({"time_grad_rms": merged, "weight_gain": gains})
    first = finding.causes[0]
    assert first.text.startswith("recurrent weights: sqrt(fan_in·var) = 12 in cell.U") is blamed
    assert first.parameters == ({"sites": ("cell.U",), "gain": 1.0} if blamed else {})


@pytest.mark.parametrize(
    ("tail", "expected"),
    [(19.0, "info"), (20.0, "warning"), (59.0, "warning"), (60.0, "info"), (math.nan, "info")],
    ids=["shorter than the reach", "as long", "all but one", "all steps alike", "not known"],
)
def test_padding_that_is_read_at_the_end_is_a_warning_whatever_the_gates(tail, expected):
    steps = tuple(Site("lstm", time=t) for t in range(60))
    values = tuple(0.7 ** (59 - t) for t in range(60))
    decay = Profile(
        "time_grad_rms",
        "rms",
        steps,
        values,
        columns=("time_grad_rms", "constant_tail"),
        rows=tuple((value, tail) for value in values),
    )
    gate = Profile("gate_mean", "mean", (Site("lstm", leaf="(forget)"),), (0.5,), labels=("forget",))
    (finding,) = ug401.judge({"time_grad_rms": decay, "gate_mean": gate})
    assert finding.severity == expected
    assert finding.causes[0].text.startswith("padding: ") == (expected == "warning")


@pytest.mark.parametrize(
    ("again", "named"),
    [(0.25, "0.25 in again"), (0.05, None), (0.6, "in enter, again")],
    ids=["its map", "a map that passes less than the loop", "two maps alike"],
)
def test_the_map_that_passes_what_the_loop_does_is_the_recurrent_one(again, named):
    """A loop by hand at -13 dB per step, whose input map has PyTorch's default gain."""
    rate = 0.22 if again < 0.5 else 0.5
    steps = [Site(path, time=t) for path in ("enter", "again") for t in range(25)]
    values = tuple(rate ** (24 - t) for _ in range(2) for t in range(25))
    labels = tuple(site.path for site in steps)
    decay = Profile("time_grad_rms", "rms", tuple(steps), values, labels=labels)
    weights = Profile(
        "weight_gain", "gain", (Site("enter"), Site("again")), (0.58, again), labels=("Linear",) * 2
    )
    found = list(ug401.judge({"time_grad_rms": decay, "weight_gain": weights}))
    texts = [cause.text for finding in found for cause in finding.causes if "recurrent weights" in cause.text]
    assert [named in text for text in texts] == ([True] * len(found) if named else [])
