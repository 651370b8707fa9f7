"""Mean field of wide networks: fixed points, gains and length scales of z' = W·φ(z) + b.

W_ij ~ N(0, sigma_w2/fan_in), b_i ~ N(0, sigma_b2). Every rate here is *squared*: chi_1 multiplies the
mean square of the gradient per layer, its square root the rms.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unitygain.theory._given import require_correlation, require_count, require_positive, require_variance
from unitygain.theory.activations import Activation, find_activation
from unitygain.theory.correlation import pair
from unitygain.theory.gaussian import expect_checked
from unitygain.theory.variance import fixed_variance, variance_slope

Phase = Literal["ordered", "critical", "chaotic"]
Phi = str | Activation | Callable[[Any], Any]

AT_CRITICAL = 1e-9


@dataclass(frozen=True)
class MeanField:
    """Where signals settle in a wide, deep network, and how fast.

    Args:
        phi: Name of the activation.
        sigma_w2: Weight variance times fan-in.
        sigma_b2: Bias variance.
        q_star: Fixed point of the variance of a pre-activation.
        chi_1: Squared gain of the gradient per layer at that fixed point; 1 at the edge of chaos.
        c_star: Fixed point of the correlation of two inputs.
        xi_q: Layers in which the variance settles by a factor e; infinite where it does so as a power law.
        xi_c: Layers in which the correlation settles by a factor e.
        xi_grad: Layers in which the squared gradient falls by a factor e; negative where it grows.
        phase: ``ordered`` (gradients fall), ``critical`` or ``chaotic`` (gradients grow).
    """

    phi: str
    sigma_w2: float
    sigma_b2: float
    q_star: float
    chi_1: float
    c_star: float
    xi_q: float
    xi_c: float
    xi_grad: float
    phase: Phase


@dataclass(frozen=True)
class Propagation:
    """What a wide network does to its own input, layer by layer, transients included.

    Args:
        q: Variance of the pre-activations of each layer, the input's first. Shape (depth + 1,).
        gap: 1 - c for two inputs, kept apart since c has no digits left near 1. Shape (depth + 1,).
        chi: Squared gain of the gradient from layer l + 1 to layer l. Shape (depth,).
    """

    q: NDArray[np.float64]
    gap: NDArray[np.float64]
    chi: NDArray[np.float64]

    @property
    def c(self) -> NDArray[np.float64]:
        """Correlation of two inputs in each layer, shape (depth + 1,)."""
        return 1.0 - self.gap

    @property
    def log_gain(self) -> float:
        """Natural logarithm of the squared gain of the gradient from the last layer to the input."""
        return float(np.log(self.chi).sum()) if (self.chi > 0).all() else -math.inf


def second_moment(phi: Phi, q: float) -> float:
    """Return E φ(√q·z)².

    Raises:
        ValueError: If q is not a variance or two quadratures disagree by more than 1e-8.
    """
    a = find_activation(phi)
    return expect_checked(lambda x: a.value(x) ** 2, a, require_variance("q", q), "the second moment")


def slope_moment(phi: Phi, q: float, power: int = 1) -> float:
    """Return E φ'(√q·z)^(2·power).

    Raises:
        ValueError: If q is not a variance or two quadratures disagree by more than 1e-8.
    """
    a = find_activation(phi)
    require_count("power", power)
    return expect_checked(
        lambda x: a.slope(x) ** (2 * power), a, require_variance("q", q), "the slope moment"
    )


def variance_map(phi: Phi, q: float, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Return the variance one layer on: q' = sigma_w2·E φ(√q·z)² + sigma_b2.

    Raises:
        ValueError: If a variance is negative or not finite.

    References:
        Poole et al., Exponential expressivity in deep neural networks through transient chaos, 2016, eq. 3.
    """
    require_variance("sigma_b2", sigma_b2)
    return require_variance("sigma_w2", sigma_w2) * second_moment(phi, q) + sigma_b2


def correlation_map(phi: Phi, c: float, q: float, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Return the correlation one layer on, of two inputs of equal variance q and correlation c.

    Raises:
        ValueError: If c is no correlation, a variance is negative or not finite, or nothing is left.

    References:
        Poole et al. 2016, eq. 5.
    """
    require_correlation("c", c)
    require_variance("sigma_b2", sigma_b2)
    both = pair(find_activation(phi), require_positive("q", q))
    following = require_variance("sigma_w2", sigma_w2) * both.second + sigma_b2
    require_positive("the variance one layer on", following)
    return 1 - sigma_w2 * both.parting(1 - c) / following


def mean_field(phi: Phi, sigma_w2: float, sigma_b2: float = 0.0, q: float = 1.0) -> MeanField:
    """Return the fixed points, gains and length scales of a wide network.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        sigma_w2: Weight variance times fan-in.
        sigma_b2: Bias variance.
        q: Variance from which the signal starts; it decides where several fixed points exist, and is
            itself the fixed point where all are (ReLU at sigma_w2 = 2).

    Raises:
        ValueError: If a variance is negative or not finite, the variance grows without bound, or two
            quadratures disagree.

    Example:
        >>> field = mean_field("tanh", sigma_w2=2.5, sigma_b2=0.05)
        >>> round(field.q_star, 5), round(field.chi_1, 5), round(field.c_star, 5)
        (1.06396, 1.13352, 0.4468)
        >>> field.phase
        'chaotic'

    References:
        Fixed points: Poole et al. 2016, eq. 3 to 6. Length scales: Schoenholz et al., Deep information
        propagation, 2017, section on depth scales; xi_grad is infinite at criticality and negative in chaos.
    """
    a = find_activation(phi)
    require_variance("sigma_w2", sigma_w2)
    require_variance("sigma_b2", sigma_b2)
    require_positive("q", q)
    q_star = fixed_variance(a, sigma_w2, sigma_b2, q)
    # Never below -1/2, since d ln E φ²/d ln q = E φ²(z² - 1)/(2·E φ²): it settles, at worst in swings.
    chi_q = sigma_w2 * variance_slope(a, q_star)
    slope = slope_moment(a, q_star)
    chi_1 = sigma_w2 * slope
    c_star, chi_c = 1.0, chi_1
    if chi_1 > 1 + AT_CRITICAL and q_star > 0:
        gap, chi_c = pair(a, q_star, slope).fixed_gap(sigma_w2)
        c_star = 1 - gap
    phase: Phase = "critical" if abs(chi_1 - 1) <= AT_CRITICAL else "chaotic" if chi_1 > 1 else "ordered"
    xi_q, xi_c, xi_grad = (_length(rate) for rate in (abs(chi_q), chi_c, chi_1))
    return MeanField(a.name, sigma_w2, sigma_b2, q_star, chi_1, c_star, xi_q, xi_c, xi_grad, phase)


def propagate(
    phi: Phi, sigma_w2: float, sigma_b2: float = 0.0, q: float = 1.0, c: float = 0.0, depth: int = 1
) -> Propagation:
    """Follow the variance, the correlation of two inputs and the gradient through `depth` layers.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        sigma_w2: Weight variance times fan-in.
        sigma_b2: Bias variance.
        q: Variance of the pre-activations of the first layer, as the data sets it.
        c: Correlation there of two inputs.
        depth: Layers z' = W·φ(z) + b to follow.

    Raises:
        ValueError: If an argument is out of range, or the variance leaves the range of float64.

    Example:
        >>> path = propagate("relu", sigma_w2=2.0, q=1.0, c=0.0, depth=3)
        >>> path.c.round(4).tolist()
        [0.0, 0.3183, 0.4937, 0.6048]

    References:
        Poole et al. 2016, eq. 3 and 5; gradient: Schoenholz et al. 2017, section on backpropagation.
    """
    a = find_activation(phi)
    require_variance("sigma_w2", sigma_w2)
    require_variance("sigma_b2", sigma_b2)
    variances, gaps = [require_positive("q", q)], [1 - require_correlation("c", c)]
    gains = []
    for layer in range(require_count("depth", depth)):
        both = pair(a, variances[-1])
        following = sigma_w2 * both.second + sigma_b2
        if not 1e-280 < following < 1e280:
            raise ValueError(
                f"the variance of {a.name} leaves float64 at layer {layer + 1} of {depth}: {following:.3g}; "
                f"sigma_w2 = {sigma_w2:g} and sigma_b2 = {sigma_b2:g} keep no signal over that depth"
            )
        gains.append(sigma_w2 * both.slope)
        gaps.append(sigma_w2 * both.parting(gaps[-1]) / following)
        variances.append(following)
    return Propagation(np.array(variances), np.array(gaps), np.array(gains))


def _length(rate: float) -> float:
    if rate <= 0:
        return 0.0
    return math.inf if abs(rate - 1) <= AT_CRITICAL else -1 / math.log(rate)
