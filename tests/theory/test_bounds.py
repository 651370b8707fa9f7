"""Bounds against singular values of explicit Jacobians, and against everything that tries to exceed them."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from unitygain.theory.bounds import (
    attention_gain_at,
    decayed_radius,
    euler_growth,
    largest_euler_step,
    layer_norm_bound,
    rms_norm_bound,
    softmax_bound,
    softmax_gain,
    steps_to_radius,
)
from unitygain.theory.certificates import circular_norm, gram_bound, reshaped_norm, zero_padded_bound
from unitygain.theory.nonnormal import (
    henrici_departure,
    kreiss_constant,
    numerical_abscissa,
    numerical_radius,
    transient_growth,
)


def jacobian_norm(f, x) -> float:
    return float(torch.linalg.matrix_norm(torch.autograd.functional.jacobian(f, x), 2))


@pytest.mark.parametrize("width", [1, 2, 3, 16])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 2.0])
def test_norm_bounds_are_the_largest_singular_values(width, spread):
    x = spread * torch.randn(width, dtype=torch.float64)
    layer = nn.LayerNorm(width, eps=1e-5).double()
    bound = layer_norm_bound(float(x.var(unbiased=False)), width, eps=1e-5)
    found = jacobian_norm(layer, x)
    assert found == pytest.approx(bound.here, rel=1e-6, abs=1e-9)
    assert found <= bound.supremum * (1 + 1e-12)
    rms = nn.RMSNorm(width, eps=1e-6).double()
    bound = rms_norm_bound(float(x.square().mean()), width, eps=1e-6)
    assert jacobian_norm(rms, x) == pytest.approx(bound.here, rel=1e-6)
    assert bound.here <= bound.supremum * (1 + 1e-12)


def test_gamma_scales_the_bound_and_bounds_what_it_cannot_equal():
    layer = nn.LayerNorm(8).double()
    nn.init.uniform_(layer.weight, -2, 2)
    x = torch.randn(8, dtype=torch.float64)
    gamma = float(layer.weight.detach().abs().max())
    assert jacobian_norm(layer, x) <= layer_norm_bound(float(x.var(unbiased=False)), 8, gamma).here
    for at_rest in (layer_norm_bound(0.0, 8, gamma), rms_norm_bound(0.0, 8, gamma, eps=1e-5)):
        assert at_rest.here == pytest.approx(gamma / math.sqrt(1e-5), rel=1e-12)
        assert at_rest.supremum == at_rest.here


def test_softmax_never_exceeds_a_half():
    worst = 0.0
    for _ in range(200):
        x = 4 * torch.randn(5, dtype=torch.float64)
        found = jacobian_norm(lambda t: torch.softmax(t / 0.7, 0), x)
        assert found == pytest.approx(softmax_gain(torch.softmax(x / 0.7, 0).tolist()) / 0.7, rel=1e-9)
        worst = max(worst, found)
    assert 0.8 * softmax_bound(0.7) < worst <= softmax_bound(0.7)
    assert softmax_gain([0.5, 0.5, 0.0]) == pytest.approx(softmax_bound(), rel=1e-12)
    assert softmax_gain([0.25] * 4) == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize("radius", [1.0, 8.0])
def test_attention_has_no_bound(radius):
    x = torch.zeros(3, 4, dtype=torch.float64)
    x[1, 0], x[2, 0] = radius, -radius

    def attend(t):
        return torch.softmax(t @ t.T / 2, -1) @ t

    whole = torch.autograd.functional.jacobian(attend, x)
    block = float(torch.linalg.matrix_norm(whole[0, :, 0], 2))
    assert block == pytest.approx(attention_gain_at(radius, 4), rel=1e-9)
    assert float(torch.linalg.matrix_norm(whole.reshape(12, 12), 2)) >= block


def test_decay_is_what_sgd_does():
    weight = nn.Parameter(torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.1, weight_decay=0.2)
    for _ in range(30):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    radius = float(torch.linalg.eigvals(weight.detach()).abs().max())
    assert radius == pytest.approx(decayed_radius(3.0, 0.1, 0.2, 30), rel=1e-12)
    steps = steps_to_radius(3.0, 1.0, 0.1, 0.2)
    assert decayed_radius(3.0, 0.1, 0.2, steps) <= 1.0 < decayed_radius(3.0, 0.1, 0.2, steps - 1)
    assert steps_to_radius(0.5, 1.0, 0.1, 0.2) == 0


def test_euler_steps_are_stable_up_to_the_largest():
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(6, 6)) - 4 * np.eye(6)
    eigenvalues = np.linalg.eigvals(matrix)
    step = largest_euler_step(eigenvalues)
    for factor, stable in ((0.98, True), (1.02, False)):
        x = generator.normal(size=6)
        for _ in range(3000):
            x = x + factor * step * matrix @ x
        assert (np.linalg.norm(x) < 1) == stable
    assert euler_growth(step, eigenvalues) == pytest.approx(1.0, rel=1e-12)
    assert largest_euler_step([1j, -1.0]) == 0.0


def test_costates_of_a_residual_net_are_its_backprop():
    weights = torch.randn(5, 4, 4, dtype=torch.float64) / 2
    states = [torch.randn(4, dtype=torch.float64, requires_grad=True)]
    for weight in weights:
        states.append(states[-1] + 0.3 * torch.tanh(weight @ states[-1]))
    gradients = torch.autograd.grad(states[-1].square().sum(), states)
    costate = 2 * states[-1].detach()
    for weight, state, gradient in zip(
        reversed(weights), reversed(states[:-1]), reversed(gradients[:-1]), strict=True
    ):
        slope = 1 - torch.tanh(weight @ state.detach()) ** 2
        costate = costate + 0.3 * weight.T @ (slope * costate)
        torch.testing.assert_close(costate, gradient, rtol=1e-12, atol=0)


def operator(kernel, size, mode):
    conv = nn.Conv2d(
        kernel.shape[1],
        kernel.shape[0],
        kernel.shape[2],
        padding=kernel.shape[2] // 2,
        bias=False,
        padding_mode=mode,
    )
    conv = conv.double()
    conv.weight = nn.Parameter(torch.from_numpy(kernel))
    whole = torch.autograd.functional.jacobian(conv, torch.zeros(kernel.shape[1], *size, dtype=torch.float64))
    return whole.flatten(0, 2).flatten(1).numpy()


@pytest.mark.parametrize("channels", [(3, 2), (2, 4)])
def test_convolution_norms_match_explicit_operators(channels):
    kernel, size = np.random.default_rng(0).normal(size=(*channels, 3, 3)), (5, 6)
    circular = np.linalg.norm(operator(kernel, size, "circular"), 2)
    padded = np.linalg.norm(operator(kernel, size, "zeros"), 2)
    assert circular_norm(kernel, size) == pytest.approx(circular, rel=1e-12)
    assert padded <= zero_padded_bound(kernel, size) <= 1.3 * padded
    assert reshaped_norm(kernel) * 0.999 <= circular_norm(kernel, (64, 64)) <= 3 * reshaped_norm(kernel)


def test_padding_certificate_holds_where_the_circle_of_the_same_size_fails():
    second_difference = np.array([[[-1.0, 2.0, -1.0]]])
    padded = np.linalg.norm(2 * np.eye(3) - np.eye(3, k=1) - np.eye(3, k=-1), 2)
    assert circular_norm(second_difference, (3,)) < padded <= zero_padded_bound(second_difference, (3,))


def test_gram_iteration_comes_down_to_the_norm():
    kernel, size = np.random.default_rng(1).normal(size=(4, 3, 3, 3)), (8, 8)
    exact = circular_norm(kernel, size)
    bounds = [gram_bound(kernel, size, steps) for steps in range(7)]
    assert all(a >= b for a, b in itertools.pairwise(bounds))
    # Rank 3: at most 3^(1/2^7) - 1 = 0.9 % too large after six steps, and never below.
    assert exact <= bounds[-1] * (1 + 1e-12) <= exact * 1.009
    assert gram_bound(1e-200 * kernel, size) == pytest.approx(1e-200 * bounds[-1], rel=1e-9)
    assert gram_bound(0 * kernel, size) == 0.0


def test_mean_filter_shows_the_gap_of_reshaped_norms():
    kernel = np.full((1, 1, 3, 3), 1 / 9)
    assert reshaped_norm(kernel) == pytest.approx(1 / 3, rel=1e-12)
    assert circular_norm(kernel, (9, 9)) == pytest.approx(1.0, rel=1e-12)


def test_transient_growth_of_a_jordan_block():
    # A^k = [[r^k, k·10·r^(k-1)], [0, r^k]], whose norm peaks near k = -1/ln r = 9.5.
    matrix = np.array([[0.9, 10.0], [0.0, 0.9]])
    norms = [np.linalg.norm(np.linalg.matrix_power(matrix, k), 2) for k in range(60)]
    growth = transient_growth(matrix)
    assert growth.largest == pytest.approx(max(norms), rel=1e-12)
    assert growth.at == int(np.argmax(norms))
    assert transient_growth(np.diag([2.0, 0.1]), steps=5).largest == pytest.approx(32.0, rel=1e-12)
    assert transient_growth(1e40 * np.eye(2)).at == 4


def test_measures_of_non_normality_at_closed_forms():
    jordan = np.diag(np.ones(4), 1)
    assert henrici_departure(jordan) == pytest.approx(2.0, rel=1e-12)
    assert numerical_radius(jordan) == pytest.approx(math.cos(math.pi / 6), rel=1e-12)
    assert numerical_abscissa(jordan) == pytest.approx(math.cos(math.pi / 6), rel=1e-12)
    rotation = np.array([[0.0, -0.8], [0.8, 0.0]])
    assert henrici_departure(rotation) < 1e-7
    assert numerical_radius(rotation) == pytest.approx(0.8, rel=1e-12)
    assert numerical_radius(np.diag([1j, -0.3])) == pytest.approx(1.0, rel=1e-9)


def test_gaussian_matrices_are_far_from_normal():
    # Limits at large n: abscissa √2, departure √(n/2); at n = 100 fluctuations are a few per cent.
    matrix = np.random.default_rng(0).normal(size=(100, 100)) / math.sqrt(100)
    assert numerical_abscissa(matrix) == pytest.approx(math.sqrt(2), rel=0.08)
    assert henrici_departure(matrix) == pytest.approx(math.sqrt(50), rel=0.05)


@pytest.mark.parametrize("matrix", [[[0.9, 10.0], [0.0, 0.9]], [[0.5, 3.0], [-0.1, 0.2]]])
def test_kreiss_bounds_the_powers_from_both_sides(matrix):
    found, largest = kreiss_constant(matrix), transient_growth(matrix).largest
    assert found <= largest * (1 + 1e-9)
    assert largest <= math.e * 2 * found
    # A finer scan of the same definition may not find more than the refined grid, to its 1e-4.
    scan = 0.0
    for distance in np.geomspace(1e-3, 30, 150):
        for angle in np.linspace(0, 2 * math.pi, 61):
            shifted = (1 + distance) * np.exp(1j * angle) * np.eye(2) - np.array(matrix)
            scan = max(scan, distance / np.linalg.svd(shifted, compute_uv=False)[-1])
    assert found >= scan * (1 - 1e-4)


def test_normal_matrices_have_kreiss_constant_one():
    # (|z| - 1)/(|z| - 0.5) rises to 1 as |z| grows: at 1e3, the grid's end, 1 - 5e-4.
    assert kreiss_constant(np.diag([0.5, -0.2])) == pytest.approx(1.0, rel=1e-3)


def test_bad_input_is_a_sentence():
    with pytest.raises(ValueError, match=r"spectral radius is 1.5; above 1 powers grow"):
        kreiss_constant([[1.5]])
    with pytest.raises(ValueError, match=r"shape \(2, 3\); give a square one"):
        henrici_departure(np.ones((2, 3)))
    with pytest.raises(ValueError, match="temperature is 0"):
        softmax_bound(0)
    with pytest.raises(ValueError, match=r"probabilities sum to 0.9"):
        softmax_gain([0.5, 0.4])
    with pytest.raises(ValueError, match="decay nothing; the radius stays at 2"):
        steps_to_radius(2.0, 1.0, 0.1, 0.0)
    with pytest.raises(ValueError, match="weight_decay is 2; above 1 the weights change sign"):
        decayed_radius(1.0, 1.0, 2.0, 3)
    with pytest.raises(ValueError, match="eigenvalues are"):
        euler_growth(0.1, [math.nan])
    with pytest.raises(ValueError, match=r"size is \(2, 2\) and the kernel has taps \(3, 3\)"):
        circular_norm(np.ones((1, 1, 3, 3)), (2, 2))
    with pytest.raises(ValueError, match=r"kernel has shape \(3, 3\)"):
        reshaped_norm(np.ones((3, 3)))
