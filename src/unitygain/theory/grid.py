"""Fixed points at many pairs of variances at once, by the same quadratures as at one."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unitygain.theory.activations import Activation
from unitygain.theory.correlation import CONVERGED
from unitygain.theory.gaussian import (
    ORDER,
    SECOND_ORDER,
    TERMS,
    depth_at,
    hermite_table,
    require_agreement,
    rules,
)
from unitygain.theory.kinks import has_curvature, parting_and_cross_slope, settle
from unitygain.theory.mean_field import AT_CRITICAL, mean_field
from unitygain.theory.variance import ALL_BUT_DOUBLE, LARGEST, PARTS, SMALLEST, Unbounded

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
STEP = math.log(2.0) / PARTS
INSIDE, DEAD, UNBOUNDED, ALONE = range(4)


@dataclass(frozen=True)
class Settled:
    """Where signals settle at n points; zeros where the variance grows without bound.

    Args:
        bounded: Whether there is a fixed point. Shape (n,), as all that follow.
        q_star: Fixed point of the variance.
        chi_1: Squared gain of the gradient there.
        c_star: Fixed point of the correlation.
        xi_c: Layers in which the correlation settles by a factor e.
    """

    bounded: Mask
    q_star: Array
    chi_1: Array
    c_star: Array
    xi_c: Array


@dataclass(frozen=True)
class Moments:
    """E φ², E φ'² and E φφ'x at n variances, each of shape (n,)."""

    square: Array
    slope: Array
    bend: Array


def settle_points(a: Activation, sigma_w2: Array, sigma_b2: Array, start: float) -> Settled:
    """Return where signals settle at n pairs of variances, shape (n,) each.

    Raises:
        ValueError: If two quadratures disagree.
    """
    count = len(sigma_w2)
    found = Settled(np.ones(count, dtype=bool), *(np.zeros(count) for _ in range(4)))
    alone = np.ones(count, dtype=bool)
    if a.rays is None:
        log_q, fate = _bracket(a, sigma_w2, sigma_b2, start)
        found.bounded[:] = fate != UNBOUNDED
        alone = fate == ALONE
        found.chi_1[fate == DEAD] = sigma_w2[fate == DEAD] * float(a.slope(np.zeros(1))[0]) ** 2
        _gains(a, sigma_w2, sigma_b2, log_q, np.flatnonzero(fate == INSIDE), found, alone)
    for k in np.flatnonzero(alone):
        _one(a, float(sigma_w2[k]), float(sigma_b2[k]), start, found, k)
    return found


def moments(a: Activation, q: Array, order: int = SECOND_ORDER) -> Moments:
    """Return the moments of φ at n variances, by the quadratures that `mean_field` uses at one."""
    found = Moments(*(np.zeros(len(q)) for _ in range(3)))
    scales = np.sqrt(q)
    for depth, at in _by_depth(a, scales):
        z, weight = rules(a, scales[at], depth, order)
        x = scales[at, None] * z
        with np.errstate(over="ignore", invalid="ignore"):
            value, slope = a.value(x), a.slope(x)
            found.square[at] = (value * value * weight).sum(1)
            found.slope[at] = (slope * slope * weight).sum(1)
            found.bend[at] = (value * slope * x * weight).sum(1)
    return found


def lengths(rate: Array) -> Array:
    """Return the layers in which what is multiplied by `rate` falls by e; negative where it grows."""
    at_one = np.abs(rate - 1) <= AT_CRITICAL
    with np.errstate(divide="ignore"):
        return np.where(at_one, math.inf, -1 / np.log(np.where(at_one, 0.5, rate)))


def phases(chi_1: Array, bounded: Mask) -> NDArray[np.str_]:
    """Return ``ordered``, ``critical`` or ``chaotic`` by the gain; ``unbounded`` without a fixed point."""
    names = np.where(chi_1 > 1, "chaotic", "ordered").astype("U9")
    names[np.abs(chi_1 - 1) <= AT_CRITICAL] = "critical"
    names[~bounded] = "unbounded"
    return names


def _by_depth(a: Activation, scales: Array) -> list[tuple[int, NDArray[np.intp]]]:
    depths = np.array([depth_at(a, float(scale)) for scale in scales])
    return [(int(depth), np.flatnonzero(depths == depth)) for depth in np.unique(depths)]


@functools.lru_cache(maxsize=8)
def _walk(a: Activation, start: float) -> tuple[NDArray[np.floating], Moments, int, tuple[str, ...]]:
    """Steps in ln q from the start both ways, the moments there, the start's place, and what disagrees."""
    origin = math.log(min(max(start, SMALLEST), LARGEST))
    down = math.ceil((origin - math.log(SMALLEST)) / STEP)
    logs = origin + STEP * np.arange(-down, math.ceil((math.log(LARGEST) - origin) / STEP) + 1)
    fine, coarse = (moments(a, np.exp(logs), order) for order in (SECOND_ORDER, ORDER))
    whole = np.isfinite(fine.square) & np.isfinite(fine.slope) & np.isfinite(fine.bend)
    end = int(np.argmin(whole)) if not whole.all() else len(logs)
    doubts = tuple(
        _doubt(a, *map(float, numbers))
        for numbers in zip(
            np.exp(logs[:end]), coarse.square, fine.square, coarse.slope, fine.slope, strict=False
        )
    )
    return logs[:end], Moments(*(part[:end] for part in (fine.square, fine.slope, fine.bend))), down, doubts


def _doubt(
    a: Activation, q: float, coarse: float, fine: float, coarse_slope: float, fine_slope: float
) -> str:
    """What two quadratures disagree about at a variance; empty where they agree."""
    advice = "give the points where the slope jumps as kinks"
    try:
        require_agreement(coarse, fine, f"the second moment of {a.name} at q = {q:.6g}", advice)
        require_agreement(coarse_slope, fine_slope, f"the slope moment of {a.name} at q = {q:.6g}", advice)
    except ValueError as error:
        return str(error)
    return ""


def _bracket(a: Activation, w: Array, b: Array, start: float) -> tuple[Array, NDArray[np.int_]]:
    """Walk from the start as `mean_field` does: ln q close to the first fixed point, and what became of it.

    Raises:
        ValueError: If two quadratures disagree there.
    """
    logs, at_logs, origin, doubts = _walk(a, start)
    q = np.exp(logs)
    ratio = (w[:, None] * at_logs.square + b[:, None]) / q
    value, change = ratio - 1, w[:, None] * at_logs.bend / q - ratio
    log_q, fate = np.zeros(len(w)), np.full(len(w), ALONE)
    for sign, way in ((1, slice(origin, None)), (-1, slice(origin, None, -1))):
        along, turn = value[:, way] * sign, change[:, way]
        crossed = along[:, 1:] <= 0
        first = np.where(crossed.any(1), crossed.argmax(1), crossed.shape[1])
        # It falls at one end and rises at the other: it may touch zero in between, unless it is too far away.
        back = (along[:, :-1] * turn[:, :-1] < 0) & (along[:, :-1] * turn[:, 1:] > 0)
        lowest = along - STEP * np.abs(turn)
        back &= np.minimum(lowest[:, :-1], lowest[:, 1:]) <= 0
        doubled = (back & (np.arange(back.shape[1]) <= first[:, None])).any(1)
        mine = (along[:, 0] > 0) & ~doubled
        fate[mine] = UNBOUNDED if sign > 0 else DEAD
        hit = np.flatnonzero(mine & crossed.any(1))
        fate[hit] = INSIDE
        k, h = first[hit], sign * STEP
        ends = (value[:, way][hit, k], change[:, way][hit, k] * h, value[:, way][hit, k + 1])
        log_q[hit] = logs[way][k] + h * _cubic_root(*ends, change[:, way][hit, k + 1] * h)
        for index in np.unique(k):
            if said := doubts[origin + sign * int(index)]:
                raise ValueError(said)
    return log_q, fate


def _cubic_root(left: Array, left_slope: Array, right: Array, right_slope: Array) -> Array:
    """Where in [0, 1] a cubic with these values and slopes at its ends is zero, by Newton's steps."""
    t = left / (left - right)
    two, three = (
        3 * (right - left) - 2 * left_slope - right_slope,
        2 * (left - right) + left_slope + right_slope,
    )
    for _ in range(4):
        value = left + t * (left_slope + t * (two + t * three))
        t = np.clip(t - value / (left_slope + t * (2 * two + 3 * t * three)), 0.0, 1.0)
    return t


def _gains(
    a: Activation, w: Array, b: Array, log_q: Array, inside: NDArray[np.intp], found: Settled, alone: Mask
) -> None:
    """Fill in gains and correlations at the points `inside`; mark those that must be solved alone."""
    at, own = log_q[inside], w[inside]
    here, q = moments(a, np.exp(at)), np.exp(at)
    ratio = (own * here.square + b[inside]) / q
    slope = own * here.bend / q - ratio
    # The cubic is off by 1e-7 at most: one step of Newton's takes the rest.
    q = np.exp(at - (ratio - 1) / slope)
    here = moments(a, q)
    chi_1 = own * here.slope
    found.q_star[inside], found.chi_1[inside] = q, chi_1
    found.c_star[:], found.xi_c[:] = 1.0, lengths(found.chi_1)
    flat = np.abs(slope) < ALL_BUT_DOUBLE  # sought one by one
    chaotic = (chi_1 > 1 + AT_CRITICAL) & ~flat
    alone[inside[flat]] = True
    if a.kinks and not has_curvature(a):
        alone[inside[chaotic]] = True
        return
    part = np.flatnonzero(chaotic)
    numbers = Moments(here.square[part], here.slope[part], here.bend[part])
    gap, rate, sure = _correlate(a, own[part], q[part], numbers)
    found.c_star[inside[part]], found.xi_c[inside[part]] = 1 - gap, lengths(rate)
    alone[inside[part[~sure]]] = True


def _correlate(a: Activation, w: Array, q: Array, here: Moments) -> tuple[Array, Array, Mask]:
    """The gaps at which correlations settle, the slopes of the map there, and which of them are sure."""
    energies = np.empty((0, TERMS)) if has_curvature(a) else _energies(a, q)

    def both(gap: Array, at: NDArray[np.intp]) -> tuple[Array, Array]:
        if has_curvature(a):
            return parting_and_cross_slope(a, q[at], here.slope[at], gap)
        return _series(energies[at], here.square[at], q[at], gap)

    def lift(gap: Array, at: NDArray[np.intp]) -> tuple[Array, Array]:
        parting, cross = both(gap, at)
        kept = w[at] * parting / (q[at] * gap)
        return 1 - kept, (kept - w[at] * cross) / gap

    gap = settle(lift, 1 - w * here.slope)
    parting, cross = both(gap, np.arange(len(q)))
    if has_curvature(a):
        return gap, w * cross, np.ones(len(q), dtype=bool)
    # What 257 terms leave out must not matter, as `Pair` has it; else the point goes its slow way.
    left = np.abs(1 - gap) ** (TERMS - 1)
    missing = np.maximum(0.0, here.square - energies.sum(1))
    missing_slope = np.maximum(0.0, here.slope - energies @ np.arange(TERMS) / q)
    sure = (missing * left <= CONVERGED * parting) & (missing_slope * left <= CONVERGED * here.slope)
    return gap, w * cross, sure


def _energies(a: Activation, q: Array) -> Array:
    """Squared Hermite coefficients, (n, terms), summed in an order that no number of threads changes."""
    found, scales = np.empty((len(q), TERMS)), np.sqrt(q)
    for depth, at in _by_depth(a, scales):
        z, _ = rules(a, scales[at], depth, SECOND_ORDER)
        table = hermite_table(SECOND_ORDER, depth)
        found[at] = np.einsum("pn,kn->pk", a.value(scales[at, None] * z), table) ** 2
    return found


def _series(energies: Array, square: Array, q: Array, gap: Array) -> tuple[Array, Array]:
    k = np.arange(TERMS)
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log1p(-gap), -1e3)[:, None]
    missing = np.maximum(0.0, square - energies.sum(1))
    parting = (energies * -np.expm1(k * logs)).sum(1) + missing
    cross = (energies[:, 1:] * k[1:] * np.exp(k[:-1] * logs)).sum(1) / q
    return parting, cross


def _one(a: Activation, w: float, b: float, start: float, found: Settled, k: int) -> None:
    try:
        field = mean_field(a, w, b, start)
    except Unbounded:
        found.bounded[k] = False
        return
    for key in ("q_star", "chi_1", "c_star", "xi_c"):
        getattr(found, key)[k] = getattr(field, key)
