"""Gradients of generators against a discriminator that wins."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from unitygain.theory._given import require_finite, require_variance

# From here on exp(-theta²/8) is zero in float64.
PARTED = 80.0


@dataclass(frozen=True)
class GeneratorGradient:
    """dL/da of the generator's losses at a discriminator logit a = logit D(G(z)).

    Args:
        saturating: Of log(1 - D).
        non_saturating: Of -log D.
        wasserstein: Of -a.
    """

    saturating: float
    non_saturating: float
    wasserstein: float


def generator_gradient(logit: float) -> GeneratorGradient:
    """Return what reaches the generator through one discriminator logit.

    Args:
        logit: a; far below zero the discriminator is sure that the sample is fake.

    Raises:
        ValueError: If the logit is not finite.

    Example:
        >>> gradient = generator_gradient(-10.0)
        >>> round(gradient.saturating, 9), round(gradient.non_saturating, 5)
        (-4.5398e-05, -0.99995)

    References:
        Goodfellow et al., Generative adversarial nets, 2014, section 3; Arjovsky and Bottou, Towards
        principled methods for training generative adversarial networks, 2017, section 2.2.
    """
    fooled = float(special.expit(require_finite("logit", logit)))
    return GeneratorGradient(-fooled, -float(special.expit(-logit)), -1.0)


@dataclass(frozen=True)
class Divergences:
    """Distances of the uniform laws on {0} x [0, 1] and {theta} x [0, 1], and their slopes by theta.

    Args:
        jensen_shannon: ln 2 for every theta but 0.
        kullback_leibler: Infinite for every theta but 0.
        wasserstein: |theta|.
        wasserstein_slope: ±1, where the others' slope is 0 or undefined; 0 at theta = 0.
    """

    jensen_shannon: float
    kullback_leibler: float
    wasserstein: float
    wasserstein_slope: float


def parallel_lines(theta: float) -> Divergences:
    """Return the divergences of two laws on parallel lines at distance theta: only one shows the way.

    Raises:
        ValueError: If theta is not finite.

    References:
        Arjovsky, Chintala and Bottou, Wasserstein generative adversarial networks, 2017, example 1.
    """
    require_finite("theta", theta)
    if theta == 0:
        return Divergences(0.0, 0.0, 0.0, 0.0)
    return Divergences(math.log(2), math.inf, abs(theta), math.copysign(1.0, theta))


def value_at_optimal_discriminator(jensen_shannon: float) -> float:
    """Return the game's value at the best discriminator: -2·ln 2 + 2·JSD, from -1.386 (equal laws) up to 0.

    Raises:
        ValueError: If the divergence is not in [0, ln 2].

    References:
        Goodfellow et al. 2014, theorem 1.
    """
    if require_variance("jensen_shannon", jensen_shannon) > math.log(2) * (1 + 1e-12):
        raise ValueError(f"jensen_shannon is {jensen_shannon:g}; it is at most ln 2 = 0.693")
    return -2 * math.log(2) + 2 * jensen_shannon


@dataclass(frozen=True)
class GaussianDivergences:
    """Distances of two normal laws of variance 1 at a distance theta, and their slopes by theta.

    Args:
        jensen_shannon: From 0 up to ln 2.
        jensen_shannon_slope: Largest near theta = 1.6; dies out as exp(-theta²/8) where the laws part.
        wasserstein: |theta|.
        wasserstein_slope: ±1; 0 at theta = 0.
    """

    jensen_shannon: float
    jensen_shannon_slope: float
    wasserstein: float
    wasserstein_slope: float


def gaussian_divergences(theta: float) -> GaussianDivergences:
    """Return what a generator at distance theta from the data would follow, at the best discriminator.

    The slope of Jensen and Shannon's divergence is the gradient of the saturating loss under the best
    discriminator, halved: not zero as on `parallel_lines`, but beyond computing once the laws are apart.

    Args:
        theta: Distance of the means.

    Raises:
        ValueError: If theta is not finite.

    Example:
        >>> [float(f"{gaussian_divergences(theta).jensen_shannon_slope:.1e}") for theta in (1.0, 2.0, 20.0)]
        [0.2, 0.22, 1.2e-22]

    References:
        Goodfellow et al. 2014, theorem 1; Arjovsky and Bottou 2017, section 2. With p and q the two laws,
        JSD = (1/2)·∫p·ln(2p/(p+q)) + (1/2)·∫q·ln(2q/(p+q)), and its slope is (1/2)·∫(∂q/∂theta)·ln(2q/(p+q)).
    """
    apart = abs(require_finite("theta", theta))
    sign = math.copysign(1.0, theta)
    if apart == 0:
        return GaussianDivergences(0.0, 0.0, 0.0, 0.0)
    if apart > PARTED:
        return GaussianDivergences(math.log(2), sign * 0.0, apart, sign)
    # Both laws from the middle: beyond 12 standard deviations of it and of both means nothing is left.
    half = apart / 2
    x = np.linspace(-half - 12, half + 12, 8001)
    log_p, log_q = -((x + half) ** 2) / 2, -((x - half) ** 2) / 2
    log_sum = np.logaddexp(log_p, log_q)
    p, q = np.exp(log_p) / math.sqrt(2 * math.pi), np.exp(log_q) / math.sqrt(2 * math.pi)
    step = float(x[1] - x[0])
    value = step * float(np.sum(p * (log_p - log_sum) + q * (log_q - log_sum))) / 2 + math.log(2)
    # By parts, with ∂q/∂theta = -∂q/∂x and d/dx ln(2q/(p+q)) = theta·p/(p+q): nothing cancels.
    slope = step * float(np.sum(np.exp(log_p + log_q - log_sum))) * apart / (2 * math.sqrt(2 * math.pi))
    return GaussianDivergences(max(0.0, value), sign * slope, apart, sign)
