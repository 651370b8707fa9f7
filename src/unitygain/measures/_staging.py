"""Gain staging: the sizes at the junctions of the trunk, the gain of each block, and its slope over depth."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from scipy.special import stdtrit

from unitygain._types import Profile, Site
from unitygain.measures._chance import beside, loop_facts
from unitygain.probe.record import Numbers, Record

CONFIDENCE = 0.95
NOTE = (
    "slope_db is the mean of the blocks' gains in decibels with its 95 % t-interval, which takes blocks as "
    "independent; at_2x_db and at_4x_db are 95 % prediction intervals for as many blocks of the same kind. "
    "first_half_db and second_half_db tell whether the gain changes with depth, and then neither holds"
)


def at_junctions(record: Record, signal: str, *, name: str, unit: str) -> Profile | None:
    """Return the rms at the entry of every block and at the exit of the last, as a profile.

    Args:
        record: A record with ``entry<signal>.rms`` and ``exit<signal>.rms``.
        signal: The end of the signals' names: nothing, or ``_grad``.
        name: The measure's name.
        unit: Its unit.
    """
    entries, exits = record.values.get(f"entry{signal}.rms", {}), record.values.get(f"exit{signal}.rms", {})
    seen = {site: entries[site][0] for site in record.blocks if site in entries}
    if not seen:
        return None
    last = record.blocks[-1]
    if last in exits:
        seen[Site(last.path, last.call, "(out)", last.time)] = exits[last][0]
    types = record.labels("entry")
    labels = tuple(types.get(site, "") for site in seen)
    return Profile(name, unit, tuple(seen), tuple(seen.values()), labels=labels)


def sizes(record: Record, key: str) -> dict[Site, float]:
    """Return the norm at every block from its rms (``"entry_grad.rms"``) and its number of entries."""
    origin = key.partition(".")[0].removesuffix("_grad")
    counts = {place.site: math.prod(place.shape) for place in record.of(origin)}
    values: Mapping[Site, Numbers] = record.values.get(key, {})
    return {site: numbers[0] * math.sqrt(counts[site]) for site, numbers in values.items()}


def gains(
    record: Record, over: Mapping[Site, float], under: Mapping[Site, float], *, name: str, unit: str
) -> Profile | None:
    """Return over / under per block, with the facts of the staging; None without two junctions.

    NaN where both are zero or one is not finite; zero and infinity are kept.
    """
    ratios = {s: ratio(over[s], under[s]) for s in record.blocks if s in over and s in under}
    if not ratios:
        return None
    types = record.labels("entry")
    labels = tuple(types.get(site, "") for site in ratios)
    values = tuple(ratios.values())
    profile = Profile(name, unit, tuple(ratios), values, labels=labels, facts=slope_facts(values), note=NOTE)
    signal = f"redrawn.{name.removesuffix('_gain')}"
    profile = dataclasses.replace(profile, facts={**profile.facts, **loop_facts(profile, record, signal)})
    return beside(profile, record, signal)


def slope_facts(ratios: Sequence[float]) -> dict[str, float | str]:
    """Return the slope of the log gain per block, its interval, the loop gain, and other depths.

    The gradient's size over depth is the running product of the gains, so that the residuals of a line
    through its logarithm are a random walk and the line's own standard error is far too small. The slope
    is therefore the mean of the log gains, and its error comes from their scatter. At another depth of m
    blocks the sum has mean m·s and variance σ²·(m + m²/n), of m new blocks and of the slope itself.

    Args:
        ratios: Gain of every block; those that are zero or not finite are left out and counted.

    Returns:
        ``gain_per_block`` (plain ratio), ``slope_db``, ``slope_db_low``, ``slope_db_high``, ``loop_db``,
        ``depth``, ``at_2x_db`` and ``at_4x_db`` with ``_low`` and ``_high``, ``first_half_db``,
        ``second_half_db``, ``without_gain``. Decibels are 20·log10. NaN where there are too few blocks.
    """
    decibels = [20 * math.log10(ratio) for ratio in ratios if 0 < ratio < math.inf]
    count = len(decibels)
    facts: dict[str, float | str] = {"depth": float(len(ratios)), "without_gain": float(len(ratios) - count)}
    mean = math.fsum(decibels) / count if count else math.nan
    spread = _spread(decibels, mean)
    reach = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) if count > 1 else math.nan
    half = reach * spread / math.sqrt(count) if count > 1 else math.nan
    facts |= {"gain_per_block": 10 ** (mean / 20), "slope_db": mean}
    facts |= {"slope_db_low": mean - half, "slope_db_high": mean + half, "loop_db": _sum(decibels)}
    for times in (2, 4):
        blocks = times * len(ratios)
        wide = reach * spread * math.sqrt(blocks + blocks**2 / count) if count > 1 else math.nan
        at = f"at_{times}x_db"
        facts |= {at: mean * blocks, f"{at}_low": mean * blocks - wide, f"{at}_high": mean * blocks + wide}
    middle = count // 2
    facts["first_half_db"] = math.fsum(decibels[:middle]) / middle if middle else math.nan
    facts["second_half_db"] = math.fsum(decibels[middle:]) / (count - middle) if middle else math.nan
    return facts


def ratio(over: float, under: float) -> float:
    """Return over / under; NaN where both are zero or one is not finite."""
    if not (math.isfinite(over) and math.isfinite(under)) or over == under == 0:
        return math.nan
    return over / under if under else math.inf


def _spread(values: Sequence[float], mean: float) -> float:
    if len(values) < 2:
        return math.nan
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _sum(values: Sequence[float]) -> float:
    return math.fsum(values) if values else math.nan
