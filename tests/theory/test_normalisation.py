"""LayerNorm, BatchNorm, Pre-LN and Post-LN rates against simulated networks and closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unitygain.theory.activations import ACTIVATIONS, leaky_relu
from unitygain.theory.gaussian import hermite_energies
from unitygain.theory.normalisation import (
    batch_norm_rate,
    batch_norm_stability,
    layer_norm_rate,
    post_norm_rate,
    pre_norm,
)

PHI = {"relu": torch.relu, "tanh": torch.tanh, "gelu": torch.nn.functional.gelu}


def normalise(x: Tensor, axis: int) -> Tensor:
    return (x - x.mean(axis, keepdim=True)) / x.var(axis, keepdim=True, unbiased=False).sqrt()


def gaussian(width: int) -> Tensor:
    return torch.randn(width, width, dtype=torch.float64) / math.sqrt(width)


def log_rates(layer, batch: int, width: int, depth: int, seeds: int) -> tuple[float, float]:
    """Mean log of the squared gradient's gain per layer over the middle layers, and its standard error."""
    found = []
    for _ in range(seeds):
        states = [torch.randn(batch, width, dtype=torch.float64, requires_grad=True)]
        for _ in range(depth):
            states.append(layer(states[-1]))
        weights = torch.randn_like(states[-1])
        gradients = torch.autograd.grad((states[-1] * weights).sum(), states[4:-3])
        logs = [float(g.square().sum().log()) for g in gradients]
        found.append((logs[0] - logs[-1]) / (len(logs) - 1))
    return float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(seeds))


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu"])
def test_layer_norm_rate_matches_simulated_networks(name):
    rate, error = log_rates(lambda x: PHI[name](normalise(x, 1)) @ gaussian(250), 4, 250, 20, 12)
    # Four standard errors, and the two directions of 250 that the norm projects out.
    assert abs(rate - math.log(layer_norm_rate(name))) < 4 * error + 2 / 250
    assert error < 0.02


def one_block(block, variance: float, width: int) -> tuple[float, float, float]:
    """Squared gain of one block back and mean square of what leaves it, and the former's standard error."""
    gains, squares = [], []
    while len(gains) < 30 or np.std(gains) / math.sqrt(len(gains)) > 0.006 * np.mean(gains):
        x = (math.sqrt(variance) * torch.randn(8, width, dtype=torch.float64)).requires_grad_()
        y = block(x)
        weights = torch.randn_like(y)
        (gradient,) = torch.autograd.grad((y * weights).sum(), x)
        gains.append(float(gradient.square().sum() / weights.square().sum()))
        squares.append(float(y.detach().square().mean()))
    return float(np.mean(gains)), float(np.mean(squares)), float(np.std(gains) / math.sqrt(len(gains)))


def test_one_layer_behind_a_norm_with_scale_and_bias():
    """tanh(1.6·LN(z)), weights of gain 1.4 and biases of variance 0.3, at the variance that it settles at."""

    def layer(x: Tensor) -> Tensor:
        z = torch.tanh(1.6 * normalise(x, 1)) @ (math.sqrt(1.4) * gaussian(150))
        return z + math.sqrt(0.3) * torch.randn(150, dtype=torch.float64)

    settled = one_block(layer, 1.0, 150)[1]
    gain, _, error = one_block(layer, settled, 150)
    # Four standard errors, and the two directions of 150 that the norm projects out.
    assert abs(gain / layer_norm_rate("tanh", 1.4, 0.3, 1.6) - 1) < 4 * error / gain + 2 / 150


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_one_block_of_either_order_with_weights_of_any_gain(name):
    inner, outer, variance = 2.0, 0.4, 1.5

    def branch(x: Tensor) -> Tensor:
        return PHI[name](x @ (math.sqrt(inner) * gaussian(150))) @ (math.sqrt(outer) * gaussian(150))

    gain, square, error = one_block(lambda x: x + branch(normalise(x, 1)), variance, 150)
    path = pre_norm(name, inner, outer, q=variance)
    assert abs(gain - path.chi[0]) < 4 * error + 2 / 150
    assert square == pytest.approx(path.q[1], rel=0.02)
    gain, _, error = one_block(lambda x: normalise(x + branch(normalise(x, 1)), 1), 1.0, 150)
    assert abs(gain - post_norm_rate(name, inner, outer)) < 4 * error + 2 / 150


def test_layer_norm_rate_ignores_the_weights_without_bias():
    assert layer_norm_rate("tanh", sigma_w2=7.0) == pytest.approx(layer_norm_rate("tanh"), rel=1e-12)
    assert layer_norm_rate("tanh", sigma_b2=1.0) < layer_norm_rate("tanh")
    assert layer_norm_rate("relu", gamma=3.0) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(("below", "batch"), [(0.0, 8), (0.0, 16), (0.5, 8), (1.0, 8)])
def test_finite_batch_rate_matches_simulated_networks(below, batch):
    def layer(x: Tensor) -> Tensor:
        z = normalise(x, 0)
        return torch.where(z > 0, z, below * z) @ gaussian(300)

    rate, error = log_rates(layer, batch, 300, 12, 14)
    # Four standard errors; finite width bends the rate by about batch/width.
    assert abs(rate - math.log(batch_norm_rate(leaky_relu(below), batch).rate)) < 4 * error + batch / 300
    assert error < 0.03


def test_finite_batch_rate_has_its_limits():
    # Yang et al.'s closed forms: pi/(pi - 1) for ReLU, (B - 2)/(B - 3) for the identity.
    assert batch_norm_rate("relu").rate == pytest.approx(math.pi / (math.pi - 1), rel=1e-12)
    assert batch_norm_rate("relu", 10**7).rate == pytest.approx(math.pi / (math.pi - 1), rel=1e-6)
    for batch in (4, 8, 100):
        assert batch_norm_rate("linear", batch).rate == pytest.approx((batch - 2) / (batch - 3), rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "erf", "sin"])
def test_infinite_batch_rate_is_a_ratio_of_hermite_sums(name):
    energies = hermite_energies(ACTIVATIONS[name].value, ACTIVATIONS[name], 1.0)
    k = np.arange(len(energies))
    assert batch_norm_rate(name).rate == pytest.approx(k @ energies / energies[1:].sum(), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "stable"), [("relu", True), ("tanh", True), ("gelu", False), ("silu", False)]
)
def test_stability_is_the_growth_of_a_difference_of_norms(name, stable):
    """One sample of variance 1 + h among many of variance 1, pushed through the layer's own map."""
    a, h = ACTIVATIONS[name], 1e-5
    z = np.arange(-9, 9, 0.002)
    weight = 0.002 * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    mean = weight @ a.value(z)
    variance = weight @ (a.value(z) - mean) ** 2
    after = [weight @ (a.value(math.sqrt(1 + s) * z) - mean) ** 2 / variance for s in (-h, h)]
    # Central difference: h² = 1e-10 and rounding of 1e-16/h; the rule is 1e-6 good at a kink.
    assert batch_norm_stability(name) == pytest.approx((after[1] - after[0]) / (2 * h), rel=1e-5)
    assert (batch_norm_stability(name) <= 1 + 1e-9) == stable


@pytest.mark.parametrize("name", ["gelu", "silu", "softplus", "mish"])
def test_no_rate_where_samples_part(name):
    with pytest.raises(
        ValueError, match=rf"no rate is given for {name}.*grow by 1\.\d+ per layer \(lambda_L\)"
    ):
        batch_norm_rate(name)


def test_norms_of_samples_part_in_a_simulated_gelu_network_and_not_in_a_tanh_one():
    spread = {}
    for name in ("gelu", "tanh"):
        x = torch.randn(64, 300, dtype=torch.float64)
        for _ in range(40):
            x = PHI[name](normalise(x, 0)) @ gaussian(300)
        norms = normalise(x, 0).square().mean(1)
        spread[name] = float(norms.std())
    # Chance alone spreads them by √(2/300) = 0.08.
    assert spread["tanh"] < 0.2 < 0.4 < spread["gelu"]


def test_pre_norm_follows_a_simulated_stack():
    def layer(x: Tensor) -> Tensor:
        return x + torch.relu(normalise(x, 1) @ gaussian(250)) @ gaussian(250)

    rate, error = log_rates(layer, 4, 250, 20, 12)
    chi = pre_norm("relu", depth=20).chi[4:17]
    assert abs(rate - np.log(chi).mean()) < 4 * error + 2 / 250
    assert error < 0.02


def test_pre_norm_telescopes_for_relu_and_not_for_tanh():
    path = pre_norm("relu", q=2.0, depth=30)
    assert math.exp(path.log_gain) == pytest.approx(path.q[-1] / path.q[0], rel=1e-12)
    tanh = pre_norm("tanh", depth=30)
    assert math.exp(tanh.log_gain) > tanh.q[-1] * 1.1
    # One block by hand: covariance 0.2 and the arc-cosine of 0.2, over variance 1 + 1/2.
    cross = (math.sqrt(0.96) + 0.2 * (math.pi - math.acos(0.2))) / (2 * math.pi)
    assert pre_norm("relu", c=0.2).c[1] == pytest.approx((0.2 + cross) / 1.5, rel=1e-12)
    shared, after = 1.5 * 0.2 + 0.4 * 2.0 * cross, 1.5 + 0.4 * 2.0 / 2
    assert pre_norm("relu", 2.0, 0.4, q=1.5, c=0.2).c[1] == pytest.approx(shared / after, rel=1e-12)


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_post_norm_rate_matches_simulated_networks(name):
    def layer(x: Tensor) -> Tensor:
        return normalise(x + PHI[name](x @ gaussian(250)) @ gaussian(250), 1)

    rate, error = log_rates(layer, 4, 250, 20, 12)
    assert abs(rate - math.log(post_norm_rate(name))) < 4 * error + 2 / 250
    assert error < 0.02


def test_post_norm_relu_keeps_the_gradient():
    assert post_norm_rate("relu", 3.0, 0.7) == pytest.approx((1 + 0.7 * 1.5) / (1 + 0.7 * 1.5), rel=1e-12)


def test_bad_input_is_a_sentence():
    with pytest.raises(ValueError, match="batch is 3; give a whole number of at least 4"):
        batch_norm_rate("relu", 3)
    with pytest.raises(
        ValueError, match="batch is 8, and the finite-batch rate is known for piecewise linear"
    ):
        batch_norm_rate("tanh", 8)
    with pytest.raises(ValueError, match="gamma is 0"):
        layer_norm_rate("relu", gamma=0)
    with pytest.raises(ValueError, match="sigma_in2 is -1"):
        post_norm_rate("relu", -1)
