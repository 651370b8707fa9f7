"""Singular values of long matrix products, in logarithms, without ever forming the product."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from unitygain.theory._given import require_count, require_finite, require_variance

Matrix = NDArray[np.float64]
Map = Callable[[Matrix], Matrix]


@dataclass(frozen=True)
class ProductSpectrum:
    """The singular values of a product of matrices.

    Args:
        logs: Natural logarithms, descending; minus infinity for those that are zero. Shape (dimension,).
        rank: How many are not zero.
        change: Largest change of a logarithm in the last sweep (infinite after a single one).
        sweeps: Sweeps that were made.
    """

    logs: NDArray[np.float64]
    rank: int
    change: float
    sweeps: int


def log_singular_values(
    factors: Iterable[Matrix], *, sweeps: int = 32, tolerance: float = 1e-6, precision: float | None = None
) -> ProductSpectrum:
    """Compute all singular values of factors[-1] ··· factors[0] by repeated QR sweeps over the factors.

    A sweep takes Qₖ₋₁ through factor k and keeps the triangular Rₖ of Aₖ·Qₖ₋₁ = Qₖ·Rₖ. The product of
    the Rₖ has the singular values of the whole; it is transposed and swept again, which is the QR
    iteration on PᵀP, until the sums Σₖ ln|Rₖ[i,i]| stand still. After s sweeps a pair at distance g
    (nat) that stood at an angle of tangent t at first is wrong by ½·ln((1 + τ²)/(1 + τ²·exp(-2g))) with
    τ = t·exp(-g(s-1)): for t = 1 by less than 0.19/(s-1) nat in all, whatever the length of the chain.
    A singular value decomposition of the product itself is wrong wherever the spread exceeds 1e16.

    Args:
        factors: Matrices in the order in which they are applied, shapes (n₁, n₀), (n₂, n₁), ... They are
            taken one by one and not kept: what makes them need not hold them all.
        sweeps: At most this many.
        tolerance: Stop when no logarithm changes by more (nat, over the whole product).
        precision: Relative precision of the factors' entries (eps of the dtype in which they were
            computed; float64's when left out). What is smaller than that times the factor's Frobenius norm
            times the root of its larger side, the size of the rounding noise, counts as zero.

    Returns:
        min(nₖ) logarithms, those of exact zeros last.

    Raises:
        ValueError: If there is no factor, neighbours do not fit, or a number is not finite.

    Cost: about 5·n³ flops per factor and sweep, and n² numbers of float64 per factor in memory.

    Example:
        >>> import numpy as np
        >>> found = log_singular_values([np.diag([1e-3, 10.0])] * 200)
        >>> np.round(found.logs / np.log(10)).tolist()
        [200.0, -600.0]

    References:
        Sweep: G. Benettin, L. Galgani, A. Giorgilli, J.-M. Strelcyn, Meccanica 15 (1980), part 2;
        L. Dieci, E. Van Vleck, Appl. Numer. Math. 17 (1995). Product of the triangles and its graded
        structure: G. W. Stewart, Electron. Trans. Numer. Anal. 3 (1995). The limit of the sums per
        factor: V. Oseledets, Trans. Moscow Math. Soc. 19 (1968).
    """
    eps = float(np.finfo(np.float64).eps) if precision is None else require_variance("precision", precision)
    require_finite("tolerance", tolerance)
    require_count("sweeps", sweeps)
    reduced, rank, dimension = _compressed(_checked(factors), eps)
    logs = np.full(dimension, -np.inf)
    if rank == 0:
        return ProductSpectrum(logs, 0, 0.0, 1)
    current, change, done = _log_diagonals(reduced), np.inf, 2
    while done < sweeps and change > tolerance:
        reduced = _turned(reduced)
        previous, current, done = current, _log_diagonals(reduced), done + 1
        change = float(np.max(np.abs(np.sort(current) - np.sort(previous))))
    logs[:rank] = np.sort(current)[::-1]
    return ProductSpectrum(logs, rank, change, done)


def leading_log_singular_values(
    forward: Sequence[Map], backward: Sequence[Map], start: Matrix, *, sweeps: int = 2
) -> ProductSpectrum:
    """Estimate the largest singular values of a product that is known by what it does to columns.

    Block power iteration with a QR step after every factor, forward and then backward. Each sweep
    multiplies what the leading directions miss by the ratio of the singular values.

    Args:
        forward: The factors in the order in which they are applied, each a map of columns. Empty where
            they are not known: then one backward sweep is made, which gives the exponents of the
            cocycle, equal to the singular values only in the limit of a long chain.
        backward: Their transposes, in the same order.
        start: Columns to start from, shape (n₀, k); (n_L, k) where `forward` is empty.
        sweeps: Sweeps, each through all factors.

    Returns:
        k logarithms; lower estimates for the leading ones.

    References:
        G. Benettin et al., Meccanica 15 (1980), part 2.
    """
    columns, _ = np.linalg.qr(start)
    current, change = np.full(start.shape[1], -np.inf), np.inf
    directions = ([forward] if forward else []) + [backward[::-1]]
    count = sweeps if forward else 1
    for sweep in range(count):
        logs = np.zeros(start.shape[1])
        for apply in directions[sweep % len(directions)]:
            columns, triangle = np.linalg.qr(apply(columns))
            logs += _log_abs(np.diag(triangle))
        logs = np.sort(logs)[::-1]
        both = np.isfinite(logs) & np.isfinite(current)
        change = float(np.max(np.abs(logs - current)[both])) if both.any() else np.inf
        current = logs
    return ProductSpectrum(current, int(np.isfinite(current).sum()), change, count)


def _checked(factors: Iterable[Matrix]) -> Iterator[Matrix]:
    """Yield the factors as float64, each after it was found to fit the one before."""
    rows = 0
    for index, factor in enumerate(map(np.asarray, factors)):
        if factor.ndim != 2 or not factor.size or factor.dtype.kind not in "fiu":
            raise ValueError(
                f"factor {index} has shape {factor.shape} and dtype {factor.dtype}; give real matrices with "
                "at least one row and column"
            )
        if not np.all(np.isfinite(factor)):
            raise ValueError(f"factor {index} holds NaN or infinity; its product has no singular values")
        if index and factor.shape[1] != rows:
            raise ValueError(
                f"factor {index} has {factor.shape[1]} columns and factor {index - 1} has {rows} rows; they "
                "must agree"
            )
        rows = factor.shape[0]
        yield factor.astype(np.float64, copy=False)
    if not rows:
        raise ValueError("there are 0 factors; give at least 1")


def _compressed(factors: Iterable[Matrix], eps: float) -> tuple[list[Matrix], int, int]:
    """Return square factors with the same singular values, zeros apart; their rank; the smallest side."""
    smaller: list[Matrix] = []
    basis: Matrix | None = None
    sides: set[int] = set()
    for factor in factors:
        sides.update(factor.shape)
        basis = np.eye(factor.shape[1]) if basis is None else basis
        if basis.shape[1] == 0:
            continue
        peak = float(np.max(np.abs(factor))) or 1.0
        floor = eps * max(factor.shape) ** 0.5 * peak * float(np.linalg.norm(factor / peak))
        decomposed: Any = qr(factor @ basis, mode="economic", pivoting=True)
        columns, triangle, order = decomposed
        rank = int(np.sum(np.abs(np.diag(triangle)) > floor))
        unpivoted = np.empty((rank, triangle.shape[1]))
        unpivoted[:, order] = triangle[:rank]
        smaller.append(unpivoted)
        basis = columns[:, :rank]
    rank = smaller[-1].shape[0]
    return (_turned(smaller) if rank else []), rank, min(sides)


def _turned(factors: list[Matrix]) -> list[Matrix]:
    """Return the triangular factors of one sweep through the transposed product; the list is used up."""
    triangles = []
    basis = np.eye(factors[-1].shape[0])
    while factors:
        basis, triangle = np.linalg.qr(factors.pop().T @ basis)
        triangles.append(triangle)
    return triangles


def _log_diagonals(triangles: Sequence[Matrix]) -> NDArray[np.float64]:
    return np.sum([_log_abs(np.diag(triangle)) for triangle in triangles], axis=0)


def _log_abs(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log(np.abs(numbers))
