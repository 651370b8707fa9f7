"""UG501 to UG503 and UG901: what a dtype cannot hold, and what no dtype holds."""

import math

import pytest
from rules.profiles import judged, profile, severities

import unitygain.rules  # noqa: F401 (fills the table)
from unitygain._types import Profile, Site


def narrow(energy: float, scale: float, *, own_step: float = 0.0, dtype="float16", head: float = -3.0):
    return profile(
        "grad_rescaled",
        {"0": -8.0, "2": head},
        columns=("log10_rms", "lost_entries", "lost_energy"),
        rows=((-8.0, 0.75, energy), (head, 0.0, 0.0)),
        labels=(dtype, dtype),
        facts={"lost_energy": energy, "lost_site": "0", f"loss_scale_{dtype}": scale, "own_step": own_step},
    )


@pytest.mark.parametrize(
    ("energy", "scale", "own_step", "expected"),
    [
        (0.0999, 64.0, 0.0, []),
        (0.1, 64.0, 0.0, ["warning"]),
        (0.9, math.nan, 0.0, ["error"]),
        (0.9, math.nan, 1.0, ["error"]),
        (0.9, 65536.0, 1.0, ["info"]),
        (0.9, 131072.0, 1.0, ["warning"]),
    ],
)
def test_underflow_by_energy_and_by_what_repairs_it(energy, scale, own_step, expected):
    assert severities(judged("UG501", narrow(energy, scale, own_step=own_step))) == expected


def test_underflow_states_the_scale_and_predicts_its_effect():
    [finding] = judged("UG501", narrow(0.8, 128.0))
    assert finding.message == (
        "float16 rounds 75% of the gradient's entries at 0 to zero, 0.8 of its energy (rms 1e-08 in "
        "float64); a loss scale of 128 repairs it"
    )
    assert finding.causes[0].parameters == {"scale": 128.0}
    assert finding.causes[0].predicted == (0.0, 0.02)
    assert len(finding.causes) == 1


def test_underflow_that_no_scale_repairs_is_laid_to_the_depth():
    [finding] = judged("UG501", narrow(1.0, math.nan, head=-1.0))
    assert finding.message.endswith("no loss scale can repair it")
    assert [cause.text for cause in finding.causes] == [
        "depth: in float64 the gradient itself falls by 10^7 between layers (UG101)"
    ]


def test_without_narrow_sites_there_is_no_underflow():
    assert judged("UG501", profile("grad_rescaled", {"0": -50.0}, rows=((-50.0, 1.0, 1.0),))) == []


@pytest.mark.parametrize(
    ("bits", "expected"), [(2.0, []), (1.99, ["warning"]), (0.0, ["warning"]), (-0.1, ["error"])]
)
def test_overflow_from_a_factor_of_four_on(bits, expected):
    room = profile("act_headroom", {"0": 9.0, "2": bits}, labels=("float16", "float16"))
    assert severities(judged("UG502", room)) == expected


def test_overflow_names_the_worst_first_and_predicts_bfloat16():
    room = profile(
        "act_headroom", {"0": 1.0, "2": -3.0, "4": math.inf, "6": -math.inf}, labels=("float16",) * 4
    )
    [finding] = judged("UG502", room)
    assert [str(site) for site in finding.sites] == ["2", "0"]
    assert finding.causes[0].parameters == {"precision": "bfloat16"}
    assert finding.causes[0].predicted == (108.0, 110.0)


def test_overflow_of_float32_has_no_wider_range_to_offer():
    [finding] = judged("UG502", profile("act_headroom", {"0": 1.0}, labels=("float32",)))
    assert [cause.remedy for cause in finding.causes] == [None]


def wide(true: tuple[float, ...], seen: tuple[float, ...], dtype: str = "float32", more: tuple = ()):
    names = [str(index) for index in range(len(true))]
    rescaled = profile("grad_rescaled", dict(zip(names, true, strict=True)), labels=(dtype,) * len(true))
    return judged("UG503", rescaled, profile("grad_rms", dict(zip(names, seen, strict=True))), *more)


@pytest.mark.parametrize(
    ("true", "seen", "expected"),
    [
        (-37.92, 1.2e-38, []),
        (-37.94, 1.14e-38, ["warning"]),
        (-50.0, 0.0, ["warning"]),
        (-math.inf, 0.0, []),
        (-37.0, 0.0, []),
    ],
)
def test_float32_ends_at_its_smallest_normal_number(true, seen, expected):
    assert severities(wide((true, -3.0), (seen, 1e-3))) == expected


def test_float16_sites_are_not_float32():
    assert wide((-50.0, -3.0), (0.0, 1e-3), "float16") == []


def test_float32_underflow_predicts_the_scaled_gradient():
    [finding] = wide((-45.0, -3.0), (0.0, 1e-3))
    cause = finding.causes[0]
    scale = cause.parameters["scale"]
    # The least power of two that lifts 1e-45 to 1e-30: 2^50 is 1.1e15.
    assert scale == 2.0**50
    assert cause.predicted == pytest.approx((1e-45 * scale / 1.5, 1e-45 * scale * 1.5))
    assert finding.causes[1].text == "depth: the gradient itself falls by 10^42 on its way to 0 (UG101)"


@pytest.mark.parametrize(
    ("loop", "code"),
    [(("lstm",), "UG101"), (("0",), "UG401"), (("",), "UG101")],
    ids=["another module", "its module", "the model's own loop"],
)
def test_underflow_points_to_the_rule_on_the_way_that_the_gradient_took(loop, code):
    steps = tuple(Site(path, time=step) for path in loop for step in range(3))
    time = Profile("time_grad_rms", "rms", steps, (1e-40, 1e-20, 1.0))
    [finding] = wide((-45.0, -3.0), (0.0, 1e-3), more=(time,))
    assert finding.causes[1].text.endswith(f"({code})")
    assert finding.fix.endswith(f"see {code} first")
    assert "see" not in wide((-40.0, -38.5), (0.0, 1e-39), more=(time,))[0].fix


def test_a_span_beyond_float32_cannot_be_repaired():
    [finding] = wide((-300.0, -3.0), (0.0, 1e-3))
    assert finding.causes[0].remedy is None
    assert "spans 10^297" in finding.causes[0].text


def test_what_can_be_repaired_comes_first():
    [finding] = wide((-300.0, -45.0, -3.0), (0.0, 0.0, 1e-3))
    assert [str(site) for site in finding.sites] == ["1", "0"]


def broken(operation: str, direction: str = "forward", kind: str = "NaN", **facts):
    given = {
        "operation": operation,
        "direction": direction,
        "kind": kind,
        "line": "",
        "dtype": "float32",
    } | facts
    return profile("nonfinite_origin", {"head": 1.0}, labels=(operation,), facts=given)


OUTPUTS = profile("act_frac_nonfinite", {"body": 0.0, "head": 0.25})
FINE = profile("act_frac_nonfinite", {"body": 0.0, "head": 0.0})
LOSS = profile("loss_value", {"": math.nan})


@pytest.mark.parametrize(
    ("operation", "direction", "beginning"),
    [
        ("log", "forward", "log: its argument is 0"),
        ("LogBackward0 (div)", "backward", "log: its slope"),
        ("div", "forward", "division: the divisor is 0"),
        ("SqrtBackward0 (div)", "backward", "root: its slope is infinite at 0"),
        ("LinalgVectorNormBackward0 (div)", "backward", "root: its slope is infinite at 0"),
        ("exp", "forward", "exp: its exponent is above 88"),
        ("_softmax", "forward", "softmax: every entry of a row is minus infinity"),
        ("input", "forward", "data: a sample"),
        ("parameter", "forward", "parameter: an earlier step"),
        ("mm", "forward", "growth: the numbers that enter mm"),
        ("fft_r2c", "forward", "fft_r2c: look at what enters it"),
    ],
)
def test_the_first_cause_follows_the_operation(operation, direction, beginning):
    [finding] = judged("UG901", OUTPUTS, LOSS, broken(operation, direction))
    assert finding.severity == "error"
    assert finding.causes[0].text.startswith(beginning)


def test_float16_is_the_first_cause_where_float64_is_finite():
    room = profile("act_headroom", {"body": 3.0, "head": -2.0}, labels=("float16", "float16"))
    [finding] = judged("UG901", OUTPUTS, LOSS, broken("addmm", kind="infinity", dtype="float16"), room)
    assert finding.causes[0].text == (
        "range: in float64 the output of head is finite; float16 ends at 65504 (UG502)"
    )


@pytest.mark.parametrize(("kind", "word"), [("NaN", "the 1st NaN"), ("infinity", "the 1st infinity")])
def test_nan_and_infinity_are_told_apart(kind, word):
    [finding] = judged("UG901", OUTPUTS, LOSS, broken("log", kind=kind, line="/home/me/model.py:7"))
    assert finding.message == f"log at head (forward, model.py:7) makes {word}, from numbers without one"


def test_an_infinity_is_named_with_what_makes_a_nan_of_it():
    [finding] = judged("UG901", OUTPUTS, LOSS, broken("logit", kind="infinity", then="mul"))
    assert finding.message == (
        "logit at head (forward) makes the 1st infinity, from numbers without one, of which mul makes a NaN"
    )
    assert finding.causes[0].text.startswith("logit: its argument is 0 or 1")


@pytest.mark.parametrize("operation", ["mul", "div", "sub"])
def test_a_nan_of_an_infinity_written_by_hand_is_no_growth_and_no_division_by_zero(operation):
    [finding] = judged("UG901", OUTPUTS, LOSS, broken(operation, fed=1.0))
    assert finding.causes[0].text.startswith("infinity: one that was written by hand")
    assert not any("growth" in cause.text for cause in finding.causes)


def test_a_row_that_a_mask_leaves_nothing_of_is_softmax_s_own():
    [finding] = judged("UG901", OUTPUTS, LOSS, broken("_softmax", fed=1.0))
    assert finding.causes[0].text.startswith("softmax: every entry")


@pytest.mark.parametrize(("sizes", "severity"), [((0.0, 0.0, 0.3), "error"), ((0.0, 0.2, 0.3), "info")])
def test_an_infinity_that_ends_in_zeros_is_an_error_where_gradients_are_zero(sizes, severity):
    fine = profile("loss_value", {"": 2.0})
    gradients = profile("param_grad_rms", dict(zip(("a.weight", "b.weight", "c.weight"), sizes, strict=True)))
    origin = broken("sum", kind="infinity", dtype="float16")
    [finding] = judged("UG901", profile("act_frac_nonfinite", {"a": 0.0}), fine, gradients, origin)
    assert finding.severity == severity
    assert ("ends in zeros" in finding.message) == (severity == "error")
    assert finding.causes[0].text == "range: the result is above 65504, where float16 ends"


def test_an_infinity_that_harms_nothing_is_information():
    fine = profile("loss_value", {"": 2.0})
    [finding] = judged("UG901", OUTPUTS, fine, broken("log", kind="infinity"))
    assert finding.severity == "info"


def test_masked_outputs_are_not_judged_by_themselves():
    fine = profile("loss_value", {"": 2.0})
    assert judged("UG901", OUTPUTS, fine, profile("grad_frac_nonfinite", {"body": 0.0, "head": 0.0})) == []


def test_without_an_operation_the_first_output_is_named():
    [finding] = judged("UG901", OUTPUTS, LOSS)
    assert [str(site) for site in finding.sites] == ["head"]
    assert finding.message.startswith("0.25 of the output of head is infinite or NaN")


def test_without_an_output_the_last_gradient_is_named():
    clean = profile("act_frac_nonfinite", {"a": 0.0, "b": 0.0, "c": 0.0})
    gradients = profile("grad_frac_nonfinite", {"a": 1.0, "b": 0.5, "c": 0.0})
    [finding] = judged("UG901", clean, gradients, profile("loss_value", {"": 1.0}))
    assert [str(site) for site in finding.sites] == ["b", "a"]


def test_a_loss_alone_is_named_as_the_loss():
    [finding] = judged(
        "UG901", profile("act_frac_nonfinite", {"a": 0.0}), profile("loss_value", {"": math.inf})
    )
    assert finding.message == (
        "the loss is inf, though every module's output is finite: the loss function makes it"
    )


def test_a_parameter_gradient_alone_is_named():
    sizes = profile("param_grad_rms", {"a.weight": 0.1, "b.weight": math.nan})
    [finding] = judged(
        "UG901", profile("act_frac_nonfinite", {"a": 0.0}), sizes, profile("loss_value", {"": 1.0})
    )
    assert [str(site) for site in finding.sites] == ["b.weight"]


@pytest.mark.parametrize(("least", "first"), [(0.0, "product: "), (1e-19, "range: "), (math.nan, "range: ")])
def test_a_product_of_many_numbers_in_the_loss_comes_before_the_range(least, first):
    facts = {"smallest_product": least}
    [finding] = wide((-45.0, -3.0), (0.0, 1e-3), more=(profile("loss_value", {"": 46.0}, facts=facts),))
    assert finding.causes[0].text.startswith(first)


@pytest.mark.parametrize(("dtype", "first"), [("float16", "range: "), ("float32", "growth: ")])
def test_a_sum_that_leaves_its_dtype_is_put_down_to_the_range(dtype, first):
    facts = {"operation": "add", "direction": "forward", "kind": "infinity", "dtype": dtype}
    [finding] = judged(
        "UG901",
        profile("act_frac_nonfinite", {"": 1.0}),
        profile("nonfinite_origin", {"": 1.0}, facts=facts),
        profile("loss_value", {"": math.inf}),
    )
    assert finding.causes[0].text.startswith(first)


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        ({"0.weight": 0.0, "2.weight": 0.1}, ["warning"]),
        ({"0.weight": 0.1, "2.weight": 0.1}, ["info"]),
        ({"2.weight": 0.0}, ["info"]),
    ],
    ids=["the lost stay", "all move", "the lost have no weights"],
)
def test_a_step_that_leaves_what_is_lost_does_not_scale_the_loss(moved, expected):
    lost = narrow(1.0, 1024.0, own_step=1.0, head=-6.0)
    assert severities(judged("UG501", lost, profile("update_ratio", moved))) == expected


def test_a_later_batch_is_named_and_comes_behind_the_first():
    facts = {"operation": "sqrt", "direction": "backward", "kind": "NaN", "line": "", "dtype": "float32"}
    later = profile("nonfinite_later", {"": 1.0}, labels=("sqrt",), facts=facts | {"batch": 2.0})
    [finding] = judged("UG901", FINE, later)
    assert finding.severity == "error"
    assert finding.message.endswith("; batch 2 of the drawn ones, of which 0 is finite")
    assert finding.quantity == "nonfinite_later"
    [first] = judged("UG901", OUTPUTS, LOSS, broken("log"), later)
    assert first.quantity == "nonfinite_origin"
