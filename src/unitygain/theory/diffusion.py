"""Noise schedules of diffusion models: which steps carry how much of the gradient."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitygain.theory._given import require_count, require_finite, require_positive, require_variance

Array = NDArray[np.float64]
Target = Literal["epsilon", "x0", "v"]


@dataclass(frozen=True)
class Schedule:
    """A forward process x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε, t = 1..T.

    Args:
        beta: Noise variances, shape (T,).

    Raises:
        ValueError: If a variance is not inside (0, 1) or there is none.
    """

    beta: Array

    def __post_init__(self) -> None:
        beta = np.asarray(self.beta, dtype=np.float64)
        if beta.ndim != 1 or not beta.size:
            raise ValueError(f"beta has shape {beta.shape}; give one variance per step")
        if not ((beta > 0) & (beta < 1)).all():
            raise ValueError(f"beta lies in [{beta.min():g}, {beta.max():g}]; give variances inside (0, 1)")
        object.__setattr__(self, "beta", beta)

    @property
    def alpha_bar(self) -> Array:
        """ᾱ_t, the signal's share of the variance, shape (T,)."""
        return np.exp(np.cumsum(np.log1p(-self.beta)))

    @property
    def snr(self) -> Array:
        """Signal-to-noise ratio ᾱ/(1 - ᾱ), shape (T,)."""
        log_signal = np.cumsum(np.log1p(-self.beta))
        return np.exp(log_signal) / -np.expm1(log_signal)


def linear_schedule(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Return the schedule of DDPM.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> schedule = linear_schedule()
        >>> float(schedule.snr[0].round()), int((schedule.snr > 1).sum())
        (9999.0, 259)

    References:
        Ho, Jain and Abbeel, Denoising diffusion probabilistic models, 2020, section 4.
    """
    ends = require_finite("first", first), require_finite("last", last)
    return Schedule(np.linspace(*ends, require_count("steps", steps)))


def cosine_schedule(steps: int = 1000, offset: float = 0.008) -> Schedule:
    """Return the cosine schedule, its variances capped at 0.999.

    Raises:
        ValueError: If a number is out of range.

    References:
        Nichol and Dhariwal, Improved denoising diffusion probabilistic models, 2021, eq. 17.
    """
    t = np.arange(require_count("steps", steps) + 1) / steps
    signal = np.cos((t + require_variance("offset", offset)) / (1 + offset) * math.pi / 2) ** 2
    return Schedule(np.minimum(1 - signal[1:] / signal[:-1], 0.999))


def min_snr_weights(schedule: Schedule, gamma: float = 5.0, target: Target = "epsilon") -> Array:
    """Return the loss weight of every step under min-SNR-γ, shape (T,).

    Args:
        schedule: The schedule.
        gamma: Where the signal-to-noise ratio is cut.
        target: What the network predicts.

    Raises:
        ValueError: If gamma is not above 0 or the target unknown.

    References:
        Hang et al., Efficient diffusion training via min-SNR weighting strategy, 2023.
    """
    snr = schedule.snr
    cut = np.minimum(snr, require_positive("gamma", gamma))
    if target not in {"epsilon", "x0", "v"}:
        raise ValueError(f"target is {target!r}; use 'epsilon', 'x0' or 'v'")
    return cut / {"epsilon": snr, "x0": np.ones_like(snr), "v": snr + 1}[target]


def bound_weights(schedule: Schedule) -> Array:
    """Return the weights β²/(2σ²α(1-ᾱ)) of the variational bound on ε-predictions, σ² = β, shape (T,).

    References:
        Ho et al. 2020, eq. 12.
    """
    return schedule.beta / (2 * (1 - schedule.beta) * -np.expm1(np.cumsum(np.log1p(-schedule.beta))))


def mirrored_clip(clip: float, weights: ArrayLike, reference: float | None = None) -> Array:
    """Return the clip norm of every step's unweighted gradient that undoes what the weight amplifies.

    c_t = clip·reference/w_t: clipping the unweighted gradient at c_t, then weighting it, never lets a step
    exceed clip·reference.

    Args:
        clip: Norm at which the reference step is clipped.
        weights: Loss weights of the steps, shape (T,).
        reference: Weight at which nothing changes; the mean where left out.

    Raises:
        ValueError: If a weight is not above 0 or there is none.

    References:
        Derived: the gradient of w·loss is w times the gradient of the loss.
    """
    given = np.asarray(weights, dtype=np.float64)
    if not given.size:
        raise ValueError("weights is empty; give the loss weight of at least one step")
    if not (np.isfinite(given) & (given > 0)).all():
        raise ValueError(f"weights lie in [{given.min():g}, {given.max():g}]; give finite numbers above 0")
    base = float(given.mean()) if reference is None else require_positive("reference", reference)
    return require_positive("clip", clip) * base / given
