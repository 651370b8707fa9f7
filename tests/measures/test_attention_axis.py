"""attention_axis: over which dimension a softmax ran, and over which its product sums."""

import pytest
import torch
from torch import Tensor, nn
from zoo.axes import ByHand, Efficient, Heads, KeysFirst, Slots

from unitygain._case import Case
from unitygain._registry import MEASURES
from unitygain.measures.attention_axis import attention_axis
from unitygain.probe.observe import observe

WIDTH = 8


def read(model: nn.Module):
    torch.manual_seed(0)
    case = Case(model, lambda m, x: m(x).square().mean(), data=[torch.randn(2, 5, WIDTH)])
    return attention_axis(case, observe(case, MEASURES["attention_axis"].needs))


class Written(nn.Module):
    """Attention whose weights are made and used by functions."""

    def __init__(self, weigh, mix) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.weigh, self.mix = weigh, mix

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.weigh(self.q(x) @ self.k(x).mT), x)


def product(weights: Tensor, x: Tensor) -> Tensor:
    return weights @ x


@pytest.mark.parametrize(
    ("model", "right", "dim", "summed", "queries"),
    [
        (ByHand(WIDTH, -1), 1, 2, 2, 0),
        (ByHand(WIDTH, 1, masked=True), 0, 1, 2, 1),
        (Heads(WIDTH, 3), 1, 3, 3, 0),
        (Heads(WIDTH, 2), 0, 2, 3, 1),
        (Heads(WIDTH, 1), 0, 1, 3, 0),
        (KeysFirst(WIDTH), 1, 1, 1, 0),
        (Written(lambda s: s.softmax(-1), lambda w, x: w.mT @ x), 0, 2, 1, 1),
        (Written(lambda s: s.softmax(-1), lambda w, x: (x.mT @ w.mT).mT), 1, 2, 2, 0),
        (
            Written(lambda s: s.tanh().softmax(1).clone(), lambda w, x: torch.einsum("bqk,bkd->bqd", w, x)),
            0,
            1,
            2,
            1,
        ),
    ],
)
def test_dimensions_are_followed_through_views_copies_and_dropout(model, right, dim, summed, queries):
    profile = read(model)
    assert profile is not None
    assert profile.values == (float(right),)
    seen = dict(zip(profile.columns, profile.rows[0], strict=True))
    assert (seen["dim"], seen["summed"], seen["queries"]) == (dim, summed, queries)
    assert seen["tokens"] == 5


def test_the_sums_are_those_of_the_weights():
    model = ByHand(WIDTH, 1)
    profile = read(model)
    assert profile is not None
    torch.manual_seed(0)
    x = torch.randn(2, 5, WIDTH)
    q, k, _ = model.qkv(x).chunk(3, -1)
    sums = (q @ k.mT / WIDTH**0.5).softmax(1).sum(-1).detach()
    seen = dict(zip(profile.columns, profile.rows[0], strict=True))
    assert seen["sum_least"] == pytest.approx(float(sums.amin()), rel=1e-5)
    assert seen["sum_most"] == pytest.approx(float(sums.amax()), rel=1e-5)


@pytest.mark.parametrize(
    "weigh",
    [
        lambda scores: scores.softmax(1) / scores.softmax(1).sum(-1, keepdim=True),
        lambda scores: scores.softmax(1).clone().div_(scores.exp().sum(-1, keepdim=True)),
        lambda scores: scores.softmax(1) * scores.softmax(2),
    ],
)
def test_weights_that_are_divided_or_multiplied_by_something_learnt_are_not_followed(weigh):
    assert read(Written(weigh, product)) is None


def test_a_softmax_that_one_of_two_products_sums_over_is_right():
    profile = read(Written(lambda s: s.softmax(-1), lambda w, x: w.mT @ x + w @ x))
    assert profile is not None
    assert profile.values == (1.0,)


def test_scores_that_are_no_products_of_two_learnt_things_are_not_read():
    assert read(Slots(WIDTH)) is None
    assert read(Efficient(WIDTH)) is None


def test_a_matrix_that_is_not_square_is_left_alone():
    assert read(Written(lambda s: s[:, :4].softmax(1), lambda w, x: w.repeat(1, 2, 1)[:, :5] @ x)) is None
