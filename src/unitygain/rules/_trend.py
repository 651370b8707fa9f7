"""Growth and decay over depth, as a measure states it in its facts, and when it is called a disease.

Four conditions, all relative to the depth: at least `LEAST` blocks, an interval of the slope that excludes
0, a product over all blocks beyond 60 dB (a factor of 1000), and, where the measure could draw the weights
again, a product that a trunk at unity gain of this very width and depth does not show by chance. For random
networks the log of a norm over depth L and width n wanders by about sqrt(5L/n)/2 nats (Hanin and Nica 2020),
9 dB at L = 50 and n = 64 but 27 dB at n = 8. The power laws of healthy residual networks, such as the
(L+1)/2 of squared gradients in Pre-LN transformers, stay below 30 dB up to a thousand blocks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from unitygain._types import Cause, Profile, Severity, Site
from unitygain.rules._depth_causes import explain_depth
from unitygain.rules._numbers import from_db, spell, spell_p

LEAST = 3
LOOP_DB = 60.0
FATAL_DB = 100.0
# Batch normalisation without skip paths passes sqrt(pi/(pi - 1)) per ReLU layer back, +1.66 dB: 50 dB are 30
# layers, which learn a third in 300 steps of what eight learn, and 34 a fifth. 24 (40 dB) learn two thirds.
NORM_DB = 50.0
# Branches of unit size on a skip path double the square per block, +3 dB, in every draw: at 41 dB (9 blocks)
# SGD diverges at a tenth of the rate at which branches over sqrt(2L) learn, at 28 dB (6 blocks) at that rate.
SURE_DB = 40.0
# Forward and backward are two tests of one report, each with half of 5 % (warning) and of 1 % (error).
CHANCE_WARNING, CHANCE_ERROR = 0.025, 0.005
SHOWN = 5
OTHER_DEPTHS = (12, 24, 48, 96)


@dataclass(frozen=True)
class Chance:
    """What a trunk of this make at unity gain shows over all blocks, in decibels, and the p of the measured.

    Args:
        typical: Decibels that are typical.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided.
        least: A p of this value is a bound.
        law: Where it comes from, as a few words.
    """

    typical: float
    low: float
    high: float
    p: float
    least: float
    law: str

    def describe(self) -> str:
        """Say what chance alone gives, and how likely the measured product is."""
        return (
            f"a trunk of this width and depth at unity gain has {spell(from_db(self.typical))}x in all "
            f"({spell(from_db(self.low))}x to {spell(from_db(self.high))}x in 95 % of draws), "
            f"{spell_p(self.p, self.least)}"
        )


@dataclass(frozen=True)
class Trend:
    """A slope over depth: gain per block, decibels with an interval, product and its limit, and chance."""

    per_block: float
    slope: float
    low: float
    high: float
    loop: float
    depth: int
    chance: Chance | None = None
    limit: float = LOOP_DB

    @property
    def severity(self) -> Severity:
        """Error beyond a factor of 1e5 over all blocks, warning below; information where it may be chance."""
        p = self.chance.p if self.chance else 0.0
        if p > CHANCE_WARNING:
            return "info"
        return "error" if abs(self.loop) >= FATAL_DB and p <= CHANCE_ERROR else "warning"

    @property
    def expected(self) -> float | None:
        """The typical gain per block at unity gain, where it is known."""
        return from_db(self.chance.typical / self.depth) if self.chance else None

    @property
    def p_value(self) -> float | None:
        """The p of the product over all blocks at unity gain, where it is known."""
        return self.chance.p if self.chance else None

    @property
    def threshold(self) -> float:
        """The gain per block at which this many blocks just reach the limit."""
        return from_db(math.copysign(self.limit, self.loop) / self.depth)

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the gain per block."""
        return from_db(self.low), from_db(self.high)

    def describe(self) -> str:
        """Say the trend in numbers."""
        said = (
            f"{spell(self.per_block)}x per block ({self.slope:+.2f} dB, 95 % interval {self.low:+.2f} to "
            f"{self.high:+.2f}) over {self.depth} blocks, {spell(from_db(self.loop))}x in all "
            f"({self.loop:+.0f} dB)"
        )
        return f"{said}; {self.chance.describe()}" if self.chance else said

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
        chance: dict[str, float | str] = {}
        if self.chance:
            chance = {
                "unity_db": self.chance.typical,
                "unity_db_low": self.chance.low,
                "unity_db_high": self.chance.high,
                "p_least": self.chance.least,
                "law": self.chance.law,
            }
        return {"loop_db": self.loop, "slope_db": self.slope, "depth": self.depth, **chance, **others}


def read_trend(profile: Profile) -> Trend | None:
    """Return the trend in the facts of `profile`; None where one is missing or not finite."""
    names = ("gain_per_block", "slope_db", "slope_db_low", "slope_db_high", "loop_db", "depth")
    facts: Mapping[str, float | str] = profile.facts
    numbers = [value for name in names if isinstance(value := facts.get(name), (int, float))]
    if len(numbers) < len(names) or not all(map(math.isfinite, numbers)):
        return None
    per_block, slope, low, high, loop, depth = map(float, numbers)
    return Trend(per_block, slope, low, high, loop, int(depth), _read_chance(facts))


def _read_chance(facts: Mapping[str, float | str]) -> Chance | None:
    names = ("unity_db", "unity_db_low", "unity_db_high", "unity_p", "unity_p_least")
    numbers = [value for name in names if isinstance(value := facts.get(name), (int, float))]
    if len(numbers) < len(names) or not all(map(math.isfinite, numbers)):
        return None
    draws = facts.get("unity_draws", 0)
    law = f"{draws:.0f} draws of the same weights" if draws else "log-normal, wide layers"
    typical, low, high, p, least = map(float, numbers)
    return Chance(typical, low, high, p, least, law)


def explain_trend(
    profiles: Mapping[str, Profile], profile: Profile, trend: Trend, *, forward: bool
) -> tuple[Cause, ...]:
    """Return the causes of a growth or decay: chance alone where it may be that, else those of the blocks."""
    if trend.severity == "info" and trend.chance:
        return (Cause(f"chance: {trend.chance.describe()}; draw the weights again under other seeds"),)
    return explain_depth(profiles, profile.sites, trend.per_block, forward=forward)


def falls(trend: Trend | None) -> bool:
    """Whether the trend is a decay that matters at this depth."""
    return trend is not None and trend.depth >= LEAST and trend.high < 0 and trend.loop <= -trend.limit


def rises(trend: Trend | None) -> bool:
    """Whether the trend is a growth that matters at this depth."""
    return trend is not None and trend.depth >= LEAST and trend.low > 0 and trend.loop >= trend.limit


def by_cause(trend: Trend | None, causes: tuple[Cause, ...], profile: Profile) -> Trend | None:
    """Return the trend with the limit of growth of its first cause: of norms, branches or weights.

    Branches have theirs where the growth is exponential: about as much per block in both halves of the trunk.
    Weights have it where chance is known and is not the reason.
    """
    remedy = causes[0].remedy if causes else None
    if trend is None or remedy is None:
        return trend
    if remedy == "bypass_norm":
        return replace(trend, limit=NORM_DB)
    halves = [profile.facts.get(f"{half}_half_db", math.nan) for half in ("first", "second")]
    known = [half for half in halves if isinstance(half, (int, float))]
    steady = len(known) == len(halves) and min(known) >= max(known) / 2
    unlikely = trend.chance is not None and trend.chance.p <= CHANCE_ERROR
    sure = (remedy == "scale_branch" and steady) or (remedy == "rescale_weights" and unlikely)
    return replace(trend, limit=SURE_DB) if sure else trend


def outermost(profile: Profile, *, lowest: bool) -> tuple[Site, ...]:
    """Return the few sites with the lowest or highest values, worst first."""
    ordered = sorted(profile.finite(), key=lambda item: item[1], reverse=not lowest)
    return tuple(site for site, _ in ordered[:SHOWN])
