"""Growth and decay over depth, as a measure states it in its facts, and when it is called a disease.

Three conditions, all relative to the depth: at least `LEAST` blocks, an interval of the slope that excludes
0, and a product over all blocks beyond 60 dB (a factor of 1000). For random networks the log of a norm over
depth L and width n wanders by about sqrt(5L/n)/2 nats (Hanin and Nica 2020), 9 dB at L = 50 and n = 64, and
the power laws of healthy residual networks, such as the (L+1)/2 of squared gradients in Pre-LN
transformers, stay below 30 dB up to a thousand blocks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from unitygain._types import Profile, Severity, Site
from unitygain.rules._numbers import from_db, spell

LEAST = 3
LOOP_DB = 60.0
FATAL_DB = 100.0
SHOWN = 5
OTHER_DEPTHS = (12, 24, 48, 96)


@dataclass(frozen=True)
class Trend:
    """A slope over depth: gain per block, decibels with an interval, and the product in decibels."""

    per_block: float
    slope: float
    low: float
    high: float
    loop: float
    depth: int

    @property
    def severity(self) -> Severity:
        """Error beyond a factor of 1e5 over all blocks, warning below."""
        return "error" if abs(self.loop) >= FATAL_DB else "warning"

    @property
    def threshold(self) -> float:
        """The gain per block at which this many blocks just reach the limit."""
        return from_db(math.copysign(LOOP_DB, self.loop) / self.depth)

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the gain per block."""
        return from_db(self.low), from_db(self.high)

    def describe(self) -> str:
        """Say the trend in numbers."""
        return (
            f"{spell(self.per_block)}x per block ({self.slope:+.2f} dB, 95 % interval {self.low:+.2f} to "
            f"{self.high:+.2f}) over {self.depth} blocks, {spell(from_db(self.loop))}x in all "
            f"({self.loop:+.0f} dB)"
        )

    def foretell(self, blocks: int) -> str:
        """Say the decibels over another number of such blocks, with the 95 % prediction interval.

        The slope has σ/√n of error over n blocks, m new ones add σ√m of their own: together σ√(m + m²/n).
        """
        half = (self.high - self.low) / 2 * math.sqrt(blocks * (self.depth + blocks))
        middle = self.slope * blocks
        return f"{middle:+.0f} ({middle - half:+.0f} to {middle + half:+.0f})"

    def evidence(self) -> dict[str, float | str]:
        """Return the numbers behind the finding, with the product at other depths."""
        others = {f"at {n} blocks (dB)": self.foretell(n) for n in OTHER_DEPTHS if n != self.depth}
        return {"loop_db": self.loop, "slope_db": self.slope, "depth": self.depth, **others}


def read_trend(profile: Profile) -> Trend | None:
    """Return the trend in the facts of `profile`; None where one is missing or not finite."""
    names = ("gain_per_block", "slope_db", "slope_db_low", "slope_db_high", "loop_db", "depth")
    facts: Mapping[str, float | str] = profile.facts
    numbers = [value for name in names if isinstance(value := facts.get(name), (int, float))]
    if len(numbers) < len(names) or not all(map(math.isfinite, numbers)):
        return None
    per_block, slope, low, high, loop, depth = map(float, numbers)
    return Trend(per_block, slope, low, high, loop, int(depth))


def falls(trend: Trend | None) -> bool:
    """Whether the trend is a decay that matters at this depth."""
    return trend is not None and trend.depth >= LEAST and trend.high < 0 and trend.loop <= -LOOP_DB


def rises(trend: Trend | None) -> bool:
    """Whether the trend is a growth that matters at this depth."""
    return trend is not None and trend.depth >= LEAST and trend.low > 0 and trend.loop >= LOOP_DB


def outermost(profile: Profile, *, lowest: bool) -> tuple[Site, ...]:
    """Return the few sites with the lowest or highest values, worst first."""
    ordered = sorted(profile.finite(), key=lambda item: item[1], reverse=not lowest)
    return tuple(site for site, _ in ordered[:SHOWN])
