"""Axes: from values to pixels, with round ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from unitygain.report._show import number, power

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_PAD = 6.0
_FARTHEST = 1e300


@dataclass(frozen=True)
class Scale:
    """A vertical axis of `height` pixels from `low` (bottom) to `high`; logarithmic ones hold log10."""

    low: float
    high: float
    height: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float | None:
        """Return the pixel of `value` from the top, or None where the axis has no place for it."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return None
        at = math.log10(value) if self.log else _bounded(value)
        inside = (self.high - at) / (self.high - self.low)
        return round(_PAD + inside * (self.height - 2 * _PAD), 1)

    def lines(self) -> list[tuple[float, str]]:
        """Return (pixel, text) of each tick."""
        whole = self.high - self.low
        return [
            (round(_PAD + (self.high - at) / whole * (self.height - 2 * _PAD), 1), text)
            for at, text in self.ticks
        ]


def fit(values: Iterable[float], height: float, log: bool, baseline: float | None = None) -> Scale:
    """Return the axis that holds all finite `values` (the positive ones if `log`) and the baseline."""
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    finite = finite if log else [_bounded(value) for value in finite]
    if baseline is not None:
        finite.append(baseline)
    finite = finite or [1.0]
    if log:
        return _decades(math.log10(min(finite)), math.log10(max(finite)), height)
    return _linear(min(finite), max(finite), height)


def _bounded(value: float) -> float:
    """The value within a range whose width is still a number."""
    return min(max(value, -_FARTHEST), _FARTHEST)


def _decades(low: float, high: float, height: float) -> Scale:
    bottom, top = math.floor(low), math.ceil(high)
    top = max(top, bottom + 1)
    step = max(1, math.ceil((top - bottom) / max(2, int(height // 34))))
    first = math.ceil(bottom / step) * step
    ticks = tuple((float(at), power(at)) for at in range(first, top + 1, step))
    if top - bottom <= 2:
        # Read as text, a power that is out of range becomes infinity or 0 instead of an error.
        finer = ((at + math.log10(part), at, part) for at in range(bottom, top) for part in (2, 5))
        ticks = tuple((float(at), number(float(f"1e{at}"))) for at in range(bottom, top + 1))
        ticks += tuple((where, number(float(f"{part}e{at}"))) for where, at, part in finer)
    return Scale(bottom, top, height, True, ticks)


def _linear(low: float, high: float, height: float) -> Scale:
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-290):
        widening = abs(low) / 2 or 1.0
        low, high = low - widening, high + widening
    step = _step((high - low) / max(2, int(height // 36)))
    bottom, top = math.floor(low / step), math.ceil(high / step)
    ticks = tuple((at * step, number(at * step).replace("-", "−")) for at in range(bottom, top + 1))
    return Scale(bottom * step, top * step, height, False, ticks)


def _step(least: float) -> float:
    """The round number at or just above `least`."""
    unit = 10.0 ** math.floor(math.log10(least))
    return next(unit * step for step in _STEPS if unit * step >= least * (1 - 1e-9))
