"""The edge of chaos against closed forms and the fixed-point solver, and who has none."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unitygain.theory.activations import ACTIVATIONS, leaky_relu
from unitygain.theory.criticality import critical
from unitygain.theory.mean_field import mean_field, slope_moment, variance_map
from unitygain.theory.variance import variance_slope


@pytest.mark.parametrize("sigma_b2", [1e-4, 0.05, 1.0])
@pytest.mark.parametrize("name", ["tanh", "erf", "elu", "hardtanh", "selu", "sin"])
def test_a_critical_point_is_a_fixed_point_with_unit_gain(name, sigma_b2):
    point = critical(name, sigma_b2)
    assert point.q_star is not None
    # Solved by another route: the fixed point that the variance reaches from nearby.
    field = mean_field(name, point.sigma_w2, sigma_b2, q=point.q_star * 1.01)
    assert field.q_star == pytest.approx(point.q_star, rel=1e-8)
    assert field.chi_1 == pytest.approx(1.0, rel=1e-8)


def test_odd_activations_without_bias_are_critical_at_the_origin():
    assert critical("tanh").sigma_w2 == 1.0
    assert critical("erf", 0.0).sigma_w2 == pytest.approx(math.pi / 4, rel=1e-14)
    assert critical("erf").q_star == 0.0


def test_erf_is_solved_by_arc_sines():
    point = critical("erf", 0.05)
    q = point.q_star
    assert point.sigma_w2 == pytest.approx(math.pi / 4 * math.sqrt(1 + 4 * q), rel=1e-10)
    assert q == pytest.approx(point.sigma_w2 * 2 / math.pi * math.asin(2 * q / (1 + 2 * q)) + 0.05, rel=1e-9)


def test_piecewise_linear_activations():
    assert critical("relu").q_star is None
    assert critical(leaky_relu(0.2)).sigma_w2 == pytest.approx(2 / 1.04, rel=1e-14)
    assert critical("linear").sigma_w2 == 1.0
    assert critical(torch.relu).q_star is None
    assert critical(torch.abs).sigma_w2 == 1.0


def test_gelu_is_half_stable_at_a_closed_form():
    point = critical("gelu")
    assert point.half_stable
    assert point.q_star == pytest.approx((3 + math.sqrt(17)) / 2, rel=1e-10)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "mish"])
def test_half_stable_points_keep_variance_and_gradient(name):
    point = critical(name)
    q = point.q_star
    assert q is not None
    assert variance_map(name, q, point.sigma_w2, point.sigma_b2) == pytest.approx(q, rel=1e-10)
    assert point.sigma_w2 * slope_moment(name, q) == pytest.approx(1.0, rel=1e-10)
    assert point.sigma_w2 * variance_slope(ACTIVATIONS[name], q) == pytest.approx(1.0, rel=1e-9)
    # From one side the variance comes back, on the other it leaves: the map is above q on both.
    for factor in (0.9, 1.1):
        assert variance_map(name, factor * q, point.sigma_w2, point.sigma_b2) != pytest.approx(factor * q)


def test_half_stable_points_are_reached_from_one_side():
    point = critical("gelu")
    assert point.q_star is not None
    above, below = (mean_field("gelu", point.sigma_w2, point.sigma_b2, q=q).q_star for q in (10.0, 1.0))
    # The map touches the diagonal: a rounding of 1e-16 in it moves the touch by its square root.
    assert above == pytest.approx(point.q_star, rel=1e-6)
    assert below < 0.9 * point.q_star
    assert variance_map("gelu", below, point.sigma_w2, point.sigma_b2) == pytest.approx(below, rel=1e-10)


def test_three_fixed_points_close_together_are_told_apart():
    point = critical("gelu")
    lifted = point.sigma_b2 + 1e-6
    above, below = (mean_field("gelu", point.sigma_w2, lifted, q=q) for q in (10.0, 1.0))
    assert above.q_star > point.q_star > below.q_star
    for field in (above, below):
        assert variance_map("gelu", field.q_star, point.sigma_w2, lifted) == pytest.approx(
            field.q_star, rel=1e-9
        )
        assert field.xi_q > 0


def test_callables_have_critical_points():
    assert critical(F.gelu).q_star == pytest.approx((3 + math.sqrt(17)) / 2, rel=1e-9)
    assert critical(torch.tanh, 0.05).sigma_w2 == pytest.approx(critical("tanh", 0.05).sigma_w2, rel=1e-9)


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "selu"])
def test_without_a_half_stable_point_is_said(name):
    with pytest.raises(ValueError, match=f"{name} has no half-stable point.*give sigma_b2"):
        critical(name)


def test_bad_input_is_a_sentence():
    with pytest.raises(ValueError, match=r"relu has no critical point with sigma_b2 = 0.1.*use sigma_b2 = 0"):
        critical("relu", 0.1)
    with pytest.raises(ValueError, match=r"softplus has no critical point with sigma_b2 = 0.1"):
        critical("softplus", 0.1)
    with pytest.raises(ValueError, match="sigma_b2 is inf"):
        critical("tanh", math.inf)


@pytest.mark.parametrize("sigma_b2", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "tanh", "elu", "hardtanh"])
def test_a_point_holds_where_the_variance_map_brings_signals_back(name, sigma_b2):
    """The map itself, layer by layer, by sums over a fine grid."""
    point = critical(name, sigma_b2)
    phi = ACTIVATIONS[name].value
    z = np.linspace(-12, 12, 40001)
    weight = np.exp(-z * z / 2)
    weight /= weight.sum()
    gaps = []
    for start in (0.98, 1.02):
        q = start * point.q_star
        for _ in range(4):
            q = point.sigma_w2 * float(weight @ phi(np.sqrt(q) * z) ** 2) + sigma_b2
        gaps.append(abs(q / point.q_star - 1) / abs(start - 1))
    assert [gap < 1 for gap in gaps] == [point.holds] * 2
    assert point.chi_par == pytest.approx(np.mean(gaps) ** 0.25, rel=0.03)


@pytest.mark.parametrize(("name", "above"), [("gelu", True), ("silu", False), ("mish", False)])
def test_the_side_from_which_a_half_stable_point_is_reached(name, above):
    """Half a per cent from it, one step of the map leads towards it on one side and away on the other."""
    point = critical(name)
    phi = ACTIVATIONS[name].value
    z, weight = np.polynomial.hermite_e.hermegauss(301)
    steps = {}
    for side in (-1, 1):
        q = (1 + side * 0.005) * point.q_star
        after = point.sigma_w2 * float(weight @ phi(np.sqrt(q) * z) ** 2) / weight.sum() + point.sigma_b2
        steps[side] = side * (after - q)
    assert point.from_above == above
    assert (steps[1] < 0) == above
    assert (steps[-1] < 0) == (not above)


def test_points_at_which_every_signal_is_kept_hold():
    assert critical("relu").holds
    assert critical("tanh").holds
    assert critical("gelu").half_stable
    assert critical("gelu").holds
