"""The gradient noise scale from gradients of two batch sizes."""

from dataclasses import dataclass

from unitygain.theory._given import require_positive, require_variance


@dataclass(frozen=True)
class GradientNoise:
    """Estimates from two batch sizes; each is unbiased, their ratio is not.

    Args:
        signal: Estimate of |G|², the square of the true gradient; below zero where noise hides it.
        noise: Estimate of tr Σ, the variance of one example's gradient; below zero by chance alone.
        scale: noise/signal, the batch size at which both are equal; None where an estimate is not above zero.
    """

    signal: float
    noise: float
    scale: float | None


def gradient_noise(
    small_batch: float, large_batch: float, small_square: float, large_square: float
) -> GradientNoise:
    """Return the noise scale from squared gradient norms at two batch sizes.

    Average the squares over many steps before, or `signal` and `noise` over steps after: never the ratio.

    Args:
        small_batch: Examples in the small batch.
        large_batch: Examples in the large batch.
        small_square: Squared norm of the gradient of the small batch, averaged.
        large_square: The same of the large batch.

    Raises:
        ValueError: If a number is out of range or the batches are not of different size.

    Example:
        >>> gradient_noise(8, 64, 2.0, 1.125).scale
        8.0

    References:
        McCandlish et al., An empirical model of large-batch training, 2018, appendix A.1, eq. A.2.
    """
    require_positive("small_batch", small_batch)
    if not require_positive("large_batch", large_batch) > small_batch:
        raise ValueError(f"large_batch is {large_batch:g} and small_batch {small_batch:g}; it must be larger")
    require_variance("small_square", small_square)
    require_variance("large_square", large_square)
    share = small_batch / large_batch
    signal = (large_square - share * small_square) / (1 - share)
    noise = (small_square - large_square) / (1 / small_batch - 1 / large_batch)
    return GradientNoise(signal, noise, noise / signal if min(signal, noise) > 0 else None)
