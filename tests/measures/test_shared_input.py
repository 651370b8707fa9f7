"""A block whose input later layers read as well has no gain of its own in the loss's gradient."""

import math

import pytest
import torch
from measures.reading import measured
from torch import Tensor, nn

from unitygain import diagnose
from unitygain._case import Case

WIDTH, DEPTH = 16, 12


class Recalling(nn.Module):
    """Layers of which each mixes what the last one made with the first features."""

    def __init__(self, *, copies: bool) -> None:
        super().__init__()
        self.layers, self.copies = nn.ModuleList(Mixing() for _ in range(DEPTH)), copies

    def forward(self, x: Tensor) -> Tensor:
        first = x.tanh()
        h = first.clone() if self.copies else first
        for layer in self.layers:
            h = layer(h, first)
        return h


class Mixing(nn.Module):
    """Most of one signal and a little of another, rotated."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.orthogonal_(self.lin.weight)

    def forward(self, h: Tensor, first: Tensor) -> Tensor:
        return self.lin(0.5 * h + 0.5 * first)


def case(*, copies: bool) -> Case:
    torch.manual_seed(0)
    x = torch.randn(32, WIDTH)
    return Case(Recalling(copies=copies), lambda m, x: (m(x) - x).square().mean(), [x])


def test_the_gain_of_the_first_layer_is_not_told_and_the_others_are():
    shared, own = (measured(case(copies=c), "backward_gain")["backward_gain"] for c in (False, True))
    assert math.isnan(shared.values[0])
    assert "NaN at layers.0: later modules read the block's input too" in shared.note
    assert shared.values[1:] == pytest.approx(own.values[1:], rel=1e-6)
    assert own.values[0] == pytest.approx(0.5, rel=0.2)


def test_what_is_handed_to_all_layers_is_not_multiplied_in_the_first():
    """What each layer loses is told all the same."""
    found = diagnose(case(copies=False), only=["UG101", "UG103", "UG104"]).findings
    assert [finding.code for finding in found] == ["UG101"]
