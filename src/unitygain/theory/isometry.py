"""Spectra of whole networks at criticality: how far the Jacobian is from an isometry."""

import math

from unitygain.theory._given import require_count, require_variance
from unitygain.theory.mean_field import Phi, slope_moment


def spectral_variance(phi: Phi, q: float, depth: int, orthogonal: bool) -> float:
    """Return the variance of the squared singular values of a critical network's Jacobian, over their mean.

    The mean of the squares is 1 at criticality. Zero is dynamical isometry: all directions pass alike.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        q: Variance of the pre-activations, the same in every layer.
        depth: Layers.
        orthogonal: Whether the weights are scaled orthogonal, not Gaussian.

    Raises:
        ValueError: If a number is out of range, or φ has no slope.

    Example:
        >>> round(spectral_variance("relu", 1.0, 4, orthogonal=False), 6)
        8.0
        >>> round(spectral_variance("tanh", 1 / 64, 16, orthogonal=True), 3)
        0.027

    References:
        Pennington, Schoenholz and Ganguli, Resurrecting the sigmoid, 2017: L·(μ₂/μ₁² - 1 - s₁), with
        μ_k = E φ'^(2k), s₁ = 0 for orthogonal weights and -1 for Gaussian ones.
    """
    require_variance("q", q)
    require_count("depth", depth)
    square = slope_moment(phi, q)
    if not square > 0:
        raise ValueError(f"the slope of phi is zero everywhere at q = {q:g}; no direction passes")
    spread = slope_moment(phi, q, 2) / square**2 - 1
    return depth * (spread + (0.0 if orthogonal else 1.0))


def gaussian_product_edge(depth: int) -> float:
    """Return the largest squared singular value of a product of wide Gaussian matrices of unit gain.

    It is (L+1)^(L+1)/L^L, about e·(L + 1/2), where the mean square stays 1.

    Raises:
        ValueError: If `depth` is no count.

    Example:
        >>> gaussian_product_edge(1)
        4.0

    References:
        Burda, Janik and Waclaw, Spectrum of the product of independent random Gaussian matrices, 2010; Penson
        and Zyczkowski, Product of Ginibre matrices: Fuss-Catalan and Raney distributions, 2011.
    """
    require_count("depth", depth)
    return (depth + 1) * math.exp(depth * math.log1p(1 / depth))


def gaussian_log_condition(width: int) -> float:
    """Return the mean natural logarithm of the condition number of a square Gaussian matrix: ln n + 1.537.

    Raises:
        ValueError: If `width` is no count.

    References:
        Edelman, Eigenvalues and condition numbers of random matrices, 1988, on E ln κ; for large width.
    """
    return math.log(require_count("width", width)) + 1.537
