"""Moments of the gates of recurrent cells over Gaussian pre-activations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from unitygain.theory._given import require_finite, require_variance
from unitygain.theory.activations import ACTIVATIONS
from unitygain.theory.gaussian import Array, expect_checked

SIGMOID, TANH = ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"]


@dataclass(frozen=True)
class GateMoments:
    """Moments of sigmoid(e) for e ~ N(bias, variance): E s, E s², E s'². Shape of each: a number."""

    mean: float
    square: float
    slope_square: float


def gate_moments(bias: float, variance: float) -> GateMoments:
    """Return the moments of a sigmoid gate whose pre-activation is N(bias, variance).

    Raises:
        ValueError: If a number is out of range.
    """
    require_finite("bias", bias)
    require_variance("variance", variance)

    def moment(f: Callable[[Array], Array]) -> float:
        return expect_checked(lambda x: f(special.expit(x + bias)), SIGMOID, variance, "a gate's moment")

    return GateMoments(moment(lambda s: s), moment(lambda s: s * s), moment(lambda s: (s * (1 - s)) ** 2))


def tanh_moments(variance: float) -> tuple[float, float, float]:
    """Return E tanh², E tanh', E tanh'² for a Gaussian of that variance."""
    moments = (lambda x: np.tanh(x) ** 2, TANH.slope, lambda x: TANH.slope(x) ** 2)
    square, slope, slope_square = (expect_checked(f, TANH, variance, "a tanh moment") for f in moments)
    return square, slope, slope_square
