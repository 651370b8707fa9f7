"""The phase diagram of wide networks: where signals settle over a grid of weight and bias variances."""

import math
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitygain.theory._given import require_count, require_positive, require_variance
from unitygain.theory.activations import find_activation
from unitygain.theory.gaussian import AGREEMENT, ORDER
from unitygain.theory.grid import Settled, lengths, moments, phases, settle_points
from unitygain.theory.mean_field import Phi

Array = NDArray[np.float64]
Masked = np.ma.MaskedArray[Any, np.dtype[np.float64]]
Progress = Callable[[int, int], None]
# Points to a piece of work: some megabytes of nodes, and enough pieces for many workers.
PIECE = 1000
SMALLEST_Q, LARGEST_Q = 1e-6, 1e4
FAR = 1e6


@dataclass(frozen=True)
class PhaseDiagram:
    """Mean field over a grid. Rows are bias variances, columns weight variances.

    Where the variance grows without bound there is no fixed point: every array is masked there, and
    `phase` says ``unbounded``.

    Args:
        phi: Name of the activation.
        sigma_w2: Weight variances times fan-in, of the columns. Shape (columns,).
        sigma_b2: Bias variances, of the rows. Shape (rows,).
        q_star: Fixed point of the variance of a pre-activation. Shape (rows, columns), as all that follow.
        chi_1: Squared gain of the gradient per layer there; 1 at the edge of chaos.
        c_star: Fixed point of the correlation of two inputs.
        xi_c: Layers in which the correlation settles by a factor e.
        xi_grad: Layers in which the squared gradient falls by a factor e; negative where it grows.
        phase: ``ordered``, ``critical``, ``chaotic`` or ``unbounded``.
    """

    phi: str
    sigma_w2: Array
    sigma_b2: Array
    q_star: Masked
    chi_1: Masked
    c_star: Masked
    xi_c: Masked
    xi_grad: Masked
    phase: NDArray[np.str_]


def phase_diagram(
    phi: Phi,
    sigma_w2: Sequence[float] | Array,
    sigma_b2: Sequence[float] | Array,
    q: float = 1.0,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> PhaseDiagram:
    """Return the mean field at every pair of a weight and a bias variance.

    The values are those of `mean_field`; the grid is solved in pieces of a thousand points at once.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        sigma_w2: Weight variances times fan-in, one per column.
        sigma_b2: Bias variances, one per row.
        q: Variance from which the signal starts.
        executor: Where pieces are computed; here and now if left out. The numbers are the same to the last
            bit. Workers in other processes need a `phi` that can be pickled: a name, or a function that is
            found by its name in a module.
        progress: Called as ``progress(done, of)`` after every piece.

    Raises:
        ValueError: If a variance is negative or not finite, two quadratures disagree, or `phi` cannot be sent
            to the executor's workers.

    Cost: 0.05 to 0.2 ms per point for smooth activations and those with a name.

    Example:
        >>> diagram = phase_diagram("tanh", sigma_w2=[0.5, 2.5], sigma_b2=[0.05])
        >>> diagram.phase.tolist(), diagram.chi_1.round(5).tolist()
        ([['ordered', 'chaotic']], [[0.43199, 1.13352]])

    References:
        Poole et al. 2016, section 2 and figure 2; Schoenholz et al. 2017, figure 1.
    """
    a = find_activation(phi)
    weights, biases = _axis("sigma_w2", sigma_w2), _axis("sigma_b2", sigma_b2)
    if not (len(weights) and len(biases)):
        raise ValueError(
            f"sigma_w2 has {len(weights)} values and sigma_b2 {len(biases)}; give at least one of each"
        )
    require_positive("q", q)
    columns, rows = np.meshgrid(weights, biases)
    count = math.ceil(columns.size / PIECE)
    pieces = list(
        zip(np.array_split(columns.ravel(), count), np.array_split(rows.ravel(), count), strict=True)
    )
    if executor is None:
        found = []
        for w, b in pieces:
            found.append(settle_points(a, w, b, q))
            _tell(progress, len(found), count)
    else:
        found = _handed_out(executor, phi, pieces, q, progress)
    return _diagram(a.name, weights, biases, found)


def critical_line(phi: Phi, points: int = 200, chi_1: float = 1.0) -> tuple[Array, Array]:
    """Return sigma_w2 and sigma_b2 along the edge of chaos: chi_1 = 1 at a fixed point that holds.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        points: Fixed points q* to try, from 1e-6 to 1e4.
        chi_1: Squared gain along the line; other levels than 1 are the diagram's contours.

    Returns:
        Both arrays, in the order of rising q*. For a φ that is linear on each side of zero the edge is a
        single point, and a contour below it a vertical line, of which both ends are given. Empty where the
        line is nowhere stable. Left out is where two quadratures disagree by more than 1e-8.

    Raises:
        ValueError: If chi_1 is not above 0 or `points` no count.

    Example:
        >>> sigma_w2, sigma_b2 = critical_line("tanh")
        >>> bool((sigma_w2 > 1).all() and (np.diff(sigma_b2) > 0).all())
        True

    References:
        Poole et al. 2016, section 2.
    """
    a = find_activation(phi)
    require_positive("chi_1", chi_1)
    require_count("points", points)
    if a.rays is not None:
        weight = 2 * chi_1 / (a.rays[0] ** 2 + a.rays[1] ** 2)
        ends = [0.0, LARGEST_Q] if chi_1 < 1 else [0.0] if chi_1 == 1 else []
        return np.full(len(ends), weight), np.array(ends)
    q = np.geomspace(SMALLEST_Q, LARGEST_Q, points)
    coarse, fine = moments(a, q, ORDER), moments(a, q)
    weights = chi_1 / fine.slope
    biases = q - weights * fine.square
    held = (biases >= 0) & (np.abs(weights * fine.bend / q) <= 1)
    for one, other in ((coarse.square, fine.square), (coarse.slope, fine.slope)):
        held &= np.abs(one - other) <= AGREEMENT * other
    return weights[held], biases[held]


def largest_bounded(phi: Phi) -> float:
    """Return the sigma_w2 up to which every variance settles, whatever the biases; infinite where all do.

    A large input sees φ as two straight lines, of mean squared slope s: it grows where sigma_w2·s > 1. Beyond
    this only signals that stay small, if any, have a fixed point.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.

    Example:
        >>> largest_bounded("gelu"), largest_bounded("tanh")
        (2.0, inf)

    References:
        Derived.
    """
    a = find_activation(phi)
    if a.rays is not None:
        square = 0.5 * (a.rays[0] ** 2 + a.rays[1] ** 2)
    else:
        far = np.array([-FAR, FAR])
        square = 0.5 * float(np.sum((a.value(far) / FAR) ** 2))
    return 1 / square if square > FAR**-1.5 else math.inf


def _axis(name: str, values: Sequence[float] | Array) -> Array:
    if np.ndim(values) != 1:
        raise ValueError(f"{name} has {np.ndim(values)} dimensions; give a sequence of variances")
    return np.array([require_variance(name, value) for value in values])


def _handed_out(
    executor: Executor, phi: Phi, pieces: list[tuple[Array, Array]], q: float, progress: Progress | None
) -> list[Settled]:
    sent = {executor.submit(_piece, phi, w, b, q): k for k, (w, b) in enumerate(pieces)}
    found: dict[int, Settled] = {}
    try:
        for future in as_completed(sent):
            found[sent[future]] = future.result()
            _tell(progress, len(found), len(pieces))
    except (pickle.PicklingError, AttributeError) as error:
        raise ValueError(
            f"phi cannot be sent to the executor's workers ({error}); give a name, or a function that is "
            "found by its name in a module"
        ) from error
    finally:
        for future in sent:
            future.cancel()
    return [found[k] for k in range(len(pieces))]


def _piece(phi: Phi, sigma_w2: Array, sigma_b2: Array, q: float) -> Settled:
    return settle_points(find_activation(phi), sigma_w2, sigma_b2, q)


def _tell(progress: Progress | None, done: int, of: int) -> None:
    if progress is not None:
        progress(done, of)


def _diagram(name: str, weights: Array, biases: Array, found: list[Settled]) -> PhaseDiagram:
    shape = (len(biases), len(weights))
    bounded = np.concatenate([piece.bounded for piece in found]).reshape(shape)
    arrays = {
        key: np.ma.array(
            np.concatenate([getattr(piece, key) for piece in found]).reshape(shape), mask=~bounded
        )
        for key in ("q_star", "chi_1", "c_star", "xi_c")
    }
    chi_1 = arrays["chi_1"].data
    xi_grad = np.ma.array(lengths(chi_1), mask=~bounded)
    return PhaseDiagram(name, weights, biases, **arrays, xi_grad=xi_grad, phase=phases(chi_1, bounded))
