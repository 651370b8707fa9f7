"""Where the variance of pre-activations settles: the fixed point of q' = sigma_w2·E φ(√q·z)² + sigma_b2."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from unitygain.theory.activations import Activation
from unitygain.theory.gaussian import SECOND_ORDER, expect_checked, require_agreement, rule

SMALLEST, LARGEST = 1e-13, 1e12
FLAT = 0.05
TOUCH = 1e-9
PARTS = 8
# Where the excess is this flat at its root, the fixed point is all but double, and another may lie before it.
ALL_BUT_DOUBLE = 1e-3


class Unbounded(ValueError):
    """The variance has no fixed point: it grows without bound over depth."""


def fixed_variance(a: Activation, sigma_w2: float, sigma_b2: float, start: float) -> float:
    """Return the fixed point that the variance reaches from `start`.

    Raises:
        ValueError: If the variance grows without bound, or two quadratures disagree about it.
    """
    if a.rays is not None:
        return _linear_fixed_variance(a, sigma_w2, sigma_b2, start)
    found = _search(a, sigma_w2, sigma_b2, math.log(min(max(start, SMALLEST), LARGEST)))
    if found is None:
        return 0.0
    q = math.exp(found)
    again = sigma_w2 * expect_checked(lambda x: a.value(x) ** 2, a, q, "the second moment") + sigma_b2
    require_agreement(q, again, f"the fixed variance of {a.name}", "give the points where the slope jumps")
    return q


def variance_slope(a: Activation, q: float) -> float:
    """Return d/dq E φ(√q·z)², as E φφ'x/q with x = √q·z, which needs no second derivative.

    Raises:
        ValueError: If two quadratures of different order disagree by more than 1e-8.
    """
    if q == 0:
        return float(a.slope(np.zeros(1))[0]) ** 2
    return expect_checked(lambda x: a.value(x) * a.slope(x) * x, a, q, "the variance slope") / q


def excess(a: Activation, sigma_w2: float, sigma_b2: float, log_q: float) -> tuple[float, float]:
    """Return q'/q - 1, zero at a fixed point, and its derivative by ln q."""
    scale = math.exp(0.5 * log_q)
    z, weight = rule(a, scale, SECOND_ORDER)
    x = scale * z
    with np.errstate(over="ignore", invalid="ignore"):
        value, slope = a.value(x), a.slope(x)
        ratio = (sigma_w2 * float(weight @ (value * value)) + sigma_b2) / scale**2
        change = sigma_w2 * float(weight @ (value * slope * x)) / scale**2 - ratio
    if not (math.isfinite(ratio) and math.isfinite(change)):
        raise unbounded(a, sigma_w2, sigma_b2)
    return ratio - 1, change


def _search(a: Activation, sigma_w2: float, sigma_b2: float, here: float) -> float | None:
    """Walk from ln q = here in the direction in which the variance moves, up to the first fixed point."""
    value, slope = excess(a, sigma_w2, sigma_b2, here)
    sign = 1.0 if value > 0 else -1.0
    step, end = sign * math.log(2.0), math.log(LARGEST if sign > 0 else SMALLEST)
    while value != 0 and sign * (end - here) > 0:
        step = sign * min(abs(step), abs(end - here))
        there, there_slope = excess(a, sigma_w2, sigma_b2, here + step)
        if value * there <= 0 or _comes_back(value, slope, there_slope, sign):
            found = _first_within(a, sigma_w2, sigma_b2, here, step, (value, slope))
            if found is not None:
                return found
        here, value = here + step, there
        # Flat far from 1 means that φ is a straight line at this scale: longer steps miss nothing.
        if max(abs(slope), abs(there_slope)) < FLAT and abs(here) > 4:
            step *= 2
        slope = there_slope
    if value == 0:
        return here
    if sign > 0 and _levels_off(a, sigma_w2):
        raise Unbounded(
            f"{a.name} with sigma_w2 = {sigma_w2:g}, sigma_b2 = {sigma_b2:g} has no fixed point below "
            f"q = {LARGEST:g}, beyond which none is looked for; lower sigma_w2"
        )
    if sign > 0:
        raise unbounded(a, sigma_w2, sigma_b2)
    return None


def _levels_off(a: Activation, sigma_w2: float) -> bool:
    """Whether the variance map grows less than its argument where the search ends, so that it comes back."""
    ratio = [excess(a, sigma_w2, 0.0, math.log(LARGEST / factor))[0] + 1 for factor in (100.0, 1.0)]
    return ratio[1] < 0.5 * ratio[0]


def _comes_back(value: float, slope: float, there_slope: float, sign: float) -> bool:
    """Towards zero at one end and away from it at the other: it may touch or cross in between."""
    return value * slope * sign < 0 < value * there_slope * sign


def _first_within(
    a: Activation, sigma_w2: float, sigma_b2: float, here: float, step: float, known: tuple[float, float]
) -> float | None:
    """The first zero or touch on the way, by parts of the step: fixed points can lie close together."""
    sign, part = math.copysign(1.0, step), step / PARTS
    value, slope = known
    for _ in range(PARTS):
        there, there_slope = excess(a, sigma_w2, sigma_b2, here + part)
        if _comes_back(value, slope, there_slope, sign):
            turned = _turn(a, sigma_w2, sigma_b2, here, part)
            if turned is not None:
                return turned
        if value * there <= 0:
            found = _polished(a, sigma_w2, sigma_b2, here, here + part, value)
            return _earliest(a, sigma_w2, sigma_b2, here, found)
        here, value, slope = here + part, there, there_slope
    return None


def _polished(
    a: Activation, sigma_w2: float, sigma_b2: float, one: float, other: float, first: float
) -> float:
    """The zero between two points of different sign, by Newton's steps; by halves where they leave it."""
    here = 0.5 * (one + other)
    for _ in range(200):
        value, slope = excess(a, sigma_w2, sigma_b2, here)
        one, other = (here, other) if value * first > 0 else (one, here)
        low, high = min(one, other), max(one, other)
        following = here - value / slope if slope else math.nan
        # Newton's error after a step is about that step's square; rounding may take it out of the bracket.
        if abs(following - here) < 1e-9:
            return following
        if high - low < 1e-15:
            return here
        if not low <= following <= high:
            following = 0.5 * (low + high)
        here = following
    return here


def _earliest(a: Activation, sigma_w2: float, sigma_b2: float, here: float, found: float) -> float:
    """The zero that was found, or one or a touch between `here` and it, which a flat one may have."""
    from scipy import optimize

    if not abs(excess(a, sigma_w2, sigma_b2, found)[1]) < ALL_BUT_DOUBLE:
        return found
    value, slope = excess(a, sigma_w2, sigma_b2, here)
    sign = math.copysign(1.0, found - here)

    def returning(x: float) -> float:
        return -math.copysign(1.0, value * sign) * excess(a, sigma_w2, sigma_b2, x)[1]

    # Where the excess most nearly turns back.
    least: Any = optimize.minimize_scalar(returning, bounds=sorted((here, found)), method="bounded")
    there = float(least.x)
    if not _comes_back(value, slope, excess(a, sigma_w2, sigma_b2, there)[1], sign):
        return found
    turned = _turn(a, sigma_w2, sigma_b2, here, there - here)
    return found if turned is None else turned


def find_root(f: Callable[[float], float], one: float, other: float) -> float:
    """Return where f is zero between two points at which it has different signs."""
    from scipy import optimize

    found: Any = optimize.brentq(f, min(one, other), max(one, other), xtol=1e-15)
    return float(found)


def _turn(a: Activation, sigma_w2: float, sigma_b2: float, here: float, step: float) -> float | None:
    """Between two points of the same sign the excess comes back: does it reach zero in between?"""
    low, high = sorted((here, here + step))
    bottom = find_root(lambda x: excess(a, sigma_w2, sigma_b2, x)[1], low, high)
    value = excess(a, sigma_w2, sigma_b2, bottom)[0]
    if abs(value) < TOUCH:
        return bottom
    if value * excess(a, sigma_w2, sigma_b2, here)[0] < 0:
        return find_root(lambda x: excess(a, sigma_w2, sigma_b2, x)[0], here, bottom)
    return None


def _linear_fixed_variance(a: Activation, sigma_w2: float, sigma_b2: float, start: float) -> float:
    assert a.rays is not None
    rate = sigma_w2 * 0.5 * (a.rays[0] ** 2 + a.rays[1] ** 2)
    if abs(rate - 1) < 1e-14 and sigma_b2 == 0:
        return start
    if rate >= 1:
        raise unbounded(a, sigma_w2, sigma_b2)
    return sigma_b2 / (1 - rate)


def unbounded(a: Activation, sigma_w2: float, sigma_b2: float) -> "Unbounded":
    """Return the error that says that the variance has no fixed point."""
    return Unbounded(
        f"{a.name} with sigma_w2 = {sigma_w2:g}, sigma_b2 = {sigma_b2:g} has no fixed point: "
        "the variance grows without bound over depth; lower sigma_w2"
    )
