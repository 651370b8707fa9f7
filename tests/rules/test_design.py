"""UG105 and the verdict on the design: measured gains beside expected ones, as plain numbers."""

import math

import pytest

from unitygain._types import Profile, Site
from unitygain.rules._design import describe_design, read_blocks
from unitygain.rules.ug105_not_what_it_claims import judge

BLOCKS = tuple(Site(f"blocks.{k}") for k in range(6))


def profiles(
    measured: list[float],
    expected: list[float],
    *,
    reach: float = 1.2,
    forward: float = 1.0,
    error: float = 0.01,
) -> dict[str, Profile]:
    """Return a measured and an expected gain per block, and a forward gain of 1 everywhere."""
    sites = BLOCKS[: len(measured)]
    interval = tuple((value / reach, value * reach) for value in expected)
    rows = tuple((value, forward, 0.1) for value in expected)
    found = [
        Profile("rms_gain", "x", sites, tuple(measured), error=(error,) * len(sites)),
        Profile("predicted_gain", "x", sites, tuple(expected), interval=interval, rows=rows),
        Profile("forward_gain", "x", sites, (1.0,) * len(sites)),
    ]
    return {profile.name: profile for profile in found}


def test_a_deviation_is_named_with_its_factor():
    [finding] = judge(profiles([1.0, 0.31, 1.0], [1.0, 1.0, 1.0]))
    assert "blocks.1 passes 0.31x of a random gradient back, 3.23x below" in finding.message
    assert (finding.value, finding.expected) == (0.31, 1.0)
    assert finding.evidence["residual_db"] == pytest.approx(20 * math.log10(0.31))


def test_the_farthest_comes_first():
    [finding] = judge(profiles([0.2, 9.0, 1.0], [1.0, 1.0, 1.0]))
    assert [str(site) for site in finding.sites] == ["blocks.1", "blocks.0"]
    assert finding.message.endswith("look there, and at 1 other block")


@pytest.mark.parametrize(("measured", "expected"), [([0.01], [0.01]), ([0.4], [1.0]), ([2.9], [1.0])])
def test_what_is_expected_or_near_it_is_no_deviation(measured, expected):
    assert not list(judge(profiles(measured, expected)))


def test_a_prediction_that_is_not_sure_judges_nothing():
    assert not list(judge(profiles([0.2], [1.0], reach=2.5)))
    assert list(judge(profiles([0.2], [1.0], reach=1.5)))


def test_a_measurement_that_is_not_sure_judges_nothing():
    assert not list(judge(profiles([0.2], [1.0], error=0.2)))


def test_what_was_not_predicted_is_left_out():
    found = profiles([0.1, 1.0], [math.nan, 1.0])
    assert [str(block.site) for block in read_blocks(found)] == ["blocks.1"]
    assert not list(judge(found))


def test_nothing_that_passes_is_a_deviation_without_an_end():
    [finding] = judge(profiles([0.0, 1.0], [1.0, 1.0]))
    assert finding.value == 0
    assert finding.evidence["residual_db"] == -math.inf


def test_the_way_back_is_blamed_where_the_way_forward_is_as_expected():
    [back] = judge(profiles([0.1], [1.0]))
    assert back.causes[0].text.startswith("way back: the signal passes forward at 1x, as expected (1x)")
    [both] = judge(profiles([0.1], [1.0], forward=0.2))
    assert both.causes[0].text.startswith("weights: not independent or not of mean zero")


def test_saturation_is_blamed_where_it_is_seen():
    found = profiles([0.1], [1.0], forward=0.2)
    flat = Profile("act_frac_saturated", "x", (Site("blocks.0.act"),), (0.9,), labels=("tanh",))
    [finding] = judge(found | {"act_frac_saturated": flat})
    assert (
        finding.causes[0].text
        == "activation: 0.9 of its entries are flat, more than weights of this scale give"
    )


def test_dead_units_are_left_to_their_own_rule():
    dead = Profile("act_frac_dead", "x", (Site("blocks.0.act"),), (0.8,))
    assert not list(judge(profiles([0.1], [1.0]) | {"act_frac_dead": dead}))


def test_a_stable_reading_of_an_unstable_design():
    design = describe_design(profiles([0.4, 0.42, 0.39], [0.41, 0.41, 0.41]))
    assert design["theory expects (x per block)"] == pytest.approx(0.41)
    assert design["verdict"] == "as designed: what is unstable is the design"


def test_an_unstable_trunk_that_was_not_designed_so():
    design = describe_design(profiles([0.2, 0.01, 0.5], [1.0, 1.0, 1.0]))
    assert design["verdict"] == "not as designed: blocks.1 deviates most (0.01x of expected)"


def test_no_verdict_on_a_minority():
    assert describe_design(profiles([1.0] * 3, [1.0, math.nan, math.nan])) == {}
    assert describe_design({}) == {}


def pair(residual: float, law: str = "none") -> dict[str, Profile]:
    """Return two parts of different names, the second of which passes `residual` times what is expected."""
    sites = (Site("encoder"), Site("critic"))
    gains = Profile("backward_gain", "x", sites, (1.0, 1.0), facts={"law": law})
    return {
        "backward_gain": gains,
        "rms_gain": Profile("rms_gain", "x", sites, (1.0, residual), error=(0.01, 0.01)),
        "predicted_gain": Profile(
            "predicted_gain", "x", sites, (1.0, 1.0), interval=((0.8, 1.25),) * 2, rows=((1.0, 1.0, 0.1),) * 2
        ),
    }


def test_a_part_without_siblings_is_a_warning_only_where_its_weights_are_a_draw():
    """Training aligns weights: a critic that has won passes far more than its weights would at random."""
    assert [finding.severity for finding in judge(pair(12.0))] == ["info"]
    assert [finding.severity for finding in judge(pair(12.0, law="redrawn"))] == ["warning"]


@pytest.mark.parametrize(
    ("measured", "severity"),
    [
        ([1.0, 0.1, 1.0], "warning"),
        ([0.1, 0.1, 0.1], "info"),
        ([9.0, 0.1, 8.0, 9.0], "info"),
        ([0.1, 1.0], "info"),
    ],
)
def test_siblings_that_are_as_expected_contradict_and_others_do_not(measured, severity):
    [finding] = judge(profiles(measured, [1.0] * len(measured)))
    assert finding.severity == severity
