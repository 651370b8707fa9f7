"""UG612: which share of its input a dropout drops."""

import math

import pytest
from rules.profiles import judged, profile, severities

import unitygain.rules  # noqa: F401 (fills the table)


def dropped(*labels: str, **rates: float):
    names = {name.replace("_", "."): rate for name, rate in rates.items()}
    return judged("UG612", profile("dropout_rate", names, labels=labels or ("Dropout",) * len(rates)))


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.5, []),
        (0.8, []),
        (0.89, []),
        (0.9, ["warning"]),
        (1 - 0.1, ["warning"]),
        (0.99, ["warning"]),
        (1.0, ["error"]),
        (math.nan, []),
    ],
)
def test_nine_tenths_are_the_limit_and_all_of_it_is_an_error(rate, expected):
    assert severities(dropped(a=rate)) == expected


def test_the_worst_place_is_named_first_with_how_many_there_are():
    [finding] = dropped(a=0.1, b=0.93, classifier_2=0.97, d=0.91)
    assert [str(site) for site in finding.sites] == ["classifier.2", "b", "d"]
    cause = finding.causes[0]
    assert "p = 0.97 at classifier.2 and 2 others keeps 3 % of the units" in cause.text
    assert "not to keep" in cause.text
    assert cause.remedy == "lower_dropout"
    assert cause.parameters == {"p": 0.1, "sites": ("classifier.2", "b", "d")}
    assert cause.predicted == pytest.approx((0.099, 0.101))


def test_a_function_has_no_module_to_change():
    [finding] = dropped("dropout", a=0.97)
    assert finding.causes[0].remedy is None
    assert finding.fix == "torch.nn.functional.dropout(x, p=0.03)"


@pytest.mark.parametrize(
    ("label", "fix"),
    [
        ("AlphaDropout", "torch.nn.AlphaDropout(p=0.1)"),
        ("LSTM", "torch.nn.LSTM(..., dropout=0.1)"),
        ("MultiheadAttention", "torch.nn.MultiheadAttention(..., dropout=0.1)"),
    ],
)
def test_the_fix_is_written_as_the_module_takes_it(label, fix):
    [finding] = dropped(label, a=0.9)
    assert finding.fix == fix
