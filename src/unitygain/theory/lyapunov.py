"""Lyapunov exponents of a sequence of Jacobians, with error bars. Nat per step, plain (not squared)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from unitygain.theory._given import require_count, require_finite, require_positive
from unitygain.theory.orthogonal import orthogonalise

Matrix = NDArray[np.float64]
Map = Callable[[Matrix], Matrix]
# Parts of a run whose means give the interval, and the share of the run that is set aside to align.
BATCHES = 10
ALIGNING = 10
# Longest stretch between two orthogonalisations, and how many past ones say how far columns spread.
LONGEST, REMEMBERED = 100, 10


class NotFinite(ValueError):
    """A factor makes NaN or infinity of finite columns, so that the product has no exponents."""


@dataclass(frozen=True)
class LyapunovSpectrum:
    """The exponents of a sequence of Jacobians.

    Args:
        exponents: Nat per step, descending; minus infinity for directions that are lost. Shape (count,).
        half_widths: Half width of each one's confidence interval; NaN where there are fewer than two
            batches, and for lost directions. Shape (count,).
        steps: Steps that were counted.
        transient: Steps before them that only aligned the directions.
        interval: Longest stretch of steps between two orthogonalisations.
        batches: Parts of the run whose means gave the intervals.
        size: Numbers in the state, of which each has an exponent.
    """

    exponents: Matrix
    half_widths: Matrix
    steps: int
    transient: int
    interval: int
    batches: int
    size: int

    @property
    def start_loss(self) -> float:
        """The finite-length correction: nat per step by which the largest may be too low on average.

        A direction drawn at random lies at a typical cosine of 1/√n to the one that grows most. The loss of
        ½·ln n is paid once, by the steps that are counted if none was set aside.
        """
        return 0.5 * math.log(self.size) / self.steps

    @property
    def complete(self) -> bool:
        """Whether all exponents are there."""
        return len(self.exponents) == self.size

    @property
    def total(self) -> float:
        """Sum of the exponents: the rate at which volumes change; NaN where not all are known."""
        return float(np.sum(self.exponents)) if self.complete else math.nan

    @property
    def dimension(self) -> float:
        """Kaplan-Yorke dimension: how many directions, counted from the top, together do not shrink.

        NaN where the exponents that are known do not decide it.
        """
        sums = np.cumsum(self.exponents)
        growing = int(np.sum(sums >= 0))
        if growing == len(sums):
            return float(growing) if self.complete else math.nan
        before = float(sums[growing - 1]) if growing else 0.0
        return growing + before / abs(float(self.exponents[growing])) if growing else 0.0


def lyapunov_spectrum(
    factors: Sequence[Matrix | Map],
    start: Matrix,
    *,
    tolerance: float = 1e-6,
    precision: float | None = None,
    confidence: float = 0.95,
    transient: int | None = None,
) -> LyapunovSpectrum:
    """Estimate the Lyapunov exponents of factors[-1] ··· factors[0] by orthogonalising as it goes.

    Columns go through the factors; every few steps Q·R replaces them by Q, and ln|R[i,i]| is added up. The
    stretch between is chosen so that columns never come closer to each other than rounding allows: at most
    ln(tolerance/precision)/(λ₁ - λₙ) steps, with the widest spread of late, and a stretch whose own
    spread turns out wider is done again in halves. The interval of each exponent is Student's over the means
    of ten stretches of the run, which takes these as independent.

    Over few steps the sums are neither the exponents of an endless run nor the singular values of the
    product (see `log_singular_values`, which is exact for those). `start_loss` names the size of the first.

    Args:
        factors: Square matrices in the order in which they are applied, or maps of columns by them.
        start: Columns to start from, shape (n, count), of full rank; a random one sees every direction.
        tolerance: Error of each logarithm that rounding may make per orthogonalisation.
        precision: Relative precision of a product with a factor; float64's when left out.
        confidence: Of the intervals.
        transient: Steps set aside to align the directions; a tenth of them when left out.

    Raises:
        ValueError: If no factor is left after the transient, a number is out of range, the start is not of
            full rank, or a product is not finite.

    Cost: one product with every factor, more where a stretch is repeated; 2·n·count² flops per
    orthogonalisation, nearly all of them in products of matrices.

    Example:
        >>> import numpy as np
        >>> found = lyapunov_spectrum([np.diag([2.0, 0.5])] * 100, np.eye(2))
        >>> (found.exponents / np.log(2)).round(12).tolist(), found.half_widths.round(12).tolist()
        ([1.0, -1.0], [0.0, 0.0])
        >>> found.dimension, found.interval
        (2.0, 2)

    References:
        G. Benettin, L. Galgani, A. Giorgilli, J.-M. Strelcyn, Meccanica 15 (1980), part 2. Networks: R. Vogt,
        M. Puelma Touzel, E. Shlizerman, G. Lajoie, Front. Appl. Math. Stat. 8 (2022); R. Engelken,
        F. Wolf, L. Abbott, Phys. Rev. Research 5 (2023). Dimension: J. Kaplan, J. Yorke (1979).
    """
    eps = float(np.finfo(np.float64).eps) if precision is None else require_positive("precision", precision)
    aside = len(factors) // ALIGNING if transient is None else require_count("transient", transient, 0)
    if aside >= len(factors):
        raise ValueError(f"there are {len(factors)} factors and {aside} set aside; give more than that")
    if not 0 < require_finite("confidence", confidence) < 1:
        raise ValueError(f"confidence is {confidence!r}; give a number between 0 and 1, such as 0.95")
    if require_positive("tolerance", tolerance) <= eps:
        raise ValueError(f"tolerance is {tolerance:g}, below the precision {eps:g}; give a larger one")
    columns = _aligned(np.asarray(start, dtype=np.float64))
    longest = max(1, min(LONGEST, (len(factors) - aside) // (4 * BATCHES)))
    _, columns = _sweep(factors[:aside], columns, tolerance, longest, eps)
    blocks, _ = _sweep(factors[aside:], columns, tolerance, longest, eps)
    lengths = np.array([length for length, _ in blocks])
    sums = np.stack([logs for _, logs in blocks])
    means = sums.sum(0) / lengths.sum()
    half, batches = _half_widths(lengths, sums, confidence)
    order = np.argsort(-means, kind="stable")
    steps, widest = int(lengths.sum()), int(lengths.max())
    return LyapunovSpectrum(means[order], half[order], steps, aside, widest, batches, len(columns))


def _aligned(start: Matrix) -> Matrix:
    if start.ndim != 2 or not start.size or start.shape[1] > start.shape[0] or not np.isfinite(start).all():
        raise ValueError(f"start has shape {start.shape}; give at most as many finite columns as rows")
    columns, triangle = np.linalg.qr(start)
    sizes = np.abs(np.diag(triangle))
    if sizes.min() <= np.finfo(np.float64).eps * len(start) * sizes.max():
        raise ValueError("the columns of start are not independent; draw them at random")
    return columns


def _sweep(
    factors: Sequence[Matrix | Map], columns: Matrix, tolerance: float, longest: int, eps: float
) -> tuple[list[tuple[int, Matrix]], Matrix]:
    """Return (steps, logarithms of R's diagonal) of every stretch, and the columns at the end."""
    blocks: list[tuple[int, Matrix]] = []
    room = math.log(tolerance / eps)
    done, stretch = 0, 1
    while done < len(factors):
        stretch = min(stretch, len(factors) - done)
        image = columns
        for index in range(done, done + stretch):
            image = _apply(factors[index], image, index)
        if not np.isfinite(image).all():
            if stretch == 1:
                raise NotFinite(f"the product with factor {done} holds NaN or infinity; it has no exponents")
            stretch //= 2
            continue
        turned, sizes = orthogonalise(image, tolerance)
        logs = _logarithms(sizes, eps)
        if stretch > 1 and _spread(logs) > room:
            stretch //= 2
            continue
        columns, done = turned, done + stretch
        blocks.append((stretch, logs))
        stretch = _next_stretch(blocks[-REMEMBERED:], room, longest)
    return blocks, columns


def _next_stretch(blocks: Sequence[tuple[int, Matrix]], room: float, longest: int) -> int:
    """How many steps may be taken before the columns come too close to each other: by the widest of late.

    By the mean, where that leaves hardly any room, every other stretch would be walked in vain.
    """
    spread = max(_spread(logs) / length for length, logs in blocks)
    if spread == math.inf:
        return 1
    return longest if spread * longest <= room else max(1, int(room / spread))


def _spread(logs: Matrix) -> float:
    return float(np.ptp(logs)) if np.isfinite(logs).all() else math.inf


def _apply(factor: Matrix | Map, columns: Matrix, index: int) -> Matrix:
    with np.errstate(over="ignore", invalid="ignore"):
        given = np.asarray(factor(columns) if callable(factor) else factor)
        if given.dtype.kind not in "fiu":
            raise ValueError(f"factor {index} is or makes {given.dtype}; give real matrices, or maps to them")
        image = given if callable(factor) else given @ columns
    if image.shape != columns.shape:
        raise ValueError(
            f"factor {index} makes columns of shape {image.shape} of {columns.shape}; give square factors"
        )
    return image


def _logarithms(sizes: Matrix, eps: float) -> Matrix:
    """Of R's diagonal; minus infinity for what is no more than the rounding noise of the largest."""
    lost = sizes <= eps * math.sqrt(len(sizes)) * sizes.max()
    with np.errstate(divide="ignore"):
        return np.where(lost, -np.inf, np.log(sizes))


def _half_widths(lengths: NDArray[np.int64], sums: Matrix, confidence: float) -> tuple[Matrix, int]:
    """Student's interval over the means of contiguous parts of about equal length."""
    batches = min(BATCHES, len(lengths) // 2)
    if batches < 2:
        return np.full(sums.shape[1], np.nan), batches
    ends = np.cumsum(lengths)
    part = np.minimum((ends - lengths) * batches // ends[-1], batches - 1)
    present = [part == index for index in range(batches) if (part == index).any()]
    means = np.stack([sums[rows].sum(0) / lengths[rows].sum() for rows in present])
    if len(present) < 2:
        return np.full(sums.shape[1], np.nan), len(present)
    reach = float(stdtrit(len(present) - 1, (1 + confidence) / 2))
    with np.errstate(invalid="ignore"):
        spread = means.std(axis=0, ddof=1)
    return reach * spread / math.sqrt(len(present)), len(present)
