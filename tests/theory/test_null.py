"""The law of chance: exact moments and tails against simulated networks, false alarms at their level."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from unitygain.theory import simulation
from unitygain.theory.null import (
    GainLaw,
    PValue,
    log_normal_p_value,
    relu_gain_law,
    relu_log_moments,
    simulated_law,
)
from unitygain.theory.simulation import simulate_relu_gain


def draw_relu_gains(widths, count, seed):
    """Squared gains, per entry, of actual He-ReLU networks on one vector."""
    generator, found = np.random.default_rng(seed), []
    for _ in range(count):
        x = generator.normal(size=widths[0])
        start = np.mean(x**2)
        for fan_in, fan_out in itertools.pairwise(widths):
            x = np.maximum(generator.normal(size=(fan_out, fan_in)) @ x * math.sqrt(2 / fan_in), 0)
        found.append(np.mean(x**2) / start)
    return np.array(found)


@pytest.mark.parametrize("width", [4, 32])
def test_layer_moments_match_a_sample_of_the_law(width):
    generator = np.random.default_rng(0)
    kept = generator.binomial(width, 0.5, size=400_000)
    logs = np.log(2 / width * generator.chisquare(kept[kept > 0]))
    mean, variance = relu_log_moments(width)
    error = math.sqrt(variance / len(logs))
    assert abs(logs.mean() - mean) < 5 * error
    # A variance of log chi-squares: kurtosis below 9, so a relative error below √(8/4e5) = 0.45 %.
    assert logs.var() == pytest.approx(variance, rel=0.025)


def test_mean_gain_is_one_and_its_square_one_plus_five_over_n():
    law = relu_gain_law([32])
    mass = np.diff(np.concatenate([[0.0], law.below]))
    gains = np.exp(law.logs - 0.5 * (law.logs[1] - law.logs[0]))
    assert mass @ gains == pytest.approx(1.0, rel=1e-4)
    assert mass @ gains**2 == pytest.approx(1 + 5 / 32, rel=1e-4)


@pytest.mark.parametrize("widths", [[16, 16], [12, 24, 8, 16, 16, 16], [64] * 5])
def test_law_matches_actual_networks(widths):
    gains = draw_relu_gains(widths, 2000, 0)
    law = relu_gain_law(widths[1:])
    alive = gains > 0
    distance = stats.kstest(
        np.log(gains[alive]), lambda x: np.interp(x, law.logs, law.below, left=0, right=1)
    )
    assert distance.pvalue > 1e-4
    # Dead chains are counted apart; five standard errors of a binomial count.
    expected = 2000 * law.dead
    assert abs((~alive).sum() - expected) <= 5 * math.sqrt(expected) + 1


def test_exact_moments_of_the_grid():
    for widths in ([64] * 50, [8] * 3, [2, 300]):
        law = relu_gain_law(widths, gain=0.8)
        mass = np.diff(np.concatenate([[0.0], law.below]))
        x = law.logs - 0.5 * (law.logs[1] - law.logs[0])
        mean = sum(relu_log_moments(w)[0] for w in widths) + len(widths) * math.log(0.8)
        assert law.mean_log == pytest.approx(mean, rel=1e-12)
        assert mass @ x == pytest.approx(mean, abs=1e-6)
        # Cells of width h add at most L·h²/12 to the variance.
        assert mass @ (x - mean) ** 2 == pytest.approx(law.variance_log, rel=1e-4)


def test_false_alarms_are_at_their_level():
    widths = [20] * 13
    law = relu_gain_law(widths[1:])
    p = np.array([law.p_value(gain).value for gain in draw_relu_gains(widths, 2000, 1)])
    for level in (0.05, 0.01):
        share = (p < level).mean()
        # Five standard errors of a share of 2000.
        assert abs(share - level) < 5 * math.sqrt(level / 2000)
    low, high = law.interval(0.9)
    assert law.p_value(low).value == pytest.approx(0.1, rel=1e-2)
    assert law.p_value(high).value == pytest.approx(0.1, rel=1e-2)


def test_a_single_seed_wobble_is_no_disease():
    law = relu_gain_law([64] * 50)
    # Two standard deviations of ln: a factor of 60 in the squared gain is one in twenty.
    assert law.p_value(math.exp(law.mean_log + 2 * math.sqrt(law.variance_log))).value > 0.03
    assert law.p_value(1e-9).value < 1e-10


def test_deep_tails_match_a_single_layer_s_closed_form():
    law = relu_gain_law([10])
    k = np.arange(1, 11)
    weight = stats.binom.pmf(k, 10, 0.5) / (1 - 2.0**-10)
    for gain in (1e-4, 1e-8, 5.0, 9.0):
        below = weight @ stats.chi2.cdf(5 * gain, k)
        above = weight @ stats.chi2.sf(5 * gain, k)
        # The grid's cell is 0.2 % of the law's width; the steepest slope here is 5 per unit of ln.
        assert law.p_value(gain).value == pytest.approx(2 * min(below, above), rel=0.02)


def test_what_cannot_be_told_apart_from_zero_is_a_bound():
    law = relu_gain_law([64] * 4)
    assert law.p_value(1e-30) == PValue(1e-12, True)
    assert str(law.p_value(1e-30)) == "p < 1e-12"
    assert law.p_value(math.inf).bound
    # A dead layer of four units happens one time in sixteen.
    assert relu_gain_law([4]).p_value(0.0) == PValue(1 / 16, False)


def test_simulated_gaussian_networks_follow_the_exact_law():
    law, exact = simulate_relu_gain([24] * 9, draws=800), relu_gain_law([24] * 8)
    assert (law.method, exact.method) == ("simulated", "exact")
    assert abs(law.mean_log - exact.mean_log) < 5 * math.sqrt(exact.variance_log / 800)
    # Relative error of a variance of 800 near-normal draws: √(2/800) = 5 %; four of them.
    assert law.variance_log == pytest.approx(exact.variance_log, rel=0.2)
    assert law.interval(0.9) == pytest.approx(exact.interval(0.9), rel=0.5)


def test_simulation_is_deterministic_under_its_seed():
    first, again, other = (simulate_relu_gain([8, 8], draws=30, seed=s, batch=4) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.logs, again.logs)
    assert not np.array_equal(first.logs, other.logs)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_averages_over_probes_and_inputs_wobble_less(direction):
    one = simulate_relu_gain([24] * 7, direction=direction, draws=300)
    many = simulate_relu_gain([24] * 7, direction=direction, probes=4, batch=4, draws=300)
    assert many.variance_log < 0.8 * one.variance_log
    # Mean square gain 1 in every setting: the mean of e^x, with its own error.
    gains = np.exp(many.logs)
    assert abs(gains.mean() - 1) < 5 * gains.std() / math.sqrt(300)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_simulated_laws_are_those_of_explicit_jacobians(direction):
    """Uniform weights, three inputs, two probes: each network's Jacobian as a product of matrices."""
    widths, generator, logs = [8, 16, 12], np.random.default_rng(7), []
    for _ in range(1000):
        weights = [
            generator.uniform(-1, 1, (b, a)) * math.sqrt(3 * 2 * 0.9 / a)
            for a, b in itertools.pairwise(widths)
        ]
        square = start = 0.0
        for _ in range(3):
            x, jacobian = generator.normal(size=8), np.eye(8)
            for weight in weights:
                x = weight @ x
                jacobian = (x > 0)[:, None] * (weight @ jacobian)
                x = np.maximum(x, 0)
            matrix = jacobian if direction == "forward" else jacobian.T
            for _ in range(2):
                probe = generator.normal(size=matrix.shape[1])
                square, start = square + np.mean((matrix @ probe) ** 2), start + np.mean(probe**2)
        logs.append(math.log(square / start))
    law = simulate_relu_gain(widths, "uniform", direction, gain=0.9, probes=2, batch=3, draws=1000)
    error = math.sqrt(2 * law.variance_log / 1000)
    assert abs(law.mean_log - np.mean(logs)) < 5 * error
    # Relative error of each variance: some 5 %, and the logarithm's tail is longer than normal.
    assert law.variance_log == pytest.approx(np.var(logs), rel=0.3)


@pytest.mark.parametrize("weights", ["uniform", "orthogonal"])
@pytest.mark.parametrize("widths", [[24, 24, 24], [10, 30, 12]])
def test_other_weights_keep_the_mean_square(weights, widths):
    gains = np.exp(simulate_relu_gain(widths, weights, draws=1500, seed=1).logs)
    assert abs(gains.mean() - 1) < 5 * gains.std() / math.sqrt(1500)


def test_orthogonal_weights_wobble_less_than_gaussian():
    one = simulate_relu_gain([24] * 7, "orthogonal", draws=400)
    assert one.variance_log < relu_gain_law([24] * 6).variance_log


def test_simulated_p_values_stop_at_a_tenth_of_a_draw():
    law = simulated_law(np.random.default_rng(0).normal(size=1000))
    assert law.p_value(1.0).value > 0.9
    assert law.p_value(math.exp(50)) == PValue(1e-4, True)
    assert str(law.p_value(math.exp(-50))) == "p < 0.0001"
    # Just outside the draws the log-normal tail goes on: three and a half deviations.
    beyond = law.p_value(math.exp(max(law.logs) + 0.05))
    assert 1e-4 < beyond.value <= 2 / 1001
    assert not beyond.bound
    inside = law.p_value(math.exp(float(np.quantile(law.logs, 0.01))))
    assert inside.value == pytest.approx(0.02, rel=0.15)


def test_draws_that_all_agree_have_no_tail():
    law = simulated_law([0.0] * 30)
    assert law.p_value(1.0).value == 1.0
    assert law.p_value(2.0) == PValue(1 / 300, True)


def test_simulated_p_values_count_draws():
    law = simulated_law(np.linspace(-1, 1, 99))
    # The fifth draw from below: five at or below it, one added for the network under test.
    assert law.p_value(math.exp(law.logs[4])) == PValue(2 * 6 / 100, False)
    assert law.p_value(math.exp(law.logs[-1])).value == pytest.approx(2 * 2 / 100, rel=1e-12)


def test_orthogonal_weights_are_uniform_over_rotations():
    drawn = simulation._draw_weights(np.random.default_rng(0), "orthogonal", (4000, 3, 3))
    np.testing.assert_allclose(
        drawn @ drawn.swapaxes(1, 2), np.broadcast_to(np.eye(3), drawn.shape), atol=1e-12
    )
    # Entries of a uniform rotation have mean 0 and variance 1/3: five standard errors of 4000 draws.
    assert np.abs(drawn.mean(axis=0)).max() < 5 * math.sqrt(1 / 3 / 4000)


def test_log_normal_limit():
    assert log_normal_p_value(math.exp(1.96), 0.0, 1.0).value == pytest.approx(0.05, rel=1e-3)
    assert log_normal_p_value(math.exp(40), 0.0, 1.0).bound
    # Wide and shallow: the exact law is close to its limit; a skewness of √(1/n) moves p by some per cent.
    law = relu_gain_law([512] * 20)
    gain = math.exp(law.mean_log + 1.5 * math.sqrt(law.variance_log))
    assert law.p_value(gain).value == pytest.approx(
        log_normal_p_value(gain, law.mean_log, law.variance_log).value, rel=0.05
    )


def test_bad_input_is_a_sentence():
    law: GainLaw = simulated_law(np.linspace(-1, 1, 30))
    with pytest.raises(ValueError, match="the gain is nan"):
        law.p_value(math.nan)
    with pytest.raises(ValueError, match=r"level is 1; give a number between 0 and 1"):
        law.interval(1)
    with pytest.raises(
        ValueError, match=r"30 draws cannot place the ends of a 0.99 interval; simulate at least 400"
    ):
        law.interval(0.99)
    with pytest.raises(ValueError, match="5 log gains of which 1 are not finite"):
        simulated_law([0.0, 1.0, 2.0, 3.0, -math.inf])
    with pytest.raises(ValueError, match="widths is empty"):
        relu_gain_law([])
    with pytest.raises(ValueError, match=r"widths is \[8\]; give the inputs"):
        simulate_relu_gain([8])
    with pytest.raises(ValueError, match="weights is 'sparse'"):
        simulate_relu_gain([8, 8], "sparse")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"widths \[1, 1\] let nothing pass"):
        simulate_relu_gain([1, 1], draws=50)
