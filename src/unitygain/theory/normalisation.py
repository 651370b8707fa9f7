"""What normalisation does to gradients of wide networks at initialisation. Every rate is squared."""

import math
from dataclasses import dataclass

import numpy as np

from unitygain.theory._given import (
    require_correlation,
    require_count,
    require_positive,
    require_variance,
)
from unitygain.theory.activations import Activation, find_activation
from unitygain.theory.correlation import pair
from unitygain.theory.gaussian import expect_checked
from unitygain.theory.mean_field import Phi, Propagation, second_moment, slope_moment
from unitygain.theory.variance import variance_slope

MARGIN = 1e-6


@dataclass(frozen=True)
class BatchNormRate:
    """The squared gain of the gradient per layer of a deep network with batch normalisation.

    Args:
        phi: Name of the activation.
        batch: Size of the batch; None for an infinite one.
        rate: Squared gain per layer towards the input; at least 1.
        stability: Rate lambda_L at which differences of norm between samples change per layer. At 1 or
            below (up to rounding) all samples settle at the same norm, as the formula assumes.
    """

    phi: str
    batch: int | None
    rate: float
    stability: float


def layer_norm_rate(phi: Phi, sigma_w2: float = 1.0, sigma_b2: float = 0.0, gamma: float = 1.0) -> float:
    """Return the squared gain of the gradient per layer of z' = W·φ(γ·LN(z)) + b; RMSNorm is the same.

    Without bias it is γ²·E φ'(γz)²/E φ(γz)², whatever sigma_w2 is.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        sigma_w2: Weight variance times fan-in.
        sigma_b2: Bias variance.
        gamma: Gain of the normalisation.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> round(layer_norm_rate("relu"), 6), round(layer_norm_rate("tanh"), 6)
        (1.0, 1.177807)

    References:
        Derived: chi = sigma_w2·E φ'²·(1/q), since LN divides the gradient by the standard deviation √q, and
        q = sigma_w2·E φ² + sigma_b2. What LN projects out, two directions of n, is dropped.
    """
    require_positive("sigma_w2", sigma_w2)
    require_variance("sigma_b2", sigma_b2)
    scale = require_positive("gamma", gamma) ** 2
    variance = require_positive("the variance behind phi", sigma_w2 * second_moment(phi, scale) + sigma_b2)
    return sigma_w2 * scale * slope_moment(phi, scale) / variance


def batch_norm_stability(phi: Phi) -> float:
    """Return lambda_L, the rate at which samples' norms part from each other under batch normalisation.

    A sample of variance q among others of variance 1 leaves the layer with (M2(q) - 2·m1(q)·m1(1) +
    m1(1)²)/Var φ; lambda_L is the derivative at q = 1. Above 1 the samples split and no formula for
    the symmetric state holds.

    Raises:
        ValueError: If two quadratures disagree.

    References:
        Derived; the eigenvalue of the same direction in Yang et al., A mean field theory of batch
        normalization, 2019.
    """
    a = find_activation(phi)
    mean, variance = _mean_and_variance(a)
    drift = expect_checked(lambda x: a.slope(x) * x, a, 1.0, "the slope of the mean")
    return (variance_slope(a, 1.0) - mean * drift) / variance


def batch_norm_rate(phi: Phi, batch: int | None = None) -> BatchNormRate:
    """Return the squared gain of the gradient per layer of z' = W·φ(BN(z)).

    For an infinite batch it is E φ'²/Var φ = Σk·a_k²/Σa_k² over Hermite coefficients k >= 1: 1 for the
    identity alone, above 1 for every other activation. No choice of sigma_w2 changes it.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        batch: Samples per batch, at least 4; None for infinitely many. Finite for piecewise linear φ only.

    Raises:
        ValueError: If samples' norms part from each other, so that the formula does not hold (GELU,
            SiLU, softplus, Mish), or if `batch` is too small or finite for another φ.

    Example:
        >>> round(batch_norm_rate("relu").rate, 6), round(batch_norm_rate("relu", 8).rate, 4)
        (1.466942, 1.7882)

    References:
        Yang et al. 2019, theorem 8 (finite batch, positively homogeneous φ); infinite batch: corollary.
    """
    a = find_activation(phi)
    stability = batch_norm_stability(a)
    if stability > 1 + MARGIN:
        raise ValueError(
            f"no rate is given for {a.name} with batch normalisation: differences of norm between samples "
            f"grow by {stability:.4f} per layer (lambda_L), and the state that the formula assumes is left; "
            "measure it"
        )
    if batch is None:
        _, variance = _mean_and_variance(a)
        return BatchNormRate(a.name, None, slope_moment(a, 1.0) / variance, stability)
    if a.rays is None:
        raise ValueError(
            f"batch is {batch}, and the finite-batch rate is known for piecewise linear activations only, "
            f"not for {a.name}; leave batch out"
        )
    require_count("batch", batch, 4)
    apart = 1 + 1 / (batch - 1)
    both = pair(a, 1.0)
    # J is the correlation map with J(1) = 1, taken at c = -1/(B-1), which centring a batch leaves.
    one_less, slope = both.parting(apart) / both.second, both.cross_slope(apart) / both.second
    rate = (slope + batch - 1) / ((batch - 3) * one_less) - 1 / (batch - 3)
    return BatchNormRate(a.name, batch, rate, stability)


def pre_norm(
    phi: Phi,
    sigma_in2: float = 1.0,
    sigma_out2: float = 1.0,
    q: float = 1.0,
    c: float = 0.0,
    depth: int = 1,
) -> Propagation:
    """Follow variance, correlation and gradient through x' = x + W₂·φ(W₁·LN(x)) (Pre-LN, feed-forward).

    The variance grows by a constant per block, so the gradient grows towards the input as a power of
    depth, not exponentially: for ReLU its squared gain is q_L/q_0.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        sigma_in2: Variance of W₁ times its fan-in.
        sigma_out2: Variance of W₂ times its fan-in.
        q: Variance of the input.
        c: Correlation of two inputs.
        depth: Blocks.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> path = pre_norm("relu", depth=48)
        >>> round(float(path.q[-1]), 6), round(math.exp(path.log_gain), 6)
        (25.0, 25.0)

    References:
        Xiong et al., On layer normalization in the transformer architecture, 2020 (Pre-LN
        variance); the gradient derived: chi = 1 + sigma_in2·sigma_out2·E φ'²/q.
    """
    a = find_activation(phi)
    inner, outer = require_positive("sigma_in2", sigma_in2), require_variance("sigma_out2", sigma_out2)
    both = pair(a, inner)
    variances, gaps, gains = [require_positive("q", q)], [1 - require_correlation("c", c)], []
    for _ in range(require_count("depth", depth)):
        following = variances[-1] + outer * both.second
        parted = variances[-1] * gaps[-1] + outer * both.parting(gaps[-1])
        gains.append(1 + inner * outer * both.slope / variances[-1])
        gaps.append(parted / following)
        variances.append(following)
    return Propagation(np.array(variances), np.array(gaps), np.array(gains))


def post_norm_rate(phi: Phi, sigma_in2: float = 1.0, sigma_out2: float = 1.0) -> float:
    """Return the squared gain of the gradient per block of x' = LN(x + W₂·φ(W₁·x)) (Post-LN, feed-forward).

    The branch adds b = sigma_in2·sigma_out2·E φ'² to the gradient and a = sigma_out2·E φ² to the variance:
    (1 + b)/(1 + a), which is 1 for ReLU. That Post-LN stacks lose their gradient is the attention's doing.

    Raises:
        ValueError: If a number is out of range.

    References:
        Derived from the same independence as Xiong et al. 2020.
    """
    inner, outer = require_positive("sigma_in2", sigma_in2), require_variance("sigma_out2", sigma_out2)
    gain, variance = inner * outer * slope_moment(phi, inner), outer * second_moment(phi, inner)
    return (1 + gain) / (1 + variance)


def _mean_and_variance(a: Activation) -> tuple[float, float]:
    mean = expect_checked(a.value, a, 1.0, "the mean")
    variance = expect_checked(lambda x: (a.value(x) - mean) ** 2, a, 1.0, "the variance")
    if not variance > 0 or not math.isfinite(variance):
        raise ValueError(f"{a.name} has variance {variance!r} for a standard normal input; it must vary")
    return mean, variance
