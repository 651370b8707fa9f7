"""What theory expects of every block beside what was measured there: is it the design, or a block?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from unitygain._types import Profile, Site
from unitygain.rules._numbers import from_db, spell, to_db

# Half the width of a 95 % interval in standard deviations.
REACH = 1.96
# Blocks whose mean residual is within this are as they were designed.
AGREE_DB = 1.5


@dataclass(frozen=True)
class Block:
    """A block's gain as theory expects it and as it was measured.

    Args:
        site: The block.
        measured: ``rms_gain``.
        expected: ``predicted_gain``.
        forward: The expected forward gain; NaN where it is not known.
        interval: In which the measured gain is expected.
        residual: Decibels from expected to measured; minus infinity where nothing passes.
        deviations: The residual in standard deviations of the expectation and of the measurement.
    """

    site: Site
    measured: float
    expected: float
    forward: float
    interval: tuple[float, float]
    residual: float
    deviations: float


def read_blocks(profiles: Mapping[str, Profile]) -> list[Block]:
    """Return the blocks that were both predicted and measured, in forward order."""
    theory, gain = profiles.get("predicted_gain"), profiles.get("rms_gain")
    if theory is None or gain is None or theory.interval is None:
        return []
    measured = dict(zip(gain.sites, zip(gain.values, gain.error or gain.values, strict=True), strict=True))
    rows = theory.rows or ((math.nan, math.nan),) * len(theory)
    return [
        _block(site, measured[site], expected, interval, row[1])
        for site, expected, interval, row in zip(
            theory.sites, theory.values, theory.interval, rows, strict=True
        )
        if site in measured and 0 < expected < math.inf and math.isfinite(measured[site][0])
    ]


def _block(
    site: Site, found: tuple[float, float], expected: float, interval: tuple[float, float], forward: float
) -> Block:
    measured, error = found
    residual = to_db(measured / expected)
    own = to_db(interval[1] / interval[0]) / 2 / REACH
    estimate = to_db(1 + error / measured) if measured > 0 and math.isfinite(error) else 0.0
    return Block(
        site, measured, expected, forward, interval, residual, abs(residual) / math.hypot(own, estimate)
    )


def describe_design(profiles: Mapping[str, Profile]) -> dict[str, float | str]:
    """Return what theory expects per block beside what was measured, and the verdict, as evidence.

    Empty where the blocks were not predicted, or by less than half.
    """
    blocks = read_blocks(profiles)
    known = [block for block in blocks if math.isfinite(block.residual)]
    if not known or 2 * len(known) < len(profiles["predicted_gain"]):
        return {}
    expected = from_db(sum(to_db(block.expected) for block in known) / len(known))
    residual = sum(block.residual for block in known) / len(known)
    worst = max(known, key=lambda block: abs(block.residual))
    if abs(residual) <= AGREE_DB:
        verdict = "as designed: what is unstable is the design"
    else:
        verdict = (
            f"not as designed: {worst.site} deviates most ({spell(from_db(worst.residual))}x of expected)"
        )
    return {
        "theory expects (x per block)": expected,
        "measured over theory (dB)": residual,
        "verdict": verdict,
    }
