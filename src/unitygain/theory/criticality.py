"""The edge of chaos: weight and bias variances at which the gradient keeps its size over depth."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unitygain.theory._given import require_variance
from unitygain.theory.activations import Activation, find_activation
from unitygain.theory.gaussian import expect
from unitygain.theory.mean_field import Phi, second_moment, slope_moment
from unitygain.theory.variance import find_root, variance_slope

# Relative step at which the bend of the variance map is read.
NEAR = 0.01


@dataclass(frozen=True)
class CriticalPoint:
    """Weight and bias variances at which the squared gradient keeps its size over depth.

    Args:
        phi: Name of the activation.
        sigma_w2: Weight variance times fan-in.
        sigma_b2: Bias variance.
        q_star: Variance of the pre-activation there; None where every variance is a fixed point.
        half_stable: Whether the variance returns to ``q_star`` from one side only, so that a finite
            network that is on the other drifts away, to another fixed point or to zero.
        holds: Whether a variance near ``q_star`` comes back to it, or every variance is kept. Where it does
            not, chi_1 is 1 at the point alone: signals leave it on both sides, and the gradient then shrinks
            or grows. A half-stable point holds from one side.
        chi_par: Factor by which a small deviation from ``q_star`` is multiplied per layer, d q'/dq: below 1
            it comes back, above 1 it leaves.
        from_above: Of a half-stable point, whether it is the variances above that come back.
    """

    phi: str
    sigma_w2: float
    sigma_b2: float
    q_star: float | None
    half_stable: bool = False
    holds: bool = True
    chi_par: float = 1.0
    from_above: bool = False


def critical(phi: Phi, sigma_b2: float | None = None) -> CriticalPoint:
    """Return the weight variance at the edge of chaos, chi_1 = 1.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        sigma_b2: Bias variance. Left out: 0 where that is critical, else the half-stable point, at
            which the variance too keeps its size (GELU, SiLU, Mish).

    Returns:
        The point with the smallest ``q_star`` where there are several. Look at ``holds``: GELU with a small
        bias variance has a point that signals leave.

    Raises:
        ValueError: If there is no such point: sigmoid and softplus have no half-stable one.

    Example:
        >>> critical("relu").sigma_w2
        2.0
        >>> point = critical("tanh", sigma_b2=0.05)
        >>> round(point.sigma_w2, 6), round(point.q_star, 6)
        (1.760955, 0.570048)
        >>> critical("gelu", 0.01).holds
        False

    References:
        Poole et al. 2016, section 2; half-stable points: Roberts, Yaida and Hanin, The Principles of Deep
        Learning Theory, 2022, chapter 5, where chi_perp = chi_1 and chi_par = sigma_w2·d(E φ²)/dq.
    """
    a = find_activation(phi)
    if sigma_b2 is not None:
        require_variance("sigma_b2", sigma_b2)
    if a.rays is not None:
        return _critical_linear(a, sigma_b2)
    if sigma_b2 is None:
        return critical(a, 0.0) if is_odd(a) else _half_stable(a)
    if sigma_b2 == 0 and is_odd(a):
        return CriticalPoint(a.name, 1 / float(a.slope(np.zeros(1))[0]) ** 2, 0.0, 0.0)
    q_star = _first_root(lambda q: _bias_on_curve(a, q) - sigma_b2)
    if q_star is None:
        raise ValueError(
            f"{a.name} has no critical point with sigma_b2 = {sigma_b2:g}: no fixed point from 1e-06 to "
            "10000 has chi_1 = 1 there; choose another sigma_b2, or another activation"
        )
    return _checked(a, q_star, sigma_b2, False)


def is_odd(a: Activation) -> bool:
    """Return whether φ(-x) = -φ(x) at a few points."""
    x = np.linspace(0.1, 4.0, 9)
    return bool(np.allclose(a.value(x), -a.value(-x), rtol=1e-12, atol=0))


def _critical_linear(a: Activation, sigma_b2: float | None) -> CriticalPoint:
    if sigma_b2:
        raise ValueError(
            f"{a.name} has no critical point with sigma_b2 = {sigma_b2:g}: at chi_1 = 1 the variance "
            "grows by sigma_b2 per layer; use sigma_b2 = 0"
        )
    assert a.rays is not None
    return CriticalPoint(a.name, 2 / (a.rays[0] ** 2 + a.rays[1] ** 2), 0.0, None)


def _half_stable(a: Activation) -> CriticalPoint:
    """Where chi_perp = chi_par = 1, that is E φ'² = d(E φ²)/dq."""

    def imbalance(q: float) -> float:
        return expect(lambda x: a.value(x) * a.slope(x) * x, a, q) / q / _slope_square(a, q) - 1

    q_star = _first_root(imbalance)
    bias = None if q_star is None else _bias_on_curve(a, q_star)
    if q_star is None or bias is None or bias < 0:
        raise ValueError(
            f"{a.name} has no half-stable point: chi_1 = 1 and a marginal variance exclude each other; "
            "give sigma_b2 to look for a point with chi_1 = 1 alone"
        )
    return _checked(a, q_star, bias, True)


def _checked(a: Activation, q_star: float, sigma_b2: float, half_stable: bool) -> CriticalPoint:
    second_moment(a, q_star)
    sigma_w2 = 1 / slope_moment(a, q_star)
    chi_par = sigma_w2 * variance_slope(a, q_star)
    holds, above = half_stable or chi_par <= 1, half_stable and _bends_down(a, q_star, sigma_w2)
    return CriticalPoint(a.name, sigma_w2, sigma_b2, q_star, half_stable, holds, chi_par, above)


def _bends_down(a: Activation, q_star: float, sigma_w2: float) -> bool:
    """Whether the variance map lies below its tangent at q*, which is the diagonal."""
    near = [second_moment(a, (1 + side * NEAR) * q_star) for side in (-1, 0, 1)]
    return sigma_w2 * (near[0] - 2 * near[1] + near[2]) < 0


def _bias_on_curve(a: Activation, q: float) -> float:
    """The bias variance that makes q a fixed point where chi_1 = 1."""
    return q - expect(lambda x: a.value(x) ** 2, a, q) / _slope_square(a, q)


def _slope_square(a: Activation, q: float) -> float:
    return expect(lambda x: a.slope(x) ** 2, a, q)


def _first_root(f: Callable[[float], float]) -> float | None:
    grid = np.geomspace(1e-6, 1e4, 101)
    last = f(float(grid[0]))
    for low, high in itertools.pairwise(grid):
        there = f(float(high))
        if last * there < 0 and math.isfinite(there):
            return find_root(f, float(low), float(high))
        last = there
    return None
