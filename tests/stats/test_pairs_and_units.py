"""Cosines, norms of units and p-norms against naive twins in float64, at every magnitude."""

import math

import pytest
import torch

from unitygain.stats.pairs import cosine
from unitygain.stats.units import power_norm, unit_norms


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_cosine_is_that_of_the_naive_twin(dtype, size):
    one, other = torch.randn(2, 70, 1001, dtype=dtype)
    other = one + other
    real = [
        torch.view_as_real(x).reshape(-1).double() if x.is_complex() else x.reshape(-1).double()
        for x in (one, other)
    ]
    expected = float(real[0] @ real[1] / (real[0] @ real[0]).sqrt() / (real[1] @ real[1]).sqrt())
    assert cosine(one * size, other * size).item() == pytest.approx(expected, rel=1e-5, abs=0)


def test_cosine_reads_both_in_the_same_order():
    one = torch.randn(5, 7)
    assert cosine(one.t(), one.t().contiguous()).item() == pytest.approx(1.0)
    assert cosine(torch.ones(1).expand(4), torch.ones(4)).item() == pytest.approx(1.0)
    assert cosine(one, -one).item() == pytest.approx(-1.0)


def test_cosine_of_sparse_tensors_counts_repeated_indices_once():
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[0, 0, 2]]), torch.tensor([1.0, 2.0, 4.0]), (4,), check_invariants=True
    )
    other = torch.sparse_coo_tensor(
        torch.tensor([[0, 2]]), torch.tensor([3.0, 0.0]), (4,), check_invariants=True
    )
    assert cosine(sparse, other).item() == pytest.approx(0.6)


def test_a_zero_tensor_has_no_direction():
    assert math.isnan(cosine(torch.zeros(3), torch.ones(3)).item())
    assert math.isnan(cosine(torch.tensor([1.0, math.inf]), torch.ones(2)).item())
    with pytest.raises(ValueError, match=r"shapes are \(3,\) and \(4,\)"):
        cosine(torch.ones(3), torch.ones(4))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dim", [0, 1, 2, None])
def test_unit_norms_are_those_of_the_naive_twin(dim, size, dtype, tolerance):
    tensor = torch.randn(3, 4, 5001, dtype=dtype) * size
    found = unit_norms(tensor, dim)
    units = tensor.double().unbind(dim) if dim is not None else [tensor.double()]
    expected = torch.stack([(unit.flatten() / size).norm() * size for unit in units])
    torch.testing.assert_close(found.flatten(), expected, rtol=tolerance, atol=0)
    assert torch.broadcast_shapes(found.shape, tensor.shape) == tensor.shape


def test_unit_norms_of_one_tensor_may_lie_anywhere():
    tensor = torch.randn(5, 300) * torch.tensor([0.0, 1e-30, 1.0, 1e30, math.nan])[:, None]
    tensor[2, 7] = math.inf
    expected = torch.linalg.vector_norm(tensor.double(), dim=1)
    found = unit_norms(tensor, 0).flatten()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0, equal_nan=True)
    assert unit_norms(tensor.half()[:3, :4].t(), 1).shape == (1, 3)


def test_unit_norms_of_small_shapes():
    assert unit_norms(torch.tensor(-2.0), None).item() == 2.0
    assert unit_norms(torch.tensor([3.0, -4.0]), 0).tolist() == [3.0, 4.0]
    assert unit_norms(torch.zeros(0, 4), 0).shape == (0, 1)
    assert unit_norms(torch.tensor([[1e308, 1e308]], dtype=torch.float64), 0).item() == pytest.approx(
        math.sqrt(2) * 1e308
    )
    with pytest.raises(ValueError, match="layout"):
        unit_norms(torch.eye(2).to_sparse(), 0)


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_power_norm_is_that_of_the_naive_twin(p, size):
    tensor = torch.randn(300, 401)
    expected = torch.linalg.vector_norm(tensor.double(), ord=p).item()
    assert power_norm(tensor * size, p=p).item() == pytest.approx(expected * size, rel=2e-7, abs=0)


def test_power_norm_of_nothing_and_of_what_is_not_finite():
    assert power_norm(torch.zeros(0), p=1).item() == 0.0
    assert power_norm(torch.zeros(3), p=3).item() == 0.0
    assert not math.isfinite(power_norm(torch.tensor([1.0, math.inf]), p=3).item())
    assert math.isnan(power_norm(torch.tensor([1.0, math.nan]), p=1).item())
