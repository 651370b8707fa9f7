"""UG203 and UG206: what dead units are blamed on."""

import math

from rules.profiles import judged, profile

import unitygain.rules  # noqa: F401 (fills the table)


def dead(weights: dict[str, float], means: dict[str, float]):
    """A ReLU at ``1`` without a unit that is on, fed by the layer ``0``; another layer is behind it."""
    return judged(
        "UG206",
        profile("act_frac_dead", {"1": 1.0}),
        profile("act_rms", {"0": 0.5, "1": 0.0, "2": 0.5}),
        profile("param_rms", {"0.weight": weights["0"], "0.bias": 0.5, "2.weight": weights["2"]}),
        profile("weight_mean", means),
    )


def test_weights_of_zeros_or_of_one_sign_are_blamed_before_biases_for_dead_units():
    [finding] = dead({"0": 0.0, "2": 1.0}, {"0": math.nan, "2": 0.1})
    assert finding.causes[0].text.startswith("initialisation: the weights of 0 start at zero; ")
    [finding] = dead({"0": 1.0, "2": 0.0}, {"0": -9.0, "2": -20.0})
    assert finding.causes[0].text == (
        "initialisation: the weights of 0 lie below zero: in a sum of inputs of one sign their mean is -9 "
        "times their spread, which switches every unit off"
    )
    assert finding.causes[0].parameters == {"sites": ("0",)}
    assert finding.causes[1].text.startswith("biases: ")
    [finding] = dead({"0": 1.0, "2": 0.0}, {"0": -1.0, "2": -20.0})
    assert finding.causes[0].text.startswith("biases: ")
