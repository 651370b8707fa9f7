"""Robust z against a clean history: what is a spike, what is not, and what a spike leaves behind."""

import math
import statistics

import numpy as np
import pytest

from unitygain._types import Frame
from unitygain.detectors import LossScale, Nonfinite, Spike, replay


def frames(values, quantity="grad_norm"):
    return [Frame(step, {quantity: float(value)}) for step, value in enumerate(values, 1)]


def test_the_threshold_is_median_and_mad_of_the_window():
    values = np.random.default_rng(0).lognormal(0.0, 0.5, 200)
    spike = Spike(window=64, threshold=5.0)
    replay([spike], frames(values))
    logs = [math.log(value) for value in values[-64:]]
    center = statistics.median(logs)
    limit = math.exp(center + 5.0 * 1.4826 * statistics.median(abs(x - center) for x in logs))
    assert spike.judge(Frame(1, {"grad_norm": limit * (1 - 1e-12)})) is None
    event = spike.judge(Frame(1, {"grad_norm": limit * (1 + 1e-12)}))
    assert event is not None
    assert event.threshold == pytest.approx(limit, rel=1e-12)


def test_scaling_all_norms_scales_the_threshold_alone():
    values = np.random.default_rng(1).lognormal(0.0, 0.7, 300)
    values[250:] *= 40.0
    for factor in (1e-200, 1e200):
        plain, scaled = replay([Spike()], frames(values)), replay([Spike()], frames(values * factor))
        assert [event.step for event in plain] == [event.step for event in scaled]
        assert len(plain) > 0


def test_what_is_not_healthy_never_enters_the_history():
    healthy = [1.0 + i % 7 / 20 for i in range(60)]
    spike, clean = Spike(), Spike()
    mixed = [*healthy[:40], math.nan, 1e30, math.inf, 500.0, math.nan, 3e8, *healthy[40:]]
    found = replay([spike, Nonfinite("grad_norm")], frames(mixed))
    replay([clean], frames(healthy))
    assert len(found) == 6
    assert spike.state_dict() == clean.state_dict()


def test_a_frame_that_another_detector_refuses_is_not_learnt():
    spike = Spike()
    healthy = [Frame(step, {"loss": 1.0, "grad_norm": 1.0 + step % 3}) for step in range(30)]
    replay([Nonfinite(), spike], [*healthy, Frame(31, {"loss": math.nan, "grad_norm": 2.5})])
    assert 2.5 not in spike.state_dict()["history"]


def test_after_a_spike_the_level_of_release_counts():
    spike = Spike(threshold=6.0, release=3.0)
    replay([spike], frames([1.0 + i % 5 / 100 for i in range(40)]))
    between = Frame(41, {"grad_norm": 1.7})  # the least ratio of 2 stands for 6, so 1.41 for 3
    assert spike.judge(between) is None
    assert spike.judge(Frame(42, {"grad_norm": 50.0})) is not None
    assert spike.judge(between) is not None
    assert spike.judge(Frame(43, {"grad_norm": 1.2})) is None
    assert spike.judge(between) is None


def test_a_constant_history_calls_no_rounding_a_spike():
    spike = Spike()
    assert replay([spike], frames([1.0] * 50 + [1.00001, 1.9])) == []
    assert spike.judge(Frame(60, {"grad_norm": 2.1})) is not None


def test_before_there_is_a_history_only_a_thousandfold_counts():
    assert replay([Spike()], frames([1.0, 3.0, 100.0, 0.1, 900.0, 1.0])) == []
    assert [event.step for event in replay([Spike()], frames([1.0, 1.0, 1e4, 1.0]))] == [3]


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_satisfied_loss_gives_no_scale(value):
    history = [Frame(step, {"loss": 0.0}) for step in range(100)]
    assert replay([Spike("loss", log=False)], [*history, Frame(101, {"loss": value + 4.0})]) == []


def test_negative_losses_are_judged_upwards_alone():
    losses = [-10.0 + i % 9 / 10 for i in range(60)]
    found = replay([Spike("loss", log=False)], frames([*losses, -40.0, 40.0], "loss"))
    assert [event.value for event in found] == [40.0]
    assert "where its median" in found[0].message


def test_a_loss_is_judged_by_its_logarithm_until_it_is_not_positive():
    noise = np.random.default_rng(4).chisquare(2, 4000)
    events = {
        log: len(replay([Spike("loss", log=log)], frames(noise, "loss"))) for log in (None, True, False)
    }
    assert events[None] == events[True] <= 2
    assert events[False] > 20, "a squared error is skewed: judged as it is, one in a hundred is a spike"
    mixed = [-0.1 if step % 100 == 0 else value for step, value in enumerate(noise)]
    assert len(replay([Spike("loss", log=None)], frames(mixed, "loss"))) > 20


def test_a_new_level_is_a_spike_until_it_is_accepted():
    spike = Spike()
    assert len(replay([spike], frames([1.0] * 50 + [30.0] * 50))) == 50
    spike.accept()
    assert replay([spike], frames([30.0] * 50)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"release": 7.0}, "release is 7.0 and threshold 6.0"),
        ({"ratio": 1.0}, "ratio is 1.0"),
        ({"least": 200}, "least is 200 and window 128"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Spike(**arguments)


def test_healthy_noise_of_heavy_tails_rarely_is_a_spike():
    """The logarithm follows Student's t with 3 degrees of freedom, then a normal law."""
    values = np.exp(0.3 * np.random.default_rng(2).standard_t(3, 8_000))
    assert len(replay([Spike()], frames(values))) / len(values) < 0.02
    normal = np.exp(0.5 * np.random.default_rng(3).standard_normal(8_000))
    assert len(replay([Spike()], frames(normal))) <= 2


def test_a_scale_that_overflows_every_other_step_is_stuck_at_last():
    flags = [float(step % 2) for step in range(200)]
    scales = [Frame(step, {"loss_scale": 8.0, "overflow": flag}) for step, flag in enumerate(flags)]
    assert len(replay([LossScale(patience=30)], scales)) == 1
    rare = [Frame(step, {"loss_scale": 8.0, "overflow": float(step % 4 == 0)}) for step in range(4000)]
    assert replay([LossScale(patience=30)], rare) == []


def test_the_floor_is_said_once_until_it_recovers():
    low, good = {"loss_scale": 1.0, "overflow": 1.0}, {"loss_scale": 1.0, "overflow": 0.0}
    run = [low, low, low, *[good] * 6, low]
    found = replay([LossScale()], [Frame(step, values) for step, values in enumerate(run)])
    assert [event.step for event in found] == [0, 9]
    assert "which is its floor" in found[0].message


def test_patience_below_one_is_refused():
    with pytest.raises(ValueError, match="patience is 0"):
        LossScale(patience=0)
