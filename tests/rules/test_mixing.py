"""UG106: samples of the batch that meet, as plain numbers."""

import pytest
from rules.profiles import judged, profile

from unitygain._types import Finding
from unitygain.rules._order import in_order


def mixing(kind: str, share: float, where: str = "encoder.0", module: str = "LSTM"):
    """Return the profile of one place where samples meet."""
    facts = {"module": module, "samples": 32.0}
    return profile("sample_mixing", {where: share}, labels=(kind,), facts=facts)


@pytest.mark.parametrize(
    ("kind", "words", "fix"),
    [
        (
            "attention",
            "encoder.0 attends over dimension 0, which is the batch: it was built without",
            "batch_f",
        ),
        ("recurrent", "encoder.0 runs over dimension 0", "batch_first=True"),
        ("attention turned", "encoder.0 attends over dimension 1, which is the batch there", "leave the tr"),
        ("recurrent turned", "encoder.0 runs over dimension 1, which is the batch there", "leave the transp"),
        ("softmax", "softmax over dimension 0 in encoder.0", "dim=-1"),
        ("norm", "a norm over dimension 0 in encoder.0", "dim=-1"),
        ("view", "a view or reshape in encoder.0", "x.transpose(0, 1)"),
        ("rows", "the rows of different samples meet in encoder.0", "let it"),
    ],
)
def test_what_brings_samples_together_is_said_with_a_fix(kind, words, fix):
    [finding] = judged("UG106", mixing(kind, 0.2))
    assert finding.severity == "warning"
    assert finding.causes[0].text.startswith(f"batch axis: {words}")
    assert finding.fix.startswith(fix)
    assert "32" in finding.message


@pytest.mark.parametrize("kind", ["", "linked", "pooled", "one sequence", "elsewhere"])
def test_samples_that_may_meet_on_purpose_are_left_alone(kind):
    assert judged("UG106", mixing(kind, 0.9)) == []


@pytest.mark.parametrize(("share", "count"), [(0.0011, 1), (0.0009, 0), (float("nan"), 0)])
def test_a_thousandth_of_the_gradient_is_the_threshold(share, count):
    assert len(judged("UG106", mixing("attention", share))) == count


def test_the_model_itself_is_named_by_its_class():
    [finding] = judged("UG106", mixing("softmax", 0.2, "(model)", "Unigram"))
    assert "the model itself (Unigram)" in finding.causes[0].text


def test_it_is_read_before_what_follows_from_it():
    [finding] = judged("UG106", mixing("attention", 0.2))
    others = [
        Finding(code, "", "warning", "", finding.sites, "", 0.0, "", 0.0)
        for code in ("UG603", "UG105", "UG102")
    ]
    assert in_order([*others, finding])[0] is finding
