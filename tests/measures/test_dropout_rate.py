"""Which share a dropout drops, by the zeros that it makes of ones."""

from collections.abc import Callable

import pytest
import torch
from measures.reading import by_name, measured, squares
from torch import Tensor, nn
from torch.nn import functional as F


class Called(nn.Module):
    """A map and a function of its output."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.up, self.function = nn.Linear(3, 8), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.up(x))


def rates(model: nn.Module, *shape: int) -> dict[str, float]:
    """Return what the measure says of a model, by the site's name."""
    found = measured(squares(model, *shape), "dropout_rate")
    return by_name(found["dropout_rate"]) if found else {}


@pytest.mark.parametrize("p", [0.3, 0.9])
@pytest.mark.parametrize(
    "function", [F.dropout, F.dropout1d, F.alpha_dropout, F.feature_alpha_dropout], ids=lambda f: f.__name__
)
def test_a_function_drops_what_it_is_told_and_what_its_zeros_show(
    function: Callable[..., Tensor], p: float
) -> None:
    [(place, rate)] = rates(Called(lambda x: function(x, p, training=True)), 4, 5, 3).items()
    assert place == "(model).(dropout)"
    assert rate == pytest.approx(p, rel=1e-9)
    torch.manual_seed(0)
    ones = function(torch.ones(400, 400, 2), p, training=True)
    least = ones.min()
    # 160,000 draws at least of a share p: its standard deviation is below 0.0013.
    assert (ones == least).double().mean().item() == pytest.approx(rate, abs=0.006)


def test_all_of_it_is_one() -> None:
    assert rates(Called(lambda x: F.dropout(x, 1.0)), 4, 3) == {"(model).(dropout)": 1.0}
    assert rates(nn.Sequential(nn.Linear(3, 4), nn.Dropout(1.0)), 4, 3) == {"1": 1.0}


def test_modules_are_told_once_and_by_their_calls() -> None:
    drop = nn.Dropout(0.25)
    model = nn.Sequential(nn.Linear(3, 8), drop, nn.Linear(8, 8), drop, nn.Dropout2d(0.5))
    assert rates(model, 4, 5, 3, 3) == {"1#1": 0.25, "1#2": 0.25, "4": 0.5}


def test_recurrent_layers_and_attention_say_their_own() -> None:
    assert rates(nn.Sequential(nn.GRU(3, 4, 2, dropout=0.4)), 5, 2, 3) == {"0": 0.4}
    assert rates(nn.Sequential(nn.GRU(3, 4)), 5, 2, 3) == {}
    layer = nn.TransformerEncoderLayer(4, 2, 8, 0.2, batch_first=True)
    found = rates(nn.Sequential(nn.Linear(3, 4), layer), 5, 6, 3)
    assert found == dict.fromkeys(("1.self_attn", "1.dropout", "1.dropout1", "1.dropout2"), 0.2)


def test_attention_as_a_function_is_found() -> None:
    found = rates(Called(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.7)), 4, 5, 3)
    assert list(found.values()) == [pytest.approx(0.7)]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.dropout(x, 0.9, training=False),
        lambda x: x * torch.full_like(x, 0.1).bernoulli(),
        lambda x: x * x.new_empty(len(x), 1, 1).bernoulli_(0.1).div_(0.1),
        lambda x: x * (torch.zeros(()) + 0.5),
        lambda x: x + 0.1 * torch.zeros(()),
    ],
    ids=["off", "not-to-scale", "rows", "factor", "sum"],
)
def test_what_is_no_dropout_is_none(function: Callable[[Tensor], Tensor]) -> None:
    assert rates(Called(function), 4, 5, 3) == {}


def test_evaluation_drops_nothing() -> None:
    assert rates(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9)).eval(), 4, 3) == {}
