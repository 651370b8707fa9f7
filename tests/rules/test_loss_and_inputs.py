"""UG605 to UG608, and UG614: how the loss starts, what enters it, how it pulls, and what enters the model."""

import math

import pytest
from rules.profiles import judged, profile, severities

import unitygain.rules  # noqa: F401 (fills the table)
from unitygain._types import Profile, Site

LN10 = math.log(10)


def loss(row_mean: float, kind: str = "cross_entropy", expected: float = LN10, value: float = 0.0, **facts):
    given = {"kind": kind, "row_mean": row_mean, "expected": expected, "softmax_before_loss": 0.0} | facts
    return profile("loss_value", {"": value or row_mean}, facts=given)


@pytest.mark.parametrize(
    ("excess", "expected"),
    [(-2.3, []), (2.99, []), (3.01, ["warning"]), (19.9, ["warning"]), (20.1, ["error"])],
)
def test_only_far_above_equal_probabilities_is_bad(excess, expected):
    assert severities(judged("UG605", loss(LN10 + excess))) == expected


@pytest.mark.parametrize(
    ("body", "held", "excess", "severity"),
    [
        (0.0, "in optimizer", 3.1, "info"),
        (1.0, "not in optimizer", 3.1, "info"),
        (1.0, "in optimizer", 3.1, "warning"),
        (0.0, "in optimizer", 20.1, "error"),
    ],
    ids=["frozen body", "body of no optimizer", "all learn", "far too loud"],
)
def test_a_head_that_learns_alone_may_start_wrong(body, held, excess, severity):
    """Nothing behind it gets its gradient, and the loss is convex in its weights."""
    outputs = profile("act_rms", {"body": 1.0, "head": 2.6})
    learns = {"body.weight": body, "head.weight": 1.0, "head.bias": 1.0}
    trainable = profile("param_trainable", learns, labels=(held, "in optimizer", "in optimizer"))
    assert severities(judged("UG605", loss(LN10 + excess), outputs, trainable)) == [severity]


@pytest.mark.parametrize("kind", ["mse", "unknown", "kl_div"])
def test_losses_without_a_known_start_are_not_judged(kind):
    assert judged("UG605", loss(1e6, kind)) == []


def test_a_sum_over_the_batch_is_not_the_loss_per_row():
    assert judged("UG605", loss(2.4, value=2.4 * 64)) == []


@pytest.mark.parametrize("row_mean", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_not_judged(row_mean):
    assert judged("UG605", loss(row_mean)) == []
    assert judged("UG608", loss(row_mean), *pull(1.0, (0.0, 0.0))) == []


def test_the_head_is_a_cause_with_a_prediction():
    [finding] = judged("UG605", loss(14.0), profile("act_rms", {"body": 1.0, "head": 12.5}))
    cause = finding.causes[0]
    assert cause.text.startswith("head: the logits of head have an rms of 12.5")
    assert cause.parameters == {"factor": pytest.approx(0.008), "site": "head"}
    assert cause.predicted == pytest.approx((LN10 - 0.5, LN10 + 0.5))
    assert finding.message == (
        "the loss starts at 14 per row, 11.7 above ln(10) = 2.3, the loss of equal probabilities"
    )


def test_large_inputs_come_before_the_head():
    outputs, inputs = profile("act_rms", {"head": 900.0}), profile("input_rms", {"(input 0)": 130.0})
    [finding] = judged("UG605", loss(900.0), outputs, inputs)
    assert [cause.remedy for cause in finding.causes] == ["unit_inputs", "scale_head", None]


def test_double_softmax_says_how_low_the_loss_can_get():
    [finding] = judged("UG606", loss(2.3, classes=10.0, softmax_before_loss=1.0))
    # Nine wrong classes at logit 0 and the right one at 1: ln(1 + 9/e).
    assert finding.evidence["lowest loss"] == pytest.approx(math.log(1 + 9 / math.e))
    assert finding.severity == "error"
    assert finding.message.endswith("the loss cannot fall below 1.46")


def test_double_sigmoid():
    given = loss(0.7, "binary_cross_entropy_with_logits", math.log(2), classes=2.0, softmax_before_loss=1.0)
    [finding] = judged("UG606", given)
    assert finding.message == (
        "1 sigmoid too many before the binary_cross_entropy_with_logits, which has its own: "
        "the loss cannot fall below 0.313"
    )


@pytest.mark.parametrize(("last", "remedy"), [("Softmax", "drop_output_softmax"), ("Linear", None)])
def test_only_a_softmax_module_at_the_end_can_be_taken_away(last, remedy):
    outputs = profile("act_rms", {"0": 1.0, "1": 0.1}, labels=("Linear", last))
    [finding] = judged("UG606", loss(2.3, classes=10.0, softmax_before_loss=1.0), outputs)
    assert finding.causes[0].remedy == remedy
    assert (finding.causes[0].predicted is None) == (remedy is None)


def test_logits_are_no_double_softmax():
    assert judged("UG606", loss(2.3, classes=10.0)) == []


def scale(size: float, first: float = 1.0, kind: str = "Linear", mean: float = 0.0):
    return judged(
        "UG607",
        profile("input_rms", {"(input 0)": size}),
        profile("input_mean", {"(input 0)": mean}),
        profile("act_rms", {"0": first, "1": first}, labels=(kind, "ReLU")),
    )


@pytest.mark.parametrize(
    ("size", "first", "expected"),
    [
        (10.0, 6.0, []),
        (10.1, 10.1, ["warning"]),
        (10.1, 9.9, ["info"]),
        (1e-3, 0.1, []),
        (9.9e-4, 0.1, ["warning"]),
        (0.0, 0.1, []),
        (math.inf, 1.0, []),
        (math.nan, 1.0, []),
    ],
)
def test_input_scale_has_two_limits(size, first, expected):
    assert severities(scale(size, first)) == expected


def of_parts(first: float, kind: str = "Linear", other: float = 0.4):
    """A discriminator that is shown pictures, and then what a generator has made."""
    judge, fake = Site("judge", 1, "(input 0)"), Site("judge", 2, "(input 0)")
    inputs = Profile("input_rms", "rms", (Site("maker", leaf="(input 0)"), judge, fake), (1.0, 130.0, other))
    places = (Site("maker.0"), Site("maker.1"), Site("judge.0", 1), Site("judge.1", 1), Site("judge.0", 2))
    values, kinds = (0.6, 0.4, first, first / 2, 0.1), ("Linear", "Tanh", kind, "ReLU", kind)
    return judged("UG607", inputs, Profile("act_rms", "rms", places, values, labels=kinds))


@pytest.mark.parametrize(
    ("first", "kind", "severity"),
    [(60.0, "Linear", "warning"), (9.0, "Linear", "info"), (60.0, "BatchNorm1d", "info")],
)
def test_an_input_of_a_part_is_judged_by_the_layers_of_that_part(first, kind, severity):
    [finding] = of_parts(first, kind)
    assert finding.severity == severity
    assert finding.message.startswith("judge#1(input 0) has an rms of 130")


def test_sources_of_one_part_that_their_size_tells_apart_are_told():
    [finding] = of_parts(60.0)
    assert finding.causes[1].text.startswith("two sources: judge#2(input 0) has 0.4, so that size alone")
    finding, _ = of_parts(60.0, other=20.0)
    assert [cause.remedy for cause in finding.causes] == ["unit_inputs"]


@pytest.mark.parametrize("size", [150.0, 1e-5])
@pytest.mark.parametrize("kind", ["BatchNorm2d", "LayerNorm", "RMSNorm"])
def test_a_first_norm_layer_deals_with_it(size, kind):
    [finding] = scale(size, 50.0, kind)
    assert finding.severity == "info"
    assert finding.message.endswith(f"the {kind} at 0 normalises it")


def test_bytes_are_recognised():
    [finding] = scale(149.0, 80.0, mean=120.0)
    assert finding.causes[0].text == "data: images as bytes, 0..255, not standardised"
    assert finding.message == "input 0 has an rms of 149, above 10"
    assert finding.evidence["mean of input 0"] == 120.0


def pull(residual: float, gradients: tuple[float, ...], *more):
    names = {str(index): value for index, value in enumerate(gradients)}
    return profile("logit_grad_absmax", {"": residual}), profile("grad_rms", names), *more


@pytest.mark.parametrize(
    ("row_mean", "residual", "gradients", "expected"),
    [
        (40.0, 1.0, (0.0, 0.0), ["error"]),
        (40.0, 1.0, (0.0, 0.3), ["error"]),
        (40.0, 1.0, (1e-30, 0.3), []),
        (40.0, 9e-4, (0.1, 0.1), ["error"]),
        (40.0, 1.1e-3, (0.1, 0.1), []),
        (1.5 * LN10, 0.0, (0.0, 0.0), []),
        (1.51 * LN10, 0.0, (0.0, 0.0), ["error"]),
        (1e-6, 1e-6, (0.0, 0.0), []),
        (40.0, 1.0, (0.0,), []),
    ],
)
def test_a_bad_loss_that_does_not_pull(row_mean, residual, gradients, expected):
    assert severities(judged("UG608", loss(row_mean), *pull(residual, gradients))) == expected


def test_a_gradient_that_underflows_is_not_a_dead_link():
    lost = profile("grad_rescaled", {"0": -9.0, "1": -8.0}, labels=("float16", "float16"))
    assert judged("UG608", loss(40.0), *pull(1.0, (0.0, 0.0)), lost) == []
    zero = profile("grad_rescaled", {"0": -math.inf, "1": -math.inf}, labels=("float16", "float16"))
    assert judged("UG608", loss(40.0), *pull(1.0, (0.0, 0.0)), zero)


@pytest.mark.parametrize(
    ("kind", "severity"), [("Linear", "info"), ("LSTM", "warning"), ("GRUCell", "warning")]
)
def test_an_output_that_is_bounded_in_itself_does_not_show_that_inputs_are_scaled(kind, severity):
    inputs = profile("input_rms", {"(input 0)": 3000.0})
    [finding] = judged("UG607", inputs, profile("act_rms", {"rnn": 0.4}, labels=(kind,)))
    assert finding.severity == severity


def test_a_shrunk_tanh_is_not_bounded():
    """A large x less tanh(x) is as large as x: an output of unit size comes from an input of unit size."""
    inputs = profile("input_rms", {"(input 0)": 10.5})
    for kind, severity in (("Tanhshrink", "info"), ("Tanh", "warning")):
        [finding] = judged("UG607", inputs, profile("act_rms", {"0": 0.99}, labels=(kind,)))
        assert finding.severity == severity


@pytest.mark.parametrize(
    ("shares", "threshold"),
    [
        ((0.93, 0.069, 1e-3, 2e-5, 6e-7, 1e-9, 2e-10, 4e-12), 0.8),
        ((0.79, 0.209, 1e-3, 2e-5, 6e-7, 1e-9, 2e-10, 4e-12), None),
        ((0.93, 0.06, 5e-3, 2e-3, 1e-4, 5e-5, 1e-5, 1e-6), None),
        ((0.972, 0.025, 1e-3, 1e-3, 3e-4, 2e-4, 1e-4, 1e-4), 0.97),
        ((0.968, 0.029, 1e-3, 1e-3, 3e-4, 2e-4, 1e-4, 1e-4), None),
    ],
    ids=["two loud groups", "two as loud as each other", "a bounded weight", "one loud group", "hardly"],
)
def test_most_of_the_gradient_in_one_group_is_enough_where_half_of_the_times_are_silent(shares, threshold):
    sites = {f"(sigma {k} to {k + 1})": share for k, share in enumerate(shares)}
    rows = tuple((16.0, share, share) for share in shares)
    facts = {"largest": max(shares), "groups": 8.0, "argument": "sigma", "variants": ""}
    columns = ("samples", "energy", "output_energy")
    found = judged("UG705", profile("timestep_grad_share", sites, rows=rows, columns=columns, facts=facts))
    assert [finding.threshold for finding in found] == ([threshold] if threshold else [])


def outputs(rms: float, top: float):
    return profile("act_rms", {"head": rms}), profile("act_absmax", {"head": top})


@pytest.mark.parametrize(
    ("top", "severity", "cause"), [(20.0, "warning", "head"), (0.5, "info", "temperature")]
)
def test_logits_that_the_last_layer_did_not_make_are_a_margins_or_a_temperatures(top, severity, cause):
    (finding,) = judged("UG605", loss(LN10 + 7.0), *outputs(top / 3, top))
    assert finding.severity == severity
    assert finding.causes[0].text.startswith(cause)


def test_a_temperature_of_a_hundred_times_too_low_is_an_error():
    (finding,) = judged("UG605", loss(LN10 + 70.0), *outputs(0.1, 0.5))
    assert (finding.severity, finding.causes[0].text[:11]) == ("error", "temperature")


@pytest.mark.parametrize(("spread", "size", "found"), [(671.0, 0.2, 1), (4.0, 0.2, 0), (671.0, 500.0, 0)])
def test_targets_that_were_not_put_to_scale_are_told(spread, size, found):
    squares = loss(spread**2, kind="mse", expected=spread**2)
    findings = judged("UG605", squares, *outputs(size, 3 * size))
    assert len(findings) == found
    assert all(one.causes[0].text.startswith("targets:") and one.severity == "warning" for one in findings)


@pytest.mark.parametrize(
    ("name", "beyond", "words"),
    [
        ("relu", 0.26, "the ReLU puts out numbers 0 and above"),
        ("tanh", 9.0, "the tanh puts out numbers from -1"),
    ],
)
def test_targets_that_an_activation_cannot_reach_are_named_with_it(name, beyond, words):
    [finding] = judged("UG614", loss(math.nan, "mse", beyond=beyond, bounded_by=name))
    assert finding.severity == "warning"
    assert finding.causes[0].text.startswith(f"bounded output: {words}")
    assert finding.value == beyond


@pytest.mark.parametrize(
    ("prediction", "words", "fix"),
    [
        ("column", "prediction (64, 1) and target (64,) make (64, 64)", "target.unsqueeze(1)"),
        ("row", "prediction (64,) and target (64, 1) make (64, 64)", "target.squeeze(1)"),
    ],
)
def test_a_loss_of_all_pairs_says_which_shape_to_change(prediction, words, fix):
    [finding] = judged("UG614", loss(math.nan, "unknown", pairs=64.0, prediction=prediction))
    assert finding.severity == "error"
    assert finding.causes[0].text.startswith(f"broadcast: {words}")
    assert finding.fix.startswith(fix)
    assert finding.value == 64.0


@pytest.mark.parametrize("pairs", [1.0, math.nan])
def test_a_loss_without_pairs_is_left_alone(pairs):
    assert judged("UG614", loss(math.nan, "unknown", pairs=pairs, prediction="column")) == []


@pytest.mark.parametrize("beyond", [0.24, math.nan])
def test_targets_a_little_beyond_the_range_are_left_alone(beyond):
    assert judged("UG614", loss(math.nan, "mse", beyond=beyond, bounded_by="tanh")) == []


def test_a_second_derivative_that_is_zero_everywhere_is_put_down_to_the_activation():
    [finding] = judged("UG608", loss(math.nan, "unknown", flat_activation="ReLU", flat_products=2.0))
    assert (
        finding.message
        == "the loss holds a second derivative through ReLU, which is zero wherever it is taken: "
        "products with zeros, 2"
    )
    assert finding.causes[0].parameters == {"of": "ReLU", "to": "Tanh"}
    assert judged("UG608", loss(math.nan, "unknown", flat_activation="", flat_products=0.0)) == []


@pytest.mark.parametrize(
    ("by", "share", "expected"),
    [
        ("derivative", 0.051, ["error"]),
        ("derivative", 0.049, []),
        ("value", 0.61, ["error"]),
        ("value", 0.59, []),
        ("", 0.0, []),
    ],
)
def test_a_term_without_a_gradient_is_told_by_its_share(by, share, expected):
    assert severities(judged("UG608", loss(math.nan, "unknown", cut_share=share, cut_by=by))) == expected


@pytest.mark.parametrize(("by", "words"), [("derivative", "create_graph=True"), ("value", "detach()")])
def test_how_a_term_was_cut_is_said_with_its_share(by, words):
    [finding] = judged("UG608", loss(math.nan, "unknown", cut_share=0.9512, cut_by=by))
    assert "0.951 of the loss" in finding.message
    assert finding.causes[0].text.startswith("cut graph: ")
    assert words in finding.causes[0].text


@pytest.mark.parametrize(
    ("size", "dtype", "expected"),
    [(1.6e7, "float32", ["info"]), (1.7e7, "float32", ["warning"]), (1.7e7, "float64", ["info"])],
)
def test_inputs_that_float32_cannot_tell_apart_are_bad_whatever_the_model_makes_of_them(
    size, dtype, expected
):
    inputs = profile("input_rms", {"(input 0)": size}, labels=(dtype,))
    found = judged("UG607", inputs, profile("act_rms", {"0": 1.0, "1": 1.0}))
    assert severities(found) == expected
    assert found[0].causes[0].text.startswith("precision" if expected == ["warning"] else "data")


def test_how_far_float32_numbers_lie_apart_is_said():
    [finding] = judged("UG607", profile("input_rms", {"(input 0)": 1.7e9}))
    assert "1.7e+09 are 128 apart" in finding.causes[0].text


def squared(mean: float, target: float, output: float, sizes: dict[str, float], **more):
    facts = {
        "kind": "mse",
        "expected": target**2,
        "row_mean": mean,
        "target_rms": target,
        "output_rms": output,
    }
    loss = profile("loss_value", {"": mean}, facts=facts | more)
    labels = ("Linear",) * len(sizes)
    return judged("UG605", loss, profile("act_rms", sizes, labels=labels))


@pytest.mark.parametrize(
    ("mean", "target", "output", "expected"),
    [
        (50.0, 1.0, 7.0, []),
        (51.0, 1.0, 7.1, ["warning"]),
        (51.0, 0.01, 7.1, ["warning"]),  # small targets are held against 1
        (49.0, 0.0, 7.0, []),  # a residual, which is to be zero
        (190.0, 2.0, 13.7, []),
        (210.0, 2.0, 14.4, ["warning"]),
        (900.0, 1.0, 3.0, []),  # put to another scale behind the model
        (math.nan, 1.0, 30.0, []),
    ],
)
def test_a_squared_error_is_held_against_its_targets(mean, target, output, expected):
    assert severities(squared(mean, target, output, {"0": 1.0, "head": output})) == expected
    assert squared(mean, target, output, {"head": output}, kind="cross_entropy", expected=1e9) == []


def test_outputs_that_are_too_large_are_the_heads_or_what_forward_does_itself():
    [finding] = squared(1e6, 1.0, 1e3, {"0": 1.0, "head": 1e3})
    assert finding.causes[0].remedy == "scale_head"
    assert finding.causes[0].parameters == {"factor": 1e-3, "site": "head"}
    for sizes, largest in (({"makes": 1.4}, "puts out more than 1.4"), ({"": 1e3}, "no module runs")):
        [finding] = squared(1e6, 1.0, 1e3, sizes)
        assert finding.causes[0].text.startswith("between the modules:")
        assert largest in finding.causes[0].text


@pytest.mark.parametrize(
    ("by", "classes", "least", "most", "count"),
    [
        ("cosines", 10, -1.0, 1.0, 1),
        ("cosines", 5, -1.0, 1.0, 0),
        ("cosines", 32, -2.0, 2.0, 0),
        ("cosines", 1000, -2.0, 2.0, 1),
        ("cosines", 1000, -10.0, 10.0, 0),
        ("cosines", 1, -1.0, 1.0, 1),
        ("cosines", 1, -2.0, 2.0, 0),
        ("tanh", 10, -1.0, 1.0, 1),
        ("sigmoid", 3, 0.0, 1.0, 1),
        ("", 10, math.nan, math.nan, 0),
    ],
)
def test_logits_that_cannot_be_large_enough_are_told_by_the_loss_that_is_left(
    by, classes, least, most, count
):
    given = {"logits_by": by, "logits_least": least, "logits_most": most, "logits_classes": float(classes)}
    found = judged("UG614", loss(2.3, **given))
    assert len(found) == count
    for finding in found:
        words = "cosines without a scale" if by == "cosines" else f"bounded logits: the {by}"
        assert finding.causes[0].text.startswith(words)
        # The largest logit that is named leaves a probability of 0.99.
        others, spread = max(classes - 1, 1), finding.expected * (2 if classes > 1 and least else 1)
        assert 1 / (1 + others * math.exp(-spread)) == pytest.approx(0.99, abs=1e-9)
    assert judged("UG614", loss(2.3, **(given | {"softmax_before_loss": 1.0}))) == []


@pytest.mark.parametrize(
    ("log_sum", "ones", "severity"),
    [
        (0.09, math.nan, []),
        (-0.09, math.nan, []),
        (0.11, math.nan, ["warning"]),
        (-3.0, 0.0, ["error"]),
        (9000.0, math.nan, ["warning"]),
        (math.nan, math.nan, []),
    ],
)
def test_log_probabilities_add_up_to_one(log_sum, ones, severity):
    given = {"log_sum": log_sum, "summed_by": "nll_loss", "classes_along": 1.0, "ones_along": ones}
    found = judged("UG614", loss(2.3, "nll", **given))
    assert severities(found) == severity
    for finding in found:
        assert finding.causes[0].text.startswith("no log_softmax" if math.isnan(ones) else "wrong axis")


def test_a_softmax_over_one_output_is_the_one_thing_to_tell():
    saturated = loss(37.5, "binary_cross_entropy", math.log(2), single=1.0)
    [finding] = judged("UG608", saturated, *pull(1.0, (0.0, 0.0)))
    assert finding.fact == "single"
    assert finding.causes[0].text.startswith("softmax over one output")


@pytest.mark.parametrize(
    ("least", "most", "count"), [(0.0, 1.0, 0), (0.1, 0.9, 0), (-1.0, 1.0, 1), (0.0, 255.0, 1)]
)
def test_targets_of_a_binary_loss_are_probabilities(least, most, count):
    given = {"target_least": least, "target_most": most}
    found = judged("UG614", loss(0.7, "binary_cross_entropy_with_logits", math.log(2), **given))
    assert len(found) == count
    assert all(finding.causes[0].text.startswith("targets: ") for finding in found)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.19, []), (0.21, ["warning"]), (1.0, ["warning"]), (math.nan, [])]
)
@pytest.mark.parametrize(("by", "name"), [("relu", "ReLU"), ("relu6", "ReLU6"), ("clamp", "clamp at 0")])
def test_right_classes_without_a_gradient_are_told_with_what_took_it(share, expected, by, name):
    found = judged("UG614", loss(2.3, silent=share, silent_by=by))
    assert severities(found) == expected
    for finding in found:
        assert finding.causes[0].text.startswith(f"rectified logits: the {name} behind the last layer")
        assert finding.reread({"loss_value": loss(2.3, silent=share)}) == share


@pytest.mark.parametrize(
    ("share", "expected"), [(0.32, []), (0.34, ["warning"]), (1.0, ["warning"]), (math.nan, [])]
)
def test_a_binary_loss_that_cannot_say_no_is_told(share, expected):
    given = {"denied": share, "denied_by": "softplus"}
    found = judged("UG614", loss(0.9, "binary_cross_entropy_with_logits", math.log(2), **given))
    assert severities(found) == expected
    for finding in found:
        assert finding.causes[0].text.startswith("rectified logits: the softplus behind the last layer")
        assert finding.evidence["lowest loss"] == pytest.approx(share * math.log(2))
