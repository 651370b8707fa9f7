"""Residual sums and concatenations against wide networks, exact identities, and bad input."""

import math

import numpy as np
import pytest

from unitygain.theory.architectures import (
    concatenation_gain,
    residual,
    residual_depth_gain,
    residual_gain,
)
from unitygain.theory.mean_field import propagate


def test_residual_gain_is_the_mean_square_of_a_gaussian_branch():
    generator = np.random.default_rng(0)
    vector, found = generator.normal(size=80), []
    while len(found) < 100 or np.std(found) / math.sqrt(len(found)) > 2e-3:
        branch = generator.normal(size=(80, 80)) * math.sqrt(0.5 / 80)
        found.append(np.sum((0.9 * vector - 0.3 * branch @ vector) ** 2) / np.sum(vector**2))
    # Five standard errors of 2e-3.
    assert abs(np.mean(found) - residual_gain(0.5, branch_scale=-0.3, skip=0.9)) < 0.01


def test_depth_scaled_branches_stay_bounded():
    assert residual_depth_gain(0.5, 10, 1.0) == pytest.approx(1.5**10, rel=1e-12)
    # (1 + s/L)^L = e^s·(1 - s²/2L + ...): 5e-7 at L = 1e6.
    assert residual_depth_gain(1.0, 10**6) == pytest.approx(math.e, rel=1e-6)
    assert residual_depth_gain(1.0, 10**6, 1.0) == math.inf


def test_relu_residual_grows_by_half_the_weights_per_block():
    path = residual("relu", 1.0, depth=20)
    assert path.q[-1] == pytest.approx(1.5**20, rel=1e-12)
    assert math.exp(path.log_gain) == pytest.approx(1.5**20, rel=1e-12)


def test_without_skip_it_is_the_plain_network():
    plain = propagate("tanh", 1.7, 0.1, q=2.0, c=0.3, depth=5)
    mine = residual("tanh", 1.7, 0.1, q=2.0, c=0.3, depth=5, skip=0.0)
    for key in ("q", "gap", "chi"):
        np.testing.assert_allclose(getattr(mine, key), getattr(plain, key), rtol=1e-13)


def test_one_block_of_any_scale_by_arc_cosines():
    """Skip and branch of sizes that are not one: relu keeps half, and of what two share the arc-cosine."""
    path = residual("relu", 1.7, 0.3, q=2.0, c=0.2, branch_scale=-0.6, skip=0.5)
    after = 0.25 * 2.0 + 0.36 * (1.7 * 1.0 + 0.3)
    assert path.q[1] == pytest.approx(after, rel=1e-12)
    cross = 2.0 * (math.sqrt(0.96) + 0.2 * (math.pi - math.acos(0.2))) / (2 * math.pi)
    shared = 0.25 * 0.2 * 2.0 + 0.36 * (1.7 * cross + 0.3)
    assert path.c[1] == pytest.approx(shared / after, rel=1e-12)
    assert path.chi[0] == pytest.approx(0.25 + 0.36 * 1.7 / 2, rel=1e-12)


def test_tanh_residual_networks_of_finite_width_behave_as_predicted():
    width, depth, scale = 300, 8, 0.7
    generator, found = np.random.default_rng(1), []
    for _ in range(16):
        base, other = generator.normal(size=(2, width))
        x, jacobian = (
            np.stack([base, 0.3 * base + math.sqrt(0.91) * other]),
            generator.normal(size=(width, 30)),
        )
        for _ in range(depth):
            weight = generator.normal(size=(width, width)) * math.sqrt(1.5 / width)
            jacobian = jacobian + scale * weight @ ((1 - np.tanh(x[0]) ** 2)[:, None] * jacobian)
            bias = generator.normal(size=width) * math.sqrt(0.1)
            x = x + scale * (np.tanh(x) @ weight.T + bias)
        found.append([(x[0] ** 2).mean(), (x[0] * x[1]).mean(), (jacobian**2).mean()])
    path = residual("tanh", 1.5, 0.1, c=0.3, depth=depth, branch_scale=scale)
    expected = np.array([path.q[-1], path.q[-1] * path.c[-1], math.exp(path.log_gain)])
    error = np.std(found, axis=0, ddof=1) / 4
    # Five standard errors; finite width shifts the means by depth/width = 2.7 % at most.
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 5 * error + depth / width * expected)


def test_concatenation_is_exact_for_every_vector():
    generator = np.random.default_rng(2)
    branch, v = generator.normal(size=(5, 7)), generator.normal(size=7)
    gain = np.sum((branch @ v) ** 2) / np.sum(v**2)
    stacked = np.concatenate([2 * v, branch @ v])
    assert concatenation_gain(gain, skip=2.0) == pytest.approx(np.sum(stacked**2) / np.sum(v**2), rel=1e-12)
    top = np.linalg.norm(np.vstack([np.eye(7), branch]), 2) ** 2
    assert top == pytest.approx(concatenation_gain(np.linalg.norm(branch, 2) ** 2), rel=1e-12)


def test_bad_input_is_a_sentence():
    with pytest.raises(ValueError, match="branch_gain is -1; give a finite number of at least 0"):
        residual_gain(-1)
    with pytest.raises(ValueError, match="branch_scale is nan"):
        residual_gain(1, math.nan)
    with pytest.raises(ValueError, match="skip is inf"):
        residual("tanh", 1.0, skip=math.inf)
    with pytest.raises(ValueError, match=r"leaves float64 at block \d+ of 5000.*lower branch_scale"):
        residual("relu", 1.0, depth=5000)
