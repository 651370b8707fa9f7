"""Fixed points against an independent quadrature and root finder, closed forms, and wide networks."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from theory import quadrature
from torch.nn import functional as F

from unitygain.theory.activations import ACTIVATIONS, Activation
from unitygain.theory.criticality import critical
from unitygain.theory.mean_field import correlation_map, mean_field, propagate, variance_map

POINTS = [
    ("tanh", 2.5, 0.05),
    ("tanh", 6.25, 0.09),
    ("tanh", 1.3, 0.05),
    ("erf", 2.25, 0.0025),
    ("gelu", 2.0, 0.1),
    ("silu", 1.9, 0.1),
    ("mish", 1.9, 0.1),
    ("elu", 1.6, 0.1),
    ("selu", 1.5, 0.1),
    ("hardtanh", 3.0, 0.1),
    ("sin", 3.0, 0.1),
    ("sigmoid", 2.0, 0.1),
    ("softplus", 1.0, 0.1),
]


def scalar(f):
    return lambda x: float(f(np.array([x]))[0])


@pytest.mark.parametrize(("name", "sigma_w2", "sigma_b2"), POINTS)
def test_fixed_variance_and_gain_match_an_independent_root(name, sigma_w2, sigma_b2):
    a = ACTIVATIONS[name]
    value, slope = scalar(a.value), scalar(a.slope)

    def excess(q: float) -> float:
        return sigma_w2 * quadrature.gaussian(lambda x: value(x) ** 2, q, a.kinks) + sigma_b2 - q

    field = mean_field(name, sigma_w2, sigma_b2)
    q_star = brentq(excess, field.q_star * 0.97, field.q_star * 1.03, xtol=1e-13)
    assert field.q_star == pytest.approx(q_star, rel=1e-8)
    chi_1 = sigma_w2 * quadrature.gaussian(lambda x: slope(x) ** 2, q_star, a.kinks)
    assert field.chi_1 == pytest.approx(chi_1, rel=1e-8)
    # A central difference of step h = 1e-3·q is good to h² of a map that bends on the scale of q.
    h = 1e-3 * q_star
    rate = 1 + (excess(q_star + h) - excess(q_star - h)) / (2 * h)
    assert field.xi_q == pytest.approx(-1 / math.log(rate), rel=1e-4)
    assert field.xi_grad == pytest.approx(-1 / math.log(chi_1), rel=1e-6)
    assert field.phase == ("chaotic" if chi_1 > 1 else "ordered")


@pytest.mark.parametrize(
    ("name", "sigma_w2", "sigma_b2"), [p for p in POINTS if p[0] in {"tanh", "erf", "sin"} and p[1] > 2]
)
def test_fixed_correlation_matches_an_independent_root(name, sigma_w2, sigma_b2):
    a, field = ACTIVATIONS[name], mean_field(name, sigma_w2, sigma_b2)
    q = field.q_star

    def lift(c: float) -> float:
        return (sigma_w2 * quadrature.pair(a.value, q, c) + sigma_b2) / q - c

    c_star = brentq(lift, 0.0, 0.9, xtol=1e-13)
    assert field.c_star == pytest.approx(c_star, rel=1e-8)
    rate = sigma_w2 * quadrature.pair(a.slope, q, c_star)
    assert field.xi_c == pytest.approx(-1 / math.log(rate), rel=1e-7)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu"])
def test_both_maps_match_double_sums(name):
    """Variance and correlation one layer on, biases and all, from sums that share no code with these."""
    a, q, c, sigma_w2, sigma_b2 = ACTIVATIONS[name], 1.7, 0.35, 2.3, 0.4
    after = sigma_w2 * quadrature.gaussian(lambda x: scalar(a.value)(x) ** 2, q) + sigma_b2
    assert variance_map(name, q, sigma_w2, sigma_b2) == pytest.approx(after, rel=1e-9)
    shared = sigma_w2 * quadrature.pair(a.value, q, c) + sigma_b2
    assert correlation_map(name, c, q, sigma_w2, sigma_b2) == pytest.approx(shared / after, rel=1e-9)


def test_erf_is_solved_by_arc_sines():
    field = mean_field("erf", 2.0, 0.3)
    q, c = field.q_star, field.c_star
    assert q == pytest.approx(2 * 2 / math.pi * math.asin(2 * q / (1 + 2 * q)) + 0.3, rel=1e-10)
    assert c * q == pytest.approx(2 * 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q)) + 0.3, rel=1e-10)


@pytest.mark.parametrize("name", ["hardtanh", "selu", "tanh"])
def test_a_barely_chaotic_correlation_is_a_fixed_point_of_its_map(name):
    sigma_w2 = {"hardtanh": 1.28, "selu": 0.9805, "tanh": 2.05}[name]
    field = mean_field(name, sigma_w2, 0.1)
    assert field.phase == "chaotic"
    assert 0.9 < field.c_star < 1
    again = correlation_map(name, field.c_star, field.q_star, sigma_w2, 0.1)
    # Two inputs start apart and settle there: the distance left after n layers is rate^n of the start.
    path = propagate(name, sigma_w2, 0.1, q=field.q_star, c=field.c_star - 0.01, depth=5)
    assert again == pytest.approx(field.c_star, abs=1e-9)
    left = math.exp(-5 / field.xi_c)
    assert (field.c_star - path.c[-1]) / 0.01 == pytest.approx(left, rel=0.05)


def test_selu_keeps_unit_variance_and_lets_the_gradient_grow():
    field = mean_field("selu", 1.0, 0.0)
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    tail = math.exp(2) * 0.5 * math.erfc(math.sqrt(2))
    assert field.q_star == pytest.approx(1.0, rel=1e-9)
    assert field.chi_1 == pytest.approx(scale**2 * (0.5 + alpha**2 * tail), rel=1e-10)
    assert field.c_star == pytest.approx(0.0, abs=1e-9)


def test_silu_s_half_stable_point_and_the_one_just_above_it_are_told_apart():
    """From below the variance comes to where its map touches the diagonal, from above to the next point."""
    point = critical("silu")
    assert point.q_star is not None
    below, above = (
        mean_field("silu", point.sigma_w2, point.sigma_b2, q=q * point.q_star) for q in (0.05, 1.5)
    )
    # The slope of q'/q is zero there and grows by 1.4e-4 per ln q: a rounding of 1e-15 moves it by 1e-11.
    assert below.q_star == pytest.approx(point.q_star, rel=1e-9)
    assert below.phase == "critical"

    def grows(q: float) -> bool:
        square = quadrature.gaussian(lambda x: ACTIVATIONS["silu"].value(x) ** 2, q, ())
        return point.sigma_w2 * square + point.sigma_b2 > q

    assert above.q_star > 1.01 * point.q_star
    assert grows(0.999 * above.q_star)
    assert not grows(1.001 * above.q_star)
    # With a little less weight the touch becomes two crossings, of which the lower is reached.
    lower = mean_field("silu", point.sigma_w2 * (1 - 1e-9), point.sigma_b2, q=1.0)
    assert lower.q_star < point.q_star
    assert lower.phase == "ordered"


def test_relu_at_he_keeps_every_variance():
    field = mean_field("relu", 2.0, q=7.0)
    assert (field.q_star, field.phase, field.xi_c) == (7.0, "critical", math.inf)
    assert mean_field("relu", 1.0, 0.5).q_star == pytest.approx(1.0, rel=1e-12)
    assert mean_field("linear", 0.5, 0.5).q_star == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "erf", "sin", "hardtanh"])
def test_marginal_and_ordered_origins(name):
    rate = float(ACTIVATIONS[name].slope(np.zeros(1))[0]) ** 2
    dying = mean_field(name, 0.5 / rate)
    assert (dying.q_star, dying.phase) == (0.0, "ordered")
    assert dying.chi_1 == pytest.approx(0.5, rel=1e-12)
    if name != "hardtanh":
        assert mean_field(name, 1 / rate).q_star == 0.0
        assert mean_field(name, 1 / rate).xi_q == math.inf


def test_several_fixed_points_are_told_apart_by_the_start():
    low, high = (mean_field("gelu", 2.05, 0.1, q=q) for q in (0.01, 0.3))
    assert low.q_star == pytest.approx(high.q_star, rel=1e-9)
    assert low.chi_1 < 1
    # Above the unstable fixed point the variance runs away, from every start beyond it.
    with pytest.raises(ValueError, match=r"gelu with sigma_w2 = 2.05, sigma_b2 = 0.1 has no fixed point"):
        mean_field("gelu", 2.05, 0.1, q=100.0)


@pytest.mark.parametrize("phi", [torch.tanh, F.gelu, F.hardtanh, torch.nn.SELU(), torch.nn.SiLU()])
def test_callables_agree_with_their_names(phi):
    name = {"tanh": "tanh", "gelu": "gelu", "hardtanh": "hardtanh", "SELU": "selu", "SiLU": "silu"}
    ours = mean_field(name[getattr(phi, "__name__", type(phi).__name__)], 1.6, 0.1)
    theirs = mean_field(phi, 1.6, 0.1)
    for key in ("q_star", "chi_1", "c_star", "xi_q", "xi_c", "xi_grad"):
        assert getattr(theirs, key) == pytest.approx(getattr(ours, key), rel=1e-8)


def test_a_steep_callable_is_resolved():
    steep = mean_field(lambda x: torch.tanh(40 * x) / 40, 2.5, 0.05 / 1600, q=1e-3)
    plain = mean_field("tanh", 2.5, 0.05)
    assert steep.q_star * 1600 == pytest.approx(plain.q_star, rel=1e-8)
    assert steep.chi_1 == pytest.approx(plain.chi_1, rel=1e-8)


def test_scaled_rays_are_homogeneous():
    field = mean_field(lambda x: 3 * F.relu(x), 2 / 9, q=5.0)
    assert (field.q_star, field.phase) == (5.0, "critical")
    assert mean_field(torch.abs, 0.5, 0.25).q_star == pytest.approx(0.5, rel=1e-12)
    path = propagate(lambda x: 3 * F.relu(x), 2 / 9, c=0.2, depth=5)
    np.testing.assert_allclose(path.gap, propagate("relu", 2.0, c=0.2, depth=5).gap, rtol=1e-12)


@pytest.mark.parametrize("start", [1e-300, 1e-20, 1e20, 1e300])
def test_any_start_finds_the_only_fixed_point(start):
    assert mean_field("tanh", 2.5, 0.05, q=start).q_star == pytest.approx(1.063958377416811, rel=1e-9)


def test_propagate_follows_the_maps_and_its_own_input():
    path = propagate("tanh", 1.5, 0.1, q=9.0, c=0.3, depth=6)
    q, c = 9.0, 0.3
    for layer in range(6):
        c = correlation_map("tanh", c, q, 1.5, 0.1)
        q = variance_map("tanh", q, 1.5, 0.1)
        assert path.q[layer + 1] == pytest.approx(q, rel=1e-12)
        assert path.c[layer + 1] == pytest.approx(c, rel=1e-12)
    assert path.log_gain == pytest.approx(math.log(math.prod(path.chi)), rel=1e-12)


def test_relu_s_gap_closes_as_nine_pi_squared_over_two_l_squared():
    path = propagate("relu", 2.0, c=0.0, depth=4000)
    # The correction is of order ln(l)/l = 0.2 %, times a constant of about 3.
    assert path.gap[-1] * 4000**2 == pytest.approx(4.5 * math.pi**2, rel=0.02)
    assert path.chi == pytest.approx(np.ones(4000), rel=1e-12)


def test_tanh_s_variance_falls_as_one_over_two_l():
    path = propagate("tanh", 1.0, q=1.0, depth=3000)
    assert path.q[-1] * 2 * 3000 == pytest.approx(1.0, rel=0.01)


def test_wide_networks_behave_as_predicted():
    """Sixteen tanh networks of width 400: variance, correlation and gradient, to four standard errors."""
    width, depth, sigma_w2, sigma_b2 = 400, 6, 1.8, 0.1
    generator = np.random.default_rng(0)
    found = []
    for _ in range(16):
        base, other = generator.normal(size=(2, width))
        z = np.stack([base, 0.5 * base + math.sqrt(0.75) * other])
        jacobian = generator.normal(size=(width, 40))
        for _ in range(depth):
            weight = generator.normal(size=(width, width)) * math.sqrt(sigma_w2 / width)
            jacobian = weight @ ((1 - np.tanh(z[0]) ** 2)[:, None] * jacobian)
            z = np.tanh(z) @ weight.T + generator.normal(size=width) * math.sqrt(sigma_b2)
        found.append([(z[0] ** 2).mean(), (z[0] * z[1]).mean(), (jacobian**2).mean()])
    path = propagate("tanh", sigma_w2, sigma_b2, q=1.0, c=0.5, depth=depth)
    expected = [path.q[-1], path.c[-1] * path.q[-1], math.exp(path.log_gain)]
    error = np.std(found, axis=0, ddof=1) / 4
    # Finite width shifts the means by about depth/width = 1.5 %, the size of one standard error here.
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 4 * error + 0.015 * np.array(expected))
    assert np.all(error < 0.05 * np.array(expected))


def test_bad_input_is_a_sentence():
    with pytest.raises(ValueError, match="sigma_w2 is -1; give a finite number of at least 0"):
        mean_field("tanh", -1)
    with pytest.raises(ValueError, match="sigma_b2 is nan"):
        mean_field("tanh", 1, math.nan)
    with pytest.raises(ValueError, match=r"softplus with sigma_w2 = 3, .*grows without bound"):
        mean_field("softplus", 3)
    with pytest.raises(ValueError, match=r"exp with sigma_w2 = 1, .*grows without bound"):
        mean_field(torch.exp, 1.0)
    with pytest.raises(ValueError, match="q is 0; give a finite number above 0"):
        mean_field("tanh", 1.0, q=0)
    with pytest.raises(ValueError, match=r"relu with sigma_w2 = 2, sigma_b2 = 0.1 has no fixed point"):
        mean_field("relu", 2, 0.1)
    with pytest.raises(ValueError, match=r"c is 1.5; a correlation lies in \[-1, 1\]"):
        correlation_map("tanh", 1.5, 1.0, 1.0)
    with pytest.raises(ValueError, match="depth is 0; give a whole number of at least 1"):
        propagate("tanh", 1.0, depth=0)
    with pytest.raises(ValueError, match="leaves float64 at layer 94"):
        propagate("relu", 2e-3, depth=200)
    with pytest.raises(ValueError, match="variance one layer on is 0"):
        correlation_map("relu", 0.5, 1.0, 0.0)


def test_a_variance_that_swings_settles():
    bump = Activation("bump", lambda x: np.exp(-8 * x * x), lambda x: -16 * x * np.exp(-8 * x * x), width=0.2)
    field = mean_field(bump, 3.0)
    assert field.q_star * math.sqrt(1 + 32 * field.q_star) == pytest.approx(3.0, rel=1e-9)
    # The slope of 3/√(1 + 32q), negative: |slope| is the rate at which the swings shrink.
    slope = 48 * (1 + 32 * field.q_star) ** -1.5
    assert field.xi_q == pytest.approx(-1 / math.log(slope), rel=1e-8)


def test_a_bounded_activation_is_never_said_to_grow_without_bound():
    with pytest.raises(ValueError, match=r"tanh with sigma_w2 = 1e\+16, .*no fixed point below q = 1e\+12"):
        mean_field("tanh", 1e16)
