"""Expectations over a Gaussian by scipy's adaptive rule, which shares no code with the library's own."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import integrate


def gaussian(f: Callable[[float], float], q: float, kinks: Sequence[float] = ()) -> float:
    """Return E f(√q·z) by adaptive Gauss-Kronrod, split where f has a kink."""
    scale = math.sqrt(q)
    cuts = sorted({-40.0, 40.0, *range(-8, 9), *(k / scale for k in kinks if abs(k / scale) < 40)})
    total = 0.0
    for low, high in itertools.pairwise(cuts):
        total += integrate.quad(
            lambda z: f(scale * z) * math.exp(-0.5 * z * z), low, high, epsabs=1e-14, epsrel=1e-12, limit=200
        )[0]
    return total / math.sqrt(2 * math.pi)


def pair(f: Callable[[np.ndarray], np.ndarray], q: float, c: float) -> float:
    """Return E f(√q·u)·f(√q·v) at correlation c by the trapezoidal rule in both; for smooth f.

    For an f without a pole nearer than d the rule's error falls as exp(-2π·d/(√q·step)).
    """
    z = np.arange(-9.0, 9.0, 0.04)
    weight = 0.04 * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    scale = math.sqrt(q)
    inner = f(scale * (c * z[:, None] + math.sqrt(1 - c * c) * z)) @ weight
    return float(weight @ (f(scale * z) * inner))
