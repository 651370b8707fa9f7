"""Blocks whose gain is far from that of the others: a robust distance and an absolute factor, both."""

import math
from dataclasses import dataclass

from unitygain._types import Cause, Finding, Profile, Severity, Site
from unitygain.rules._numbers import from_db, median, spell, spread, to_db

LEAST = 5
FAR_DB, FATAL_DB = 40.0, 80.0
# Half of what float32 spans: a gradient that has lost more may be zero by rounding.
UNDERFLOW_DB = -450.0
LEAST_SPREADS = 6.0
LEAST_SPREAD_DB = 1.0


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
    """Return the blocks far above or far below the median gain, the farthest first.

    The spread is at least 1 dB, so that among nearly equal blocks a small difference stays small.
    """
    gains = [(site, value) for site, value in profile.finite() if value >= 0]
    decibels = [to_db(value) for _, value in gains if value > 0]
    if len(decibels) < LEAST:
        return []
    centre, width = median(decibels), max(LEAST_SPREAD_DB, spread(decibels))
    places = [
        Place(site, value, from_db(centre), abs(to_db(value) - centre) / width) for site, value in gains
    ]
    places = [place for place in places if place.gain > 0 or not run_out(gains, place.site)]
    far = [place for place in places if abs(place.distance) >= FAR_DB and place.spreads >= LEAST_SPREADS]
    chosen = [place for place in far if (place.distance > 0) == above]
    return sorted(chosen, key=lambda place: -abs(place.distance))


def run_out(gains: list[tuple[Site, float]], site: Site) -> bool:
    """Whether the blocks behind `site` lose so much that a zero is where the numbers end, not a place."""
    index = next(index for index, (here, _) in enumerate(gains) if here == site)
    return sum(to_db(value) for _, value in gains[index + 1 :] if value > 0) < UNDERFLOW_DB


def report_place(code: str, name: str, what: str, found: list[Place], causes: tuple[Cause, ...]) -> Finding:
    """Return the finding for the places in which the gradient is lost or multiplied."""
    place = found[0]
    severity: Severity = "error" if abs(place.distance) >= FATAL_DB else "warning"
    more = f", and at {len(found) - 1} other blocks" if len(found) > 1 else ""
    away = f"{place.distance:+.0f} dB" if math.isfinite(place.distance) else "nothing passes"
    return Finding(
        code,
        name,
        severity,
        f"the gradient {what} {place.site}: {spell(place.gain)}x where the median block has "
        f"{spell(place.usual)}x ({away}){more}",
        tuple(place.site for place in found),
        "backward_gain",
        place.gain,
        "x, backward",
        place.usual * from_db(math.copysign(FAR_DB, place.distance)),
        causes=causes,
        evidence={"median_gain": place.usual, "distance_in_spreads": place.spreads},
    )
