"""Spectra of products against arithmetic with 300 digits, closed forms, and what is refused."""

import weakref

import mpmath
import numpy as np
import pytest

from unitygain.theory.products import leading_log_singular_values, log_singular_values

LAYERS, WIDTH = 50, 16


def exact_logs(factors: list[np.ndarray]) -> np.ndarray:
    """Logarithms of the singular values of the product, formed with 300 digits."""
    with mpmath.workdps(300):
        product = mpmath.matrix(factors[0].tolist())
        for factor in factors[1:]:
            product = mpmath.matrix(factor.tolist()) * product
        values = mpmath.svd_r(product, compute_uv=False)
        return np.array([float(mpmath.log(value)) for value in values])


def gaussian_chain(seed: int, layers: int = LAYERS, width: int = WIDTH) -> list[np.ndarray]:
    source = np.random.default_rng(seed)
    return [source.standard_normal((width, width)) / width**0.5 for _ in range(layers)]


@pytest.mark.parametrize("seed", [0, 1])
def test_spectrum_of_a_long_product_agrees_with_300_digits(seed):
    factors = gaussian_chain(seed)
    expected = exact_logs(factors)
    # The spread is about 100 nat: float64 resolves 36 of them in a product that is formed.
    formed = np.linalg.svd(np.linalg.multi_dot(factors[::-1]), compute_uv=False)
    assert np.max(np.abs(np.log(formed) - expected)) / LAYERS > 0.1
    found = log_singular_values(factors)
    assert found.rank == WIDTH
    np.testing.assert_allclose(found.logs / LAYERS, expected / LAYERS, rtol=0, atol=1e-3)


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_spectrum_of_a_short_product_agrees_with_the_plain_one(layers):
    factors = gaussian_chain(3, layers)
    expected = np.log(np.linalg.svd(np.linalg.multi_dot([*factors[::-1], np.eye(WIDTH)]), compute_uv=False))
    found = log_singular_values(factors, sweeps=2000, tolerance=1e-13)
    np.testing.assert_allclose(found.logs, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("distance", [0.05, 0.5, 2.0])
def test_error_after_few_sweeps_is_the_stated_one(distance):
    angle = 0.7
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    factor = np.diag([1.0, np.exp(-distance)]) @ turn
    for sweeps in (3, 4, 8, 16):
        found = log_singular_values([factor], sweeps=sweeps, tolerance=-1)
        assert found.sweeps == sweeps
        tangent = np.tan(angle) * np.exp(-distance * (sweeps - 1))
        stated = np.log((1 + tangent**2) / (1 + tangent**2 * np.exp(-2 * distance))) / 2
        assert -found.logs[0] == pytest.approx(stated, rel=1e-6, abs=1e-15)
        assert stated < 0.19 / (sweeps - 1)


def test_rectangular_factors_give_as_many_values_as_the_narrowest():
    source = np.random.default_rng(5)
    factors = [source.standard_normal(shape) for shape in ((7, 9), (4, 7), (6, 4))]
    expected = np.log(np.linalg.svd(np.linalg.multi_dot(factors[::-1]), compute_uv=False)[:4])
    found = log_singular_values(factors, sweeps=500, tolerance=1e-12)
    assert found.logs.shape == (4,)
    np.testing.assert_allclose(found.logs, expected, rtol=0, atol=1e-8)


def test_dead_channels_are_counted_and_do_not_disturb_the_rest():
    source = np.random.default_rng(6)
    masks = [np.diag((source.random(12) < 0.8).astype(float)) for _ in range(30)]
    factors = [mask @ factor for mask, factor in zip(masks, gaussian_chain(6, 30, 12), strict=True)]
    rank = min(int(mask.trace()) for mask in masks)
    found = log_singular_values(factors)
    assert found.rank == rank < 12
    assert np.all(np.isneginf(found.logs[rank:]))
    expected = exact_logs(factors)[:rank]
    np.testing.assert_allclose(found.logs[:rank] / 30, expected / 30, rtol=0, atol=1e-3)


def test_product_that_is_zero():
    found = log_singular_values([np.diag([1.0, 0.0]), np.diag([0.0, 1.0])])
    assert found.rank == 0
    assert np.all(np.isneginf(found.logs))


def test_precision_decides_what_counts_as_zero():
    factor = np.diag([1.0, 1e-9])
    assert log_singular_values([factor]).rank == 2
    assert log_singular_values([factor], precision=1e-7).rank == 1


def test_no_factor_leaves_the_range():
    found = log_singular_values([np.diag([1e200, 1e195])] * 10)
    np.testing.assert_allclose(found.logs / np.log(10), [2000, 1950], rtol=1e-12)


def test_orthogonal_chain_is_flat():
    turn = np.linalg.qr(np.random.default_rng(7).standard_normal((9, 9)))[0]
    found = log_singular_values([0.5 * turn] * 20)
    np.testing.assert_allclose(found.logs, 20 * np.log(0.5), rtol=0, atol=1e-12)


def test_leading_values_from_maps_agree_with_the_whole_spectrum():
    factors = gaussian_chain(8, 40, 30)
    expected = log_singular_values(factors).logs
    there = [lambda x, a=a: a @ x for a in factors]
    back = [lambda x, a=a: a.T @ x for a in factors]
    start = np.random.default_rng(9).standard_normal((30, 8))
    found = leading_log_singular_values(there, back, start, sweeps=6)
    np.testing.assert_allclose(found.logs[:6] / 40, expected[:6] / 40, rtol=0, atol=1e-3)
    # One sweep back alone gives the exponents, which are those of the product up to O(1) nat in all.
    cocycle = leading_log_singular_values([], back, start)
    np.testing.assert_allclose(cocycle.logs[:4], expected[:4], rtol=0, atol=6)


def test_what_is_no_chain_is_refused():
    with pytest.raises(ValueError, match="there are 0 factors"):
        log_singular_values([])
    with pytest.raises(ValueError, match="factor 1 has 3 columns and factor 0 has 2 rows"):
        log_singular_values([np.eye(2), np.eye(3)])
    with pytest.raises(ValueError, match="factor 1 holds NaN"):
        log_singular_values([np.eye(2), np.full((2, 2), np.nan)])


def test_factors_are_taken_one_by_one_and_not_kept():
    alive: list[weakref.ref[np.ndarray]] = []

    def make():
        for seed in range(6):
            held = sum(reference() is not None for reference in alive)
            assert held <= 1, f"{held} factors are held when number {seed} is made"
            factor = gaussian_chain(seed, 1)[0]
            alive.append(weakref.ref(factor))
            yield factor

    given = [gaussian_chain(seed, 1)[0] for seed in range(6)]
    np.testing.assert_array_equal(log_singular_values(make()).logs, log_singular_values(given).logs)
