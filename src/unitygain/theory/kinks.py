"""Two inputs through an activation with kinks, in closed form but for one integral over an angle.

Where the slope jumps, the Hermite series of an activation falls as a power, far too slowly for two inputs
that are nearly alike. Its curvature φ'', in which a jump of the slope is a point mass, has closed moments.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, ndtr, owens_t

from unitygain.theory.activations import Activation
from unitygain.theory.gaussian import density, panels

Array = NDArray[np.float64]
ORDER, TAIL_ORDER = 16, 12
# Between two kinks at a distance d the curvature rises as exp(-d²/2θ²): that takes panels of its own.
HALVINGS = 6
# Natural logarithms: with a factor exp(8) lost, the relative error is still below 1e-10.
MOST_LOST, MOST_LIFTED = 8.0, 300.0


def has_curvature(phi: Activation) -> bool:
    """Return whether the moments of φ'' are known in closed form."""
    return bool(phi.jumps) or phi.exponential is not None


def parting_and_cross_slope(phi: Activation, q: Array, slope: Array, gap: Array) -> tuple[Array, Array]:
    """Return ½·E(φ(u) - φ(v))² and E φ'(u)φ'(v) for u, v of variance q and correlation 1 - gap.

    With c = cos θ the derivative of E φ'φ' by θ is minus the `curvature`, and that of E φφ by c is
    q·E φ'φ' (Price's theorem), so that both are integrals of the curvature from 0 to θ.

    Args:
        phi: An activation with a closed curvature.
        q: Variances, shape (n,).
        slope: E φ'(u)², shape (n,).
        gap: 1 - c, shape (n,).

    References:
        R. Price, A useful theorem for nonlinear devices having Gaussian inputs, 1958.
    """
    angle = 2 * np.arcsin(np.sqrt(np.minimum(gap, 2.0) / 2))
    finest = np.log2(np.maximum(1.0, angle * np.sqrt(q))).max(initial=0.0)
    depth = math.ceil(finest) + (HALVINGS if len(phi.kinks) > 1 else 0)
    edges = np.concatenate([[0.0], 2.0 ** np.arange(-depth, 1)])
    if angle.max(initial=0.0) > 2:
        # Near π the curvature of opposite kinks is as steep as near 0.
        edges = np.concatenate([0.5 * edges, 1 - 0.5 * edges[-2::-1]])
    share, weight = panels(edges, ORDER)
    inner = angle[:, None] * share
    curved = curvature(phi, q[:, None], inner) * (angle[:, None] * weight)
    # cos θ' - cos θ, without the difference of two numbers near 1.
    lever = 2 * np.sin(0.5 * (angle[:, None] + inner)) * np.sin(0.5 * (angle[:, None] - inner))
    return q * (gap * slope - (lever * curved).sum(1)), slope - curved.sum(1)


def curvature(phi: Activation, q: Array, angle: Array) -> Array:
    """Return q·sin θ·E φ''(u)φ''(v) for u, v of variance q and correlation cos θ."""
    if phi.exponential is not None:
        return _exponential(*phi.exponential, q, angle)
    return _piecewise_linear(phi, q, angle)


def _piecewise_linear(phi: Activation, q: Array, angle: Array) -> Array:
    """Densities of u and v at the kinks, times what the slope jumps by there."""
    total = np.zeros(np.broadcast_shapes(q.shape, angle.shape))
    near, far = 8 * np.sin(angle / 2) ** 2, 8 * np.cos(angle / 2) ** 2
    for one, jump in zip(phi.kinks, phi.jumps, strict=True):
        for other, again in zip(phi.kinks, phi.jumps, strict=True):
            exponent = (one + other) ** 2 / (q * far)
            if one != other:
                exponent = exponent + (one - other) ** 2 / (q * near)
            total += jump * again * np.exp(-exponent)
    return total / (2 * math.pi)


def _exponential(scale: float, alpha: float, q: Array, angle: Array) -> Array:
    """ELU: a jump of scale·(1 - alpha) at zero, and scale·alpha·exp(x) below it."""
    jump, height = scale * (1 - alpha), scale * alpha
    spread = np.sqrt(q) * np.sin(angle)
    tail = 0.5 * erfcx(spread / math.sqrt(2))
    mixed = 2 * jump * height * spread / math.sqrt(2 * math.pi) * tail
    return jump**2 / (2 * math.pi) + mixed + height**2 * q * np.sin(angle) * _both_tails(q, angle)


def _both_tails(q: Array, angle: Array) -> Array:
    """E exp(u + v) where both are negative.

    That is exp(q·(1 + c)) times the chance that two standard Gaussians of that correlation are both below
    -h = -√q·(1 + c): that for one of them, less twice Owen's T. The difference loses a factor exp(½q·sin²θ)
    of its precision; where that is too much, and where the exponential leaves float64, it is an integral.

    References:
        D. B. Owen, Tables for computing bivariate normal probabilities, 1956, eq. 2.1 and 2.3.
    """
    lifted = 2 * q * np.cos(angle / 2) ** 2
    lost = 0.5 * q * np.sin(angle) ** 2
    if lost.max(initial=0.0) > MOST_LOST or lifted.max(initial=0.0) > MOST_LIFTED:
        return _integrated_tails(q, angle)
    h = 2 * np.sqrt(q) * np.cos(angle / 2) ** 2
    return np.exp(lifted) * (ndtr(-h) - 2 * owens_t(h, np.tan(angle / 2)))


def _integrated_tails(q: Array, angle: Array) -> Array:
    """E exp(u + v) where both are negative, as an expectation of a normal tail over half their difference."""
    tangent, pull = np.tan(angle / 2)[..., None], 2 * np.sqrt(q[..., None]) * np.cos(angle / 2)[..., None]
    depth = math.ceil(math.log2(max(1.0, float((tangent * (1 + pull)).max(initial=0.0)))))
    x, weight = panels(
        np.concatenate([[0.0], 2.0 ** np.arange(-min(depth, 40), 1), [2.5, 4.5, 9.0]]), TAIL_ORDER
    )
    a = tangent * x
    tail = 0.5 * np.exp(-0.5 * a * a - pull * a) * erfcx((a + pull) / math.sqrt(2))
    return tail @ (2 * weight * density(x))


def settle(lift: Callable[[Array, NDArray[np.intp]], tuple[Array, Array]], alike: Array) -> Array:
    """Return the gaps 1 - c at which correlations settle in the chaotic phase.

    A map of gaps is concave, so that (gap - its image)/gap rises with the gap, from below zero in chaos. In
    √gap it is nearly a straight line, kinks or not, and Newton's steps take few turns from where a parabola
    in √gap through what is known at 0 and at 1 is zero.

    Args:
        lift: From gaps, and which they are of the n, to 1 - image/gap and its derivative by the gap.
        alike: What `lift` tends to at a gap of 0, 1 - chi_1. Shape (n,).
    """
    count = len(alike)
    low, high, gap = np.zeros(count), np.ones(count), np.ones(count)
    at = np.arange(count, dtype=np.intp)
    for turn in range(60):
        here = gap[at]
        value, slope = lift(here, at)
        low[at], high[at] = np.where(value < 0, here, low[at]), np.where(value < 0, high[at], here)
        root, below, above = np.sqrt(here), np.sqrt(low[at]), np.sqrt(high[at])
        with np.errstate(divide="ignore", invalid="ignore"):
            turned = root - value / (2 * root * slope)
            if turn == 0:
                turned = _parabola_zero(alike, value, 2 * slope, turned)
        inside = (turned >= below) & (turned <= above)
        following = np.where(inside, turned, 0.75 * below + 0.25 * above) ** 2
        # At 1 nothing lifts the correlation: an odd φ without bias.
        unlifted = (here == 1.0) & (value <= 1e-15)
        gap[at] = np.where(unlifted, here, following)
        # Newton's error after a step is a tenth of that step's square: here 1e-11 of the gap.
        at = at[~unlifted & (np.abs(following - here) > 1e-5 * here)]
        if not len(at):
            break
    return gap


def _parabola_zero(start: Array, end: Array, slope: Array, otherwise: Array) -> Array:
    """Where the parabola on [0, 1] with these values at its ends, and that slope at 1, is zero."""
    bend = slope - (end - start)
    linear = end - start - bend
    found = -2 * start / (linear + np.sqrt(linear**2 - 4 * bend * start))
    return np.where(np.isfinite(found), found, otherwise)
