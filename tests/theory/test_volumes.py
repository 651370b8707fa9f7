"""Volumes and worst directions against matrices, couplings of torch and a search for the best spectrum."""

import math

import numpy as np
import pytest
import torch

from unitygain.theory.volumes import least_condition, least_sigma_max, shear_norm


def test_volume_says_nothing_of_the_worst_direction():
    assert least_sigma_max(0.0, 2) == 1.0
    assert np.linalg.norm(np.diag([10, 0.1]), 2) > least_sigma_max(
        math.log(np.linalg.det(np.diag([10, 0.1]))), 2
    )
    assert least_sigma_max(3 * math.log(2.0), 3) == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize(("n", "seed"), [(2, 0), (3, 1), (8, 2), (40, 3)])
def test_no_matrix_has_a_lower_condition(n, seed):
    """Random matrices stay above the bound, and equal singular values but one attain it."""
    generator = np.random.default_rng(seed)
    for _ in range(50):
        spread = np.diag(np.exp(generator.normal(size=n)))
        matrix = generator.normal(size=(n, n)) @ spread
        singular = np.linalg.svd(matrix, compute_uv=False)
        bound = least_condition(math.log(singular[0]), np.linalg.slogdet(matrix)[1], n)
        assert singular[0] / singular[-1] >= bound * (1 - 1e-9)
    attained = np.array([7.0] + [0.3] * (n - 1))
    assert least_condition(math.log(7.0), float(np.log(attained).sum()), n) == pytest.approx(
        7 / 0.3, rel=1e-12
    )
    assert least_condition(0.0, 0.0, n) == 1.0
    assert least_condition(1e4, 0.0, n) == math.inf


@pytest.mark.parametrize("slope", [0.0, 1e-3, -1.5, 40.0, 1e9])
def test_shear_norm_is_the_largest_singular_value(slope):
    singular = np.linalg.svd(np.array([[1.0, 0.0], [slope, 1.0]]), compute_uv=False)
    assert shear_norm(slope) == pytest.approx(singular[0], rel=1e-14)


def test_additive_coupling_has_the_norm_of_its_shear():
    """A coupling of torch with a tanh net: sigma_max from the shift's own Jacobian, sigma_min its inverse."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3)).double()
    x = torch.randn(6).double()

    def coupling(x: torch.Tensor) -> torch.Tensor:
        kept, moved = x.chunk(2)
        return torch.cat([kept, moved + 5 * net(kept)])

    singular = torch.linalg.svdvals(torch.autograd.functional.jacobian(coupling, x))
    shift = torch.autograd.functional.jacobian(lambda kept: 5 * net(kept), x[:3])
    expected = shear_norm(float(torch.linalg.matrix_norm(shift, 2)))
    assert float(singular[0]) == pytest.approx(expected, rel=1e-12)
    assert float(singular[-1]) == pytest.approx(1 / expected, rel=1e-12)


def test_bad_input_is_a_sentence():
    with pytest.raises(ValueError, match="dimension is 1; one direction alone"):
        least_condition(0.0, 0.0, 1)
    with pytest.raises(ValueError, match="log_sigma_max is 0, below log_det/dimension = 1"):
        least_condition(0.0, 2.0, 2)
    with pytest.raises(ValueError, match="slope is nan"):
        shear_norm(math.nan)
