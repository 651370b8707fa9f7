"""UG207: units that are copies of each other."""

import math

import pytest
from rules.profiles import judged, profile, severities

import unitygain.rules  # noqa: F401 (fills the table)


def copies(shares, equal=None, labels=None):
    rows = tuple((value,) for value in (equal or shares).values())
    labels = labels or ("Linear",) * len(shares)
    return judged("UG207", profile("unit_copies", shares, columns=("equal",), rows=rows, labels=labels))


@pytest.mark.parametrize(("share", "expected"), [(0.5, []), (math.nextafter(0.5, 1), ["error"])])
def test_more_than_half_of_the_units_must_be_copies(share, expected):
    assert severities(copies({"0": 0.0, "2": share})) == expected


def test_the_weights_are_drawn_anew_the_equal_head_with_them():
    [finding] = copies({"0": 0.0, "2": 1.0, "4": 0.0}, {"0": 0.0, "2": 1.0, "4": 1.0})
    assert [str(site) for site in finding.sites] == ["2"]
    cause = finding.causes[0]
    assert cause.text.startswith("initialisation: all units of 2, 4 start the same")
    assert (cause.remedy, cause.parameters) == ("activation_init", {"sites": ("2", "4")})


def test_a_table_is_named_and_the_maps_behind_it_are_drawn():
    shares = {"mix": 1.0, "user": 1.0}
    [finding] = copies(shares, labels=("Linear", "Embedding"))
    assert finding.causes[0].text.startswith("initialisation: all units of mix, user start the same")
    assert finding.causes[0].parameters == {"sites": ("mix",)}
    [finding] = copies({"user": 1.0}, labels=("Embedding",))
    assert (finding.causes[0].remedy, finding.causes[0].parameters) == (None, {})


def test_a_recurrent_module_is_drawn_whole():
    [finding] = copies({"lstm.weight_ih_l0": 1.0, "head": 0.0}, labels=("LSTM", "Linear"))
    cause = finding.causes[0]
    assert (cause.remedy, cause.parameters) == ("orthogonal_init", {"sites": ("lstm",)})
