"""Blocks whose gain is far from that of the others: a robust distance and an absolute factor, both."""

import math
from collections import defaultdict
from dataclasses import dataclass

from unitygain._types import Cause, Finding, Profile, Severity, Site
from unitygain.rules._numbers import from_db, median, spell, spell_p, spread, to_db
from unitygain.rules._parameters import pattern

LEAST = 5
FAR_DB, FATAL_DB = 40.0, 80.0
# Half of what float32 spans: a gradient that has lost more may be zero by rounding.
UNDERFLOW_DB = -450.0
LEAST_SPREADS = 6.0
LEAST_SPREAD_DB = 1.0
# Half of the standard deviations that a 95 % interval of a normal law spans.
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Place:
    """A block, its gain, the usual gain of the blocks, and how far apart they are in spreads."""

    site: Site
    gain: float
    usual: float
    spreads: float

    @property
    def distance(self) -> float:
        """Decibels above (or below) the usual gain."""
        return to_db(self.gain) - to_db(self.usual)


def odd_places(profile: Profile, *, above: bool) -> list[Place]:
    """Return the blocks far above or far below the median gain of their kind, the farthest first.

    Blocks are of one kind where their names differ in numbers alone: the layers of two lists that take turns
    have two gains. The spread is at least 1 dB, so that among nearly equal blocks a small difference stays
    small.
    """
    gains = [(site, value) for site, value in profile.finite() if value >= 0]
    if sum(value > 0 for _, value in gains) < LEAST:
        return []
    usual = _usual([(site, to_db(value)) for site, value in gains if value > 0])
    rests = [to_db(value) - usual[pattern(site)] for site, value in gains if value > 0]
    width = max(LEAST_SPREAD_DB, spread(rests))
    places = [
        Place(site, value, from_db(middle), abs(to_db(value) - middle) / width)
        for site, value in gains
        for middle in (usual[pattern(site)],)
    ]
    places = [place for place in places if place.gain > 0 or not run_out(gains, place.site)]
    far = [place for place in places if abs(place.distance) >= FAR_DB and place.spreads >= LEAST_SPREADS]
    chosen = [place for place in far if (place.distance > 0) == above]
    return sorted(chosen, key=lambda place: -abs(place.distance))


def _usual(decibels: list[tuple[Site, float]]) -> defaultdict[str, float]:
    """Return the median by kind of block: of its own where several kinds repeat, else of all blocks."""
    kinds: defaultdict[str, list[float]] = defaultdict(list)
    for site, value in decibels:
        kinds[pattern(site)].append(value)
    every = median([value for _, value in decibels])
    several = sum(len(values) > 1 for values in kinds.values()) > 1
    own = {kind: median(values) for kind, values in kinds.items()} if several else {}
    return defaultdict(lambda: every, own)


def run_out(gains: list[tuple[Site, float]], site: Site) -> bool:
    """Whether the blocks behind `site` lose so much that a zero is where the numbers end, not a place."""
    index = next(index for index, (here, _) in enumerate(gains) if here == site)
    return sum(to_db(value) for _, value in gains[index + 1 :] if value > 0) < UNDERFLOW_DB


@dataclass(frozen=True)
class PlaceChance:
    """What chance makes of one block: of one like the others, and of its own weights.

    Args:
        usual: 95 % interval of a block that has the usual gain.
        p: Of this block's gain there, two-sided.
        least: A p of this value is a bound.
        own: The typical gain of its own weights in random places, with the 95 % interval.
    """

    usual: tuple[float, float]
    p: float
    least: float
    own: tuple[float, float, float]

    def describe(self) -> str:
        """Say whether its weights' scale tells the gain."""
        typical, low, high = map(spell, self.own)
        low_usual, high_usual = map(spell, self.usual)
        return (
            f"; chance leaves a block like the others between {low_usual}x and {high_usual}x, "
            f"{spell_p(self.p, self.least)}; the weights of this one in random places give {typical}x "
            f"({low}x to {high}x)"
        )


def read_place_chance(profile: Profile, place: Place) -> PlaceChance | None:
    """Return what the profile says of chance at a block; None where it says nothing.

    The logarithm of a gain scatters by chance in the same way whatever its size: the interval at the block's
    own weights, moved to the usual gain, is that of a block like the others.
    """
    if not profile.expected or not profile.interval or place.gain <= 0:
        return None
    index = profile.sites.index(place.site)
    typical, (low, high) = profile.expected[index], profile.interval[index]
    least = profile.facts.get("p_least")
    if not isinstance(least, float) or not 0 < low < high < math.inf:
        return None
    deviation = math.log(high / low) / (2 * NORMAL_95)
    p = math.erfc(abs(math.log(place.gain / place.usual)) / deviation / math.sqrt(2))
    usual = place.usual * low / typical, place.usual * high / typical
    return PlaceChance(usual, max(p, least), least, (typical, low, high))


def report_place(
    code: str, name: str, what: str, profile: Profile, found: list[Place], causes: tuple[Cause, ...]
) -> Finding:
    """Return the finding for the places in which the gradient is lost or multiplied."""
    place = found[0]
    chance = read_place_chance(profile, place)
    own: dict[str, float | str] = {}
    if chance:
        own = dict(zip(("redrawn_gain", "redrawn_low", "redrawn_high"), chance.own, strict=True))
        own["p_least"] = chance.least
    severity: Severity = "error" if abs(place.distance) >= FATAL_DB else "warning"
    more = f", and at {len(found) - 1} other blocks" if len(found) > 1 else ""
    away = f"{place.distance:+.0f} dB" if math.isfinite(place.distance) else "nothing passes"
    return Finding(
        code,
        name,
        severity,
        f"the gradient {what} {place.site}: {spell(place.gain)}x where the median block has "
        f"{spell(place.usual)}x ({away}){more}{chance.describe() if chance else ''}",
        tuple(place.site for place in found),
        "backward_gain",
        place.gain,
        "x, backward",
        place.usual * from_db(math.copysign(FAR_DB, place.distance)),
        expected=place.usual,
        p_value=chance.p if chance else None,
        causes=causes,
        evidence={"median_gain": place.usual, "distance_in_spreads": place.spreads, **own},
    )
