"""loss_value: what the log-probabilities of a row add up to, along which dimension, of how many outputs."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from measures.reading import measured
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case

ROWS, CLASSES, STEPS = 6, 4, 5
LABELS = torch.arange(ROWS) % CLASSES


class Outputs(nn.Module):
    """Numbers that are learned, of a shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.randn(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.numbers + 0 * x.sum()


def facts(loss: Callable[[Tensor], Tensor], *shape: int) -> dict[str, Any]:
    """Facts of a loss of outputs of that shape."""
    torch.manual_seed(0)
    case = Case(Outputs(*shape), lambda m, x: loss(m(x)), [torch.ones(ROWS)])
    return dict(measured(case, "loss_value")["loss_value"].facts)


def ctc(given: Tensor) -> Tensor:
    """CTC of (steps, samples, letters)."""
    sizes = torch.full((given.shape[1],), 2)
    return F.ctc_loss(given, torch.ones(given.shape[1], 2).long(), torch.full_like(sizes, len(given)), sizes)


SOUND: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "cross_entropy": (lambda y: F.cross_entropy(y, LABELS), (ROWS, CLASSES)),
    "nll": (lambda y: F.nll_loss(y.log_softmax(1), LABELS), (ROWS, CLASSES)),
    "with an eps": (lambda y: F.nll_loss((y.softmax(1) + 1e-6).log(), LABELS), (ROWS, CLASSES)),
    "pictures": (
        lambda y: F.nll_loss(y.log_softmax(1), torch.zeros(ROWS, 3, 3).long()),
        (ROWS, CLASSES, 3, 3),
    ),
    "one sample": (lambda y: F.nll_loss(y.log_softmax(0), torch.tensor(1)), (CLASSES,)),
    "ctc": (lambda y: ctc(y.log_softmax(-1)), (STEPS, ROWS, CLASSES)),
}


@pytest.mark.parametrize("name", SOUND)
def test_log_probabilities_add_up_to_one(name):
    loss, shape = SOUND[name]
    found = facts(loss, *shape)
    assert found["log_sum"] == pytest.approx(0.0, abs=1e-5)
    assert found["single"] == 0.0


@pytest.mark.parametrize(
    ("loss", "shape", "along", "ones"),
    [
        (lambda y: F.nll_loss(y.log_softmax(0), LABELS), (ROWS, CLASSES), 1, 0),
        (lambda y: ctc(y.log_softmax(1)), (STEPS, ROWS, CLASSES), 2, 1),
        (lambda y: ctc(y.log_softmax(0)), (STEPS, ROWS, CLASSES), 2, 0),
        (
            lambda y: F.nll_loss(y.log_softmax(-1), torch.zeros(ROWS, 3, 3).long()),
            (ROWS, CLASSES, 3, 3),
            1,
            3,
        ),
    ],
)
def test_the_dimension_that_adds_up_instead_is_named(loss, shape, along, ones):
    given = []
    found = facts(lambda y: (given.append(y.detach()), loss(y))[1], *shape)
    sums = given[0].log_softmax(ones).double().exp().sum(along).log().flatten()
    assert found["log_sum"] == pytest.approx(float(sums[sums.abs().argmax()]), abs=1e-5)
    assert (found["classes_along"], found["ones_along"]) == (along, ones)


def test_raw_outputs_add_up_to_nothing_in_particular():
    found = facts(lambda y: F.nll_loss(3 + y, LABELS), ROWS, CLASSES)
    assert found["log_sum"] > 3
    assert math.isnan(found["ones_along"])
    assert found["summed_by"] == "nll_loss"


ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "binary": lambda y: F.binary_cross_entropy(y.softmax(1), torch.ones(ROWS, 1)),
    "soft labels": lambda y: F.cross_entropy(y, torch.ones(ROWS, 1)),
    "labels": lambda y: F.cross_entropy(y, torch.zeros(ROWS).long()),
    "squares": lambda y: F.mse_loss(y.softmax(1), torch.ones(ROWS, 1)),
    "by hand": lambda y: (y.softmax(1) - 0.5).square().mean(),
}


@pytest.mark.parametrize("name", ONE)
def test_a_softmax_over_one_output_is_seen(name):
    assert facts(ONE[name], ROWS, 1)["single"] == 1.0


def test_a_sigmoid_of_one_output_is_none():
    assert facts(lambda y: F.binary_cross_entropy(y.sigmoid(), torch.ones(ROWS, 1)), ROWS, 1)["single"] == 0.0


def test_attention_to_one_token_is_none():
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x)[0][:, 0]

    torch.manual_seed(0)
    case = Case(Looks(), lambda m, x: F.cross_entropy(m(x), LABELS), [torch.randn(ROWS, 1, 4)])
    assert measured(case, "loss_value")["loss_value"].facts["single"] == 0.0


def test_the_ends_of_binary_targets_are_those_of_all():
    targets = torch.tensor([[-1.0], [0.0], [1.0], [0.5], [1.0], [2.0]])
    found = facts(lambda y: F.binary_cross_entropy_with_logits(y, targets), ROWS, 1)
    assert (found["target_least"], found["target_most"]) == (-1.0, 2.0)
    assert math.isnan(facts(lambda y: F.cross_entropy(y, LABELS), ROWS, CLASSES)["target_least"])


RIGHT = LABELS.roll(1)
STEP_LABELS = torch.arange(ROWS * STEPS).reshape(ROWS, STEPS) % CLASSES
RECTIFIED: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], Tensor]] = {
    "relu": (lambda y: F.cross_entropy(y.relu(), LABELS), (ROWS, CLASSES), LABELS),
    "in place": (lambda y: F.cross_entropy((1 * y).relu_(), LABELS), (ROWS, CLASSES), LABELS),
    "relu6": (lambda y: F.cross_entropy(F.relu6(y), LABELS), (ROWS, CLASSES), LABELS),
    "clamp": (lambda y: F.cross_entropy(y.clamp(min=0), LABELS), (ROWS, CLASSES), LABELS),
    "temperature": (lambda y: F.cross_entropy(y.relu() / 0.1, LABELS), (ROWS, CLASSES), LABELS),
    "smoothed": (
        lambda y: F.cross_entropy(y.relu(), RIGHT, label_smoothing=0.1),
        (ROWS, CLASSES),
        RIGHT,
    ),
    "picked": (
        lambda y: -y.relu().log_softmax(1)[torch.arange(ROWS), RIGHT].mean(),
        (ROWS, CLASSES),
        RIGHT,
    ),
    "gathered": (
        lambda y: -y.relu().log_softmax(1).gather(1, RIGHT[:, None]).mean(),
        (ROWS, CLASSES),
        RIGHT,
    ),
    "steps": (
        lambda y: F.cross_entropy(y.relu().transpose(1, 2), STEP_LABELS),
        (ROWS, STEPS, CLASSES),
        STEP_LABELS,
    ),
    "flat": (
        lambda y: F.nll_loss(y.relu().log_softmax(-1).flatten(0, 1), STEP_LABELS.flatten()),
        (ROWS, STEPS, CLASSES),
        STEP_LABELS,
    ),
}


@pytest.mark.parametrize("name", RECTIFIED)
def test_right_logits_that_a_relu_made_zero_are_counted(name):
    loss, shape, labels = RECTIFIED[name]
    found = facts(loss, *shape)
    torch.manual_seed(0)
    right = torch.randn(shape).gather(-1, labels[..., None])
    share = float((right <= 0).double().mean())
    assert 0 < share < 1
    assert found["silent"] == pytest.approx(share)
    assert found["silent_by"] == (name if name in {"relu6", "clamp"} else "relu")


def test_labels_that_are_ignored_are_not_counted():
    labels = LABELS.where(LABELS > 1, -100)
    torch.manual_seed(0)
    right = torch.randn(ROWS, CLASSES)[LABELS > 1, LABELS[LABELS > 1]]
    found = facts(lambda y: F.cross_entropy(y.relu(), labels), ROWS, CLASSES)
    assert found["silent"] == pytest.approx(float((right <= 0).double().mean()))


@pytest.mark.parametrize("end", [F.softplus, F.gelu, F.leaky_relu, torch.tanh, lambda y: y.relu() - 1])
def test_logits_that_have_a_slope_everywhere_are_not_counted(end):
    assert math.isnan(facts(lambda y: F.cross_entropy(end(y), LABELS), ROWS, CLASSES)["silent"])


TARGETS = (torch.arange(ROWS * CLASSES).reshape(ROWS, CLASSES) % 3 == 0).float()


@pytest.mark.parametrize(
    ("end", "name"),
    [
        (torch.relu, "relu"),
        (F.relu6, "relu6"),
        (lambda y: y.clamp(min=0) / 0.5, "clamp"),
        (F.softplus, "softplus"),
        (torch.exp, "exp"),
        (F.hardtanh, ""),
        (F.gelu, ""),
        (lambda y: -y.relu(), ""),
        (lambda y: y.clamp(min=-1), ""),
        (lambda y: y, ""),
    ],
)
def test_targets_that_logits_above_zero_cannot_meet_are_counted(end, name):
    found = facts(lambda y: F.binary_cross_entropy_with_logits(end(y), TARGETS), ROWS, CLASSES)
    assert found["denied"] == pytest.approx(2 / 3 if name else math.nan, nan_ok=True)
    assert found["denied_by"] == name
