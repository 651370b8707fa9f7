"""UG601 and UG602: how far the first optimizer step moves the weights."""

import math

import pytest
import torch
from measures.reading import measured
from rules.profiles import judged, profile, severities
from torch import nn

import unitygain.measures  # noqa: F401 (fills the table)
import unitygain.rules  # noqa: F401 (fills the table)
from unitygain._case import Case

NAMES = ("0.weight", "1.weight", "2.weight")


def step(code: str, ratios, sizes=(0.05, 0.2, 1.0), labels=("float32",) * 3, **facts):
    ratio = profile("update_ratio", dict(zip(NAMES, ratios, strict=True)), facts=facts)
    size = profile("param_rms", dict(zip(NAMES, sizes, strict=True)), labels=labels)
    return judged(code, ratio, size)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.2, []), (math.nextafter(0.2, 1), ["warning"]), (2.0, ["warning"]), (2.1, ["error"])],
)
def test_proportional_step_has_its_limit_at_a_fifth(ratio, expected):
    assert severities(step("UG601", (ratio, ratio, ratio), optimizer="SGD")) == expected


@pytest.mark.parametrize(("ratio", "expected"), [(2.0, []), (2.01, ["warning"]), (20.5, ["error"])])
@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop", "Lion"])
def test_step_by_sign_has_its_limit_at_two(ratio, expected, optimizer):
    assert severities(step("UG601", (ratio, ratio, ratio), optimizer=optimizer)) == expected


def test_step_by_sign_is_known_by_its_size():
    """An unknown optimizer whose update has one rms in all tensors moves by sign: 0.05 / size each."""
    sizes = (0.05, 0.1, 0.025)
    assert step("UG601", tuple(0.05 / size for size in sizes), sizes, optimizer="Mine") == []
    assert severities(step("UG601", (1.0, 0.5, 0.5), (0.05, 0.5, 0.025), optimizer="Mine")) == ["warning"]


def test_the_median_weight_is_judged_and_named():
    [finding] = step("UG601", (0.1, 0.5, 0.9), optimizer="SGD")
    assert str(finding.sites[0]) == "1.weight"
    assert finding.value == 0.5
    assert finding.threshold == 0.2
    assert "changes the median weight by 0.5 of its own rms" in finding.message
    assert finding.evidence["largest ratio"] == 0.9


def test_the_cause_predicts_what_a_lower_rate_gives():
    [finding] = step("UG601", (0.5, 0.5, 0.5), optimizer="SGD")
    cause = finding.causes[0]
    assert cause.remedy == "lower_learning_rate"
    factor = cause.parameters["factor"]
    assert factor == pytest.approx(0.01)
    assert cause.predicted == pytest.approx((0.99 * 0.005, 1.01 * 0.005))


@pytest.mark.parametrize(
    ("ratio", "momentum", "built_up", "expected"),
    [
        (0.002, 0.999, 1000.0, []),
        (0.0021, 0.999, 1000.0, ["warning"]),
        (0.021, 0.999, 1000.0, ["error"]),
        (0.021, 0.99, 100.0, ["warning"]),
        (0.019, 0.99, 100.0, []),
        (0.19, 0.95, 20.0, []),  # recipes; judged by the first step alone
        (0.19, 0.999, 1.0, []),  # a step that is built up already, or a dampened one
        (0.19, math.nan, math.nan, []),
    ],
)
def test_what_momentum_builds_up_has_ten_times_the_limit(ratio, momentum, built_up, expected):
    found = step("UG601", (ratio,) * 3, optimizer="SGD", momentum=momentum, built_up=built_up)
    assert severities(found) == expected
    for finding in found:
        cause = finding.causes[0]
        assert cause.text.startswith(f"momentum: {momentum:g} adds up {built_up:.4g} steps")
        assert cause.remedy == "lower_learning_rate"
        assert cause.parameters["factor"] * ratio * built_up <= 0.2001


def test_a_first_step_that_is_too_large_is_told_by_itself():
    [finding] = step("UG601", (0.3,) * 3, optimizer="SGD", momentum=0.999, built_up=1000.0)
    assert finding.threshold == 0.2
    found = step("UG601", (0.3,) * 3, optimizer="RMSprop", momentum=0.99, built_up=10.0)
    assert found == []
    assert severities(step("UG601", (0.3,) * 3, optimizer="RMSprop", momentum=0.999, built_up=100.0)) == [
        "warning"
    ]


def test_large_inputs_are_a_cause_where_the_step_follows_the_gradient():
    ratio = profile("update_ratio", {"0.weight": 3.5}, facts={"optimizer": "SGD"})
    size = profile("param_rms", {"0.weight": 0.1}, labels=("float32",))
    [finding] = judged("UG601", ratio, size, profile("input_rms", {"(input 0)": 130.0}))
    assert finding.causes[0].remedy == "unit_inputs"
    assert "their rms is 130" in finding.causes[0].text


@pytest.mark.parametrize("code", ["UG601", "UG602"])
@pytest.mark.parametrize("left_out", [math.inf, math.nan])
def test_biases_and_zero_weights_are_left_out(code, left_out):
    ratio = profile("update_ratio", {"0.weight": left_out, "0.bias": 9.0, "1.in_proj_bias": 1e-12})
    size = profile(
        "param_rms", {"0.weight": 0.0, "0.bias": 0.1, "1.in_proj_bias": 0.1}, labels=("float32",) * 3
    )
    assert judged(code, ratio, size) == []


def test_what_is_left_out_is_counted():
    ratio = profile("update_ratio", {"0.weight": 5.0, "0.bias": 9.0, "1.weight": math.inf})
    size = profile("param_rms", {"0.weight": 0.1, "0.bias": 0.1, "1.weight": 0.0}, labels=("float32",) * 3)
    [finding] = judged("UG601", ratio, size)
    assert finding.evidence["read"] == "1 weights read; 2 biases and weights that start at zero left out"


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((1e-6, 1e-6, 1e-6), []),
        ((9e-7, 9e-7, 9e-7), ["warning"]),
        ((9e-7, 9e-7, 1e-5), []),
        ((9e-7, 9e-7, 9.9e-6), ["warning"]),
        ((0.0, 0.0, 0.0), ["warning"]),
    ],
)
def test_nothing_moves_only_if_no_weight_does(ratios, expected):
    assert severities(step("UG602", ratios, optimizer="SGD")) == expected


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((1e-5, 1e-5, 1e-5), []),
        ((9e-6, 9e-6, 9e-6), ["warning"]),
        ((9e-6, 9e-6, 1e-4), []),
        ((9e-6, 9e-6, 9.9e-5), ["warning"]),
    ],
)
@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "Lion"])
def test_a_step_by_sign_has_ten_times_the_limit(ratios, expected, optimizer):
    assert severities(step("UG602", ratios, optimizer=optimizer)) == expected
    assert step("UG602", ratios, optimizer=optimizer, scheduled=1.0) == []


@pytest.mark.parametrize(("law", "expected"), [("redrawn", ["warning"]), ("none", [])])
def test_a_step_from_scratch_in_proportion_to_the_gradient_has_ten_times_the_limit(law, expected):
    def found(*ratios):
        ratio = profile("update_ratio", dict(zip(NAMES, ratios, strict=True)), facts={"optimizer": "SGD"})
        size = profile("param_rms", dict.fromkeys(NAMES, 0.2), labels=("float32",) * 3)
        return judged("UG602", ratio, size, profile("backward_gain", {"0": 1.0}, facts={"law": law}))

    assert severities(found(4e-6, 4e-6, 3e-5)) == expected
    assert found(2e-5, 2e-5, 3e-5) == []


def drawn(ratios, optimizer, clipped=1.0, like_default=0.5, damped=1.0):
    """What is said of a step on weights of which a share has the spread of PyTorch's default draw."""
    facts = {"optimizer": optimizer, "clipped": clipped, "damped": damped}
    ratio = profile("update_ratio", dict(zip(NAMES, ratios, strict=True)), facts=facts)
    size = profile("param_rms", dict.fromkeys(NAMES, 0.2), labels=("float32",) * 3)
    weights = profile("weight_gain", {"0": 0.577}, facts={"like_default": like_default})
    return severities(judged("UG602", ratio, size, weights))


@pytest.mark.parametrize(
    ("ratio", "optimizer", "clipped", "like_default", "expected"),
    [
        (4.9e-5, "AdamW", 1.0, 0.5, ["warning"]),
        (4.9e-5, "AdamW", 1.0, 0.4, []),
        (5.1e-5, "AdamW", 1.0, 1.0, []),
        (2.9e-5, "SGD", 0.009, 0.5, ["warning"]),
        (2.9e-5, "SGD", 0.011, 0.5, []),
        (3.1e-5, "SGD", 0.009, 0.5, []),
    ],
)
def test_random_weights_must_move_faster(ratio, optimizer, clipped, like_default, expected):
    assert drawn((ratio, 1.9 * ratio, ratio), optimizer, clipped, like_default) == expected


@pytest.mark.parametrize(("largest", "expected"), [(9.9e-5, ["warning"]), (1.01e-4, [])])
def test_norms_alone_may_be_slow(largest, expected):
    """Their weights of one move by 1e-5 at a rate of 1e-5, matrices of 0.1 by 1e-4."""
    assert drawn((1e-5, 1e-5, largest), "AdamW") == expected


@pytest.mark.parametrize(("damped", "expected"), [(0.51, ["warning"]), (0.49, [])])
def test_where_epsilon_takes_the_step_the_rate_is_not_too_low(damped, expected):
    assert drawn((4e-5, 4e-5, 9e-5), "AdamW", damped=damped) == expected


@pytest.mark.parametrize("rate", [1e-5, 2e-5, 5e-5])
@pytest.mark.parametrize("sizes", [(0.02, 0.02, 0.1), (0.05, 0.1, 1.0), (0.1, 0.099, 0.09)])
def test_rates_of_fine_tuning_are_not_too_small(rate, sizes):
    assert step("UG602", tuple(rate / size for size in sizes), sizes, optimizer="AdamW") == []


@pytest.mark.parametrize("facts", [{"learning_rate": 0.0}, {"scheduled": 1.0}])
def test_a_warm_up_is_not_too_small(facts):
    assert step("UG602", (0.0, 0.0, 0.0), **facts) == []


def test_without_any_gradient_the_step_is_not_to_blame():
    ratio = profile("update_ratio", {"0.weight": 0.0})
    size = profile("param_rms", {"0.weight": 0.1}, labels=("float32",))
    assert judged("UG602", ratio, size, profile("param_grad_rms", {"0.weight": 0.0, "0.bias": 0.5})) == []
    assert judged("UG602", ratio, size, profile("param_grad_rms", {"0.weight": 1e-12}))


def test_where_only_a_weight_that_starts_at_zero_gets_a_gradient_the_step_is_not_to_blame():
    """Behind a zeroed head nothing moves in the first step, and the head has no relative change."""
    ratio = profile("update_ratio", {"0.weight": 0.0, "1.weight": 0.0, "2.weight": math.inf})
    size = profile("param_rms", dict(zip(NAMES, (0.1, 0.1, 0.0), strict=True)), labels=("float32",) * 3)
    behind, through = (
        dict(zip(NAMES, values, strict=True)) for values in ((0.0, 0.0, 0.3), (0.0, 1e-9, 0.3))
    )
    assert judged("UG602", ratio, size, profile("param_grad_rms", behind)) == []
    assert judged("UG602", ratio, size, profile("param_grad_rms", through))


def test_rounding_is_the_first_cause_in_a_narrow_dtype():
    [finding] = step("UG602", (0.0, 0.0, 0.0), labels=("bfloat16",) * 3)
    assert finding.causes[0].text.startswith(
        "rounding: the weights are bfloat16, where an update below 0.00195"
    )
    [finding] = step("UG602", (1e-8, 1e-8, 1e-8))
    assert finding.causes[0].remedy == "lower_learning_rate"
    assert finding.causes[0].parameters["factor"] == pytest.approx(1e5)


def test_a_step_that_is_mostly_rounded_away_is_predicted_within_the_rounding():
    """A ratio of 1e-9 is what is left of one that may be 2^-24 larger; the prediction must hold both."""
    [finding] = step("UG602", (1e-9, 1e-9, 1e-9), optimizer="AdamW")
    cause = finding.causes[0]
    factor = cause.parameters["factor"]
    assert cause.predicted == pytest.approx((factor * 0.5e-9, factor * (1e-9 + 2.0**-24)))


def test_a_step_that_is_rounded_away_whole_has_a_cause_in_float32_too():
    [finding] = step("UG602", (0.0, 0.0, 0.0), optimizer="AdamW")
    assert finding.causes[0].text.startswith("learning rate: every update is below 5.96e-08 of its weight")


@pytest.mark.parametrize(
    ("steps", "expected"), [(math.nan, []), (12.0, []), (11.9, ["warning"]), (1.5, ["warning"])]
)
def test_a_schedule_that_is_over_after_a_dozen_steps_is_told_whatever_its_first_step(steps, expected):
    for ratio in (0.0, 1e-3, 0.1):
        found = step("UG602", (ratio, ratio, ratio), scheduled=1.0, full_steps=steps)
        assert severities(found) == expected
    assert all(finding.causes[0].text.startswith("schedule:") for finding in found)


@pytest.mark.parametrize(
    ("granted", "rise", "optimizer", "expected"),
    [
        (0.01, 300.0, "Adam", ["warning"]),
        (0.05, 300.0, "Adam", []),
        (0.01, 3e4, "Adam", []),  # the steps are long enough
        (1e-4, 300.0, "Adam", []),  # the schedule is the rate itself
        (0.01, 1.0, "Adam", []),  # resumed near its end
        (math.nan, 300.0, "Adam", []),
        (0.01, 300.0, "SGD", []),
    ],
)
def test_a_schedule_that_multiplies_a_rate_and_is_one_by_itself_is_told(granted, rise, optimizer, expected):
    ratios = (2e-7, 3e-7, 5e-6)
    found = step(
        "UG602", ratios, optimizer=optimizer, scheduled=1.0, full_steps=600.0, granted=granted, rise=rise
    )
    assert severities(found) == expected
    for finding in found:
        assert finding.causes[0].text.startswith("schedule: the largest")
        assert finding.causes[0].parameters["factor"] == pytest.approx(1 / granted)


@pytest.mark.parametrize(
    ("granted", "rise", "rate", "optimizer", "expected"),
    [
        (2e-3, 1.0, 2e-3, "Adam", ["warning"]),
        (2e-3, 1.0, 2e-3, "SGD", ["warning"]),
        (2e-3, math.nan, 0.0, "Adam", ["warning"]),
        (2e-3, math.nan, 0.0, "SGD", []),  # what a step would be is not known
        (0.05, 1.0, 2e-3, "Adam", []),
        (2e-3, 3e4, 2e-3, "Adam", []),  # the steps are long enough
    ],
)
def test_a_schedule_that_returns_the_rate_is_told(granted, rise, rate, optimizer, expected):
    known = {"granted": granted, "given": granted, "rise": rise, "learning_rate": rate, "squared": 1.0}
    found = step("UG602", (2e-7, 3e-7, 5e-6), optimizer=optimizer, scheduled=1.0, full_steps=600.0, **known)
    assert severities(found) == expected
    for finding in found:
        assert "is the learning rate itself" in finding.causes[0].text
        assert finding.fix.startswith("LambdaLR")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("lost", [0.5, 0.51, 1.0])
def test_narrow_weights_of_which_most_stay_are_told_though_some_move(lost, dtype):
    found = step("UG602", (3e-4, 4e-4, 2e-3), labels=(dtype,) * 3, optimizer="Adam", lost=lost)
    if dtype == "float32" or lost == 0.5:
        assert found == []
        return
    [finding] = found
    assert (finding.fact, finding.value) == ("lost", lost)
    assert finding.causes[0].text.startswith(f"rounding: the weights are {dtype}")
    assert step("UG602", (3e-4, 4e-4, 2e-3), labels=(dtype,) * 3, lost=lost, scheduled=1.0) == []


@pytest.mark.parametrize(
    ("left", "ratio", "expected"),
    [(0.04, 9e-4, ["warning"]), (0.05, 9e-4, []), (0.04, 1e-3, []), (math.nan, 1e-4, []), (0.9, 1e-4, [])],
)
def test_an_epsilon_above_the_gradient_is_told_where_the_step_is_short(left, ratio, expected):
    found = step("UG602", (ratio, ratio, ratio), optimizer="Adam", damped=left)
    assert severities(found) == expected
    assert all(finding.causes[0].text.startswith("eps:") for finding in found)


def test_what_makes_the_gradient_smaller_than_epsilon_comes_before_it():
    [finding] = step("UG602", (1e-4, 1e-4, 1e-4), optimizer="Adam", damped=0.01, clipped=1e-4)
    assert [cause.text.partition(":")[0] for cause in finding.causes] == ["clip", "eps"]
    [finding] = step("UG602", (1e-7, 1e-7, 1e-7), optimizer="Adam", damped=0.01)
    assert [cause.text.partition(":")[0] for cause in finding.causes] == ["eps", "learning rate"]


@pytest.mark.parametrize(
    ("gain", "expected"),
    [(0.01, ["warning"]), (0.017, ["warning"]), (0.0181, []), (0.577, []), (math.nan, [])],
)
def test_a_weight_that_is_drawn_near_zero_counts_at_the_size_of_a_default_draw(gain, expected):
    """A policy's last layer at a gain of 0.01 moves by 3e-4 of itself where all others stay."""
    facts = {"optimizer": "SGD", "clipped": 1e-4}
    ratio = profile("update_ratio", dict(zip(NAMES, (2e-6, 2e-6, 3.2e-3), strict=True)), facts=facts)
    size = profile("param_rms", dict.fromkeys(NAMES, 0.2), labels=("float32",) * 3)
    weights = profile(
        "weight_gain",
        {"0": 0.5, "1": 1.4, "2": gain},
        facts={"like_default": 0.0, "default": math.sqrt(1 / 3)},
    )
    found = judged("UG602", ratio, size, weights)
    assert severities(found) == expected
    for finding in found:
        assert finding.causes[0].text.startswith("clip: it leaves 0.0001 of the gradient's norm")
        assert finding.evidence["largest ratio"] == 3.2e-3
        assert "of what a default draw would be" in finding.message


def actor(seed: int, rate: float, most: float, norm: float = math.inf, gain: float = 0.01) -> Case:
    """Return a policy and a value on one trunk, orthogonal as PPO draws them, under SGD behind a clip."""
    torch.manual_seed(seed)
    width, depth, states = (int(torch.randint(low, high, ())) for low, high in ((16, 64), (1, 4), (4, 12)))
    trunk: list[nn.Module] = []
    for layer in range(depth):
        trunk += [nn.Linear(width if layer else states, width), nn.Tanh()]
    model = nn.ModuleDict({
        "trunk": nn.Sequential(*trunk),
        "policy": nn.Linear(width, 4),
        "value": nn.Linear(width, 1),
    })
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            nn.init.orthogonal_(weight, {"policy": gain, "value": 1.0}.get(name.partition(".")[0], 2**0.5))

    def loss(m, batch):
        s, a, advantage, value = batch
        h = m["trunk"](s)
        picked = m["policy"](h).log_softmax(-1).gather(1, a[:, None]).squeeze(1)
        return (m["value"](h).squeeze(1) - value).square().mean() - (advantage * picked).mean()

    def clip(parameters):
        parameters = list(parameters)
        nn.utils.clip_grad_norm_(parameters, norm)
        nn.utils.clip_grad_value_(parameters, most)

    batch = (torch.randn(64, states), torch.randint(4, (64,)), torch.randn(64), torch.randn(64))
    return Case(model, loss, [batch], lambda p: torch.optim.SGD(p, rate, momentum=0.9), clip=clip)


STEP = ("update_ratio", "param_rms", "param_grad_rms", "loss_value", "weight_gain")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("most", "norm"), [(1e-6, math.inf), (8e-6, math.inf), (math.inf, 1e-5)])
def test_a_clip_at_next_to_nothing_is_told_though_a_policy_s_small_head_moves(seed, most, norm):
    case = actor(seed, 0.05, most, norm)
    [finding] = judged("UG602", *measured(case, *STEP).values())
    assert finding.causes[0].text.startswith("clip: it leaves ")
    assert finding.value < 1e-5


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("rate", "most", "norm", "gain"),
    [
        (0.05, 0.5, math.inf, 0.01),
        (3e-4, math.inf, 0.5, 0.01),  # PPO's own numbers
        (0.05, 1e-2, math.inf, 0.01),
        (0.01, math.inf, 0.05, 1e-3),
        (1e-3, math.inf, 40.0, 1e-4),
        (0.05, 0.5, math.inf, 1.0),
    ],
)
def test_clips_of_agents_that_learn_are_not_told(seed, rate, most, norm, gain):
    assert judged("UG602", *measured(actor(seed, rate, most, norm, gain), *STEP).values()) == []


def test_a_small_head_that_learns_is_not_overlooked():
    """A new head at a gain of 0.01 on a trunk at a ten thousandth of its rate: it alone is to move."""
    case = actor(1, 0.1, math.inf)

    def two_rates(model):
        trunk = {"params": model["trunk"].parameters(), "lr": 1e-6}
        return torch.optim.SGD(
            [trunk, {"params": [*model["policy"].parameters(), *model["value"].parameters()]}], 0.1
        )

    case.optimizer = two_rates(case.model)
    assert judged("UG602", *measured(case, *STEP).values()) == []


def named(values: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(NAMES, values, strict=True))


def broken(gradients=(0.1, 0.1, 0.1), label="float16", **facts: float):
    ratio = profile(
        "update_ratio",
        named((math.inf, math.nan, 0.01)),
        labels=(label,) * 3,
        facts={"optimizer": "Adam", "broken": 2.0, **facts},
    )
    size = profile("param_rms", named((0.1,) * 3))
    gradient = profile("param_grad_rms", named(gradients))
    return judged("UG601", ratio, size, gradient)


def test_a_step_that_breaks_weights_names_the_epsilon_that_the_dtype_does_not_hold():
    (found,) = broken(eps=1e-8, mended=1.0)
    assert (found.severity, found.value) == ("error", 2.0)
    assert "makes 2 of 3 parameters infinite or NaN" in found.message
    assert found.causes[0].text.startswith("eps: the weights are float16")
    assert "float32" in found.fix


@pytest.mark.parametrize(
    ("label", "facts"),
    [
        ("bfloat16", {"eps": 1e-8, "mended": 1.0}),
        ("float16", {"eps": 1e-7, "mended": 1.0}),
        ("float16", {"eps": 1e-8, "mended": 0.0}),
        ("float16", {}),
    ],
)
def test_an_epsilon_that_is_held_or_mends_nothing_is_not_named(label, facts):
    (found,) = broken(label=label, **facts)
    assert found.causes[0].text.startswith("step: the optimizer divides by zero")


def test_a_gradient_that_is_not_finite_breaks_the_step_and_another_rule_says_so():
    assert broken((math.nan, 0.1, 0.1)) == []


@pytest.mark.parametrize(
    ("clipped", "carried", "handed", "first"),
    [
        (1e-5, 65536.0, 1e-5, "clip: it is given the gradient while that still carries a factor of 65536"),
        (1e-5, 65536.0, 0.65, "clip: it leaves 1e-05"),  # the factor is taken off nowhere
        (1e-5, 1.0, 1e-5, "clip: it leaves 1e-05"),
        (1e-5, math.nan, math.nan, "clip: it leaves 1e-05"),
        (1.0, 1e-5, 1e-5, "step: its own code hands the optimizer 1e-05"),
        (1.0, 1.0, 1.0, "learning rate"),
    ],
)
def test_what_becomes_of_the_gradient_before_the_optimizer_is_the_first_cause(
    clipped, carried, handed, first
):
    known = {"clipped": clipped, "carried": carried, "handed": handed}
    [finding] = step("UG602", (1e-8, 2e-8, 3e-8), optimizer="SGD", **known)
    assert finding.causes[0].text.startswith(first)
    assert finding.fix.startswith("scaler.unscale_") == (carried > 1 and handed == clipped)


@pytest.mark.parametrize(("clipped", "times"), [(1e-5, "65536 times as long"), (1e-3, "1000 times as long")])
def test_a_clip_behind_the_unscaling_leaves_no_more_than_the_gradient_itself(clipped, times):
    known = {"clipped": clipped, "carried": 65536.0, "handed": clipped}
    [finding] = step("UG602", (1e-8, 2e-8, 3e-8), optimizer="SGD", **known)
    assert times in finding.causes[0].text
