"""Orthogonalisation by products against known triangles and against Householder's reflections."""

import math

import numpy as np
import pytest
import torch

from unitygain.theory import orthogonal
from unitygain.theory.lyapunov import lyapunov_spectrum
from unitygain.theory.orthogonal import orthogonalise

SIZE = 300


def known(spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Columns Q·R with sizes of R's diagonal from 1 to exp(-spread), and their logarithms."""
    generator = np.random.default_rng(seed)
    logs = np.linspace(0, -spread, SIZE)
    above = np.triu(generator.standard_normal((SIZE, SIZE)) / 20, 1)
    triangle = np.exp(logs)[:, None] * above + np.diag(np.exp(logs) * generator.choice([-1, 1], SIZE))
    return np.linalg.qr(generator.standard_normal((SIZE, SIZE)))[0] @ triangle, logs


# One pass, two, and reflections: with 300 columns in panels of 128, one pass leaves a defect of 5e-8 at a
# spread of 11 nat and none of the columns orthogonal at 22.
@pytest.mark.parametrize("spread", [0.0, 5.0, 11.0, 16.0, 22.0, 28.0, 33.0])
def test_sizes_are_as_near_as_those_of_reflections(spread):
    image, logs = known(spread)
    columns, sizes = orthogonalise(image, 1e-6)
    assert np.linalg.norm(columns.T @ columns - np.eye(SIZE)) <= 1e-6
    twin = np.abs(np.diag(np.linalg.qr(image)[1]))
    least = 10 * max(np.abs(np.log(twin) - logs).max(), np.finfo(float).eps)
    np.testing.assert_allclose(
        np.log(sizes), logs, rtol=0, atol=1e-6 + least if spread < 11 else least + 1e-7
    )
    # Q·R = image with R upper triangular: Qᵀ·image has nothing below its diagonal.
    below = np.tril(columns.T @ image, -1)
    assert np.abs(below).max() <= 1e-6 * np.abs(image).max()


def test_what_products_cannot_do_is_done_by_reflections():
    image, _ = known(3.0)
    image[:, 200] = image[:, 10]
    columns, sizes = orthogonalise(image, 1e-6)
    assert sizes[200] < 1e-14
    np.testing.assert_allclose(columns.T @ columns, np.eye(SIZE), rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", [1e-250, 1e-70, 1e70, 1e250])
def test_any_scale(scale):
    image, logs = known(3.0)
    _, sizes = orthogonalise(scale * image, 1e-6)
    np.testing.assert_allclose(np.log(sizes), logs + math.log(scale), rtol=0, atol=1e-9)


def test_the_image_is_left_as_it_was():
    image, _ = known(3.0)
    before = image.copy()
    orthogonalise(image, 1e-6)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("rank", [1, 40, SIZE])
def test_the_defect_is_not_underrated(rank):
    generator = np.random.default_rng(3)
    columns = np.linalg.qr(generator.standard_normal((SIZE, SIZE)))[0]
    half = generator.standard_normal((SIZE, rank))
    off = half @ half.T
    off *= 1e-7 / np.linalg.norm(off)
    true = np.linalg.norm((columns + columns @ off).T @ (columns + columns @ off) - np.eye(SIZE))
    given = torch.from_numpy(columns + columns @ off)
    assert orthogonal._defect(given) * orthogonal.SAFETY > true


def test_exponents_of_many_columns_agree_with_a_naive_twin():
    generator = np.random.default_rng(4)
    rates = np.exp(np.linspace(0.5, -3.0, SIZE))[:, None]
    factors = [rates * generator.standard_normal((SIZE, SIZE)) / SIZE**0.5 for _ in range(20)]
    start = generator.standard_normal((SIZE, SIZE))
    columns, logs = np.linalg.qr(start)[0], np.zeros(SIZE)
    for index, factor in enumerate(factors):
        columns, triangle = np.linalg.qr(factor @ columns)
        logs += np.log(np.abs(np.diag(triangle))) if index >= 2 else 0
    found = lyapunov_spectrum(factors, start)
    np.testing.assert_allclose(found.exponents, np.sort(logs / 18)[::-1], rtol=0, atol=1e-6)


def test_hardly_any_factor_is_applied_twice():
    """Eleven nat per step leave room for two steps on average, and for one where the spread scatters."""
    generator, calls = np.random.default_rng(5), []
    scales = [np.exp(np.linspace(0, -10.9 - generator.uniform(-1, 1), 12)) for _ in range(400)]
    turns = [np.linalg.qr(generator.standard_normal((12, 12)) * 0.05 + np.eye(12))[0] for _ in scales]
    factors = [
        lambda c, s=s, q=q: calls.append(1) or s[:, None] * (q @ c)
        for s, q in zip(scales, turns, strict=True)
    ]
    lyapunov_spectrum(factors, np.eye(12))
    assert len(calls) < 1.15 * len(factors)
