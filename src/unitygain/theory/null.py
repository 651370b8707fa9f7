"""The null law: how large a gain is by chance alone, in a healthy random network of finite width.

A gain here is squared and per entry: mean square out over mean square in, 1 on average under He's
initialisation. Its logarithm over depth is a sum; one seed at depth/width above 0.2 wobbles by a factor.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from unitygain.theory._given import require_count, require_finite, require_positive

Array = NDArray[np.floating[Any]]
Method = Literal["exact", "simulated"]

GRID = 2**15
# Below this the convolution's rounding, 1e-16 per term, is no longer small beside the probability.
LEAST_EXACT = 1e-12


@dataclass(frozen=True)
class PValue:
    """A two-sided probability of a gain at least this unusual by chance.

    Args:
        value: The probability, or what it is below.
        bound: Whether it is only known to be below `value`.
    """

    value: float
    bound: bool

    def __str__(self) -> str:
        """Print ``p < 0.0001`` where it is a bound, else ``p = 0.03``."""
        return f"p {'<' if self.bound else '='} {self.value:.2g}"


@dataclass(frozen=True)
class GainLaw:
    """The law of the natural logarithm of a squared gain.

    Args:
        method: ``exact`` or ``simulated``.
        logs: Points of the law, ascending: a grid, or the draws. Shape (points,).
        below: Probability of at most each point. Shape (points,).
        mean_log: Mean of the logarithm.
        variance_log: Variance of the logarithm.
        draws: Simulated networks; 0 where exact.
        dead: Probability that nothing passes, of which the law above is not a part.
    """

    method: Method
    logs: Array
    below: Array
    mean_log: float
    variance_log: float
    draws: int = 0
    dead: float = 0.0

    def p_value(self, gain: float) -> PValue:
        """Return the two-sided probability of a squared gain this far out.

        Beyond the outermost draws a log-normal tail continues the law, down to 1/(10·draws).

        Raises:
            ValueError: If the gain is not a number of at least 0.
        """
        if not (gain == math.inf or require_finite("the gain", gain) >= 0):
            raise ValueError(f"the gain is {gain!r}; give a squared gain, a number of at least 0")
        least = 1 / (10 * self.draws) if self.draws else LEAST_EXACT
        if gain == 0 or math.isinf(gain):
            p = self.dead if gain == 0 else 0.0
        else:
            p = self._empirical(math.log(gain)) if self.draws else self._exact(math.log(gain))
        return PValue(max(p, least), p < least)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the squared gains between which chance alone leaves `level` of all networks.

        Raises:
            ValueError: If the level is not inside (0, 1), or the draws do not reach its tails.
        """
        if not 0 < require_finite("level", level) < 1:
            raise ValueError(f"level is {level!r}; give a number between 0 and 1")
        tail = 0.5 * (1 - level)
        if self.draws and tail * self.draws < 2:
            raise ValueError(
                f"{self.draws} draws cannot place the ends of a {level:g} interval; "
                f"simulate at least {math.ceil(2 / tail)}"
            )
        low, high = (float(np.interp(at, self.below, self.logs)) for at in (tail, 1 - tail))
        return math.exp(low), math.exp(high)

    def _exact(self, log_gain: float) -> float:
        below = float(np.interp(log_gain, self.logs, self.below, left=0.0, right=1.0))
        return min(1.0, 2 * min(below, 1 - below))

    def _empirical(self, log_gain: float) -> float:
        under = int(np.searchsorted(self.logs, log_gain, side="right"))
        over = self.draws - int(np.searchsorted(self.logs, log_gain, side="left"))
        if min(under, over) > 0:
            return min(1.0, 2 * (min(under, over) + 1) / (self.draws + 1))
        # Draws that all agree leave no tail: what is not one of them is as far as can be.
        away = abs(log_gain - self.mean_log)
        distance = away / math.sqrt(self.variance_log) if self.variance_log else math.inf
        return min(2 / (self.draws + 1), float(special.erfc(distance / math.sqrt(2))))


def relu_log_moments(width: int) -> tuple[float, float]:
    """Return mean and variance of ln((2/n)·χ²_K), K ~ Bin(n, ½), K > 0: the log gain of one He-ReLU layer.

    About -2.5/n and 5/n.

    Args:
        width: Outputs n of the layer.

    Raises:
        ValueError: If `width` is no count.

    Example:
        >>> mean, variance = relu_log_moments(64)
        >>> round(mean, 7), round(variance, 7)
        (-0.0401086, 0.0829974)

    References:
        Hanin and Nica, Products of many large random matrices and gradients in deep neural networks, 2020,
        theorem 1 (its limit); the finite law derived: given the signs a layer keeps K rows, and each kept
        entry is Gaussian. ln χ²_K has mean ψ(K/2) + ln 2 and variance ψ'(K/2).
    """
    k, weight = _kept(width)
    means = special.digamma(k / 2) + math.log(4 / width)
    mean = float(weight @ means)
    return mean, float(weight @ (special.polygamma(1, k / 2) + (means - mean) ** 2))


def relu_gain_law(widths: Sequence[int], gain: float = 1.0) -> GainLaw:
    """Return the exact law of the squared gain of a Gaussian ReLU chain without bias, on one vector.

    Per layer (2/n)·χ²_K with K ~ Bin(n, ½), independent over layers; the chain adds their logarithms. A
    chain that dies (K = 0, probability 2^-n per layer) is left out: its gain is 0.

    Args:
        widths: Outputs of each layer.
        gain: Mean squared gain per layer: fan_in·variance/2, 1 for He's.

    Returns:
        The law on a grid, good to 1e-12 in probability and 1e-4 of its width in the logarithm.

    Raises:
        ValueError: If a width is no count, the gain is not above 0 or there is no layer.

    Example:
        >>> law = relu_gain_law([64] * 50)
        >>> low, high = law.interval(0.95)
        >>> print(law.p_value(1.0), law.p_value(1e-8))
        p = 0.32 p < 1e-12

    References:
        Hanin and Nica 2020; exact at finite width as in `relu_log_moments`.
    """
    if not len(widths):
        raise ValueError("widths is empty; give at least one layer")
    shift = len(widths) * math.log(require_positive("gain", gain))
    counts = {width: list(widths).count(width) for width in widths}
    moments = {width: relu_log_moments(width) for width in counts}
    mean = sum(moments[w][0] * count for w, count in counts.items())
    variance = sum(moments[w][1] * count for w, count in counts.items())
    # A single narrow layer has a tail e^(x/2) to the left that the whole sum inherits.
    farthest = max(moments[w][0] - _layer_range(w)[0] for w in counts)
    step = 2 * (14 * math.sqrt(variance) + farthest) / GRID
    spectrum = np.ones(GRID // 2 + 1, dtype=np.complex128)
    for width, count in counts.items():
        spectrum *= np.fft.rfft(_layer_mass(width, step)) ** count
    # The grid is centred on zero and wraps around: unroll it about the mean.
    mass = np.clip(np.fft.irfft(spectrum, GRID), 0, None)
    index = np.arange(GRID) - GRID // 2 + round(mean / step)
    mass = mass[index % GRID]
    logs = (index + 0.5) * step + shift
    dead = -math.expm1(sum(count * math.log1p(-(2.0**-w)) for w, count in counts.items()))
    return GainLaw("exact", logs, np.cumsum(mass) / mass.sum(), mean + shift, variance, dead=dead)


def simulated_law(log_gains: ArrayLike) -> GainLaw:
    """Return the law of the log gains of simulated networks.

    Args:
        log_gains: Natural logarithms of squared gains, one per network, shape (draws,).

    Raises:
        ValueError: If there are fewer than 20 or one is not finite.
    """
    logs = np.sort(np.asarray(log_gains, dtype=np.float64).ravel())
    if len(logs) < 20 or not np.isfinite(logs).all():
        raise ValueError(
            f"{len(logs)} log gains of which {int((~np.isfinite(logs)).sum())} are not finite; "
            "give at least 20 finite ones"
        )
    below = (np.arange(len(logs)) + 0.5) / len(logs)
    return GainLaw("simulated", logs, below, float(logs.mean()), float(logs.var(ddof=1)), len(logs))


def log_normal_p_value(gain: float, mean_log: float, variance_log: float) -> PValue:
    """Return the two-sided p of a squared gain under a log-normal law, the limit of deep wide chains.

    Raises:
        ValueError: If a number is out of range.

    References:
        Hanin and Nica 2020, theorem 1.
    """
    require_finite("mean_log", mean_log)
    deviation = math.sqrt(require_positive("variance_log", variance_log))
    p = float(
        special.erfc(abs(math.log(require_positive("gain", gain)) - mean_log) / deviation / math.sqrt(2))
    )
    return PValue(max(p, LEAST_EXACT), p < LEAST_EXACT)


@functools.lru_cache(maxsize=32)
def _kept(width: int) -> tuple[Array, Array]:
    """The numbers of rows that ReLU keeps, none left out, and their probabilities."""
    k = np.arange(1, require_count("width", width) + 1)
    log_binomial = special.gammaln(width + 1) - special.gammaln(k + 1) - special.gammaln(width - k + 1)
    weight = np.exp(log_binomial - width * math.log(2))
    keep = weight > 1e-30
    return k[keep].astype(np.float64), weight[keep] / weight[keep].sum()


def _layer_mass(width: int, step: float) -> Array:
    """Probability of the log gain of one layer in every cell of the grid, cell 0 around zero."""
    edges = (np.arange(GRID + 1) - GRID // 2 - 0.5) * step
    low, high = _layer_range(width)
    inside = (edges > low) & (edges < high)
    below = (edges >= high).astype(np.float64)
    below[inside] = _layer_cdf(width, edges[inside])
    return np.roll(np.diff(below), -(GRID // 2))


@functools.lru_cache(maxsize=32)
def _layer_range(width: int) -> tuple[float, float]:
    """Log gains outside which one layer is with probability below 1e-16."""
    mean, variance = relu_log_moments(width)
    reach = np.linspace(mean - 80, mean, 1601)
    low = float(reach[max(0, int(np.searchsorted(_layer_cdf(width, reach), 1e-16)) - 1)])
    return low, mean + 10 * math.sqrt(variance) + 1


def _layer_cdf(width: int, logs: Array) -> Array:
    """P(ln((2/n)·χ²_K) <= x), a mixture over K of incomplete gamma functions."""
    k, weight = _kept(width)
    half = 0.25 * width * np.exp(np.clip(logs, -700, 700))
    total = np.zeros_like(logs)
    for count, share in zip(k, weight, strict=True):
        total += share * special.gammainc(0.5 * count, half)
    return total
