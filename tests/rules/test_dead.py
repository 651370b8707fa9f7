"""UG203 and UG206: what dead units are blamed on."""

import math

import pytest
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


def of_one(gradients: dict[str, float], numbers: dict[str, float], frac_dead: dict[str, float]):
    return judged(
        "UG206",
        profile("act_frac_dead", frac_dead),
        profile("norm_numbers", numbers),
        profile("grad_rms", gradients),
        profile("act_rms", dict.fromkeys(gradients, 0.5)),
    )


@pytest.mark.parametrize(("before", "expected"), [(9e-5, "error"), (1.1e-4, "warning")])
def test_a_norm_over_one_number_is_dead_though_rounding_passes(before, expected):
    gradients = {"0": before, "norm": 0.1, "2": 0.3}
    [finding] = of_one(gradients, {"norm": 1.0, "other": 2.0}, {"2": 0.1})
    assert (finding.severity, [str(site) for site in finding.sites]) == (expected, ["norm"])
    assert finding.causes[0].text.startswith("norm: norm takes its mean over one number")
    assert (finding.causes[0].remedy, finding.causes[0].parameters) == ("bypass_norm", {"sites": ("norm",)})
    assert of_one(gradients, {"norm": 2.0}, {"2": 0.1}) == []


def test_a_norm_over_one_number_comes_before_what_else_makes_the_activation_behind_it_dead():
    gradients = {"0": 0.0, "norm": 0.0, "2": 0.0, "later": 0.1}
    norm, dead = of_one(gradients, {"norm": 1.0}, {"2": 1.0})
    assert norm.quantity == "norm_numbers"
    assert dead.causes[0].text.startswith("norm: ")
    _, dead = of_one(gradients, {"later": 1.0}, {"2": 1.0})
    assert not dead.causes[0].text.startswith("norm: ")


def test_a_norm_that_is_a_function_call_cannot_be_taken_out():
    [finding] = of_one({"0": 0.1}, {"(native_layer_norm)": 1.0}, {"0": 0.1})
    assert (finding.severity, finding.causes[0].remedy) == ("warning", None)


@pytest.mark.parametrize(
    ("size", "pull", "last", "first"),
    [
        (0.0, 0.5, "5", "output: 5 is a ReLU behind the last layer"),
        (0.0, -0.5, "5", "biases: "),
        (0.1, 0.5, "5", "biases: "),
        (0.0, 0.5, "3", "biases: "),
    ],
    ids=["asked for less", "asked for more", "not all zero", "not the last"],
)
def test_a_dead_output_that_is_asked_for_less_is_put_down_to_its_activation(size, pull, last, first):
    [finding] = judged(
        "UG206",
        profile("act_frac_dead", {last: 1.0} if last == "5" else {last: 1.0, "5": 0.5}),
        profile("act_rms", {"2": 0.5, "3": 0.0, "4": 0.5, "5": 0.0}),
        profile("param_rms", {"2.weight": 1.0, "2.bias": 0.5, "4.weight": 1.0, "4.bias": 0.5}),
        profile("loss_value", {"": 1.0}, facts={"output_rms": size, "output_pull": pull}),
    )
    assert finding.causes[0].text.startswith(first)


@pytest.mark.parametrize(
    ("trainable", "fires"),
    [((0.0, 0.0, 1.0), False), ((1.0, 0.0, 1.0), True), ((0.0, 1.0, 1.0), True)],
    ids=["frozen before", "the first learns", "its own layer learns"],
)
def test_saturation_behind_frozen_layers_alone_holds_nothing_back(trainable, fires):
    names = ("0.weight", "2.weight", "4.weight")
    found = judged(
        "UG204",
        profile("act_frac_saturated", {"1": 0.1, "3": 0.8}, labels=("tanh", "tanh")),
        profile("act_rms", {"0": 1.0, "1": 0.5, "2": 9.0, "3": 0.9, "4": 1.0}),
        profile(
            "weight_gain", {"0": 1.0, "2": 9.0, "4": 1.0}, labels=("Linear→tanh", "Linear→tanh", "Linear")
        ),
        profile("param_trainable", dict(zip(names, trainable, strict=True))),
    )
    assert bool(found) == fires
