"""Lyapunov exponents against closed forms, a naive twin, and the coverage that the intervals claim."""

import math

import numpy as np
import pytest
from scipy.special import digamma, stdtrit

from unitygain.theory.lyapunov import lyapunov_spectrum


def gaussians(size: int, count: int, seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).standard_normal((count, size, size)) / math.sqrt(size))


def start(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(1000 + seed).standard_normal((size, size))


def newman(size: int) -> np.ndarray:
    """Exponents of Gaussian matrices of variance 1/n: C. Newman, Commun. Math. Phys. 103, 1986."""
    return 0.5 * (math.log(2 / size) + digamma((size - np.arange(size)) / 2))


def test_triangular_factors_are_exact():
    factors = [np.triu(factor) for factor in gaussians(6, 300, 0)]
    expected = np.mean([np.log(np.abs(np.diag(factor))) for factor in factors], axis=0)
    found = lyapunov_spectrum(factors, np.eye(6), transient=0)
    # Rounding may change each logarithm by 1e-6 per orthogonalisation, and there are fewer than steps.
    np.testing.assert_allclose(found.exponents, np.sort(expected)[::-1], rtol=0, atol=1e-6)
    assert (found.steps, found.transient) == (300, 0)


def test_gaussian_factors_have_newman_s_exponents():
    found = lyapunov_spectrum(gaussians(8, 6000, 1), start(8))
    assert found.complete
    # Eight intervals of 95 %: half as wide again is 99.2 % each (Student's, 9 degrees of freedom).
    assert np.all(np.abs(found.exponents - newman(8)) < 1.5 * found.half_widths)
    assert np.all(found.half_widths < 0.06)
    assert found.total == pytest.approx(float(newman(8).sum()), abs=8 * 0.06)


def test_stretches_change_nothing_beyond_the_tolerance():
    factors = gaussians(16, 1200, 2)
    columns, logs = np.linalg.qr(start(16))[0], np.zeros(16)
    for index, factor in enumerate(factors):
        columns, triangle = np.linalg.qr(factor @ columns)
        logs += np.log(np.abs(np.diag(triangle))) if index >= 120 else 0
    found = lyapunov_spectrum(factors, start(16))
    np.testing.assert_allclose(found.exponents, np.sort(logs / 1080)[::-1], rtol=0, atol=1e-6)
    # ln(1e-6/eps) = 22.2 over a spread of 2.8 nat per step: at most 7 steps, and more than one.
    assert 2 <= found.interval <= 22.2 / (newman(16)[0] - newman(16)[-1]) + 1


def test_a_coarser_precision_takes_shorter_stretches():
    factors = gaussians(16, 800, 3)
    fine = lyapunov_spectrum(factors, start(16))
    coarse = lyapunov_spectrum(factors, start(16), precision=2.0**-23)
    assert coarse.interval < fine.interval


def test_interval_covers_as_often_as_it_says():
    runs, exact = 200, newman(4)[0]
    found = [lyapunov_spectrum(gaussians(4, 120, 100 + seed), start(4, seed)) for seed in range(runs)]
    largest, half = (
        np.array(part) for part in zip(*((f.exponents[0], f.half_widths[0]) for f in found), strict=True)
    )
    # Binomial: three standard deviations of 200 draws at 95 % are 9.2.
    assert np.sum(np.abs(largest - exact) < half) >= 0.95 * runs - 9.2
    # Nor is it wider than it must be: Student's reach times the spread over runs, known to 1/√400 = 5 %.
    assert half.mean() == pytest.approx(stdtrit(9, 0.975) * largest.std(ddof=1), rel=0.2)


def test_start_loss_is_the_bias_of_a_random_start():
    """Repeated diag(2, 1, ..., 1): a random start pays ln|cos|, on average about -½·ln n."""
    size, steps = 64, 40
    factor = np.diag([2.0] + [1.0] * (size - 1))
    losses = []
    for seed in range(100):
        found = lyapunov_spectrum([factor] * steps, start(size, seed)[:, :1], transient=0)
        losses.append(math.log(2) - found.exponents[0])
    # E ln|cos| = ½(ψ(½) - ψ(n/2)), which is ½·ln n + 0.63 below 0; its spread is 1.1 per draw.
    exact = 0.5 * (digamma(size / 2) - digamma(0.5)) / steps
    assert np.mean(losses) == pytest.approx(exact, abs=3 * 1.11 / steps / 10)
    assert found.start_loss == pytest.approx(0.5 * math.log(size) / steps, rel=1e-12)
    assert abs(exact - found.start_loss) < 0.64 / steps


def test_leading_exponents_from_maps():
    factors = gaussians(12, 900, 4)
    whole = lyapunov_spectrum(factors, start(12))
    some = lyapunov_spectrum([lambda c, a=a: a @ c for a in factors], start(12)[:, :3])
    assert not some.complete
    assert math.isnan(some.total)
    np.testing.assert_allclose(some.exponents, whole.exponents[:3], rtol=0, atol=2e-6)


def test_lost_directions_are_minus_infinity():
    factors = gaussians(5, 60, 5)
    factors[30][3:] = 0
    found = lyapunov_spectrum(factors, start(5))
    assert np.isfinite(found.exponents[:3]).all()
    assert (found.exponents[3:] == -np.inf).all()
    assert found.total == -math.inf


@pytest.mark.parametrize(
    ("rates", "dimension"),
    [((0.5, -0.25, -1.0), 2.25), ((-0.1, -0.2, -1.0), 0.0), ((0.2, 0.1, 0.0), 3.0)],
)
def test_kaplan_yorke_dimension(rates, dimension):
    found = lyapunov_spectrum([np.diag(np.exp(rates))] * 40, np.eye(3))
    assert found.dimension == pytest.approx(dimension, abs=1e-9)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_huge_and_tiny_factors_stay_in_range(scale):
    found = lyapunov_spectrum([scale * np.eye(3)] * 400, start(3))
    np.testing.assert_allclose(found.exponents, math.log(scale), rtol=1e-12)


def test_two_steps_have_no_interval():
    assert np.isnan(lyapunov_spectrum([np.eye(2)] * 2, np.eye(2)).half_widths).all()


@pytest.mark.parametrize(
    ("factors", "begin", "given", "message"),
    [
        ([], np.eye(2), {}, "there are 0 factors and 0 set aside"),
        ([np.eye(2)] * 3, np.eye(2), {"transient": 3}, "3 factors and 3 set aside"),
        ([np.eye(2)] * 3, np.ones((2, 2)), {}, "not independent"),
        ([np.eye(2)] * 3, np.ones((2, 3)), {}, r"start has shape \(2, 3\)"),
        ([np.ones((3, 2))] * 3, np.eye(2), {}, r"shape \(3, 2\) of \(2, 2\); give square factors"),
        ([np.eye(2), np.full((2, 2), np.nan)], np.eye(2), {}, "factor 1 holds NaN or infinity"),
        ([np.eye(2)], np.eye(2), {"tolerance": 1e-17}, "below the precision"),
        ([np.eye(2)], np.eye(2), {"confidence": 1.0}, "confidence is 1.0"),
    ],
)
def test_what_cannot_be_computed_says_so(factors, begin, given, message):
    with pytest.raises(ValueError, match=message):
        lyapunov_spectrum(factors, begin, **given)
