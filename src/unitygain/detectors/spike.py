"""Spike: a number of the step lies far above its usual size.

What it sees:
    A finite number more than `threshold` robust standard deviations above the median of the last `window`
    healthy steps, and at least `ratio` times the median. The robust standard deviation is 1.4826 times the
    median distance from the median, which half of the history would have to be bad to move. What is positive
    and spans decades, such as a gradient's norm, is judged in its logarithm; a norm of 0 is left out. Until
    `least` healthy steps are known, only a thousandfold of the median counts.

Why it matters:
    One outlying gradient can undo thousands of steps, and it stays in an optimizer's second moments for long.

When it is a false alarm:
    When the level really changed: another loss, longer sequences, a new phase. Nothing of a spike enters the
    history, so that a new level is a spike for ever, until `accept` is called.

References:
    Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation" (JASA 1993), section 1, for 1.4826.

A firing example:
    >>> spike = Spike()
    >>> for step in range(1, 41):
    ...     spike.learn(Frame(step, {"grad_norm": 1.0 + step % 5 / 10}))
    >>> spike.judge(Frame(41, {"grad_norm": 90.0})).message
    'grad_norm is 90 at step 41, 75 times its median over the last 40 healthy steps (1.2)'

A silent example:
    >>> spike.judge(Frame(42, {"grad_norm": 1.6}))
"""

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from unitygain._registry import detector
from unitygain._types import Event, Frame

NORMAL = 1.4826  # standard deviation over MAD of a normal distribution
COLD_RATIO = 1000.0


@detector(name="spike", needs=("grad_norm",))
class Spike:
    """Says that a number lies far above the median of its recent healthy values.

    Memory: `window` floats. Cost: two sorts of `window` floats per step.

    Args:
        quantity: Which number of the frame.
        threshold: Robust standard deviations above the median at which it is a spike.
        release: Robust standard deviations below which, after a spike, it is usual again (hysteresis).
        ratio: Least multiple of the median that is a spike, however small the spread.
        window: How many healthy values are remembered.
        least: How many are needed before `threshold` is used.
        log: Judge the logarithm, leaving out what is not above 0. None judges it while all that is remembered
            is above 0, as most losses are, and else the number itself.

    Raises:
        ValueError: If the numbers contradict each other.
    """

    def __init__(
        self,
        quantity: str = "grad_norm",
        *,
        threshold: float = 6.0,
        release: float = 3.0,
        ratio: float = 2.0,
        window: int = 128,
        least: int = 20,
        log: bool | None = True,
    ) -> None:
        if not 0 < release <= threshold:
            raise ValueError(f"release is {release} and threshold {threshold}; 0 < release <= threshold")
        if not 1 < ratio <= COLD_RATIO:
            raise ValueError(
                f"ratio is {ratio}; a spike is above 1 and at most {COLD_RATIO:g} times the median"
            )
        if not 2 <= least <= window:
            raise ValueError(f"least is {least} and window {window}; 2 <= least <= window")
        self.quantity = quantity
        self.threshold = threshold
        self.release = release
        self.ratio = ratio
        self.least = least
        self.log = log
        self._history: deque[float] = deque(maxlen=window)
        self._elevated = False

    @property
    def usual(self) -> float | None:
        """Median of the remembered values; None while there are fewer than `least`."""
        return self._median() if len(self._history) >= self.least else None

    def judge(self, frame: Frame) -> Event | None:
        """Return an event if the number is a spike; one that is not finite is another detector's matter."""
        value = self._value(frame)
        if value is None or not self._history:
            return None
        limit = self._limit(self.release if self._elevated else self.threshold)
        self._elevated = value > limit
        if not self._elevated:
            return None
        message = f"{self.quantity} is {value:.4g} at step {frame.step}, {self._compared(value)}"
        return Event("spike", "warning", frame.step, self.quantity, value, limit, message)

    def learn(self, frame: Frame) -> None:
        """Take the number of a healthy step into the history."""
        value = self._value(frame)
        if value is not None:
            self._history.append(value)

    def accept(self) -> None:
        """Forget the history: the level that comes now is the usual one."""
        self._history.clear()
        self._elevated = False

    def state_dict(self) -> dict[str, Any]:
        """Return the history as plain values, from which a run continues bit for bit."""
        return {"history": list(self._history), "elevated": self._elevated}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._history.clear()
        self._history.extend(float(value) for value in state["history"])
        self._elevated = bool(state["elevated"])

    def _median(self) -> float:
        return statistics.median(self._history)

    def _value(self, frame: Frame) -> float | None:
        value = frame.values.get(self.quantity, math.nan)
        usable = math.isfinite(value) and (value > 0 or not self.log)
        return value if usable else None

    def _limit(self, sigmas: float) -> float:
        """The value that lies `sigmas` above the median; the least ratio stands for `threshold` of them."""
        middle = self._median()
        ratio = self.ratio if len(self._history) >= self.least else COLD_RATIO
        log = all(value > 0 for value in self._history) if self.log is None else self.log
        known = [math.log(value) if log else value for value in self._history]
        center = statistics.median(known)
        spread = NORMAL * statistics.median(abs(value - center) for value in known)
        if log:
            exponent = center + sigmas * max(spread, math.log(ratio) / self.threshold)
            return math.exp(exponent) if exponent < 709.0 else math.inf
        unit = max(spread, (ratio - 1.0) * abs(middle) / self.threshold)
        # Most of the history is exactly 0 (a satisfied hinge): there is no scale to judge by.
        return center + sigmas * unit if unit > 0 else math.inf

    def _compared(self, value: float) -> str:
        middle, healthy = self._median(), f"over the last {len(self._history)} healthy steps"
        if middle <= 0:
            return f"where its median {healthy} is {middle:.4g}"
        return f"{value / middle:.3g} times its median {healthy} ({middle:.4g})"
