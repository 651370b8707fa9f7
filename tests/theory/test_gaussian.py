"""Moments against scipy's adaptive quadrature and closed forms; disagreement is an error with both values."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import multivariate_normal
from theory import quadrature

from unitygain.theory.activations import ACTIVATIONS, Activation, find_activation, leaky_relu
from unitygain.theory.correlation import pair
from unitygain.theory.mean_field import second_moment, slope_moment

SMOOTH = ["gelu", "gelu_tanh", "silu", "mish", "tanh", "erf", "sin", "sigmoid", "softplus"]


def scalar(f):
    return lambda x: float(f(np.array([x]))[0])


@pytest.mark.parametrize("q", [1e-3, 17.0])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_moments_match_adaptive_quadrature(name, q):
    a = ACTIVATIONS[name]
    value, slope = scalar(a.value), scalar(a.slope)
    # The two rules are good to 1e-12 each; the promise to users is 1e-8.
    assert second_moment(name, q) == pytest.approx(
        quadrature.gaussian(lambda x: value(x) ** 2, q, a.kinks), rel=1e-10
    )
    for power in (1, 2):
        exact = quadrature.gaussian(lambda x, p=power: slope(x) ** (2 * p), q, a.kinks)
        assert slope_moment(name, q, power) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("q", [1e-9, 0.2, 3.0, 1e3, 1e6])
def test_moments_match_closed_forms(q):
    assert second_moment("erf", q) == pytest.approx(2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-10)
    assert slope_moment("erf", q) == pytest.approx(4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-10)
    assert second_moment(leaky_relu(0.2), q) == pytest.approx(0.52 * q, rel=1e-12)


@pytest.mark.parametrize("gap", [1e-9, 0.01, 0.5, 1.0, 1.6])
@pytest.mark.parametrize("name", SMOOTH)
def test_pairs_match_a_trapezoidal_rule(name, gap):
    q, a = 1.3, ACTIVATIONS[name]
    both = pair(a, q)
    twin = quadrature.pair(a.value, q, 1 - gap)
    assert both.second - both.parting(gap) == pytest.approx(twin, rel=1e-10)
    assert both.cross_slope(gap) == pytest.approx(quadrature.pair(a.slope, q, 1 - gap), rel=1e-10)


@pytest.mark.parametrize("gap", [1e-8, 1e-3, 0.3, 1.0, 1.9])
def test_pairs_match_arc_cosine_and_arc_sine(gap):
    q, c = 2.5, 1 - gap
    relu = pair(ACTIVATIONS["relu"], q)
    twin = q / (2 * math.pi) * (math.sqrt(1 - c * c) + c * (math.pi - math.acos(c)))
    # The closed form cancels near c = 1: 1e-16 over a gap of 1e-8 leaves nothing, so compare the sum.
    assert relu.second - relu.parting(gap) == pytest.approx(twin, rel=1e-12)
    assert relu.cross_slope(gap) == pytest.approx((math.pi - math.acos(c)) / (2 * math.pi), rel=1e-7)
    erf = pair(ACTIVATIONS["erf"], q)
    assert erf.second - erf.parting(gap) == pytest.approx(
        2 / math.pi * math.asin(2 * q * c / (1 + 2 * q)), rel=1e-9
    )


def test_small_gaps_keep_their_digits():
    # ½E(φ(u) - φ(v))² = ½·2·gap·q·E φ'² for two inputs a hair apart.
    for name in ("tanh", "relu", "gelu", "hardtanh"):
        both = pair(ACTIVATIONS[name], 1.3)
        # The next order is gap for smooth φ and √gap for a kink: 1e-7·(a constant of 2) at 1e-14.
        assert both.parting(1e-14) == pytest.approx(1e-14 * 1.3 * both.slope, rel=4e-7)


@pytest.mark.parametrize("gap", [1e-4, 0.02, 0.4])
def test_kinked_pairs_match_rectangle_probabilities(gap):
    q, c = 2.0, 1 - gap
    both = pair(ACTIVATIONS["hardtanh"], q)

    def inside(correlation: float) -> float:
        edge = np.full(2, 1 / math.sqrt(q))
        law = multivariate_normal(cov=[[1, correlation], [correlation, 1]], allow_singular=True)
        return float(law.cdf(edge, lower_limit=-edge))

    # Rectangle probabilities in two dimensions are good to about 1e-12.
    assert both.cross_slope(gap) == pytest.approx(inside(c), rel=1e-7)
    # Price's theorem: d/dc E φ(u)φ(v) = q·E φ'(u)φ'(v); the square root at c = 1 is taken out.
    twin = quad(lambda r: 2 * r * q * inside(1 - r * r), 0, math.sqrt(gap), epsrel=1e-9)[0]
    assert both.parting(gap) == pytest.approx(twin, rel=1e-7)


def test_two_quadratures_that_disagree_are_named_with_both_values():
    hidden = Activation("hidden", lambda x: np.maximum(x - 0.3, 0), lambda x: np.heaviside(x - 0.3, 0.5))
    both = r"hidden at q = 1: two quadratures disagree, 0\.\d+ and 0\.\d+; give the points"
    with pytest.raises(ValueError, match=f"slope moment of {both}"):
        slope_moment(hidden, 1.0)
    with pytest.raises(ValueError, match=both):
        pair(hidden, 1.0)
    told = Activation("hidden", hidden.value, hidden.slope, kinks=(0.3,))
    assert slope_moment(told, 1.0) == pytest.approx(ndtr(-0.3), rel=1e-12)


@pytest.mark.parametrize("gap", [1e-6, 0.02, 1.0, 2.0])
@pytest.mark.parametrize("q", [0.01, 0.7, 300.0])
@pytest.mark.parametrize("name", ["elu", "selu", "hardtanh"])
def test_closed_curvature_matches_a_double_integral(name, q, gap):
    told = ACTIVATIONS[name]
    # The same function without what it says of its curvature goes the general way.
    untold = Activation(name, told.value, told.slope, told.kinks)
    closed, summed = pair(told, q), pair(untold, q)
    assert closed.parting(gap) == pytest.approx(summed.parting(gap), rel=1e-10)
    floor = 1e-10 * closed.slope
    assert closed.cross_slope(gap) == pytest.approx(summed.cross_slope(gap), rel=0, abs=floor)


def test_what_grows_faster_than_a_gaussian_falls_is_refused():
    cosh = Activation("cosh", np.cosh, np.sinh)
    # E cosh² is finite, but at q = 25 its mass lies at |z| = 10, partly beyond the rule's edge of 12.
    assert second_moment(cosh, 0.5) == pytest.approx((1 + math.e) / 2, rel=1e-10)
    with pytest.raises(ValueError, match="cosh grows too fast"):
        second_moment(cosh, 25.0)


@pytest.mark.parametrize("q", [-1.0, math.nan, math.inf])
def test_bad_variances_are_refused(q):
    with pytest.raises(ValueError, match=r"q is (-1.0|nan|inf); give a finite number of at least 0"):
        second_moment("tanh", q)
    with pytest.raises(ValueError, match="q is"):
        slope_moment("tanh", q)


@pytest.mark.parametrize("name", ["tanh", "gelu", "selu"])
def test_moments_match_a_sample_within_its_error_bar(name):
    torch_phi = {"tanh": torch.tanh, "gelu": torch.nn.functional.gelu, "selu": torch.nn.functional.selu}[name]
    generator = np.random.default_rng(0)
    total = square = count = 0.0
    while count < 1e4 or math.sqrt((square / count - (total / count) ** 2) / count) > 1e-3:
        sample = find_activation(torch_phi).value(generator.normal(size=50_000)) ** 2
        total, square, count = total + sample.sum(), square + (sample**2).sum(), count + len(sample)
    # Five standard errors: a false alarm of 6e-7.
    assert abs(total / count - second_moment(torch_phi, 1.0)) < 5e-3
