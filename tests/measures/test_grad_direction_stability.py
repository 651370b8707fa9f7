"""grad_direction_stability against a closed form, on flat and rough losses, and on token models."""

import math

import numpy as np
import pytest
import torch
from contracts.small_cases import attention
from probe.trunks import Trunk, recorded
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from unitygain._types import Profile
from unitygain.measures.grad_direction_stability import CHANGE, DRAWS, grad_direction_stability
from unitygain.probe.observe import observe


def measured(case: Case, seed: int = 0) -> Profile:
    profile = grad_direction_stability(case, observe(case, [], seed=seed))
    assert profile is not None
    return profile


class Quadratic(nn.Module):
    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.matrix * x).sum() / 2


def test_cosine_of_a_quadratic_loss_is_that_of_its_gradients():
    torch.manual_seed(0)
    # One direction of curvature 1000 in an input that lies across it: the gradient turns.
    matrix = torch.diag(torch.tensor([1e3, 1.0, 1.0, 1.0, 1.0])).double()
    x = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0]).double()
    profile = measured(Case(Quadratic(matrix), loss=lambda m, x: m(x), data=[x]))
    cosines = []
    for draw in range(DRAWS):
        direction = torch.randn(5, generator=torch.Generator().manual_seed(draw)).double()
        moved = x + direction * (CHANGE * x.norm() / direction.norm())
        cosines.append(float(F.cosine_similarity(matrix @ x, matrix @ moved, dim=0)))
    assert profile.values[0] == pytest.approx(np.mean(cosines), rel=1e-6)
    assert profile.error is not None
    assert profile.error[0] == pytest.approx(np.std(cosines, ddof=1) / DRAWS**0.5, rel=1e-4)
    assert profile.values[0] < 0.95
    assert str(profile.sites[0]) == "(model)(input 0)"


def test_linear_loss_has_one_gradient():
    case, _ = recorded(nn.Linear(8, 3), torch.randn(4, 8))
    case.loss = lambda model, x: model(x).sum()
    assert measured(case).values[0] == pytest.approx(1, abs=1e-7)


def test_rough_network_turns_more_than_a_smooth_one():
    def deep(gain: float) -> Case:
        torch.manual_seed(1)
        blocks = [nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(30)]
        for block in blocks:
            nn.init.normal_(block[0].weight, std=gain / 8)
        return recorded(Trunk(list(blocks)), torch.randn(4, 64))[0]

    assert measured(deep(1.0)).values[0] > 0.99
    assert measured(deep(3.0)).values[0] < 0.8


def test_factor_of_the_loss_changes_nothing():
    case, _ = recorded(
        Trunk([nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2)]), torch.randn(3, 6)
    )
    before = measured(case)
    loss = case.loss
    case.loss = lambda model, batch: 2.0**-60 * loss(model, batch)
    assert measured(case) == before


def test_dropout_draws_the_same_masks_before_and_after():
    case, _ = recorded(
        nn.Sequential(nn.Linear(50, 50), nn.Dropout(0.5), nn.Linear(50, 50)), torch.randn(4, 50)
    )
    case.loss = lambda model, x: model(x).sum()
    # A linear model: with other masks the cosine would be about one half.
    assert measured(case).values[0] == pytest.approx(1, abs=1e-6)


def test_token_model_is_moved_at_its_first_block():
    profile = measured(attention())
    assert str(profile.sites[0]) == "blocks.0"
    assert "what enters the first block" in profile.note
    assert 0.9 < profile.values[0] <= 1


def test_zero_gradient_has_no_direction():
    case, _ = recorded(nn.Linear(3, 3), torch.randn(2, 3))
    case.loss = lambda model, x: 0 * model(x).sum()
    profile = measured(case)
    assert math.isnan(profile.values[0])
    assert "the gradient is zero" in profile.note
