"""Gradients of generators against a discriminator that wins."""

import math
from dataclasses import dataclass

from scipy import special

from unitygain.theory._given import require_finite, require_variance


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
