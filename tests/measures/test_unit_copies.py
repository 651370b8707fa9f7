"""Units that equal another one, counted the slow way, and starts that look like copies and are none."""

from typing import Any

import pytest
import torch
from measures.reading import by_name, measured, squares
from torch import Tensor, nn

from unitygain._types import Profile
from unitygain.stats.copies import frac_copies


def copies(model: nn.Module, *shape: int, **more: Any) -> Profile:
    return measured(squares(model, *shape, **more), "unit_copies")["unit_copies"]


def counted(units: Tensor) -> float:
    """Compare every pair, in Python."""
    rows = units.tolist()
    return sum(any(row) and rows.count(row) > 1 for row in rows) / len(rows)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [1, 3, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_units_are_those_of_all_pairs(seed: int, width: int, dtype: torch.dtype) -> None:
    drawn = torch.Generator().manual_seed(seed)
    units = torch.randint(-1, 2, (14, width), generator=drawn).to(dtype)
    units[:4, : width - 1] = 1.0
    equal, same = frac_copies(units, torch.zeros(14, width, dtype=dtype), 0.0)
    assert equal == same == counted(units)
    told = torch.arange(14.0)[:, None].expand(14, width)
    assert frac_copies(units, told, 0.0) == (equal, 0.0)


def test_gradients_are_equal_to_rounding_only() -> None:
    units, gradients = torch.ones(2, 3), torch.ones(2, 3)
    gradients[1, 2] = 1 + 0.9e-4
    assert frac_copies(units, gradients, 0.0) == (1.0, 1.0)
    gradients[1, 2] = 1 + 1.1e-4
    assert frac_copies(units, gradients, 0.0) == (1.0, 0.0)
    assert frac_copies(units, gradients, 1.0) == (1.0, 1.0)


def same(model: nn.Module) -> nn.Module:
    """Fill every weight with 0.1 and every bias with zero."""
    for name, parameter in model.named_parameters():
        nn.init.constant_(parameter, 0.0 if "bias" in name else 0.1)
    return model


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Linear(4, 6), (5, 4)),
        (lambda: nn.Conv2d(2, 6, 3), (3, 2, 5, 5)),
        (lambda: nn.ConvTranspose2d(2, 6, 3), (3, 2, 5, 5)),
    ],
)
def test_a_constant_is_found_where_what_follows_is_one_too(layer, shape) -> None:
    head = nn.Sequential(nn.Flatten(1), nn.LazyLinear(1)) if len(shape) > 2 else nn.Linear(6, 1)
    model = nn.Sequential(
        layer(), nn.Tanh(), nn.AdaptiveAvgPool2d(1) if len(shape) > 2 else nn.Identity(), head
    )
    model(torch.ones(shape))
    assert by_name(copies(same(model), *shape)) == {"0": 1.0}


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_a_recurrent_unit_is_all_that_enters_it(kind: Any, gates: int) -> None:
    model = same(kind(3, 4, batch_first=True))
    summed = squares(model, 2, 5, 3)
    summed.loss = lambda m, x: m(x)[0].square().mean()
    profile = measured(summed, "unit_copies")["unit_copies"]
    assert by_name(profile) == {"weight_ih_l0": 1.0}
    with torch.no_grad():
        model.weight_hh_l0.copy_(torch.eye(4, dtype=torch.float64).repeat(gates, 1))
    assert measured(summed, "unit_copies")["unit_copies"].values == (0.0,)


def test_queries_keys_and_values_are_looked_at_apart() -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(4, 1, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attend(x, x, x, need_weights=False)[0]

    model = Attend()
    with torch.no_grad():
        thirds = model.attend.in_proj_weight.chunk(3)
        thirds[1].copy_(thirds[0])
        thirds[2].copy_(thirds[0])
    assert set(by_name(copies(model, 3, 5, 4)).values()) == {0.0}


def test_zeros_norms_tables_and_single_outputs_are_no_copies() -> None:
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(6, 6).requires_grad_(False)
            self.a, self.b = nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)
            self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 1)
            nn.init.constant_(self.base.weight, 0.3)
            nn.init.zeros_(self.b.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(x + self.base(x) + self.b(self.a(x))))

    assert by_name(copies(LowRank(), 4, 6)) == {"a": 0.0, "b": 0.0}


class Factors(nn.Module):
    """A product of two vectors that are looked up, behind a gain."""

    def __init__(self, *, sparse: bool, bags: bool) -> None:
        super().__init__()
        make: Any = nn.EmbeddingBag if bags else nn.Embedding
        self.user, self.item = make(7, 4, sparse=sparse), make(5, 4, sparse=sparse)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        pairs = (torch.arange(5)[:, None], torch.arange(5).flip(0)[:, None])
        return self.gain * (self.user(pairs[0]) * self.item(pairs[1])).sum((-2, -1)) * x.mean()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("bags", [False, True])
def test_columns_of_tables_stay_equal_where_what_they_meet_is_equal(sparse: bool, bags: bool) -> None:
    model = same(Factors(sparse=sparse, bags=bags))
    assert by_name(copies(model, 2, 3)) == {"user": 1.0, "item": 1.0}
    nn.init.normal_(model.item.weight)
    assert by_name(copies(model, 2, 3)) == {"user": 0.0, "item": 0.0}


def test_scales_of_a_table_of_ones_are_no_copies_while_they_have_no_gradient() -> None:
    model = same(Factors(sparse=False, bags=False))
    nn.init.zeros_(model.gain)
    assert by_name(copies(model, 2, 3)) == {"user": 0.0, "item": 0.0}


def test_copies_that_the_layer_behind_tells_apart_are_none() -> None:
    """Channels repeated for a pixel shuffle have different gradients, and so have widened layers."""
    conv = nn.Conv2d(2, 4, 3)
    with torch.no_grad():
        conv.weight.copy_(conv.weight[:1].expand_as(conv.weight))
        conv.bias.zero_()
    profile = copies(nn.Sequential(conv, nn.PixelShuffle(2)), 2, 2, 6, 6)
    assert (profile.values, profile.rows) == ((0.0,), ((1.0,),))


def test_a_model_without_such_weights_has_no_profile() -> None:
    assert "unit_copies" not in measured(squares(nn.Linear(3, 1), 2, 3), "unit_copies")
