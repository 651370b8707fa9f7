"""The rules on exponents at the boundaries of their thresholds."""

import math

import pytest

from unitygain._types import Profile, Site
from unitygain.rules import ug403_chaotic_regime as ug403
from unitygain.rules import ug404_memory_horizon as ug404
from unitygain.rules import ug405_gate_closed as ug405
from unitygain.rules import ug406_transient_growth as ug406

SITE = (Site("rnn"),)
EPS = 2.0**-23


def spectrum(value: float, *, error: float = 0.0, steps: int = 100, kind: str = "tanh") -> dict[str, Profile]:
    horizon = math.log(1 / EPS) / -value if value < 0 else math.inf
    profile = Profile(
        "lyapunov_spectrum",
        "nat",
        SITE,
        (value,),
        error=(error,),
        columns=("steps", "horizon", "exponent_1"),
        rows=((float(steps), horizon, value),),
        labels=(kind,),
    )
    return {"lyapunov_spectrum": profile}


def gates(mean: float, kind: str = "forget") -> dict[str, Profile]:
    site = (Site("rnn", leaf=f".({kind})"),)
    return {"gate_mean": Profile("gate_mean", "mean", site, (mean,), labels=(kind,))}


def peak(growth: float, radius: float = 0.8) -> dict[str, Profile]:
    columns = ("at_steps", "non_normality", "spectral_radius")
    rows = ((9.0, 0.9, radius),)
    return {
        "transient_growth": Profile("transient_growth", "norm", SITE, (growth,), columns=columns, rows=rows)
    }


def gain(value: float) -> dict[str, Profile]:
    return {
        "weight_gain": Profile("weight_gain", "gain", (Site("rnn.weight_hh_l0"),), (value,), labels=("RNN",))
    }


@pytest.mark.parametrize(
    ("value", "error", "steps", "kind", "fires"),
    [
        (0.10, 0.02, 100, "tanh", True),
        (0.10, 0.02, 100, "lstm", True),
        (0.10, 0.02, 100, "relu", False),
        (0.10, 0.04, 100, "tanh", False),
        (0.10, 0.02, 80, "tanh", False),
        (5.0, 0.1, 7, "tanh", False),
        (-0.1, 0.2, 1000, "gru", False),
        (math.nan, math.nan, 100, "gru", False),
    ],
)
def test_chaos_needs_an_interval_above_zero_and_room_to_grow(value, error, steps, kind, fires):
    found = list(ug403.judge(spectrum(value, error=error, steps=steps, kind=kind)))
    assert bool(found) == fires
    for finding in found:
        assert finding.interval == (value - error, value + error)
        assert finding.threshold == pytest.approx(math.log(1e3) / steps)


@pytest.mark.parametrize(
    ("value", "error", "steps", "severity"),
    [
        (-0.5, 0.0, 63, None),  # a horizon of 31.9 steps
        (-0.5, 0.0, 65, "info"),
        (-0.5, 0.0, 159, "info"),
        (-0.5, 0.0, 160, "warning"),
        (-0.5, 0.1, 160, "info"),  # 39.9 at the upper end
        (-0.5, 0.5, 1000, None),
        (-math.inf, math.nan, 100, "warning"),
        (0.1, 0.0, 1000, None),
        (-9.0, 0.0, 7, None),
    ],
)
def test_horizon_is_held_against_the_sequence(value, error, steps, severity):
    found = list(ug404.judge(spectrum(value, error=error, steps=steps)))
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_threshold_of_the_horizon_is_the_exponent_that_would_do():
    (finding,) = ug404.judge(spectrum(-0.5, steps=200))
    assert finding.threshold == pytest.approx(math.log(EPS) / 40)
    assert not list(ug404.judge(spectrum(math.log(EPS) / 200, steps=200)))


def test_a_gate_is_named_before_the_weights():
    (finding,) = ug404.judge(spectrum(-0.5, steps=200, kind="lstm") | gates(0.5) | gain(0.577))
    assert finding.causes[0].remedy == "open_gates"
    assert finding.causes[0].parameters["bias"] == pytest.approx(4.0)
    (finding,) = ug404.judge(spectrum(-0.5, steps=200) | gain(0.577))
    assert finding.causes[0].remedy == "rescale_weights"


@pytest.mark.parametrize("kind", ["forget", "update"])
def test_a_closed_gate_is_opened_from_where_it_stands(kind):
    (finding,) = ug405.judge(gates(0.099, kind))
    bias = finding.causes[0].parameters["bias"]
    assert math.log(0.099 / 0.901) + bias == pytest.approx(2.0)
    assert not list(ug405.judge(gates(0.101, kind)))


def test_a_gate_of_exactly_zero_is_spelt():
    (finding,) = ug405.judge(gates(0.0))
    assert finding.value == 0
    assert math.isfinite(finding.causes[0].parameters["bias"])


@pytest.mark.parametrize("kind", ["input", "output", "reset", "sigmoid"])
def test_other_gates_may_be_closed(kind):
    assert not list(ug405.judge(gates(0.01, kind)))


@pytest.mark.parametrize(
    ("growth", "value", "error", "radius", "fires"),
    [
        (10.0, -0.3, 0.1, 0.8, True),
        (9.9, -0.3, 0.1, 0.8, False),
        (50.0, -0.3, 0.3, 0.8, False),
        (50.0, -0.3, 0.1, 1.0, False),
        (50.0, 0.2, 0.1, 0.8, False),
        (math.inf, -0.3, 0.1, 0.8, False),
    ],
)
def test_growth_counts_where_eigenvalues_and_exponents_say_decay(growth, value, error, radius, fires):
    found = list(ug406.judge(spectrum(value, error=error) | peak(growth, radius)))
    assert bool(found) == fires


def test_growth_of_a_cell_without_an_exponent_is_left_out():
    assert not list(ug406.judge(spectrum(-0.3, steps=7) | peak(50.0)))


def test_large_weights_are_the_first_cause_of_growth():
    (finding,) = ug406.judge(spectrum(-0.3) | peak(60.0) | gain(2.0))
    assert finding.causes[0].predicted == (1.0, 20.0)
    (finding,) = ug406.judge(spectrum(-0.3) | peak(60.0) | gain(1.0))
    assert finding.causes[0].remedy is None


def test_a_scale_that_cannot_have_made_the_growth_is_not_its_first_cause():
    seen = peak(60.0)
    steps = dict(zip(seen["transient_growth"].columns, seen["transient_growth"].rows[0], strict=True))[
        "at_steps"
    ]
    for scale, first in ((60 ** (0.9 / steps), None), (60 ** (1.1 / steps), "rescale_weights")):
        (finding,) = ug406.judge(spectrum(-0.3) | seen | gain(scale))
        assert finding.causes[0].remedy == first


def over_time(*values: float) -> dict[str, Profile]:
    sites = tuple(Site("rnn", time=step) for step in range(len(values)))
    return {"time_grad_rms": Profile("time_grad_rms", "rms", sites, values)}


@pytest.mark.parametrize(
    ("first", "severity"), [(1.0, "info"), (0.11, "info"), (0.09, "warning"), (1e-30, "warning")]
)
def test_a_short_memory_is_a_note_where_the_loss_reads_the_early_steps_itself(first, severity):
    (finding,) = ug404.judge(spectrum(-0.8, steps=200) | over_time(first, *[1.0] * 199))
    assert finding.severity == severity


def test_steps_behind_the_last_that_is_read_do_not_count():
    """Padding: of 200 steps 30 are read, of which a memory of 20 is more than half."""
    memory = spectrum(math.log(EPS) / 20, steps=200)
    assert [finding.severity for finding in ug404.judge(memory)] == ["warning"]
    read = [1e-6 ** (1 - step / 29) for step in range(30)]
    assert not list(ug404.judge(memory | over_time(*read, *[0.0] * 170)))
    (finding,) = ug404.judge(memory | over_time(*[1e-6 ** (1 - step / 49) for step in range(50)]))
    assert (finding.severity, finding.evidence["steps"]) == ("info", 50)
