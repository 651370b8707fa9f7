"""Matrices whose powers grow before they decay: what eigenvalues do not say. Plain norms."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitygain.theory._given import require_count

Matrix = NDArray[np.complex128 | np.float64]


@dataclass(frozen=True)
class TransientGrowth:
    """The largest norm that powers of a matrix reach.

    Args:
        largest: max over k of ‖A^k‖, k = 0..steps.
        at: The k at which it is reached.
        spectral_radius: max|λ|, which alone decides the limit.
    """

    largest: float
    at: int
    spectral_radius: float


def transient_growth(matrix: ArrayLike, steps: int = 256) -> TransientGrowth:
    """Return the largest ‖A^k‖ for k up to `steps`, and where it is.

    Args:
        matrix: Square matrix.
        steps: Powers to form; stops early where the norm overflows.

    Raises:
        ValueError: If the matrix is not square or not finite.

    Example:
        >>> growth = transient_growth([[0.9, 10.0], [0.0, 0.9]])
        >>> round(growth.largest, 2), growth.at, growth.spectral_radius
        (38.75, 9, 0.9)

    References:
        Trefethen and Embree, Spectra and pseudospectra, 2005, chapter 14.
    """
    a = _square(matrix)
    power, largest, at = np.eye(len(a)), 1.0, 0
    for k in range(1, require_count("steps", steps) + 1):
        power = a @ power
        norm = float(np.linalg.norm(power, 2)) if np.isfinite(power).all() else math.inf
        if norm > largest:
            largest, at = norm, k
        if norm > 1e150:
            break
    return TransientGrowth(largest, at, _radius(a))


def henrici_departure(matrix: ArrayLike) -> float:
    """Return √(‖A‖_F² - Σ|λ|²), zero for normal matrices alone.

    Raises:
        ValueError: If the matrix is not square or not finite.

    Example:
        >>> henrici_departure([[0.0, 2.0], [0.0, 0.0]])
        2.0

    References:
        Henrici, Bounds for iterates, inverses, spectral variation and fields of values, 1962.
    """
    a = _square(matrix)
    excess = float(np.sum(np.abs(a) ** 2) - np.sum(np.abs(np.linalg.eigvals(a)) ** 2))
    return math.sqrt(max(0.0, excess))


def numerical_abscissa(matrix: ArrayLike) -> float:
    """Return the largest eigenvalue of (A + Aᴴ)/2: the rate at which exp(tA) grows at the very start.

    Raises:
        ValueError: If the matrix is not square or not finite.

    References:
        Trefethen and Embree 2005, section 17.
    """
    a = _square(matrix)
    return float(np.linalg.eigvalsh((a + a.conj().T) / 2)[-1])


def numerical_radius(matrix: ArrayLike, angles: int = 256) -> float:
    """Return max|xᴴAx| over unit x, by the abscissa of A turned through `angles` angles, refined.

    Raises:
        ValueError: If the matrix is not square or not finite.

    References:
        Johnson, Numerical determination of the field of values of a general complex matrix, 1978.
    """
    a = _square(matrix)

    def turned(angle: float) -> float:
        return numerical_abscissa(np.exp(1j * angle) * a)

    step = 2 * math.pi / require_count("angles", angles, 8)
    best = max((turned(k * step), k * step) for k in range(angles))
    low, high = best[1] - step, best[1] + step
    for _ in range(60):
        one, other = low + (high - low) / 3, high - (high - low) / 3
        low, high = (one, high) if turned(one) < turned(other) else (low, other)
    return max(best[0], turned((low + high) / 2))


def kreiss_constant(matrix: ArrayLike, angles: int = 64, radii: int = 40) -> float:
    """Return the Kreiss constant sup over |z| > 1 of (|z| - 1)·‖(z - A)⁻¹‖, from below, by a refined grid.

    The largest power lies between it and e·n times it.

    Args:
        matrix: Square matrix of spectral radius at most 1.
        angles: Angles of the grid.
        radii: Distances |z| - 1 of the grid, from 1e-6 to 1e3.

    Raises:
        ValueError: If the matrix is not square, not finite, or of spectral radius above 1.

    Cost: angles x radii singular value decompositions.

    References:
        Kreiss 1962; Trefethen and Embree 2005, chapter 18; the upper bound e·n: Spijker 1991.
    """
    a = _square(matrix)
    require_count("angles", angles)
    require_count("radii", radii, 2)
    radius = _radius(a)
    if radius > 1 + 1e-12:
        raise ValueError(f"the spectral radius is {radius:.6g}; above 1 powers grow without bound")

    def value(log_distance: float, angle: float) -> float:
        distance = math.exp(log_distance)
        shifted = (1 + distance) * np.exp(1j * angle) * np.eye(len(a)) - a
        return distance / float(np.linalg.svd(shifted, compute_uv=False)[-1])

    distances, turns = (
        np.linspace(math.log(1e-6), math.log(1e3), radii),
        np.arange(angles) * 2 * math.pi / angles,
    )
    best = max((value(d, t), d, t) for d in distances for t in turns)
    spread_d, spread_t = distances[1] - distances[0], 2 * math.pi / angles
    for _ in range(24):
        around = [(best[1] + i * spread_d, best[2] + j * spread_t) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        best = max(best, max((value(d, t), d, t) for d, t in around))
        spread_d, spread_t = 0.6 * spread_d, 0.6 * spread_t
    return float(best[0])


def _radius(a: Matrix) -> float:
    return float(np.abs(np.linalg.eigvals(a)).max())


def _square(matrix: ArrayLike) -> Matrix:
    a = np.asarray(matrix)
    a = a.astype(np.complex128 if np.iscomplexobj(a) else np.float64)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or not a.size or not np.isfinite(a).all():
        raise ValueError(f"the matrix has shape {a.shape}; give a square one of finite numbers")
    return a
