"""Exponents over depth agree with dense Jacobians of the blocks, one orthogonalisation per block."""

import itertools
import math

import numpy as np
import pytest
import torch
from probe.trunks import Trunk, naive_jacobians, recorded
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.measures.depth_exponents import depth_exponents
from unitygain.probe.observe import observe
from unitygain.probe.trace import NoGraph


def trunk(count: int = 12, width: int = 10) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(4)
    blocks = [nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(count)]
    for block in blocks:
        nn.init.normal_(block[0].weight, std=2 / width**0.5)
    return Trunk(list(blocks)).double(), torch.randn(3, width).double()


def test_exponents_agree_with_dense_jacobians():
    model, x = trunk()
    profile = depth_exponents(*recorded(model, x))
    assert profile is not None
    factors = [j.view(3, 10, 3, 10)[0, :, 0].numpy() for j in naive_jacobians(recorded(model, x)[0])]
    columns, logs = np.linalg.qr(np.random.default_rng(0).standard_normal((10, 8)))[0], np.zeros(8)
    for index, factor in enumerate(factors[::-1]):
        columns, triangle = np.linalg.qr(factor.T @ columns)
        logs += np.log(np.abs(np.diag(triangle))) if index >= 1 else 0
    np.testing.assert_allclose(profile.rows[0], np.sort(logs / 11)[::-1], rtol=1e-9)
    assert profile.facts["transient"] == 1
    assert "first sample" in profile.note


def test_scaling_every_block_adds_the_logarithm():
    layers = [nn.Linear(6, 6, bias=False) for _ in range(8)]
    model, x = Trunk(list(layers)).double(), torch.randn(2, 6).double()
    before = depth_exponents(*recorded(model, x))
    for layer in layers:
        layer.weight.data.mul_(3.0)
    after = depth_exponents(*recorded(model, x))
    assert before is not None
    assert after is not None
    assert np.subtract(after.rows[0], before.rows[0]) == pytest.approx(math.log(3), rel=1e-9)


def test_a_coupled_batch_is_one_sample():
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh()) for _ in range(5)]
    profile = depth_exponents(*recorded(Trunk(list(blocks)).double(), torch.randn(6, 4).double()))
    assert profile is not None
    assert "the batch is coupled" in profile.note


def test_blocks_that_change_their_size_have_none():
    sizes = (8, 7, 6, 5, 4, 3)
    blocks = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in itertools.pairwise(sizes)]
    assert depth_exponents(*recorded(Trunk(list(blocks)).double(), torch.randn(2, 8).double())) is None


def test_few_blocks_have_none():
    model, x = trunk(3)
    assert depth_exponents(*recorded(model, x)) is None


def test_a_jacobian_that_is_not_finite_is_a_gap() -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(20))).double()
    with torch.no_grad():
        model[7].weight.fill_(math.inf)
    case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(2, 3, dtype=torch.float64)])
    with pytest.raises(NoGraph, match="UG901"):
        depth_exponents(case, observe(case, []))
