"""What stands behind a finding is named before it: other findings, and what scales the gradient."""

import math
from dataclasses import replace

import pytest
from rules.profiles import judged, profile, severities

import unitygain.rules  # noqa: F401 (fills the table)
from unitygain._types import Cause, Finding, Site
from unitygain.rules._order import in_order

NAMES = ("0.weight", "1.weight", "2.weight")


def found(code: str, severity="error", **evidence) -> Finding:
    return Finding(code, "", severity, "", (Site(""),), "", 0.0, "", 0.0, evidence=evidence)


def codes(*findings: Finding) -> list[str]:
    return [finding.code for finding in in_order(findings)]


def step(code: str, ratio: float, *more, optimizer="SGD", **facts):
    moved = profile("update_ratio", dict.fromkeys(NAMES, ratio), facts={"optimizer": optimizer, **facts})
    size = profile("param_rms", dict(zip(NAMES, (0.05, 0.2, 1.0), strict=True)), labels=("float32",) * 3)
    return judged(code, moved, size, *more)


def loss(kind="cross_entropy", reduction=1.0, expected=1.6):
    return profile(
        "loss_value", {"": 1.6}, facts={"kind": kind, "reduction": reduction, "expected": expected}
    )


def test_severity_comes_before_all_but_what_follows_from_growth():
    assert codes(found("UG607", "warning"), found("UG205")) == ["UG205", "UG607"]
    assert codes(found("UG605"), found("UG601"), found("UG102", "warning")) == ["UG102", "UG605", "UG601"]
    assert codes(found("UG605"), found("UG205", "warning")) == ["UG605", "UG205"]
    assert codes(found("UG605"), found("UG102", "info")) == ["UG102", "UG605"]


@pytest.mark.parametrize("lesser", ["warning", "info"])
def test_no_error_is_read_after_a_lesser_finding_that_is_not_behind_it(lesser):
    growing = found("UG102", lesser)
    assert codes(found("UG601"), growing, found("UG604", "warning")) == ["UG102", "UG601", "UG604"]
    assert codes(found("UG205"), found("UG605"), growing) == ["UG205", "UG102", "UG605"]
    assert codes(found("UG605"), found("UG201"), growing, found("UG203", "warning"))[:2] == ["UG201", "UG605"]
    flow = found("UG201"), found("UG703", lesser), found("UG603", "warning"), found("UG101")
    assert codes(*flow) == ["UG101", "UG703", "UG201", "UG603"]


def test_a_signal_that_falls_is_read_before_inputs_that_only_biases_reach():
    alike, falls = found("UG205"), found("UG202", "warning")
    by_biases = replace(alike, causes=(Cause("biases: ...", "zero_biases"), Cause("depth: ...")))
    averaged = replace(
        alike, causes=(Cause("attention: ...", "scale_branch"), Cause("biases: ...", "zero_biases"))
    )
    shrinks = found("UG101", "warning")
    assert codes(by_biases, falls, shrinks, found("UG103")) == ["UG103", "UG101", "UG202", "UG205"]
    assert codes(averaged, falls) == ["UG205", "UG202"]
    assert codes(by_biases, found("UG101", "info")) == ["UG205", "UG101"]


def test_a_step_of_one_size_does_not_follow_from_a_gradient_that_grows():
    by_sign = found("UG601", step="has one size in every entry")
    assert codes(by_sign, found("UG102", "warning")) == ["UG601", "UG102"]


@pytest.mark.parametrize("code", ["UG205", "UG605", "UG701", "UG705"])
def test_that_a_block_is_not_what_it_claims_stands_behind_what_explains(code):
    assert codes(found("UG105", "warning"), found(code, "warning")) == [code, "UG105"]
    assert codes(found("UG602", "warning"), found("UG105", "warning")) == ["UG105", "UG602"]


def test_growth_in_a_flow_is_its_stretch():
    assert codes(found("UG201"), found("UG703", "warning")) == ["UG703", "UG201"]


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ((), "learning rate"),
        ((loss(),), "learning rate"),
        ((loss(reduction=9.0),), "learning rate"),
        ((loss(reduction=64.0),), "loss"),
        ((loss("mse", 1.0, 1e6),), "targets"),
        ((loss("mse", 1.0, 81.0),), "learning rate"),
        ((loss(reduction=64.0), profile("input_rms", {"(input 0)": 130.0})), "inputs"),
    ],
)
def test_a_large_step_is_put_down_to_what_makes_the_gradient_large(given, first):
    [finding] = step("UG601", 0.5, *given)
    assert finding.causes[0].text.startswith(f"{first}:")
    assert any(cause.remedy == "lower_learning_rate" for cause in finding.causes)


def test_a_step_of_one_size_is_put_down_to_the_rate():
    [finding] = step("UG601", 9.0, loss(reduction=64.0), optimizer="Adam")
    assert finding.causes[0].text.startswith("learning rate:")


@pytest.mark.parametrize(("ratio", "expected"), [(1.9, []), (2.1, ["warning"]), (21.0, ["error"])])
def test_one_weight_alone_may_be_replaced_at_once(ratio, expected):
    moved = profile("update_ratio", {"weight": ratio}, facts={"optimizer": "SGD"})
    size = profile("param_rms", {"weight": 0.1}, labels=("float32",))
    assert severities(judged("UG601", moved, size)) == expected


@pytest.mark.parametrize(
    ("ratio", "given", "facts", "first"),
    [
        (1e-7, (), {}, "learning rate"),
        (1e-7, (loss(reduction=0.5),), {"clipped": 0.5}, "learning rate"),
        (1e-7, (loss(reduction=-1.0),), {}, "learning rate"),
        (1e-7, (loss(reduction=0.0),), {}, "learning rate"),
        (1e-7, (loss(reduction=-1e-6),), {}, "loss"),
        (1e-7, (loss(reduction=1e-320),), {}, "loss"),
        (1e-7, (), {"clipped": 0.001}, "clip"),
        (5e-6, (), {"clipped": 0.001}, "clip"),
        (5e-6, (loss(reduction=1e-6),), {}, "loss"),
        (1e-7, (), {"clipped": math.nan}, "learning rate"),
    ],
)
def test_a_small_step_is_put_down_to_what_makes_the_gradient_small(ratio, given, facts, first):
    [finding] = step("UG602", ratio, *given, **facts)
    assert finding.causes[0].text.startswith(f"{first}:")


def test_a_loss_that_is_to_rise_has_no_smaller_gradient_for_it():
    """A generator may raise the discriminator's loss: minus one time its mean is no division."""
    assert step("UG602", 5e-6, loss(reduction=-1.0)) == []


@pytest.mark.parametrize("facts", [{}, {"clipped": 0.5}, {"clipped": math.nan}])
def test_a_step_that_is_small_for_no_known_reason_has_the_lower_limit(facts):
    assert step("UG602", 5e-6, loss(), **facts) == []


@pytest.mark.parametrize(
    ("moved", "highest", "expected"),
    [(0.0, -6.0, ["warning"]), (1e-3, -6.0, ["info"]), (0.0, -3.0, ["info"])],
)
def test_an_own_step_that_moves_nothing_does_not_scale_its_loss(moved, highest, expected):
    """Unless a scaler's first step may have overflowed: 1e-3 times 65536, and more in a weight."""
    rescaled = profile(
        "grad_rescaled",
        {"0": -8.0, "2": highest},
        rows=((-8.0, 0.75, 0.9), (highest, 0.0, 0.0)),
        labels=("float16", "float16"),
        facts={"lost_energy": 0.9, "lost_site": "0", "loss_scale_float16": 64.0, "own_step": 1.0},
    )
    ratio = profile("update_ratio", {"0.weight": moved})
    assert severities(judged("UG501", rescaled, ratio)) == expected


def test_weights_are_found_before_an_activation_that_is_a_function():
    flat = profile("act_frac_saturated", {"(first)": 0.7, "(second)": 0.9}, labels=("tanh", "tanh"))
    gains = profile("weight_gain", {"a": 3.0, "b": 8.0}, labels=("Linear→tanh", "Linear→tanh"))
    order = profile("act_rms", {"a": 3.0, "b": 8.0})
    [finding] = judged("UG204", flat, gains, order)
    assert finding.causes[0].text == (
        "weights: sqrt(fan_in·var) = 8 in b and 1 other layer, where 1 keeps the scale"
    )
    assert finding.causes[0].parameters == {"sites": ("a", "b"), "gain": 1.0}


@pytest.mark.parametrize(("law", "expected"), [("redrawn", "warning"), ("none", "info")])
def test_most_layers_frozen_in_between_are_a_choice_unless_nothing_was_trained(law, expected):
    names = [f"conv{k}.weight" for k in range(6)]
    frozen = names[1:5]
    trainable = profile(
        "param_trainable",
        {name: float(name not in frozen) for name in names},
        facts={"frozen": 4.0, "without_gradient": 0.0},
    )
    gradient = profile("param_grad_rms", {name: 0.1 for name in names if name not in frozen})
    gains = profile("backward_gain", {"conv0": 1.0}, facts={"law": law})
    [finding] = judged("UG603", trainable, gradient, gains)
    assert finding.severity == expected


@pytest.mark.parametrize(("judge", "expected"), [("judge", ["info"]), ("other", ["warning"])])
def test_the_other_player_of_a_game_has_an_optimizer_of_its_own(judge, expected):
    trainable = profile(
        "param_trainable",
        {"maker.weight": 1.0, "judge.0.weight": 1.0},
        labels=("in optimizer", "not in optimizer"),
        facts={"trainable_not_held": 1.0, "frozen_held": 0.0},
    )
    assert severities(judged("UG604", trainable, profile("fake_logit_grad", {judge: 1.0}))) == expected


def test_a_recurrent_module_that_is_first_sees_the_inputs_themselves():
    flat = profile("act_frac_saturated", {"rnn": 0.95}, labels=("tanh",))
    [finding] = judged(
        "UG204",
        flat,
        profile("act_rms", {"rnn": 0.9, "fc": 0.2}),
        profile("input_rms", {"(input 0)": 3000.0}),
    )
    assert finding.causes[0].remedy == "unit_inputs"
