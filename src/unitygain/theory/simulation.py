"""The null law by simulation: gains of random ReLU networks where no exact law is known."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unitygain.theory._given import require_count, require_positive
from unitygain.theory.null import GainLaw, simulated_law

Array = NDArray[np.float64]
Weights = Literal["gaussian", "uniform", "orthogonal"]
Direction = Literal["forward", "backward"]

CHUNK_NUMBERS = 2**22


def simulate_relu_gain(
    widths: Sequence[int],
    weights: Weights = "gaussian",
    direction: Direction = "forward",
    *,
    gain: float = 1.0,
    probes: int = 1,
    batch: int = 1,
    draws: int = 1000,
    seed: int = 0,
) -> GainLaw:
    """Return the law of the squared gain, per entry, of random ReLU layers z' = relu(W·z) without bias.

    Each draw is one network: fresh weights, `batch` Gaussian inputs, `probes` Gaussian directions for each
    input, pushed through the Jacobian forward or backward; squares are averaged over both.

    Args:
        widths: Inputs of the first layer, then outputs of each.
        weights: Law of the weights; variance 2·gain/fan_in for each of them.
        direction: ``forward`` (J·v) or ``backward`` (Jᵀ·u).
        gain: Mean squared gain per layer forward: fan_in·variance/2, 1 for He's.
        probes: Directions per input.
        batch: Inputs.
        draws: Networks.
        seed: Seed of the draws; the same one gives the same law.

    Raises:
        ValueError: If a number is out of range, or a network let nothing pass.

    Cost: draws·Σ n·n' random numbers (and a QR of that size each for orthogonal weights).

    Example:
        >>> law = simulate_relu_gain([64] * 11, "orthogonal", draws=200)
        >>> law.method, law.draws, law.variance_log < 10 * 5 / 64
        ('simulated', 200, True)
    """
    sizes = [require_count("widths", width) for width in widths]
    if len(sizes) < 2:
        raise ValueError(f"widths is {sizes}; give the inputs and at least one layer's outputs")
    for name, count in (("probes", probes), ("batch", batch), ("draws", draws)):
        require_count(name, count)
    if weights not in {"gaussian", "uniform", "orthogonal"} or direction not in {"forward", "backward"}:
        raise ValueError(
            f"weights is {weights!r} and direction {direction!r}; use gaussian, uniform or orthogonal, and "
            "forward or backward"
        )
    scale = math.sqrt(2 * require_positive("gain", gain))
    generator = np.random.default_rng(seed)
    at_once = max(1, CHUNK_NUMBERS // sum(a * b for a, b in itertools.pairwise(sizes)))
    logs: list[float] = []
    while len(logs) < draws:
        count = min(at_once, draws - len(logs))
        gains = _draw_gains(generator, sizes, weights, direction, scale, (count, batch, probes))
        if not (gains > 0).all():
            raise ValueError(f"a network of widths {sizes} let nothing pass; give wider layers")
        logs += np.log(gains).tolist()
    return simulated_law(logs)


def _draw_gains(
    generator: np.random.Generator,
    sizes: list[int],
    weights: Weights,
    direction: Direction,
    scale: float,
    shape: tuple[int, int, int],
) -> Array:
    count, batch, probes = shape
    state = generator.normal(size=(count, batch, sizes[0]))
    tangent = generator.normal(size=(count, batch, probes, sizes[0]))
    start = (tangent**2).mean(axis=(1, 2, 3))
    layers: list[tuple[Array, NDArray[np.bool_]]] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        weight = scale * _draw_weights(generator, weights, (count, fan_out, fan_in))
        state = state @ weight.swapaxes(1, 2)
        open_ = (state > 0)[:, :, None, :]
        state = np.maximum(state, 0)
        if direction == "forward":
            tangent = (tangent @ weight.swapaxes(1, 2)[:, None]) * open_
        else:
            layers.append((weight, open_))
    if direction == "forward":
        return (tangent**2).mean(axis=(1, 2, 3)) / start
    cotangent = generator.normal(size=(count, batch, probes, sizes[-1]))
    start = (cotangent**2).mean(axis=(1, 2, 3))
    for weight, open_ in reversed(layers):
        cotangent = (cotangent * open_) @ weight[:, None]
    return (cotangent**2).mean(axis=(1, 2, 3)) / start


def _draw_weights(generator: np.random.Generator, weights: Weights, shape: tuple[int, int, int]) -> Array:
    """Weights of variance 1/fan_in, shape (count, fan_out, fan_in)."""
    _, fan_out, fan_in = shape
    if weights == "uniform":
        return generator.uniform(-1, 1, size=shape) * math.sqrt(3 / fan_in)
    drawn = generator.normal(size=shape)
    if weights == "gaussian":
        return drawn / math.sqrt(fan_in)
    tall = drawn if fan_out >= fan_in else drawn.swapaxes(1, 2)
    basis, triangle = np.linalg.qr(tall)
    # Without the signs of the triangle's diagonal the basis is not uniform over rotations.
    basis = basis * np.sign(np.diagonal(triangle, axis1=1, axis2=2))[:, None, :]
    basis = basis if fan_out >= fan_in else basis.swapaxes(1, 2)
    return basis * math.sqrt(max(fan_out, fan_in) / fan_in)
