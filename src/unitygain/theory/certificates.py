"""Norms of convolutions, exact on a circle and certified with zero padding. Numbers are plain norms."""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from unitygain.theory._given import require_count

Kernel = NDArray[np.float64]


def circular_norm(kernel: Kernel, size: tuple[int, ...]) -> float:
    """Return the largest singular value of a stride-1 convolution that wraps around; exact.

    Args:
        kernel: Weights, shape (channels out, channels in, *taps).
        size: Input size per dimension, at least the taps.

    Raises:
        ValueError: If shapes do not fit or a weight is not finite.

    Cost: an SVD of (channels out x channels in) per frequency.

    Example:
        >>> float(round(circular_norm(np.full((1, 1, 3, 3), 1 / 9), (8, 8)), 12))
        1.0

    References:
        Sedghi, Gupta and Long, The singular values of convolutional layers, 2019, theorem 6.
    """
    return float(np.linalg.norm(_symbols(kernel, size), ord=2, axis=(-2, -1)).max())


def zero_padded_bound(kernel: Kernel, size: tuple[int, ...]) -> float:
    """Return a number that the norm of the zero-padded convolution cannot exceed, at any stride.

    A zero-padded convolution on n is a part (rows and columns) of the circular one on n + k - 1.

    Args:
        kernel: Weights, shape (channels out, channels in, *taps).
        size: Input size per dimension.

    Raises:
        ValueError: If shapes do not fit or a weight is not finite.

    References:
        Compression: a submatrix has no larger norm than the matrix; with Sedghi et al. 2019, theorem 6.
    """
    checked = _kernel(kernel, len(size))
    larger = tuple(n + k - 1 for n, k in zip(size, checked.shape[2:], strict=True))
    return circular_norm(checked, larger)


def gram_bound(kernel: Kernel, size: tuple[int, ...], steps: int = 6) -> float:
    """Return an upper bound of `circular_norm` by iterating G ← GᴴG; each step squares the excess away.

    After t steps it is max over frequencies of ‖G_t‖_F^(1/2^t), at most rank^(1/2^(t+1)) too large.

    Args:
        kernel: Weights, shape (channels out, channels in, *taps).
        size: Input size per dimension, at least the taps.
        steps: Iterations; 0 is the Frobenius norm per frequency.

    Raises:
        ValueError: If shapes do not fit or a weight is not finite.

    References:
        Delattre, Barthélemy, Araujo and Allauzen, Efficient bound of Lipschitz constant for convolutional
        layers by Gram iteration, 2023.
    """
    gram = _symbols(kernel, size)
    logs = np.zeros(gram.shape[0])
    for _ in range(require_count("steps", steps, 0)):
        scale = np.linalg.norm(gram, axis=(-2, -1))
        scale = np.where(scale > 0, scale, 1.0)
        # G = scale·H: the logarithm of the scale doubles with every product, and H stays in range.
        logs = 2 * (logs + np.log(scale))
        unit = gram / scale[:, None, None]
        gram = unit.conj().swapaxes(-2, -1) @ unit
    last = np.linalg.norm(gram, axis=(-2, -1))
    if not (last > 0).any():
        return 0.0
    return float(
        np.exp(((logs + np.log(last, where=last > 0, out=np.full_like(last, -np.inf))) / 2**steps).max())
    )


def reshaped_norm(kernel: Kernel) -> float:
    """Return the norm of the kernel as a matrix (channels out x channels in·taps), which is not the layer's.

    It is what ``torch.nn.utils.parametrizations.spectral_norm`` sets to 1. The layer's own norm lies
    between it and √taps times it.

    Raises:
        ValueError: If the kernel has no taps or a weight is not finite.

    References:
        Miyato et al., Spectral normalization for generative adversarial networks, 2018;
        the factor: Singla and Feizi, Fantastic four, 2021.
    """
    checked = _kernel(kernel, np.ndim(kernel) - 2)
    return float(np.linalg.norm(checked.reshape(checked.shape[0], -1), 2))


def _symbols(kernel: Kernel, size: tuple[int, ...]) -> NDArray[np.complex128]:
    """The matrix (channels out x channels in) of every frequency, frequencies first."""
    checked = _kernel(kernel, len(size))
    taps = checked.shape[2:]
    size = tuple(require_count("size", n) for n in size)
    if any(n < k for n, k in itertools.zip_longest(size, taps, fillvalue=0)):
        raise ValueError(f"size is {size} and the kernel has taps {taps}; the input must hold the kernel")
    spectrum = np.fft.fftn(checked, s=size, axes=tuple(range(2, checked.ndim)))
    return np.moveaxis(spectrum, (0, 1), (-2, -1)).reshape(math.prod(size), *checked.shape[:2])


def _kernel(kernel: Kernel, dimensions: int) -> Kernel:
    if np.iscomplexobj(kernel):
        raise ValueError("the kernel is complex; give real weights")
    checked = np.asarray(kernel, dtype=np.float64)
    shaped = checked.ndim == 2 + dimensions and dimensions >= 1 and checked.size > 0
    if not shaped or not np.isfinite(checked).all():
        raise ValueError(
            f"the kernel has shape {checked.shape}; give finite weights (channels out, channels in, taps) "
            f"with {max(dimensions, 1)} dimensions of taps"
        )
    return checked
