"""Depth: a trend needs an interval and a product, one place a distance and a factor; NaN is not judged."""

import dataclasses
import math
import re

import numpy as np
import pytest

from unitygain._types import Profile, Site
from unitygain.measures._staging import slope_facts
from unitygain.rules import ug101_vanishing_over_depth as ug101
from unitygain.rules import ug102_exploding_over_depth as ug102
from unitygain.rules import ug103_vanishing_in_one_place as ug103
from unitygain.rules import ug104_exploding_in_one_place as ug104
from unitygain.rules import ug201_signal_grows as ug201
from unitygain.rules import ug202_signal_dies as ug202

RULES = (ug101, ug102, ug103, ug104)


def gains(*values: float, name: str = "backward_gain") -> dict[str, Profile]:
    """Return a profile of gains with the facts that the measure states."""
    sites = tuple(Site(f"blocks.{index}") for index in range(len(values)))
    return {name: Profile(name, "ratio", sites, values, facts=slope_facts(values))}


def codes(profiles: dict[str, Profile]) -> list[str]:
    return [finding.code for rule in RULES for finding in rule.judge(profiles)]


def test_a_constant_factor_per_block_is_found_with_its_numbers():
    (finding,) = ug101.judge(gains(*[0.41, 0.40, 0.42] * 8))
    assert finding.value == pytest.approx(0.41, rel=0.01)
    assert finding.interval is not None
    assert finding.interval[0] < finding.value < finding.interval[1] < finding.threshold
    assert finding.severity == "error"
    assert "over 24 blocks" in finding.message
    middle = 96 * 20 * math.log10(0.41)
    numbers = re.findall(r"[-+]\d+", str(finding.evidence["at 96 blocks (dB)"]))
    at_96, low, high = map(int, numbers)
    assert at_96 == pytest.approx(middle, rel=0.01)
    assert low < at_96 < high


@pytest.mark.parametrize(("gain", "depth", "code"), [(0.5, 12, "UG101"), (2.0, 12, "UG102")])
def test_the_same_gain_matters_by_its_depth(gain, depth, code):
    wobble = [1.0, 1.03, 0.97]
    deep = [gain * wobble[index % 3] for index in range(depth)]
    assert codes(gains(*deep)) == [code]
    assert codes(gains(*deep[: depth // 2])) == []


@pytest.mark.parametrize("rule", [ug101, ug102, ug201, ug202])
def test_forward_and_backward_mirror_each_other(rule):
    name = "forward_gain" if rule in {ug201, ug202} else "backward_gain"
    falls = list(rule.judge(gains(*[0.4, 0.41] * 10, name=name)))
    grows = list(rule.judge(gains(*[2.4, 2.5] * 10, name=name)))
    assert [bool(falls), bool(grows)] == ([True, False] if rule in {ug101, ug202} else [False, True])


def test_one_draw_of_a_critical_network_is_no_disease():
    """Null distribution: the squared gain of a He-ReLU layer is (2/n)·chi²_K with K ~ Bin(n, 1/2), exactly.

    At n = 64, L = 50 the log of the product has a standard deviation of sqrt(5·50/64)/2 nats, 8.6 dB, and
    mean -8.5 dB, so that 60 dB is six of them away: no false alarm in a thousand draws.
    """
    dice = np.random.default_rng(0)
    width, depth = 64, 50
    for _ in range(1000):
        open_units = dice.binomial(width, 0.5, depth)
        squared = 2 / width * dice.chisquare(open_units)
        assert codes(gains(*np.sqrt(squared).tolist())) == []


@pytest.mark.parametrize("depth", [12, 96, 1000])
def test_power_law_growth_of_pre_norm_is_healthy(depth):
    """The squared gradient of Pre-LN grows by (l+2)/(l+1) in block l counted from the output."""
    squared = [(depth - index + 1) / (depth - index) for index in range(depth)]
    assert codes(gains(*map(math.sqrt, squared))) == []


def test_a_slope_that_may_be_zero_is_not_called_a_trend():
    wild = [1e-9, 1e8, 1e-9, 1e6, 1e-7, 1e3]
    assert slope_facts(wild)["loop_db"] <= -60
    assert list(ug101.judge(gains(*wild))) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_left_to_others(bad):
    assert codes(gains(*[bad] * 20)) == []
    assert codes(gains(*[1.0] * 10, bad, *[1.0] * 10)) == []
    profiles = gains(*[0.3] * 20)
    broken = {**profiles["backward_gain"].facts, "slope_db_high": bad}
    profiles["backward_gain"] = dataclasses.replace(profiles["backward_gain"], facts=broken)
    assert list(ug101.judge(profiles)) == []


def test_two_blocks_are_no_trunk():
    assert codes(gains(1e-9, 1e-9)) == []


def test_one_place_is_named_and_is_not_a_trend():
    values = [0.9, 1.1, 1.0, 1.05, 0.95, 1e-5, 1.0, 0.9, 1.1, 1.0]
    assert codes(gains(*values)) == ["UG103"]
    (finding,) = ug103.judge(gains(*values))
    assert str(finding.sites[0]) == "blocks.5"
    assert finding.value == 1e-5
    assert finding.severity == "error"
    values[5] = 1e5
    (finding,) = ug104.judge(gains(*values))
    assert finding.value == 1e5


def test_a_trend_is_not_many_places():
    assert codes(gains(*[0.1, 0.11] * 10)) == ["UG101"]


def test_a_gain_of_exactly_zero_is_one_place_unless_units_are_dead():
    profiles = gains(1.0, 1.1, 0.0, 0.9, 1.0, 1.05, 0.95)
    assert codes(profiles) == ["UG103"]
    dead = Profile("act_frac_dead", "fraction", (Site("blocks.2.act"),), (1.0,))
    assert codes({**profiles, "act_frac_dead": dead}) == []


def test_a_zero_where_the_numbers_end_is_no_place():
    """140 blocks of -7.7 dB pass the end of float32's numbers: the zero is a part of the trend."""
    assert codes(gains(*[math.nan] * 40, 0.0, *[0.41, 0.42] * 50)) == ["UG101"]


def test_strides_and_bottlenecks_are_not_places():
    """A stride of two halves the gradient's norm; small embeddings before a norm multiply it by 50."""
    assert codes(gains(50.0, 1.0, 1.1, 0.5, 1.0, 0.9, 0.5, 1.0, 0.25, 1.0)) == []


def test_weights_are_blamed_with_the_factor_that_must_follow():
    profiles = gains(*[0.41, 0.40, 0.42] * 8)
    sites = profiles["backward_gain"].sites
    labels = ("Linear→relu",) * 24
    profiles["weight_gain"] = Profile("weight_gain", "gain", sites, (math.sqrt(1 / 3),) * 24, labels=labels)
    (finding,) = ug101.judge(profiles)
    first = finding.causes[0]
    assert first.remedy == "rescale_weights"
    assert first.parameters["gain"] == pytest.approx(math.sqrt(2))
    assert first.predicted is not None
    assert first.predicted[0] < 0.41 * math.sqrt(6) < first.predicted[1]
    assert "PyTorch's default" in first.text


def test_branches_are_blamed_where_a_skip_path_is():
    profiles = gains(*[2.2, 2.3, 2.24] * 10)
    columns = ("weights", "skip", "branch")
    rows = ((1.0, 1.0, 2.0),) * 30
    site = profiles["backward_gain"].sites
    profiles["gain_parts"] = Profile("gain_parts", "ratio", site, (2.24,) * 30, columns=columns, rows=rows)
    (finding,) = ug102.judge(profiles)
    first = finding.causes[0]
    assert first.remedy == "scale_branch"
    shared = math.sqrt(1 + 4 / 60)
    assert first.predicted is not None
    assert first.predicted[0] < shared < first.predicted[1]


def test_every_finding_has_a_cause_even_where_nothing_else_was_measured():
    for values in ([0.4] * 20, [2.5] * 20):
        for rule in (ug101, ug102):
            for finding in rule.judge(gains(*values)):
                assert finding.causes


def test_layers_of_different_gains_count_by_their_logarithms():
    """A first layer with fewer inputs has another gain; per block the three of them make the mean."""
    profiles = gains(10.0, 20.0, 20.0, 20.0)
    sites, labels = profiles["backward_gain"].sites, ("Linear→relu",) * 4
    own = tuple(value * math.sqrt(2) for value in (10.0, 20.0, 20.0, 20.0))
    profiles["weight_gain"] = Profile("weight_gain", "gain", sites, own, labels=labels)
    (finding,) = ug102.judge(profiles)
    first = finding.causes[0]
    assert first.predicted is not None
    assert first.predicted == pytest.approx((0.85, 1.1), rel=0.03)


def test_a_norm_is_blamed_by_its_name_and_with_what_its_weights_are():
    profiles = gains(*[1.5] * 40)
    blocks = profiles["backward_gain"].sites
    rows = ((1.5,),) * 40
    norms = tuple(Site(f"{block}.norm") for block in blocks)
    profiles["gain_parts"] = Profile(
        "gain_parts", "x", blocks, (1.5,) * 40, columns=("normalisation",), rows=rows
    )
    (bare,) = ug102.judge(profiles)
    assert bare.causes[0].text.startswith("normalisation: it divides by the spread of its input, 1.5x")
    profiles["act_rms"] = Profile("act_rms", "rms", norms, (1.0,) * 40, labels=("BatchNorm2d",) * 40)
    (named,) = ug102.judge(profiles)
    assert named.causes[0].text.startswith(
        "normalisation: BatchNorm2d divides by the spread of its input, 1.5x"
    )
    weights = tuple(Site(f"{norm}.weight") for norm in norms)
    profiles["param_rms"] = Profile("param_rms", "rms", weights, (5.0,) * 40)
    (scaled,) = ug102.judge(profiles)
    assert "of its input and its weights have an rms of 5, 1.5x per block" in scaled.causes[0].text


@pytest.mark.parametrize(
    ("norm", "weights", "depth", "fires"),
    [(1.2, 1.0, 31, False), (1.2, 1.0, 32, True), (1.0, 1.7, 32, False), (1.0, 1.7, 38, True)],
)
def test_growth_that_norms_make_is_judged_at_50_decibels_and_other_growth_at_60(norm, weights, depth, fires):
    profiles = gains(*[1.2] * depth)
    blocks = profiles["backward_gain"].sites
    parts = Profile(
        "gain_parts", "x", blocks, (1.2,) * depth, columns=("normalisation",), rows=((norm,),) * depth
    )
    layers = Profile(
        "weight_gain", "x", blocks, (weights * math.sqrt(2),) * depth, labels=("Linear→relu",) * depth
    )
    found = list(ug102.judge(profiles | {"gain_parts": parts, "weight_gain": layers}))
    assert bool(found) is fires
    for finding in found:
        assert finding.threshold == pytest.approx(10 ** ((50 if norm > 1 else 60) / depth / 20))


def sines(factor: float, activation: str = "sin") -> dict[str, Profile]:
    """Return 12 blocks of weights at sqrt(2) before an activation with a factor beside it."""
    per_block = factor * math.sqrt(2) * 0.7
    profiles = gains(*[per_block] * 12)
    blocks = profiles["backward_gain"].sites
    layers = Profile("weight_gain", "x", blocks, (math.sqrt(2),) * 12, labels=(f"Linear→{activation}",) * 12)
    slopes = Profile(
        "act_frac_saturated", "x", blocks, (0.0,) * 12, labels=(activation,) * 12, rows=((0.7, 1.0),) * 12
    )
    rows = ((math.sqrt(2), 0.7 * factor),) * 12
    parts = Profile(
        "gain_parts", "x", blocks, (per_block,) * 12, columns=("weights", "activation"), rows=rows
    )
    return profiles | {one.name: one for one in (layers, slopes, parts)}


def test_a_factor_beside_an_activation_multiplies_the_weights():
    """A sine of 30·Wx passes 30 times its slope; the weights must be divided by it."""
    (finding,) = ug102.judge(sines(30.0))
    first = finding.causes[0]
    assert first.text.startswith("weights: sqrt(fan_in·var) = 1.41, times the 30 of forward beside the sin")
    assert first.parameters["gain"] == pytest.approx(1 / 0.7 / 30)
    without = sines(30.0) | {"gain_parts": sines(1.0)["gain_parts"]}
    (finding,) = ug102.judge(without)
    assert not any("beside" in cause.text for cause in finding.causes)


@pytest.mark.parametrize(("frobenius", "expected"), [(30.0, []), (34.0, ["UG104"]), (math.nan, ["UG104"])])
def test_a_block_cannot_multiply_by_more_than_the_norm_of_its_jacobian(frobenius, expected):
    """What arrives there came by another way, as to a layer whose output all later ones read."""
    profiles = gains(0.9, 1.1, 1.0, 100.5, 1.0, 0.9, 1.1, 1.0)
    sites = profiles["backward_gain"].sites
    rows = tuple((1.0, 8.0, frobenius) for _ in sites)
    columns = ("rms_gain", "participation", "frobenius")
    profiles["rms_gain"] = Profile("rms_gain", "ratio", sites, (1.0,) * 8, columns=columns, rows=rows)
    assert [finding.code for finding in ug104.judge(profiles)] == expected


@pytest.mark.parametrize(
    ("gates", "first"),
    [
        ({"blocks.0.act": 0.5}, "gate: its mean is 0.5"),
        ({"": 0.4}, "gate: its mean is 0.4"),
        ({"head": 0.4}, "between the layers: "),
    ],
    ids=["inside", "around", "elsewhere"],
)
def test_what_a_gate_takes_between_layers_is_put_down_to_it(gates, first):
    profiles = gains(*[0.5, 0.49, 0.51] * 4)
    blocks = profiles["backward_gain"].sites
    rows = tuple((1.0, 1.0, 0.5) for _ in blocks)
    columns = ("weights", "activation", "other")
    profiles["gain_parts"] = Profile("gain_parts", "x", blocks, (0.5,) * 12, columns=columns, rows=rows)
    [(path, mean)] = gates.items()
    sites = tuple(Site(path, call, "(glu)") for call in range(1, 12))
    profiles["gate_mean"] = Profile("gate_mean", "mean", sites, (mean,) * 11)
    (finding,) = ug101.judge(profiles)
    assert finding.causes[0].text.startswith(first)


@pytest.mark.parametrize(("last", "expected"), [(28.0, []), (0.02, ["UG103"]), (2.8e4, ["UG104"])])
def test_layers_of_lists_that_take_turns_have_a_usual_gain_each(last, expected):
    """As the maps of queries and of the outputs, one after the other."""
    names = [f"{kind}.{index}" for index in range(3) for kind in ("qkv", "proj")]
    values = (0.07, 29.0, 0.08, 30.0, 0.075, last)
    gain = Profile("backward_gain", "ratio", tuple(map(Site, names)), values, facts=slope_facts(values))
    found = [finding for rule in (ug103, ug104) for finding in rule.judge({"backward_gain": gain})]
    assert [finding.code for finding in found] == expected
