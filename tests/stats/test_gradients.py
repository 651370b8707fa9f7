"""Many gradients read together, against a naive float64 twin."""

import math

import pytest
import torch
from stats.twins import samples_of, twin_norm
from torch import nn

from unitygain.stats import combined_norm, gradient_stats, with_gradient


def test_rows_are_norms_finiteness_and_absmax_in_the_order_given():
    tensors = [
        torch.randn(5, 3),
        torch.tensor([300.0, 400.0], dtype=torch.float16),
        torch.tensor([3e20, -4e20]),
        torch.zeros(0, 3),
        torch.tensor([1.0, math.nan]),
        torch.tensor([1.0, -math.inf]),
    ]
    found = gradient_stats(tensors, absmax=True)
    assert found.norm.dtype is torch.float64
    for tensor, value in zip(tensors[:4], found.norm.tolist(), strict=False):
        length, scale = twin_norm(samples_of(tensor))
        assert value == pytest.approx(length * scale, rel=1e-6)
    assert found.finite.tolist() == [True, True, True, True, False, False]
    assert found.absmax is not None
    assert found.absmax[1:4].tolist() == pytest.approx([400.0, 4e20, 0.0], rel=1e-7)
    assert found.absmax[4].isnan()
    assert found.absmax[5].isinf()
    assert found.total_norm().isnan()


def test_absmax_is_read_only_on_request():
    assert gradient_stats([torch.ones(2)]).absmax is None


def test_no_tensor_has_norm_zero():
    found = gradient_stats([], absmax=True)
    assert found.norm.shape == (0,)
    assert found.total_norm().item() == 0.0


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e-160, 1.0, 1e160, 1.2e308])
def test_norms_are_combined_at_their_own_scale(size):
    total = combined_norm(torch.tensor([0.6 * size, 0.0, 0.8 * size], dtype=torch.float64)).item()
    exact = math.hypot(0.6 * size, 0.8 * size)
    assert total == pytest.approx(exact, rel=1e-15)


def test_an_infinite_norm_stays_infinite_and_nan_stays_nan():
    assert combined_norm(torch.tensor([1.0, math.inf], dtype=torch.float64)).item() == math.inf
    assert combined_norm(torch.tensor([math.inf, math.nan], dtype=torch.float64)).isnan()


def test_tied_frozen_and_unused_parameters():
    tied = nn.Parameter(torch.ones(3))
    frozen, unused = nn.Parameter(torch.ones(2), requires_grad=False), nn.Parameter(torch.ones(2))
    other = nn.Parameter(torch.ones(4))
    (tied.sum() + other.sum()).backward()
    kept = with_gradient(iter([tied, frozen, other, unused, tied]))
    assert [id(parameter) for parameter in kept] == [id(tied), id(other)]
    assert with_gradient(tied) == [tied]
