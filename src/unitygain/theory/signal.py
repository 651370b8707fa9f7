"""A signal inside a wide random network as three numbers, and what one operation makes of them.

The rules of the other files are for whole layers; these are for single operations, so that a block of any
design can be followed one operation at a time. All numbers are squared: mean squares and squared gains.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from unitygain.theory._given import require_variance
from unitygain.theory.activations import Activation, find_activation
from unitygain.theory.correlation import pair
from unitygain.theory.gaussian import expect, expect_checked
from unitygain.theory.mean_field import Phi

# Below this share of its mean square a signal is one number for all features, as a mean over them is.
CONSTANT = 1e-9
STEP = 0.01
# Of two lengths with a larger spread one would have no square.
MOST_SPREAD = 0.9


@dataclass(frozen=True)
class Signal:
    """What theory knows of a tensor whose entries are features of rows (samples, tokens, positions).

    Args:
        square: Mean square of an entry.
        shared: Mean product of one feature in two different rows; `square` where all rows are equal.
        mean: Mean over the features.
        spread: Relative variance of the mean square from row to row.
    """

    square: float
    shared: float
    mean: float = 0.0
    spread: float = 0.0

    @property
    def variance(self) -> float:
        """Variance over the features of a row."""
        return max(0.0, self.square - self.mean**2)

    @property
    def apart(self) -> float:
        """Variance over the rows of a feature."""
        return max(0.0, self.square - self.shared)


@dataclass(frozen=True)
class Bent:
    """What an activation makes of a signal.

    Args:
        signal: What leaves it.
        slope: E φ'², by which the squared gradient is multiplied.
        scatter: Variance of φ'² of one unit over the square of its mean; times 1/width that of the gain.
        elasticity: Relative change of `slope` per relative change of the variance that enters.
        peaked: Variance of φ² of one unit over the square of its mean.
    """

    signal: Signal
    slope: float
    scatter: float
    elasticity: float = 0.0
    peaked: float = 0.0


def add_signals(one: Signal, other: Signal) -> Signal:
    """Return the sum of two signals whose fluctuations are independent; their means may add.

    Example:
        >>> add_signals(Signal(1.0, 0.5), Signal(2.0, 0.0))
        Signal(square=3.0, shared=0.5, mean=0.0, spread=0.0)
    """
    cross = 2 * one.mean * other.mean
    square = one.square + other.square + cross
    spread = one.spread * one.square**2 + other.spread * other.square**2
    return Signal(
        square,
        one.shared + other.shared + cross,
        one.mean + other.mean,
        spread / square**2 if square else 0.0,
    )


def multiply_signals(one: Signal, other: Signal) -> Signal:
    """Return the entrywise product of two independent signals."""
    return Signal(
        one.square * other.square,
        one.shared * other.shared,
        one.mean * other.mean,
        (1 + one.spread) * (1 + other.spread) - 1,
    )


def mix_linearly(signal: Signal, gain: float, bias: Signal | None = None) -> Signal:
    """Return W·x + b for independent weights of mean zero, where `gain` is fan_in·variance.

    Args:
        signal: What enters.
        gain: Squared gain per output entry.
        bias: Of the bias only `square` and `mean` count: all rows share it.

    Raises:
        ValueError: If the gain is negative or not finite.

    Example:
        >>> mix_linearly(Signal(1.0, 0.5, 0.3), 2.0)
        Signal(square=2.0, shared=1.0, mean=0.0, spread=0.0)

    References:
        Poole et al. 2016, eq. 3 and 5, the linear part.
    """
    require_variance("gain", gain)
    mixed = Signal(gain * signal.square, gain * signal.shared, spread=signal.spread)
    return mixed if bias is None else add_signals(mixed, Signal(bias.square, bias.square, bias.mean))


def bend(phi: Phi, signal: Signal) -> Bent:
    """Return what an activation makes of a signal whose features are Gaussian.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        signal: What enters; the features of a row are taken as N(mean, variance of the row).

    Raises:
        ValueError: If two quadratures disagree, or φ is not finite where the signal lies.

    Example:
        >>> bent = bend("relu", Signal(2.0, 0.0))
        >>> bent.slope, round(bent.signal.square, 6), bent.scatter
        (0.5, 1.0, 1.0)

    References:
        Poole et al. 2016, eq. 3 and 5; with a mean, the Gaussian's centre is moved. Rows of different length
        have the mean of their own moments, to second order in the spread. The scatter is the variance of a
        mean over independent units.
    """
    a = find_activation(phi)
    if signal.variance <= CONSTANT * signal.square:
        point = np.array([signal.mean])
        value, slope = float(a.value(point)[0]), float(a.slope(point)[0]) ** 2
        return Bent(Signal(value**2, value**2, value), slope, 0.0)
    a = _moved(a, signal.mean)
    q = signal.variance
    gap = min(2.0, max(0.0, signal.apart / q))
    reach = math.sqrt(min(MOST_SPREAD, signal.spread))
    # A row's own length is what its units see; two lengths have the mean and the spread of all.
    rows = [pair(a, q * (1 + side * reach)) for side in ((-1, 1) if reach else (0,))]
    second, slope = (
        math.fsum(part) / len(rows) for part in zip(*((r.second, r.slope) for r in rows), strict=True)
    )
    parting = math.fsum(row.parting(gap) for row in rows) / len(rows)
    mean = expect_checked(a.value, a, q, "the mean")
    fourth = expect_checked(lambda x: a.slope(x) ** 4, a, q, "the slope's fourth moment")
    spread = math.fsum((row.second - second) ** 2 for row in rows) / len(rows) / second**2 if second else 0.0
    leaving = Signal(second, second - parting, mean, spread)
    if slope == 0:
        return Bent(leaving, 0.0, 0.0)
    more = expect_checked(lambda x: a.slope(x) ** 2, a, (1 + STEP) * q, "the slope moment")
    less = expect_checked(lambda x: a.slope(x) ** 2, a, q, "the slope moment")
    elasticity = math.log(more / less) / math.log(1 + STEP) if less else 0.0
    outer = expect(lambda x: a.value(x) ** 4, a, q)
    peaked = max(0.0, outer / second**2 - 1) if second else 0.0
    return Bent(leaving, slope, max(0.0, fourth / slope**2 - 1), elasticity, peaked)


def standardise(
    signal: Signal, variance: float, scale: Signal, shift: Signal, centre: float, evens: bool = False
) -> Signal:
    """Return (x - c)/√variance·γ + β, where the centre c takes the mean square `centre` away.

    Args:
        signal: What enters.
        variance: What is divided by, squared.
        scale: γ; its mean square counts.
        shift: β, shared by all rows.
        centre: Mean square of what is subtracted.
        evens: Whether each row is divided by its own length.

    Raises:
        ValueError: If nothing is left to divide by.
    """
    if not variance > 0 or not math.isfinite(variance):
        raise ValueError(f"a normalisation divides by a variance of {variance!r}; the signal must vary")
    factor = scale.square / variance
    spread = 0.0 if evens else signal.spread
    square = factor * max(0.0, signal.square - centre)
    kept = Signal(square, factor * (signal.shared - centre), spread=spread)
    return add_signals(kept, Signal(shift.square, shift.square, shift.mean))


@dataclass(frozen=True)
class Weights:
    """Attention weights: sums over the keys of one query.

    Args:
        keys: Keys that a query sees, on average.
        squares: E Σ a², one over the participation.
        total: E (Σ a)²; 1 but for dropout.
    """

    keys: float
    squares: float
    total: float = 1.0

    def scaled(self, factor: Signal) -> "Weights":
        """Return the weights times independent numbers, such as those of dropout."""
        square, mean = factor.square, factor.mean**2
        return dataclasses.replace(
            self,
            squares=self.squares * square,
            total=self.total * mean + self.squares * (square - mean),
        )


def attend(logits: Signal, keys: float) -> Weights:
    """Return the softmax over `keys` logits of a query, which differ by the variance `logits.apart`.

    Raises:
        ValueError: Beyond a variance of (ln keys)/2, where few keys take all and no formula in the variance
            alone holds.

    References:
        Participation 1 + (keys - 1)·exp(-variance): that of `attention_logits` for many keys, and 1 for one
        (the denominator of Cowsik et al. 2024).
    """
    if keys > 1 and logits.apart > 0.5 * math.log(keys):
        raise ValueError(
            f"attention logits of variance {logits.apart:.3g} over {keys:.3g} keys: few keys take all, and "
            "what they pass depends on which"
        )
    return Weights(keys, 1 / (1 + (keys - 1) * math.exp(-logits.apart)))


def mix_tokens(weights: Weights, values: Signal) -> Signal:
    """Return the mean of the values under attention weights."""
    square = weights.squares * values.apart + weights.total * values.shared
    return Signal(square, values.apart / max(1.0, weights.keys) + values.shared, values.mean)


def _moved(a: Activation, mean: float) -> Activation:
    """The activation seen from the mean of what enters it."""
    if mean == 0:
        return a
    jumps = a.jumps or ((a.rays[1] - a.rays[0],) if a.rays is not None and a.kinks else ())
    kinks = tuple(kink - mean for kink in a.kinks)
    return Activation(
        a.name,
        lambda x: a.value(x + mean),
        lambda x: a.slope(x + mean),
        kinks,
        None if a.kinks else a.rays,
        jumps,
        a.width,
    )
