"""The rms gain of an operator from random vectors, with an error bar that knows how uneven it is."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unitygain.probe.operators import LinearOperator, generator
from unitygain.stats import norm


@dataclass(frozen=True)
class Gain:
    """Estimate of ‖J‖_F/√rows.

    Args:
        value: The rms gain of Jᵀ over random directions.
        error: Its standard error; NaN from a single probe.
        participation: Estimate of (tr JJᵀ)²/tr (JJᵀ)², the number of directions that carry the gain.
    """

    value: float
    error: float
    participation: float


def rms_gain_of(operator: LinearOperator, probes: int, seed: int) -> Gain:
    """Estimate ‖J‖_F/√rows from ‖Jᵀu‖/‖u‖ of random u: squares are averaged, then the root is taken.

    For u uniform on the sphere E u_i²u_j² = (1 + 2δ_ij)/(n(n+2)), so one square has the relative
    variance 2n/(n+2)·(1/r - 1/n) for n rows and participation r. That is computed from r, which the
    inner products of different probes give, and from the spread of the squares; the error bar is the
    larger one.

    Args:
        operator: The operator; only Jᵀ·u is used.
        probes: Number of random vectors.
        seed: Seed of the random vectors.

    Cost: `probes` products Jᵀ·u.

    References:
        M. Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian
        smoothing splines", Commun. Stat. Simul. Comput. 19 (1990).
    """
    source = generator(operator.device, seed)
    count = operator.shape[0]
    units, lengths = [], []
    for _ in range(probes):
        u = torch.randn(count, generator=source, dtype=operator.dtype, device=operator.device)
        w = operator.rmatvec(u)
        length = float(norm(w))
        lengths.append(length / float(norm(u)))
        units.append(w / length if length > 0 else w)
    return _summarise(np.array(lengths), units, count)


def _summarise(lengths: np.ndarray, units: list[Tensor], count: int) -> Gain:
    largest = float(np.max(lengths))
    if not 0 < largest < math.inf:
        return Gain(largest, 0.0 if largest == 0 else math.nan, math.nan)
    squares = (lengths / largest) ** 2
    mean = float(np.mean(squares))
    if len(squares) == 1:
        return Gain(largest, math.nan, math.nan)
    pairs = np.triu_indices(len(squares), 1)
    cosines = _cosines(units)
    traces = (cosines**2 * np.outer(squares, squares))[pairs]
    participation = float(np.clip(mean**2 / max(float(np.mean(traces)), 1e-300), 1.0, count))
    by_participation = 2 * count / (count + 2) * (1 / participation - 1 / count)
    by_spread = float(np.var(squares, ddof=1)) / mean**2
    relative = math.sqrt(max(by_participation, by_spread, 0.0) / len(squares))
    value = largest * math.sqrt(mean)
    return Gain(value, value * relative / 2, participation)


def _cosines(units: list[Tensor]) -> np.ndarray:
    stacked = torch.stack(units)
    return (stacked @ stacked.T).double().cpu().numpy()
