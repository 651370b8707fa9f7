"""Singular values of batches whose samples do not mix, against dense ones and against one basis for all."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unitygain.probe.golub_kahan import golub_kahan
from unitygain.probe.golub_kahan_by_sample import golub_kahan_by_sample
from unitygain.probe.operators import JacobianOperator


class TimeFirst(nn.Module):
    """A map that mixes positions (axis 0) and not samples (axis 1)."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(steps, steps))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ts,sbf->tbf", self.mix, x).tanh()


def jacobian(module: nn.Module, x: Tensor) -> tuple[JacobianOperator, np.ndarray]:
    """The operator, and its dense singular values."""
    entry = x.clone().requires_grad_()
    operator = JacobianOperator(module(entry), entry)
    dense = operator.materialise()
    return operator, torch.linalg.svdvals(dense).numpy()


FAMILIES = {
    "samples first": lambda: (nn.Sequential(nn.Linear(20, 20), nn.Tanh()), torch.randn(6, 20)),
    "wider": lambda: (nn.Sequential(nn.Linear(9, 31), nn.Tanh()), torch.randn(5, 9)),
    "narrower": lambda: (nn.Sequential(nn.Linear(31, 9), nn.Tanh()), torch.randn(5, 31)),
    "time first": lambda: (TimeFirst(7), torch.randn(7, 4, 3)),
    "images": lambda: (nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh()), torch.randn(3, 2, 6, 6)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_values_are_the_dense_ones(name):
    torch.manual_seed(1)
    module, x = FAMILIES[name]()
    operator, expected = jacobian(module.double(), x.double())
    assert operator.samples() > 1
    found = golub_kahan_by_sample(operator, 5, steps=300, tolerance=1e-9)
    for value, exact, error in zip(found.values, expected[:5], found.errors, strict=True):
        # What a residual below 1e-9 leaves of a value is its square; rounding is below 1e-12.
        assert abs(value - exact) <= error + 1e-12
        assert value == pytest.approx(exact, rel=1e-9)


def test_equal_samples_share_their_values():
    torch.manual_seed(2)
    module, x = nn.Sequential(nn.Linear(12, 12), nn.Tanh()).double(), torch.randn(1, 12).double()
    operator, expected = jacobian(module, x.expand(3, -1))
    np.testing.assert_allclose(golub_kahan_by_sample(operator, 5, steps=50).values, expected[:5], rtol=1e-6)


@pytest.mark.slow
def test_fewer_steps_than_one_basis_for_all():
    torch.manual_seed(3)
    module, x = nn.Sequential(nn.Linear(200, 200), nn.Tanh()).double(), torch.randn(12, 200).double()
    operator, expected = jacobian(module, x)
    apart, together = (find(operator, 5, steps=300) for find in (golub_kahan_by_sample, golub_kahan))
    assert apart.steps < 0.7 * together.steps
    np.testing.assert_allclose(apart.values, expected[:5], rtol=1e-6)


def test_samples_without_a_gradient_do_not_disturb_the_others():
    torch.manual_seed(4)
    x = torch.randn(4, 10).double()
    x[1] = -10.0
    module = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Hardtanh()).double()
    operator, expected = jacobian(module, x)
    assert (operator.materialise()[10:20] == 0).all()
    np.testing.assert_allclose(golub_kahan_by_sample(operator, 5, steps=30).values, expected[:5], rtol=1e-6)


@pytest.mark.parametrize("steps", [5, 9, 14])
def test_error_bars_hold_when_it_is_stopped(steps):
    torch.manual_seed(5)
    operator, expected = jacobian(nn.Linear(60, 60).double(), torch.randn(3, 60).double())
    found = golub_kahan_by_sample(operator, 5, steps=steps)
    assert found.steps == steps
    for value, error in zip(found.values, found.errors, strict=True):
        assert np.abs(expected - value).min() <= error + 1e-12


def test_what_is_not_finite_is_reported():
    x = torch.ones(2, 3, requires_grad=True)
    operator = JacobianOperator(x * torch.tensor([[1.0, 1.0, 1.0], [torch.nan, 1.0, 1.0]]), x)
    assert np.isnan(golub_kahan_by_sample(operator, 2, steps=3).values).all()
