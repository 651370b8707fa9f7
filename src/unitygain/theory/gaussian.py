"""Expectations over a Gaussian: a composite quadrature that is split where the integrand has a kink."""

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitygain.theory.activations import Activation, Function

Array = NDArray[np.float64]
EDGE = 12.0
AGREEMENT = 1e-8
ORDER, SECOND_ORDER = 16, 24
TERMS = 257


@functools.lru_cache(maxsize=16)
def legendre(order: int) -> tuple[Array, Array]:
    """Return the nodes and weights of Gauss and Legendre on [-1, 1]."""
    return np.polynomial.legendre.leggauss(order)


@functools.lru_cache(maxsize=128)
def _edges(depth: int) -> Array:
    """Panels that narrow by halves towards zero, `depth` times, and are 1 wide outside [-1, 1]."""
    half = np.concatenate([2.0 ** np.arange(-depth, 1), np.arange(2.0, EDGE + 1)])
    return np.concatenate([-half[::-1], [0.0], half])


def panels(edges: NDArray[np.floating[Any]], order: int) -> tuple[Array, Array]:
    """Return nodes and weights of a composite Gauss-Legendre rule over consecutive edges (last axis)."""
    x, w = legendre(order)
    left, right = edges[..., :-1, None], edges[..., 1:, None]
    half = 0.5 * (right - left)
    shape = (*edges.shape[:-1], -1)
    return (0.5 * (right + left) + half * x).reshape(shape), (half * w).reshape(shape)


def density(z: Array) -> Array:
    """Return the standard normal density."""
    return np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


@functools.lru_cache(maxsize=64)
def nodes(order: int, depth: int, splits: tuple[float, ...] = ()) -> tuple[Array, Array]:
    """Return the nodes z and weights of E f(z), z ~ N(0, 1); beyond |z| = 12 the density is below 1e-31."""
    edges = _edges(depth)
    if splits:
        edges = np.unique(np.concatenate([edges, [s for s in splits if abs(s) < EDGE]]))
    z, weight = panels(edges, order)
    return z, weight * density(z)


def rule(phi: Activation, scale: float, order: int) -> tuple[Array, Array]:
    """Return the nodes and weights of E f(scale·z) for an f that bends and has kinks where `phi` does."""
    return nodes(order, depth_at(phi, scale), tuple(kink / scale for kink in phi.kinks if kink and scale > 0))


def depth_at(phi: Activation, scale: float) -> int:
    """Return by how many halves panels must narrow to resolve `phi` at that scale of its input."""
    return min(50, max(0, math.ceil(math.log2(scale / phi.width)))) if scale > 0 else 0


def rules(phi: Activation, scales: Array, depth: int, order: int) -> tuple[Array, Array]:
    """Return what `rule` does for n scales of one depth, shapes (n, nodes), or (nodes,) without kinks."""
    kinks = np.array([kink for kink in phi.kinks if kink])
    if not len(kinks):
        return nodes(order, depth)
    edges = np.broadcast_to(_edges(depth), (len(scales), len(_edges(depth))))
    splits = np.clip(kinks / scales[:, None], -EDGE, EDGE)
    z, weight = panels(np.sort(np.concatenate([edges, splits], axis=1), axis=1), order)
    return z, weight * density(z)


def expect(f: Function, phi: Activation, q: float, order: int = ORDER) -> float:
    """Return E f(√q·z) for an f with the kinks of `phi`, by one quadrature."""
    scale = math.sqrt(q)
    z, weight = rule(phi, scale, order)
    return float(weight @ f(scale * z))


def expect_checked(f: Function, phi: Activation, q: float, what: str) -> float:
    """Return E f(√q·z) after two quadratures of different order agreed to 1e-8.

    Raises:
        ValueError: If they do not, with both values, or if f grows too fast for the normal density.
    """
    first, second = expect(f, phi, q), expect(f, phi, q, SECOND_ORDER)
    where = f"{what} of {phi.name} at q = {q:.6g}"
    if not abs(first - second) <= AGREEMENT * abs(second):
        # Where positive and negative parts cancel, what is left can be no better than rounding of the parts.
        floor = 1e-14 + 1e-11 * expect(lambda x: np.abs(f(x)), phi, q)
        require_agreement(first, second, where, "give the points where the slope jumps as kinks", floor)
    edge = float(np.abs(f(math.sqrt(q) * np.array([-EDGE, EDGE]))).max() * density(np.array(EDGE)))
    if not edge <= 1e-9 * abs(second) + 1e-14:
        raise ValueError(f"{where} does not converge: {phi.name} grows too fast for a Gaussian input")
    return second


def require_agreement(first: float, second: float, where: str, advice: str, floor: float = 1e-14) -> None:
    """Raise with both values unless two ways to compute a number agree to 1e-8 of it (or to `floor`).

    Raises:
        ValueError: If they do not.
    """
    if not abs(first - second) <= AGREEMENT * max(abs(first), abs(second)) + floor:
        raise ValueError(f"{where}: two quadratures disagree, {first!r} and {second!r}; {advice}")


@functools.lru_cache(maxsize=16)
def hermite_table(order: int, depth: int, splits: tuple[float, ...] = ()) -> Array:
    """Return He_k(z)/√k! times the weight of node z: rows k, columns nodes."""
    z, weight = nodes(order, depth, splits)
    table = np.empty((TERMS, len(z)))
    # Carried with the root of the density, since He_256 at z = 12 is beyond float64's precision.
    root = np.sqrt(density(z))
    table[0], table[1] = root, z * root
    for k in range(1, TERMS - 1):
        table[k + 1] = (z * table[k] - math.sqrt(k) * table[k - 1]) / math.sqrt(k + 1)
    return table * (weight / root)


def hermite_energies(f: Function, phi: Activation, q: float, order: int = SECOND_ORDER) -> Array:
    """Return a_k², k = 0..256, with a_k = E[f(√q·z)·He_k(z)]/√k!.

    With u, v standard Gaussians of correlation c, E f(√q·u)·f(√q·v) = Σ a_k²·c^k (Mehler's formula).
    """
    scale = math.sqrt(q)
    depth = depth_at(phi, scale)
    splits = tuple(kink / scale for kink in phi.kinks if kink and scale > 0)
    z, _ = nodes(order, depth, splits)
    return (hermite_table(order, depth, splits) @ f(scale * z)) ** 2
