"""What stands beside a gain: the draws' own law, uniform on healthy networks, silent where there is none."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import unitygain.measures
from unitygain._case import Case
from unitygain._diagnose import measure_all
from unitygain._registry import MEASURES
from unitygain._types import Profile
from unitygain.probe.isolate import isolated
from unitygain.probe.redraw import LEAST

assert unitygain.measures
GAINS = ("forward_gain", "backward_gain", "rms_gain")


def make_case(seed: int, *, width: int = 24, depth: int = 6, change: float = 1.0, samples: int = 8) -> Case:
    """Return a He-ReLU network; the third layer's weights are multiplied by `change`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU())]
        for layer in layers[::2]:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        layers[4].weight.data *= change
        model = nn.Sequential(*layers, nn.Linear(width, 1))
        return Case(model, lambda m, x: m(x).square().mean(), [torch.randn(samples, width)])


def measured(case: Case, *names: str) -> dict[str, Profile]:
    with isolated(case) as (subject, _):
        chosen = [MEASURES[name] for name in names or GAINS]
        profiles, _, skipped = measure_all(subject, None, 8, 0, lambda *_: None, chosen)
    assert not skipped
    return profiles


def test_every_gain_has_expected_interval_and_p_beside_it():
    profiles = measured(make_case(0))
    for name, profile in profiles.items():
        assert profile.expected is not None, name
        assert profile.interval is not None
        assert profile.p_value is not None
        ends = zip(profile.interval, profile.expected, profile.p_value, profile.values, strict=True)
        for (low, high), expected, p, value in ends:
            assert low < expected < high
            assert (p < 0.05) == (not low <= value <= high) or value < expected
        assert profile.facts["law"] == "redrawn"
        assert profile.facts["p_least"] == pytest.approx(1 / (10 * float(profile.facts["draws"])))
        assert "in random places" in profile.note
    assert profiles["rms_gain"].facts["draws"] == LEAST
    assert profiles["backward_gain"].facts["draws"] == 99


def test_scale_of_one_layer_is_expected_and_a_trunk_at_unity_gain_is_not():
    """A layer at a hundredth of its weights does what such weights do; the trunk is far from unity gain."""
    profile = measured(make_case(0, change=0.01), "backward_gain")["backward_gain"]
    assert profile.expected is not None
    assert profile.p_value is not None
    assert profile.expected[2] == pytest.approx(0.01, rel=0.3)
    assert profile.p_value[2] > 0.01
    facts = profile.facts
    assert facts["redrawn_p"] > 0.01
    assert facts["redrawn_db"] == pytest.approx(-40, abs=6)
    assert (facts["unity_p"], facts["unity_p_least"]) == (pytest.approx(1 / 990), pytest.approx(1 / 990))
    assert facts["unity_db_low"] < facts["unity_db"] < facts["unity_db_high"]


def test_a_layer_that_is_turned_towards_its_signal_is_unusual():
    """The same singular values, but the signal lies along the largest and opens every unit."""
    case = make_case(1, width=32, samples=1)
    layer = case.model[4]
    with torch.no_grad():
        entering = case.model[:4](case.batches[0])[0]
        largest = torch.linalg.svd(layer.weight)[2][0]
        between = nn.functional.normalize(nn.functional.normalize(entering, dim=0) - largest, dim=0)
        layer.weight.sub_(2 * torch.outer(layer.weight @ between, between))
        layer.weight.mul_(torch.sign(layer.weight @ entering)[:, None])
    profile = measured(case, "forward_gain")["forward_gain"]
    assert profile.p_value is not None
    assert profile.p_value[2] == min(profile.p_value)
    assert profile.p_value[2] < 0.01
    assert profile.facts["p_worst_site"] <= 0.02


def test_p_values_of_healthy_networks_are_at_their_level(monkeypatch):
    """Every block of sixteen networks, both ways: uniform, up to what the heavier left tail takes."""
    monkeypatch.setattr("unitygain.probe.redraw.DRAWS", LEAST)
    places, loops, worst = [], [], []
    for seed in range(16):
        for profile in measured(make_case(seed), "forward_gain", "backward_gain").values():
            assert profile.p_value is not None
            places += profile.p_value
            loops.append(profile.facts["redrawn_p"])
            worst.append(profile.facts["p_worst_site"])
    for found in (places, loops, worst):
        # Forward and backward share their weights: count them as half as many.
        reach = 3.5 * math.sqrt(0.1 * 0.9 / (len(found) / 2))
        assert np.mean(np.array(found) <= 0.1) <= 0.1 + reach
    assert stats.kstest(places, "uniform").statistic < 0.2


def test_a_learnt_weight_has_no_p_and_the_note_says_why():
    case = make_case(0)
    with torch.no_grad():
        case.model[4].weight += 1.0
    profile = measured(case, "backward_gain")["backward_gain"]
    assert profile.p_value is None
    assert profile.facts["law"] == "none"
    assert "unity_p" not in profile.facts
    assert "1 of the trunk's 6 weights do not look like random draws" in profile.note


def test_wide_layers_have_the_limit_where_draws_would_take_long(monkeypatch):
    monkeypatch.setattr("unitygain.probe.redraw.BUDGET", 1e5)
    profile = measured(make_case(0), "backward_gain")["backward_gain"]
    assert profile.p_value is None
    assert "too large to be drawn again" in profile.note
    assert profile.facts["unity_draws"] == 0
    variance = 6 * 5 / 24
    assert profile.facts["unity_db"] == pytest.approx(-0.5 * variance * 10 / math.log(10))
