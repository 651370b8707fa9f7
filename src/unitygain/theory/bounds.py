"""What no input can exceed: bounds of layers and of steps. Gains here are plain (not squared) norms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from unitygain.theory._given import require_count, require_finite, require_positive, require_variance


@dataclass(frozen=True)
class NormBound:
    """How much a normalisation may amplify.

    Args:
        here: Largest singular value bound at the given token, max|γ|/s; attained where all γ are equal.
        supremum: The same over all tokens, max|γ|/√eps, approached by tokens that do not vary alone.
    """

    here: float
    supremum: float


def layer_norm_bound(variance: float, width: int, gamma: float = 1.0, eps: float = 1e-5) -> NormBound:
    """Return the largest gain of LayerNorm at a token of the given variance, and over all tokens.

    With s² = variance + eps the singular values at γ = 1 are 1/s (width - 2 times), eps/s³ and 0.

    Args:
        variance: Variance of the token's features (divided by width, not width - 1).
        width: Features.
        gamma: Largest |γ|.
        eps: The normalisation's eps.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> bound = layer_norm_bound(4.0, 64)
        >>> round(bound.here, 4), round(bound.supremum, 2)
        (0.5, 316.23)

    References:
        Derived from J = diag(γ)·(I - 11ᵀ/d - x̂x̂ᵀ/d)/s, with x̂ the normalised token.
    """
    return _norm_bound(variance, require_count("width", width), gamma, eps, 2)


def rms_norm_bound(mean_square: float, width: int, gamma: float = 1.0, eps: float = 1e-6) -> NormBound:
    """Return the largest gain of RMSNorm at a token of the given mean square, and over all tokens.

    With r² = mean_square + eps the singular values at γ = 1 are 1/r (width - 1 times) and eps/r³.

    Args:
        mean_square: Mean square of the token's features.
        width: Features.
        gamma: Largest |γ|.
        eps: The normalisation's eps; where torch's is None it is the eps of the input's dtype.

    Raises:
        ValueError: If a number is out of range.

    References:
        Derived as for `layer_norm_bound`; nothing is centred, so one direction alone is lost.
    """
    return _norm_bound(mean_square, require_count("width", width), gamma, eps, 1)


def _norm_bound(variance: float, width: int, gamma: float, eps: float, lost: int) -> NormBound:
    require_variance("gamma", gamma)
    spread = math.sqrt(require_variance("variance", variance) + require_positive("eps", eps))
    # Where the lost directions are all there is, only the one along the token is left, at eps/s³.
    along = 1.0 if width > lost or variance == 0 else eps / spread**2
    if width == 1 and lost == 2:
        along = 0.0
    return NormBound(gamma * along / spread, gamma * (along > 0) / math.sqrt(eps))


def softmax_bound(temperature: float = 1.0) -> float:
    """Return the largest gain of softmax(x/temperature): 1/(2·temperature), approached at (½, ½, 0, ...).

    Raises:
        ValueError: If the temperature is not above 0.

    References:
        ‖diag(p) - ppᵀ‖ <= ½: Nair, Softmax is 1/2-Lipschitz, 2025.
    """
    return 0.5 / require_positive("temperature", temperature)


def softmax_gain(probabilities: Sequence[float]) -> float:
    """Return ‖diag(p) - ppᵀ‖, the gain of softmax where its output is p; 1/n where p is uniform.

    Raises:
        ValueError: If p is no distribution.

    Example:
        >>> softmax_gain([0.5, 0.5])
        0.5
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 1 or not p.size:
        raise ValueError(f"probabilities have shape {p.shape}; give at least one, in a row")
    if not (p >= 0).all() or not abs(p.sum() - 1) < 1e-6:
        raise ValueError(f"probabilities sum to {p.sum():g} with least {p.min():g}; give a distribution")
    return float(np.linalg.eigvalsh(np.diag(p) - np.outer(p, p))[-1])


def attention_gain_at(radius: float, width: int) -> float:
    """Return a gain that dot-product attention reaches on tokens of norm up to `radius`: no bound exists.

    At the tokens 0, x, -x the output at 0 moves with gain 1/3 + 2·radius²/(3·√width) along x.

    Args:
        radius: Norm of x.
        width: Features of a head.

    Raises:
        ValueError: If a number is out of range.

    References:
        Kim, Papamakarios and Mnih, The Lipschitz constant of self-attention, 2021, theorem 3.1; the value
        derived here for identity projections.
    """
    length = require_variance("radius", radius)
    return 1 / 3 + 2 * length * length / (3 * math.sqrt(require_count("width", width)))


def decayed_radius(radius: float, learning_rate: float, weight_decay: float, steps: int) -> float:
    """Return the spectral radius (or any norm) of a weight after `steps` of decay alone.

    Args:
        radius: Where it starts.
        learning_rate: η.
        weight_decay: λ, of SGD or decoupled.
        steps: Steps in which the gradient is negligible.

    Raises:
        ValueError: If a number is out of range.

    References:
        W ← (1 - ηλ)·W: Loshchilov and Hutter, Decoupled weight decay regularization, 2019, eq. 1.
    """
    return require_variance("radius", radius) * _decay(learning_rate, weight_decay) ** require_count(
        "steps", steps, 0
    )


def steps_to_radius(radius: float, target: float, learning_rate: float, weight_decay: float) -> int:
    """Return after how many steps of decay alone the radius is at or below `target`.

    Raises:
        ValueError: If a number is out of range or nothing decays.

    References:
        Loshchilov and Hutter 2019, eq. 1, solved for the steps.
    """
    decay = _decay(learning_rate, weight_decay)
    if require_positive("target", target) >= require_positive("radius", radius):
        return 0
    if decay == 1:
        raise ValueError(
            f"learning_rate {learning_rate:g} and weight_decay {weight_decay:g} decay nothing; "
            f"the radius stays at {radius:g}"
        )
    return math.ceil(math.log(target / radius) / math.log(decay)) if decay > 0 else 1


def _decay(learning_rate: float, weight_decay: float) -> float:
    decay = 1 - require_variance("learning_rate", learning_rate) * require_variance(
        "weight_decay", weight_decay
    )
    if decay < 0:
        raise ValueError(f"learning_rate·weight_decay is {1 - decay:g}; above 1 the weights change sign")
    return decay


def euler_growth(step: float, eigenvalues: ArrayLike) -> float:
    """Return max|1 + h·λ|, the growth per block of x + h·F(x) near a fixed point; stable at 1 or below.

    Args:
        step: h.
        eigenvalues: Eigenvalues λ of F's Jacobian, complex allowed, any shape.

    Raises:
        ValueError: If a number is not finite.

    References:
        Haber and Ruthotto, Stable architectures for deep neural networks, 2017.
    """
    values = _eigenvalues(eigenvalues)
    return float(np.abs(1 + require_finite("step", step) * values).max())


def largest_euler_step(eigenvalues: ArrayLike) -> float:
    """Return the largest stable step h: min of -2·Re λ/|λ|²; 0 where an eigenvalue has no negative real part.

    Raises:
        ValueError: If a number is not finite.

    Example:
        >>> largest_euler_step([-4.0, -1.0])
        0.5

    References:
        |1 + hλ|² = 1 + 2h·Re λ + h²·|λ|² <= 1, solved for h.
    """
    values = _eigenvalues(eigenvalues)
    moving = values[values != 0]
    return float(max(0.0, (-2 * np.real(moving) / np.abs(moving) ** 2).min())) if moving.size else math.inf


def _eigenvalues(eigenvalues: ArrayLike) -> np.ndarray:
    values = np.asarray(eigenvalues, dtype=np.complex128).ravel()
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"eigenvalues are {values.tolist()}; give at least one finite number")
    return values
