"""UG613, and norms without statistics as the first cause of what happens over depth."""

import pytest
from rules.profiles import judged, profile, severities

import unitygain.rules  # noqa: F401 (fills the table)

FACTS = {
    "gain_per_block": 0.4,
    "slope_db": -8.0,
    "slope_db_low": -9.0,
    "slope_db_high": -7.0,
    "loop_db": -96.0,
    "depth": 12,
}


def norms(*values: float):
    names = {f"{2 * index}.bn": value for index, value in enumerate(values)}
    labels = ("BatchNorm2d",) * len(values)
    return profile("norm_unset", names, labels=labels, facts={"unset": sum(values)})


@pytest.mark.parametrize(("values", "expected"), [((0.0, 0.0), []), ((0.0, 1.0), ["info"])])
def test_one_without_statistics_is_a_note(values, expected):
    assert severities(judged("UG613", norms(*values))) == expected


def test_what_is_named_is_what_has_none():
    [finding] = judged("UG613", norms(0.0, 1.0, 1.0))
    assert [str(site) for site in finding.sites] == ["2.bn", "4.bn"]
    assert finding.value == 2
    assert finding.causes[0].text.startswith("BatchNorm: 2.bn and 1 other run in eval mode")


@pytest.mark.parametrize(("code", "gain"), [("UG101", "backward_gain"), ("UG202", "forward_gain")])
@pytest.mark.parametrize(("count", "first"), [(6, True), (5, False), (0, False)])
def test_as_many_as_half_the_blocks_are_the_first_cause(code, gain, count, first):
    blocks = profile(gain, {str(index): 0.4 for index in range(12)}, facts=FACTS)
    [finding] = judged(code, blocks, norms(*(1.0,) * count, *(0.0,) * (12 - count)))
    assert finding.causes[0].text.startswith("BatchNorm:") == first
    assert len(finding.causes) > first


def test_a_step_that_is_too_small_has_them_before_the_rate():
    ratio = profile("update_ratio", {"0.weight": 1e-8, "1.weight": 1e-8}, facts={"optimizer": "SGD"})
    size = profile("param_rms", {"0.weight": 0.1, "1.weight": 0.1}, labels=("float32",) * 2)
    [finding] = judged("UG602", ratio, size, norms(1.0, 1.0))
    assert [cause.text.partition(":")[0] for cause in finding.causes][:2] == ["BatchNorm", "learning rate"]
