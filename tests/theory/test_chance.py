"""The law from a few draws: Student's tails, the gamma's left one, unity gain, and the worst site."""

import math

import numpy as np
import pytest
from scipy import special, stats

from unitygain.theory.chance import ChanceLaw, drawn_law, unity_law, wide_law, worst_of
from unitygain.theory.null import relu_gain_law, relu_log_moments


def test_p_is_student_s_for_another_draw():
    """The independent route is a t-test of one more observation against a sample."""
    draws = np.random.default_rng(0).normal(-3.0, 0.5, size=30)
    law = drawn_law(draws)
    for log_gain in (-2.6, -2.0, -1.9):
        # A pooled two-sample test in which one sample has a single member.
        expected = stats.ttest_ind([log_gain], draws).pvalue
        assert law.p_value(math.exp(log_gain)).value == pytest.approx(expected, rel=1e-9)
    low, high = law.log_interval(0.9)
    assert law.p_of_log(high).value == pytest.approx(0.1, rel=1e-9)
    assert law.p_of_log(low).value >= 0.1


def test_left_tail_is_the_gamma_s_where_that_is_heavier():
    """One layer of four units: ln χ²_4 has the variance ψ'(2); exp of it has a far heavier left tail."""
    shape = 2.0
    law = ChanceLaw(float(special.digamma(shape)), float(special.polygamma(1, shape)), 0, given=True)
    for probability in (1e-3, 1e-6):
        log_gain = math.log(stats.gamma(shape).ppf(probability))
        assert law.p_of_log(log_gain).value == pytest.approx(2 * probability, rel=1e-6)


@pytest.mark.parametrize(("width", "depth"), [(16, 1), (16, 8), (64, 32)])
def test_false_alarms_on_relu_chains_are_at_most_their_level(width, depth):
    """Draws of the exact law, thirty to make a law and one to judge: at most the level is below it."""
    generator, reports = np.random.default_rng(width + depth), 2000
    kept = np.maximum(1, generator.binomial(width, 0.5, size=(reports, 31, depth)))
    logs = np.log(2 / width * generator.chisquare(kept)).sum(axis=2)
    p = np.array([drawn_law(row[1:]).p_of_log(row[0]).value for row in logs])
    for level in (0.05, 0.01):
        error = math.sqrt(level * (1 - level) / reports)
        assert (p <= level).mean() <= level + 4 * error
    # And it has power: a conservative law would be silent.
    assert (p <= 0.05).mean() >= 0.02


def test_unity_law_is_the_exact_law_of_a_deep_relu_chain_at_any_scale():
    """From 400 draws at a tenth of the gain it finds the moments that the exact law has at unity gain."""
    width, depth, draws = 32, 24, 400
    generator = np.random.default_rng(1)
    kept = generator.binomial(width, 0.5, size=(draws, depth))
    logs = np.log(0.1 * 2 / width * generator.chisquare(kept)).sum(axis=1)
    law, exact = unity_law(logs), relu_gain_law([width] * depth)
    spread = math.sqrt(exact.variance_log)
    # The variance is known to sqrt(2/draws) = 7 %, of which the mean is half.
    assert law.variance_log == pytest.approx(exact.variance_log, rel=4 * math.sqrt(2 / draws))
    assert abs(law.mean_log - exact.mean_log) < 0.3 * spread
    for gain in (math.exp(exact.mean_log - 2.2 * spread), math.exp(exact.mean_log + 2.2 * spread)):
        assert 0.3 < law.p_value(gain).value / exact.p_value(gain).value < 3


def test_p_below_a_tenth_of_the_draws_is_a_bound():
    law = drawn_law(np.random.default_rng(0).normal(size=50))
    p = law.p_value(1e-30)
    assert p.bound
    assert p.value == pytest.approx(1 / 500)
    assert str(p) == "p < 0.002"
    assert law.p_value(0.9).bound is False


def test_wide_law_bounds_what_chance_does_to_wide_layers():
    layers, width = 12, 512
    law = wide_law(layers * 5 / width)
    mean, variance = relu_log_moments(width)
    assert layers * variance == pytest.approx(law.variance_log, rel=0.02)
    assert layers * mean == pytest.approx(law.mean_log, rel=0.02)


@pytest.mark.parametrize("sites", [1, 12])
def test_worst_site_is_uniform_under_the_null_law_even_of_skewed_dependent_sites(sites):
    """Exchangeable rows give every rank alike: the share of p <= level is level, whatever the sites' law."""
    generator, reports, draws = np.random.default_rng(sites), 2000, 39
    shared = generator.gamma(1.5, size=(reports, draws + 1, 1))
    logs = np.log(shared * generator.gamma(1.5, size=(reports, draws + 1, sites)))
    p = np.array([worst_of(list(rows[0]), rows[1:]) for rows in logs])
    for level in (0.025, 0.1, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / reports))


def test_one_site_out_of_place_is_found_among_many():
    draws = 0.1 * np.random.default_rng(0).normal(size=(99, 32))
    observed = [0.0] * 31 + [0.8]
    assert worst_of(observed, draws) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drawn_law([0.0] * 9), "9 log gains, 0 not finite; give at least 10"),
        (lambda: drawn_law([0.0] * 12 + [math.nan]), "13 log gains, 1 not finite"),
        (lambda: drawn_law([0.0, 0.1] * 10).p_value(0.0), "gain is 0"),
        (lambda: drawn_law([0.0, 0.1] * 10).p_of_log(math.inf), "log_gain is inf"),
        (lambda: drawn_law([0.0, 0.1] * 10).interval(1.0), "level is 1.0"),
        (lambda: worst_of([0.0], [[0.0, 1.0]] * 20), r"shape \(20, 2\) for 1 sites"),
        (lambda: worst_of([math.nan], [[0.0]] * 20), "1 log gains are not finite"),
        (lambda: wide_law(0.0), "variance_log is 0"),
    ],
)
def test_messages_say_what_was_given(call, message):
    with pytest.raises(ValueError, match=message):
        call()
