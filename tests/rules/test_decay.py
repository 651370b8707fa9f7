"""UG609: weight decay beside the gradient."""

import math

import pytest
from measures.reading import measured
from rules.profiles import judged, profile, severities
from torch import nn
from zoo import mlp
from zoo.optimizers import coupled

import unitygain.rules  # noqa: F401 (fills the table)

NAMES = ("0.weight", "1.weight", "2.weight")


def decay(ratios, taken, kind="coupled", optimizer="SGD", more=()):
    facts = {"optimizer": optimizer, "weight_decay": 0.5, "learning_rate": 0.1, "median_per_step": taken}
    ratio = profile(
        "decay_ratio", dict(zip(NAMES, ratios, strict=True)), labels=(kind,) * len(ratios), facts=facts
    )
    return judged("UG609", ratio, *more)


@pytest.mark.parametrize(
    ("ratios", "taken", "expected"),
    [
        ((0.5, 2.0, 9.0), 0.05, []),
        ((0.5, math.nextafter(2.0, 3.0), 9.0), 0.05, ["warning"]),
        ((0.03, 50.0, 90.0), 0.05, []),
        ((math.nextafter(0.03, 1.0), 50.0, 90.0), 0.05, ["warning"]),
        ((0.0625, 4.0, 9.0), 0.05, []),
        ((0.0625, math.nextafter(4.0, 5.0), 9.0), 0.05, ["warning"]),
        ((0.5, 5.0, 9.0), 0.002, []),
        ((0.5, 5.0, 9.0), math.nextafter(0.002, 1.0), ["warning"]),
    ],
)
def test_limits_of_ratio_and_speed(ratios, taken, expected):
    assert severities(decay(ratios, taken)) == expected


@pytest.mark.parametrize(("taken", "expected"), [(0.04, []), (math.nextafter(0.04, 1.0), ["warning"])])
def test_decoupled_decay_is_judged_by_its_speed_alone_too(taken, expected):
    found = decay((0.3, 0.4, 0.5), taken, "decoupled", "AdamW")
    assert severities(found) == expected
    assert decay((0.3, 0.4, 0.5), taken) == []
    for finding in found:
        assert finding.fact == "median_per_step"
        assert finding.causes[0].predicted == pytest.approx((0.99e-2 * taken, 1.01e-2 * taken))


def test_the_cause_names_kind_number_and_cure():
    [finding] = decay((5.0, 8.0, 9.0), 0.02, optimizer="Adam")
    assert finding.causes[0].text.startswith("weight decay: 0.5 in Adam (coupled, added to the gradient and")
    assert finding.causes[0].parameters == {"factor": pytest.approx(0.01)}
    assert finding.fix.startswith("torch.optim.AdamW(")
    [finding] = decay((5.0, 8.0, 9.0), 0.02)
    assert finding.fix == "weight_decay=0.005  # in the optimizer, which has 0.5"


def test_a_clip_and_a_small_loss_are_named_before_the_decay():
    update = profile("update_ratio", {"0.weight": 0.1}, facts={"clipped": 0.001})
    loss = profile("loss_value", {"(loss)": 1e-6}, facts={"reduction": 1e-6})
    [finding] = decay((5.0, 8.0, 9.0), 0.02, more=(update, loss))
    assert [cause.text.partition(":")[0] for cause in finding.causes] == [
        "clip",
        "loss",
        "weight decay",
        "gradient",
    ]


def test_where_depth_makes_the_gradient_small_an_ordinary_decay_is_not_blamed():
    case = mlp.case(mlp.plain(32, 12, nn.Sigmoid), 32)
    case.optimizer = coupled(1e-3, 1e-3)
    profile = measured(case, "decay_ratio")["decay_ratio"]
    assert sorted(profile.values)[len(profile) // 2] > 2, "the median alone would blame the decay"
    assert judged("UG609", profile) == []
