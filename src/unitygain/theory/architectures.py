"""What skips, sums and concatenations do to signals and gradients of wide networks at initialisation.

Every gain is a squared one. Branch weights are independent of what enters the branch and have mean zero,
so that squares add: a negative branch and a positive one are the same here.
"""

import math

import numpy as np

from unitygain.theory._given import (
    require_correlation,
    require_count,
    require_finite,
    require_positive,
    require_variance,
)
from unitygain.theory.activations import find_activation
from unitygain.theory.correlation import pair
from unitygain.theory.mean_field import Phi, Propagation


def residual_gain(branch_gain: float, branch_scale: float = 1.0, skip: float = 1.0) -> float:
    """Return the squared gain of skip·x + branch_scale·F(x): skip² + branch_scale²·branch_gain.

    Args:
        branch_gain: Squared gain of F alone.
        branch_scale: Number that multiplies the branch.
        skip: Number that multiplies the skip.

    Raises:
        ValueError: If a number is not finite or the gain is negative.

    Example:
        >>> residual_gain(0.5), residual_gain(0.5, branch_scale=0.1)
        (1.5, 1.005)

    References:
        Yang and Schoenholz, Mean field residual networks: on the edge of chaos, 2017;
        Hanin and Rolnick, How to start training, 2018, on residual networks.
    """
    require_variance("branch_gain", branch_gain)
    scale, kept = require_finite("branch_scale", branch_scale), require_finite("skip", skip)
    return kept * kept + scale * scale * branch_gain


def residual_depth_gain(branch_gain: float, depth: int, branch_scale: float | None = None) -> float:
    """Return the squared gain of `depth` residual blocks; with no scale given, of scale 1/√depth.

    At scale 1/√depth it stays below exp(branch_gain) at any depth.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> round(residual_depth_gain(1.0, 1000), 4)
        2.7169

    References:
        Hanin and Rolnick 2018, on residual networks: bounded where the squared scales have a bounded sum.
    """
    require_count("depth", depth)
    scale = 1 / math.sqrt(depth) if branch_scale is None else branch_scale
    logarithm = depth * math.log(residual_gain(branch_gain, scale))
    return math.exp(logarithm) if logarithm < 709 else math.inf


def residual(
    phi: Phi,
    sigma_w2: float,
    sigma_b2: float = 0.0,
    q: float = 1.0,
    c: float = 0.0,
    depth: int = 1,
    branch_scale: float = 1.0,
    skip: float = 1.0,
) -> Propagation:
    """Follow variance, correlation and gradient through x' = skip·x + branch_scale·(W·φ(x) + b).

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        sigma_w2: Weight variance times fan-in.
        sigma_b2: Bias variance.
        q: Variance of the input.
        c: Correlation of two inputs.
        depth: Blocks.
        branch_scale: Number that multiplies the branch.
        skip: Number that multiplies the skip.

    Raises:
        ValueError: If an argument is out of range, or the variance leaves the range of float64.

    Example:
        >>> residual("relu", sigma_w2=1.0, q=1.0, depth=2).q.tolist()
        [1.0, 1.5, 2.25]

    References:
        Yang and Schoenholz 2017, recursions of the reduced residual network.
    """
    a = find_activation(phi)
    require_variance("sigma_w2", sigma_w2)
    require_variance("sigma_b2", sigma_b2)
    variances, gaps, gains = [require_positive("q", q)], [1 - require_correlation("c", c)], []
    kept, scale = require_finite("skip", skip) ** 2, require_finite("branch_scale", branch_scale) ** 2
    for block in range(require_count("depth", depth)):
        both = pair(a, variances[-1])
        following = kept * both.q + scale * (sigma_w2 * both.second + sigma_b2)
        if not 1e-280 < following < 1e280:
            raise ValueError(
                f"the variance leaves float64 at block {block + 1} of {depth}: {following:.3g}; "
                "lower branch_scale or sigma_w2"
            )
        gains.append(residual_gain(sigma_w2 * both.slope, branch_scale, skip))
        parted = kept * both.q * gaps[-1] + scale * sigma_w2 * both.parting(gaps[-1])
        gaps.append(parted / following)
        variances.append(following)
    return Propagation(np.array(variances), np.array(gaps), np.array(gains))


def concatenation_gain(branch_gain: float, skip: float = 1.0) -> float:
    """Return ‖J·v‖²/‖v‖² of [skip·x, F(x)]: skip² + branch_gain, exact for every v and every F.

    The same number bounds the largest singular value: σ² <= skip² + σ(F)².

    Raises:
        ValueError: If a number is not finite or the gain is negative.

    References:
        The squares of the two stacked parts add; no assumption on the weights is needed.
    """
    return require_finite("skip", skip) ** 2 + require_variance("branch_gain", branch_gain)
