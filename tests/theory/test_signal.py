"""Rules for single operations agree with quadrature, with explicit softmaxes and with simulated layers."""

import math

import numpy as np
import pytest
from scipy import special

from unitygain.theory.activations import ACTIVATIONS, find_activation
from unitygain.theory.convolution import boundary_share, boundary_share_of_mean
from unitygain.theory.signal import (
    Signal,
    Weights,
    add_signals,
    attend,
    bend,
    mix_linearly,
    mix_tokens,
    multiply_signals,
    standardise,
)

NAMES = ("relu", "leaky_relu", "gelu", "silu", "tanh", "elu", "softplus", "hardtanh", "sigmoid")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mean", [0.0, 0.7, -1.5])
def test_moments_of_a_moved_gaussian_match_a_fine_sum(name, mean):
    a = find_activation(name)
    z = np.linspace(-10, 10, 400_001)
    weight = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    x = mean + math.sqrt(1.3) * z
    bent = bend(name, Signal(1.3 + mean**2, 0.4 + mean**2, mean))
    assert bent.signal.square == pytest.approx(float(weight @ a.value(x) ** 2), rel=1e-4)
    assert bent.signal.mean == pytest.approx(float(weight @ a.value(x)), rel=1e-4, abs=1e-6)
    slope = float(weight @ a.slope(x) ** 2)
    assert bent.slope == pytest.approx(slope, rel=1e-4)
    assert bent.scatter == pytest.approx(float(weight @ a.slope(x) ** 4) / slope**2 - 1, rel=1e-3, abs=1e-4)
    fourth = float(weight @ a.value(x) ** 4) / float(weight @ a.value(x) ** 2) ** 2
    assert bent.peaked == pytest.approx(fourth - 1, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize("mean", [0.0, 0.5])
def test_what_rows_share_behind_an_activation_matches_a_sample(name, mean):
    """Two rows of correlation 0.6 around a mean, until the sample's error is a thousandth."""
    draw = np.random.default_rng(0)
    a, common = find_activation(name), draw.normal(size=2_000_000)
    one, other = (
        mean + math.sqrt(0.6) * common + math.sqrt(0.4) * draw.normal(size=common.size) for _ in range(2)
    )
    products = a.value(one) * a.value(other)
    bent = bend(name, Signal(1 + mean**2, 0.6 + mean**2, mean))
    error = products.std() / math.sqrt(products.size)
    assert error < 2e-3
    assert abs(bent.signal.shared - products.mean()) < 4 * error


def test_elasticity_is_the_slope_s_change_with_the_variance():
    def slope(q: float) -> float:
        return bend("tanh", Signal(q, 0.0)).slope

    assert bend("relu", Signal(3.0, 0.0)).elasticity == pytest.approx(0, abs=1e-9)
    change = (math.log(slope(1.001)) - math.log(slope(0.999))) / (math.log(1.001) - math.log(0.999))
    assert bend("tanh", Signal(1.0, 0.0)).elasticity == pytest.approx(change, rel=0.02)


def test_a_number_for_all_features_is_bent_at_one_point():
    bent = bend("tanh", Signal(0.25, 0.25, 0.5))
    assert bent.signal.mean == pytest.approx(math.tanh(0.5))
    assert bent.slope == pytest.approx((1 - math.tanh(0.5) ** 2) ** 2)
    assert bent.scatter == 0


def test_sums_and_products_of_independent_samples():
    draw = np.random.default_rng(1)
    x = 0.5 + draw.normal(size=(2, 1_000_000))
    y = -0.2 + 2 * draw.normal(size=(2, 1_000_000))
    one, other = Signal(1.25, 0.25, 0.5), Signal(4.04, 0.04, -0.2)
    for made, entries in ((add_signals(one, other), x + y), (multiply_signals(one, other), x * y)):
        assert made.square == pytest.approx(float((entries**2).mean()), rel=0.01)
        assert made.shared == pytest.approx(float((entries[0] * entries[1]).mean()), abs=0.03)
        assert made.mean == pytest.approx(float(entries.mean()), abs=0.01)


def test_lengths_of_sums_and_products_spread_as_those_of_samples():
    """Rows whose mean squares are drawn: of a wide sum they add, of a wide product they multiply."""
    draw = np.random.default_rng(5)
    one, other = 2 * draw.gamma(10, 0.1, 400_000), 3 * draw.gamma(4, 0.25, 400_000)
    signals = Signal(2.0, 0.0, spread=0.1), Signal(3.0, 0.0, spread=0.25)
    for made, squares in ((add_signals(*signals), one + other), (multiply_signals(*signals), one * other)):
        assert made.square == pytest.approx(squares.mean(), rel=0.01)
        assert made.spread == pytest.approx(squares.var() / squares.mean() ** 2, rel=0.03)
    assert mix_linearly(signals[0], 5.0).spread == 0.1


def test_rows_with_a_norm_s_scale_and_shift_match_a_sample():
    """LayerNorm by hand over rows that share a part, with a mean: 40,000 rows of 64 features."""
    draw = np.random.default_rng(6)
    x = 0.5 + math.sqrt(0.6) * draw.normal(size=(1, 64)) + math.sqrt(1.4) * draw.normal(size=(20_000, 2, 64))
    gamma, beta = 1.3 + 0.4 * draw.normal(size=(20_000, 1, 64)), 0.2 + 0.5 * draw.normal(size=(20_000, 1, 64))
    centred = x - x.mean(2, keepdims=True)
    y = gamma * centred / np.sqrt((centred**2).mean(2, keepdims=True)) + beta
    square = float((x**2).mean())
    shared = float((x[:, 0] * x[:, 1]).mean())
    scale, shift = Signal(1.3**2 + 0.4**2, 0.0, 1.3), Signal(0.2**2 + 0.5**2, 0.0, 0.2)
    middle = float((x.mean(2) ** 2).mean())
    made = standardise(Signal(square, shared, 0.5, 0.3), square - middle, scale, shift, middle, evens=True)
    assert made.square == pytest.approx(float((y**2).mean()), rel=0.02)
    assert made.shared == pytest.approx(float((y[:, 0] * y[:, 1]).mean()), rel=0.03)
    assert made.mean == pytest.approx(float(y.mean()), abs=0.02)
    kept = standardise(Signal(square, shared, 0.5, 0.3), square - middle, scale, shift, middle)
    assert (made.spread, kept.spread > 0) == (0.0, True)


def test_a_map_of_mean_zero_keeps_what_rows_share_and_no_mean():
    made = mix_linearly(Signal(2.0, 1.0, 0.9), 0.5, Signal(0.3, 0.0, 0.1))
    assert made == Signal(1.3, 0.8, 0.1)


@pytest.mark.parametrize("variance", [0.0, 0.1, 0.5])
def test_attention_weights_match_a_softmax(variance):
    keys, draw = 64, np.random.default_rng(2)
    logits = 3 + math.sqrt(variance) * draw.normal(size=(20_000, keys))
    weights = special.softmax(logits, axis=1)
    found = attend(Signal(variance + 9.0, 9.0), keys)
    # The average over the softmax's own sum is left out: a share of variance/keys.
    assert found.squares == pytest.approx(float((weights**2).sum(1).mean()), rel=0.03)
    values = draw.normal(size=(20_000, keys)) + draw.normal(size=(20_000, 1))
    mixed = mix_tokens(found, Signal(2.0, 1.0))
    assert mixed.square == pytest.approx(float(((weights * values).sum(1) ** 2).mean()), rel=0.04)


def test_dropout_of_attention_weights_matches_a_sample():
    draw, keep = np.random.default_rng(3), 0.8
    mask = (draw.random((50_000, 10)) < keep) / keep
    weights = mask / 10
    found = Weights(10, 0.1).scaled(Signal(1 / keep, 1.0, 1.0))
    assert found.squares == pytest.approx(float((weights**2).sum(1).mean()), rel=0.01)
    assert found.total == pytest.approx(float((weights.sum(1) ** 2).mean()), rel=0.01)


def test_standardised_rows_have_unit_variance():
    made = standardise(Signal(5.0, 2.0, 1.0), 4.0, Signal(1.0, 1.0, 1.0), Signal(0.0, 0.0), 1.0)
    assert made.square == 1.0
    assert made.shared == pytest.approx(0.25)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_share_of_a_mean_is_that_of_an_explicit_convolution(stride):
    """A constant input, random kernels: the square of the output's mean over positions."""
    draw = np.random.default_rng(4)
    kernels = draw.normal(size=(40_000, 9))
    ones = np.pad(np.ones((5, 5)), 1)
    starts = range(0, 5, stride)
    patches = np.array([ones[i : i + 3, j : j + 3].ravel() for i in starts for j in starts])
    outputs = kernels @ patches.T
    shares = [f((5, 5), (3, 3), (1, 1), (stride, stride)) for f in (boundary_share, boundary_share_of_mean)]
    assert shares[0] == pytest.approx(float((outputs**2).mean()) / 9, rel=0.02)
    assert shares[1] == pytest.approx(float((outputs.mean(1) ** 2).mean()) / 9, rel=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mix_linearly(Signal(1.0, 0.0), -1.0), "gain is -1.0; give a finite number of at least 0"),
        (lambda: attend(Signal(9.0, 0.0), 16), "variance 9 over 16 keys: few keys take all"),
        (
            lambda: standardise(Signal(1.0, 1.0), 0.0, Signal(1.0, 1.0), Signal(0.0, 0.0), 1.0),
            "divides by a variance of 0.0; the signal must vary",
        ),
    ],
)
def test_what_has_no_answer_says_so(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["gelu", "silu", "tanh"])
def test_rows_of_different_length_have_the_mean_of_their_own_moments(name):
    """Against the mean over many lengths, each by a grid of its own."""
    phi = ACTIVATIONS[name]
    z = np.linspace(-12, 12, 4001)
    weight = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    lengths = np.random.default_rng(0).chisquare(40, 2000) / 40
    lengths /= lengths.mean()
    slopes = [float(weight @ phi.slope(np.sqrt(0.5 * q) * z) ** 2) for q in lengths]
    squares = [float(weight @ phi.value(np.sqrt(0.5 * q) * z) ** 2) for q in lengths]
    uneven = bend(name, Signal(0.5, 0.0, spread=float(np.var(lengths))))
    even = bend(name, Signal(0.5, 0.0))
    # Third moments of the lengths are left out: a tenth of what the second do.
    assert abs(uneven.slope - np.mean(slopes)) < 0.1 * abs(even.slope - np.mean(slopes))
    assert uneven.signal.square == pytest.approx(np.mean(squares), rel=2e-3)
    assert uneven.signal.spread == pytest.approx(np.var(squares) / np.mean(squares) ** 2, rel=0.1)
