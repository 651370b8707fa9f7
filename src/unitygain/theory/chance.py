"""The null law from a few draws of the very network: what its gains would be in another draw of its weights.

A gain here is squared, as everywhere in theory; its logarithm is what is nearly Gaussian.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from unitygain.theory._given import require_finite, require_positive
from unitygain.theory.null import LEAST_EXACT, PValue

Array = NDArray[np.floating[Any]]
FEWEST = 10
# Below this the draws agree to rounding: they are the same network.
ROUNDING = 1e-6


@dataclass(frozen=True)
class ChanceLaw:
    """The law of the natural logarithm of a squared gain, as some draws or a limit tell it.

    Args:
        mean_log: Mean of the logarithm over the draws, or what a hypothesis says it is.
        variance_log: Variance of the logarithm over the draws.
        draws: How many; 0 where the variance comes from a formula.
        given: Whether `mean_log` is a hypothesis, and not itself uncertain.
    """

    mean_log: float
    variance_log: float
    draws: int
    given: bool = False

    @property
    def expected(self) -> float:
        """The typical squared gain: the exponential of the mean logarithm."""
        return _exp(self.mean_log)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the squared gains between which another draw lies with probability `level`.

        Raises:
            ValueError: If the level is not inside (0, 1).
        """
        low, high = self.log_interval(level)
        return _exp(low), _exp(high)

    def log_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the ends of `interval` as logarithms, which no float's range cuts off.

        Raises:
            ValueError: If the level is not inside (0, 1).
        """
        if not 0 < require_finite("level", level) < 1:
            raise ValueError(f"level is {level!r}; give a number between 0 and 1")
        reach = float(stats.t.ppf(0.5 * (1 + level), self._freedom)) * self._deviation
        return self.mean_log - reach, self.mean_log + reach

    def p_value(self, gain: float) -> PValue:
        """Return the two-sided probability of a squared gain this far out in another draw.

        The larger of two: Student's t on the logarithm, and, below the mean, the gamma law with this mean
        and variance of its logarithm, which is that of one narrow layer and has the heavier left tail.

        Raises:
            ValueError: If the gain is not above 0 and finite.
        """
        return self.p_of_log(math.log(require_positive("gain", gain)))

    def p_of_log(self, log_gain: float) -> PValue:
        """Return `p_value` of a logarithm, which no float's range cuts off.

        Raises:
            ValueError: If it is not finite.
        """
        away, least = require_finite("log_gain", log_gain) - self.mean_log, self.least
        p = 2 * float(stats.t.sf(abs(away) / self._deviation, self._freedom))
        if away < 0:
            p = max(p, _gamma_tail(away, self._deviation**2))
        p = min(p, 1.0)
        return PValue(max(p, least), p < least)

    @property
    def least(self) -> float:
        """The smallest p that is told apart; below it p is a bound."""
        return 1 / (10 * self.draws) if self.draws else LEAST_EXACT

    @property
    def _freedom(self) -> float:
        return self.draws - 1 if self.draws else math.inf

    @property
    def _deviation(self) -> float:
        """Standard deviation of another draw about `mean_log`, which is known from the draws alone."""
        uncertain = 0.0 if self.given else 1 / self.draws
        return max(math.sqrt(self.variance_log * (1 + uncertain)), ROUNDING)


def drawn_law(log_gains: ArrayLike) -> ChanceLaw:
    """Return the law of another draw from the log squared gains of some.

    Args:
        log_gains: Natural logarithms of squared gains, one per draw, shape (draws,).

    Raises:
        ValueError: If there are fewer than 10 or one is not finite.

    Example:
        >>> law = drawn_law([0.1, -0.1] * 10)
        >>> round(law.expected, 3), [round(end, 2) for end in law.interval()]
        (1.0, [0.8, 1.25])
        >>> print(law.p_value(1.1), law.p_value(3.0))
        p = 0.38 p < 0.005

    References:
        Student, "The probable error of a mean", Biometrika 6 (1908), for a law known from some draws.
    """
    logs = np.asarray(log_gains, dtype=np.float64).ravel()
    if len(logs) < FEWEST or not np.isfinite(logs).all():
        odd = int((~np.isfinite(logs)).sum())
        raise ValueError(f"{len(logs)} log gains, {odd} not finite; give at least {FEWEST} finite ones")
    return ChanceLaw(float(logs.mean()), float(logs.var(ddof=1)), len(logs))


def unity_law(log_gains: ArrayLike) -> ChanceLaw:
    """Return the law at unity gain of a chain whose draws scatter as these do.

    At unity gain the mean of the squared gain is 1. The logarithm of a chain of many layers is nearly
    Gaussian, so that its mean is then minus half its variance; the variance is that of the draws, since a
    common factor on all of them leaves it as it is.

    Args:
        log_gains: Natural logarithms of squared gains of the whole chain, one per draw, shape (draws,).

    Raises:
        ValueError: If there are fewer than 10 or one is not finite.

    Example:
        >>> law = unity_law([-7.9, -8.1] * 10)
        >>> round(law.expected, 3), str(law.p_value(3e-4))
        (0.995, 'p < 0.005')

    References:
        Hanin and Nica, Products of many large random matrices and gradients in deep neural networks, 2020,
        theorem 1: mean -5/2·Σ1/n and variance 5·Σ1/n for ReLU at unity gain.
    """
    law = drawn_law(log_gains)
    return ChanceLaw(-0.5 * law.variance_log, law.variance_log, law.draws, given=True)


def worst_of(observed: Sequence[float], log_gains: ArrayLike) -> float:
    """Return the probability that the most unusual of several sites is this unusual by chance.

    The network and its draws are ranked by the largest distance of a site from the mean of all, in standard
    deviations of all, the network among them: so each is treated alike, and under the null law every rank is
    equally likely, whatever the sites have to do with one another.

    Args:
        observed: Natural logarithms of the squared gains of the network, one per site.
        log_gains: The same of the draws, shape (draws, sites).

    Returns:
        A number from 1/(draws + 1) to 1, never too small by more than ties.

    Raises:
        ValueError: If the shapes do not match or a number is not finite.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(99, 8))
        >>> worst_of([0.0] * 7 + [9.0], draws), worst_of([0.1] * 8, draws)
        (0.01, 1.0)

    References:
        P. H. Westfall and S. S. Young, "Resampling-Based Multiple Testing", 1993, the step of the maximum.
    """
    drawn = np.asarray(log_gains, dtype=np.float64)
    if drawn.ndim != 2 or drawn.shape[1] != len(observed) or not len(observed) or len(drawn) < FEWEST:
        raise ValueError(
            f"log_gains has shape {drawn.shape} for {len(observed)} sites; give at least {FEWEST} draws, "
            "one number per site each"
        )
    both = np.vstack([np.asarray(observed, dtype=np.float64), drawn])
    if not np.isfinite(both).all():
        raise ValueError(f"{int((~np.isfinite(both)).sum())} log gains are not finite; leave those sites out")
    spread = np.maximum(both.std(axis=0), ROUNDING)
    farthest = (np.abs(both - both.mean(axis=0)) / spread).max(axis=1)
    return float((farthest >= farthest[0]).mean())


def wide_law(variance_log: float) -> ChanceLaw:
    """Return the law at unity gain of a chain of wide layers, from the most that its variance can be.

    Args:
        variance_log: Variance of the log squared gain: 5/n per layer of n units, for one vector. Several
            samples average, and a skip path leaves a branch its share alone, so that there it is too much
            and p too large.

    Raises:
        ValueError: If the variance is not above 0.

    Example:
        >>> law = wide_law(48 * 5 / 768)
        >>> [round(end, 2) for end in law.interval()], str(law.p_value(1e-6))
        ([0.29, 2.56], 'p < 1e-12')

    References:
        As `unity_law`.
    """
    variance = require_positive("variance_log", variance_log)
    return ChanceLaw(-0.5 * variance, variance, 0, given=True)


def _gamma_tail(away: float, variance: float) -> float:
    """Twice P(ln G - E ln G <= away) for a gamma variable G with Var ln G = variance."""
    # Var ln G = trigamma(shape), which falls from infinity to 0: bisect its logarithm.
    low, high = -10.0, 30.0
    for _ in range(45):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if special.polygamma(1, math.exp(middle)) > variance else (low, middle)
    shape = math.exp(0.5 * (low + high))
    return 2 * float(special.gammainc(shape, math.exp(special.digamma(shape) + away)))


def _exp(log: float) -> float:
    return math.inf if log > 700 else math.exp(log)
