"""Two inputs of equal variance through an activation: how alike they and their gradients stay."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unitygain.theory.activations import Activation, Function
from unitygain.theory.gaussian import (
    EDGE,
    ORDER,
    SECOND_ORDER,
    TERMS,
    density,
    expect_checked,
    hermite_energies,
    panels,
    require_agreement,
)
from unitygain.theory.kinks import has_curvature, parting_and_cross_slope, settle

Array = NDArray[np.float64]
CONVERGED = 1e-11


@dataclass(frozen=True)
class Pair:
    """Moments of φ over two Gaussians of variance q and correlation 1 - gap.

    The gap, not the correlation, is the variable: near c = 1 the difference 1 - c has no digits left.

    Args:
        phi: The activation.
        q: Variance of both.
        second: E φ².
        slope: E φ'².
        energies: Squared Hermite coefficients a_k² of φ(√q·z).
    """

    phi: Activation
    q: float
    second: float
    slope: float
    energies: Array

    def parting(self, gap: float) -> float:
        """Return E φ² - E φ(u)φ(v) = ½·E(φ(u) - φ(v))²."""
        if self.phi.rays is not None:
            return self.q * _linear_parting(self.phi.rays, gap)
        if has_curvature(self.phi):
            return self.moments(gap)[0]
        k = np.arange(TERMS)
        kept = -np.expm1(k * math.log1p(-gap)) if gap < 1 else 1.0 - (1.0 - gap) ** k
        total = float(self.energies @ kept)
        missing = max(0.0, self.second - float(self.energies.sum()))
        if missing * abs(1 - gap) ** TERMS <= CONVERGED * (total + missing):
            return total + missing
        missing_slope = max(0.0, self.q * self.slope - float(self.energies @ k))
        if min(missing, gap * missing_slope) <= CONVERGED * total:
            return total
        return _integrate_parting(self.phi.value, self.phi, self.q, gap)

    def cross_slope(self, gap: float) -> float:
        """Return E φ'(u)φ'(v)."""
        if self.phi.rays is not None:
            return _linear_cross_slope(self.phi.rays, gap)
        if gap == 0:
            return self.slope
        if has_curvature(self.phi):
            return self.moments(gap)[1]
        k = np.arange(1, TERMS)
        own = self.energies[1:] * k / self.q
        missing = max(0.0, self.slope - float(own.sum()))
        total = float(own @ (1.0 - gap) ** (k - 1))
        if missing * abs(1 - gap) ** (TERMS - 1) <= CONVERGED * self.slope:
            return total
        return self.slope - _integrate_parting(self.phi.slope, self.phi, self.q, gap)

    def moments(self, gap: float) -> tuple[float, float]:
        """Return `parting` and `cross_slope`, which share their work where they have a closed form."""
        if not has_curvature(self.phi):
            return self.parting(gap), self.cross_slope(gap)
        numbers = (np.array([x]) for x in (self.q, self.slope, gap))
        parting, cross = parting_and_cross_slope(self.phi, *numbers)
        return float(parting[0]), float(cross[0])

    def fixed_gap(self, sigma_w2: float) -> tuple[float, float]:
        """Return the gap at which the correlation settles in the chaotic phase, and the map's slope there.

        Args:
            sigma_w2: Weight variance times fan-in; q is taken as the fixed point.
        """

        def lift(gaps: Array, _: NDArray[np.intp]) -> tuple[Array, Array]:
            gap = float(gaps[0])
            parting, cross = self.moments(gap)
            kept = sigma_w2 * parting / (self.q * gap)
            return np.array([1 - kept]), np.array([(kept - sigma_w2 * cross) / gap])

        gap = float(settle(lift, np.array([1 - sigma_w2 * self.slope]))[0])
        return gap, sigma_w2 * self.cross_slope(gap)


def pair(phi: Activation, q: float, slope: float | None = None) -> Pair:
    """Return the moments of two inputs of variance q, each by two quadratures that agree to 1e-8.

    Args:
        phi: The activation.
        q: Variance of both.
        slope: E φ'², where it is known already.

    Raises:
        ValueError: If they do not agree, with both values.
    """
    second = expect_checked(lambda x: phi.value(x) ** 2, phi, q, "the second moment")
    if slope is None:
        slope = expect_checked(lambda x: phi.slope(x) ** 2, phi, q, "the slope moment")
    if phi.rays is not None or has_curvature(phi):
        return Pair(phi, q, second, slope, np.empty(0))
    energies = hermite_energies(phi.value, phi, q)
    coarse = hermite_energies(phi.value, phi, q, ORDER)
    worst = int(np.argmax(np.abs(energies - coarse)))
    require_agreement(
        float(coarse[worst]),
        float(energies[worst]),
        f"Hermite coefficient {worst} of {phi.name} at q = {q:.6g}",
        "give the points where the slope jumps as kinks",
        floor=1e-10 * second,
    )
    return Pair(phi, q, second, slope, energies)


def _linear_parting(rays: tuple[float, float], gap: float) -> float:
    """½·E(φ(u) - φ(v))² at variance 1, for φ = below·x + (above - below)·relu(x).

    Cho and Saul, Kernel methods for deep learning, 2009, eq. 6: E relu·relu = (sin θ + (π-θ)·cos θ)/2π.
    """
    angle = 2 * math.asin(math.sqrt(min(2.0, gap) / 2))
    if angle < 0.1:
        bend = angle**3 / 3 - angle**5 / 30 + angle**7 / 840 - angle**9 / 45360
    else:
        bend = math.sin(angle) - angle * math.cos(angle)
    relu = (math.pi * gap - bend) / (2 * math.pi)
    below, above = rays
    return below * above * gap + (above - below) ** 2 * relu


def _linear_cross_slope(rays: tuple[float, float], gap: float) -> float:
    angle = 2 * math.asin(math.sqrt(min(2.0, gap) / 2))
    below, above = rays
    return below * above + (above - below) ** 2 * (math.pi - angle) / (2 * math.pi)


def _integrate_parting(f: Function, phi: Activation, q: float, gap: float) -> float:
    """½·E(f(u) - f(v))² as a double integral over the half sum a and half difference b of u and v.

    Slow and general: for kinks and for large q, where the Hermite series has not converged.
    """
    first, second = (_double_integral(f, phi, q, gap, order) for order in (ORDER // 2, SECOND_ORDER // 2))
    where = f"the correlation map of {phi.name} at q = {q:.6g}, c = 1 - {gap:.6g}"
    require_agreement(first, second, where, "give the points where the slope jumps as kinks", floor=1e-300)
    return second


def _double_integral(f: Function, phi: Activation, q: float, gap: float, order: int) -> float:
    scale, along, across = math.sqrt(q), max(math.sqrt(1 - gap / 2), 1e-300), math.sqrt(gap / 2)
    centres = np.unique([0.0, *phi.kinks]) / scale
    finest = phi.width / scale
    # In b the mean over a bends where half differences reach the width of φ or half the way between kinks.
    meets = np.abs(centres[:, None] - centres).ravel() / (2 * across)
    outer = np.unique(
        np.concatenate([_halves(finest / across), meets[meets < EDGE], [1.0, 2.0, 3.5, 6.0, EDGE]])
    )
    b, weight = panels(outer, order)
    # In a the integrand bends where u or v passes a centre: panels widen from there.
    spread = _halves(finest)
    spread = np.concatenate([-spread[::-1], spread[1:]])
    shifts = across * b[:, None] * np.array([-1.0, 1.0])
    bends = (centres[:, None] + shifts[:, None, :]).reshape(len(b), -1)
    near = np.clip((bends[:, :, None] + spread).reshape(len(b), -1) / along, -EDGE, EDGE)
    fixed = np.broadcast_to(np.arange(-EDGE, EDGE + 1), (len(b), 2 * int(EDGE) + 1))
    a, inner = panels(np.sort(np.concatenate([fixed, near], axis=1), axis=1), order)
    centre, apart = along * a, across * b[:, None]
    difference = f(scale * (centre + apart)) - f(scale * (centre - apart))
    rows = (inner * density(a) * difference**2).sum(axis=1)
    return float((weight * density(b)) @ rows)


def _halves(finest: float) -> Array:
    """0, then panels that widen by halves from `finest` to 1."""
    return np.concatenate([[0.0], 2.0 ** np.arange(min(0, math.floor(math.log2(finest))), 1)])
