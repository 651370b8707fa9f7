"""The exponents of recurrent cells, as the rules in time read them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from unitygain._types import Cause, Profile, Site
from unitygain.rules._numbers import spell
from unitygain.rules._time import keeping, recurrent_gain

# Fewer steps than this are not judged.
LEAST = 8
# A gate with this much before its sigmoid is open by 0.98.
OPEN_BIAS = 4.0
# What a matrix at gain 1 leaves uncertain: its spectral radius scatters by 1/sqrt(width) about 1, and tanh at
# unit signals has a slope of 0.75 on average, -0.29 nat.
LOOSE_LOW, LOOSE_HIGH = -0.3, 0.12


@dataclass(frozen=True)
class Exponent:
    """The largest exponent of one recurrent cell.

    Args:
        site: The cell.
        kind: ``tanh``, ``relu``, ``lstm`` or ``gru``.
        value: Nat per step.
        error: Half width of its 95 % interval; 0 where there is none.
        steps: Steps of the sequence.
        horizon: Steps back to where a gradient has shrunk to the dtype's rounding.
        expected: What theory expects of random weights of this scale; None where it has no formula.
        usual: Range in which one draw of such weights lies.
    """

    site: Site
    kind: str
    value: float
    error: float
    steps: int
    horizon: float
    expected: float | None = None
    usual: tuple[float, float] = (-math.inf, math.inf)

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - self.error

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.error

    @property
    def farthest(self) -> float:
        """The horizon at the upper end of the interval: as far back as memory may reach."""
        if self.value == -math.inf or self.high >= 0:
            return 0.0 if self.value == -math.inf else math.inf
        return self.horizon * self.value / self.high

    def spelled(self) -> str:
        """The exponent with its interval, in words."""
        return f"{spell(self.value)} ± {spell(self.error)} nat per step"

    def against_theory(self) -> str:
        """Whether random weights of this scale would do the same, in words; empty where nobody knows."""
        if self.expected is None:
            return ""
        low, high = self.usual
        usual = f"{spell(self.expected)} ({spell(low)} to {spell(high)})"
        if self.low <= high and self.high >= low:
            return f"; theory expects {usual} of random weights of this scale: it is as designed"
        return f"; theory expects {usual} of random weights of this scale: these are not"


def read_exponents(profile: Profile) -> list[Exponent]:
    """Return one exponent per cell that runs `LEAST` steps, NaN left out."""
    found = []
    for index, (site, value) in enumerate(profile.items()):
        row = dict(zip(profile.columns, profile.rows[index], strict=False))
        error = profile.error[index] if profile.error else 0.0
        known = error if math.isfinite(error) else 0.0
        steps = int(row["steps"])
        if steps >= LEAST and not math.isnan(value):
            cell = Exponent(site, profile.labels[index], value, known, steps, row["horizon"])
            expected = profile.expected[index] if profile.expected else math.nan
            if profile.interval and math.isfinite(expected):
                cell = replace(cell, expected=expected, usual=profile.interval[index])
            found.append(cell)
    return found


def opening_gates(profiles: Mapping[str, Profile], cell: Exponent) -> list[Cause]:
    """Return the cause of a short memory in the gate that keeps the state; none for cells without one."""
    gate, opening = keeping(profiles, cell.site)
    if not gate:
        return []
    inside = min(max(opening, 1e-30), 1 - 1e-15)
    given = {"sites": (cell.site.path,), "bias": OPEN_BIAS - math.log(inside / (1 - inside))}
    text = (
        f"gate: the {gate} gate is open by {spell(opening)} on average, which alone gives "
        f"{spell(math.log(inside))} nat per step; opened to 0.98, at most a third of the decay may be left"
    )
    return [Cause(text, "open_gates", given, (cell.value / 3, LOOSE_HIGH))]


def small_weights(profiles: Mapping[str, Profile], cell: Exponent) -> list[Cause]:
    """Return the cause of a short memory in the recurrent matrix of a cell without gates."""
    gain = recurrent_gain(profiles, cell.site)
    if not 0 < gain < 0.9 or cell.kind in {"lstm", "gru"}:
        return []
    moved = min(cell.value - math.log(gain), 0.0)
    return [
        Cause(
            f"recurrent weights: sqrt(fan_in·var) = {spell(gain)}, which alone gives "
            f"{spell(math.log(gain))} nat per step",
            "rescale_weights",
            {"sites": (cell.site.path,), "gain": 1.0, "only": "weight_hh*"},
            (moved + LOOSE_LOW, LOOSE_HIGH),
        )
    ]


def large_weights(profiles: Mapping[str, Profile], site: Site, predicted: tuple[float, float]) -> list[Cause]:
    """Return the cause of growth in a recurrent matrix above a gain of 1, with what removal must give."""
    gain = recurrent_gain(profiles, site)
    if not gain > 1.1:
        return []
    return [
        Cause(
            f"recurrent weights: sqrt(fan_in·var) = {spell(gain)}, where 0.577 is PyTorch's default; "
            f"at 1 at most {spell(predicted[1])} may be left",
            "rescale_weights",
            {"sites": (site.path,), "gain": 1.0, "only": "weight_hh*"},
            predicted,
        )
    ]
