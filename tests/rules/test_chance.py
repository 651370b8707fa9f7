"""Chance beside a finding: what it may be is no disease, and what it cannot be is said with p."""

import math

import pytest

from unitygain._types import Finding, Profile, Site
from unitygain.measures._staging import slope_facts
from unitygain.rules import ug101_vanishing_over_depth as ug101
from unitygain.rules import ug102_exploding_over_depth as ug102
from unitygain.rules import ug103_vanishing_in_one_place as ug103
from unitygain.rules import ug201_signal_grows as ug201
from unitygain.rules import ug202_signal_dies as ug202

BLOCKS = tuple(Site(f"blocks.{index}") for index in range(32))


def deep(gain: float, p: float, name: str, least: float = 0.001) -> dict[str, Profile]:
    """Return 32 blocks of nearly this gain, with the p that the measure states."""
    values = tuple(gain * (1.02 if index % 2 else 0.98) for index in range(len(BLOCKS)))
    facts = {
        **slope_facts(values),
        **{"unity_db": -22.0, "unity_db_low": -55.0, "unity_db_high": 11.0},
        **{"unity_p": p, "unity_p_least": least, "unity_draws": 99.0},
    }
    return {name: Profile(name, "ratio", BLOCKS, values, facts=facts)}


def only(rule, profiles: dict[str, Profile]) -> Finding:
    (finding,) = rule.judge(profiles)
    return finding


@pytest.mark.parametrize(
    ("rule", "gain", "name"),
    [
        (ug101, 0.5, "backward_gain"),
        (ug102, 2.0, "backward_gain"),
        (ug201, 2.0, "forward_gain"),
        (ug202, 0.5, "forward_gain"),
    ],
)
def test_severity_is_that_of_the_p(rule, gain, name):
    """-193 dB over 32 blocks: an error, a warning or a word by how likely chance alone gives it."""
    assert [only(rule, deep(gain, p, name)).severity for p in (0.001, 0.005, 0.02, 0.03, 0.5)] == [
        "error",
        "error",
        "warning",
        "info",
        "info",
    ]


def test_finding_states_expected_interval_measured_and_p():
    finding = only(ug101, deep(0.5, 0.001, "backward_gain"))
    assert finding.p_value == 0.001
    assert finding.expected == pytest.approx(10 ** (-22 / 20 / 32))
    assert finding.evidence["unity_db_low"] == -55.0
    assert finding.evidence["law"] == "99 draws of the same weights"
    assert (
        "at unity gain has 0.0794x in all (0.00178x to 3.55x in 95 % of draws), p < 0.001" in finding.message
    )
    assert "p = 0.004" in only(ug101, deep(0.5, 0.004, "backward_gain")).message


def test_what_may_be_chance_has_chance_for_its_only_cause():
    finding = only(ug101, deep(0.75, 0.2, "backward_gain"))
    (cause,) = finding.causes
    assert cause.text.startswith("chance: ")
    assert "p = 0.2" in cause.text
    assert cause.remedy is None
    assert not finding.fix


def test_without_a_law_the_rule_judges_as_before():
    profiles = deep(0.5, math.nan, "backward_gain")
    finding = only(ug101, profiles)
    assert (finding.severity, finding.p_value, finding.expected) == ("error", None, None)
    assert "unity gain" not in finding.message


def test_place_states_what_a_block_like_the_others_shows_and_what_its_own_weights_give():
    values = tuple(0.002 if index == 5 else 1.0 for index in range(10))
    interval = tuple((0.8 * value, 1.25 * value) for value in values)
    gain = Profile(
        "backward_gain",
        "ratio",
        BLOCKS[:10],
        values,
        expected=values,
        interval=interval,
        facts={"p_least": 0.001},
    )
    finding = only(ug103, {"backward_gain": gain})
    assert (finding.expected, finding.p_value) == (1.0, 0.001)
    assert "between 0.8x and 1.25x, p < 0.001" in finding.message
    assert "random places give 0.002x (0.0016x to 0.0025x)" in finding.message
    assert finding.evidence["redrawn_gain"] == 0.002
