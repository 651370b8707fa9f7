"""Barren plateaus: how small the gradient of a random quantum circuit is."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unitygain.theory._given import require_count, require_finite, require_positive

Array = NDArray[np.float64]
FEWEST, MOST = 100, 100_000


def two_design_variance(qubits: int) -> float:
    """Return the variance of ∂C/∂θ in the middle of a deep random circuit, for a Pauli observable.

    d²/(2·(d² - 1)·(d + 1)) with d = 2^qubits: about 2^-(qubits + 1).

    Args:
        qubits: Qubits that the circuit entangles.

    Raises:
        ValueError: If `qubits` is no count.

    Example:
        >>> [round(two_design_variance(n), 6) for n in (1, 2, 3)]
        [0.222222, 0.106667, 0.056437]

    References:
        McClean et al., Barren plateaus in quantum neural network training landscapes, 2018, for
        both sides of the gate a 2-design, gate exp(-iθP/2) with P a Pauli string, pure input.
    """
    d = 2 ** require_count("qubits", qubits)
    return d * d / (2 * (d * d - 1) * (d + 1))


def global_cost_variance(qubits: int) -> float:
    """Return Var ∂C/∂θ for a layer of rotations and the cost 1 - |<0...0|ψ>|²: (1/8)(3/8)^(n-1).

    Raises:
        ValueError: If `qubits` is no count.

    References:
        Cerezo et al., Cost function dependent barren plateaus in shallow parametrized quantum circuits, 2021,
        warm-up example.
    """
    return 0.125 * 0.375 ** (require_count("qubits", qubits) - 1)


def local_cost_variance(qubits: int) -> float:
    """Return Var ∂C/∂θ for the same circuit and the cost averaged over qubits: 1/(8n²).

    Raises:
        ValueError: If `qubits` is no count.

    References:
        Cerezo et al. 2021, warm-up example.
    """
    return 0.125 / require_count("qubits", qubits) ** 2


@dataclass(frozen=True)
class SampledVariance:
    """Var ∂C/∂θ over uniform angles.

    Args:
        value: The mean of (∂C/∂θ)²; the mean of ∂C/∂θ over a period is 0.
        error: Its standard error.
        draws: Circuits that were drawn.
    """

    value: float
    error: float
    draws: int


def sampled_variance(
    cost: Callable[[Array], float], angles: int, *, index: int = 0, precision: float = 0.1, seed: int = 0
) -> SampledVariance:
    """Estimate the variance of ∂C/∂θ over uniform angles, for any function that computes a circuit's cost.

    Each angle must turn one gate exp(-iθP/2), P² = 1: then ∂C/∂θ is half the difference of the costs at
    θ ± π/2, exactly. The function may be a statevector, a QNode of PennyLane, or a device.

    Args:
        cost: From all angles, shape (angles,), to the cost.
        angles: How many there are.
        index: The angle by which to differentiate.
        precision: Relative standard error at which to stop, from 100 draws on.
        seed: Seed of the angles.

    Raises:
        ValueError: If a number is out of range, a cost not finite, or the precision is not met after 100,000
            draws.

    Cost: two evaluations per draw.

    Example:
        >>> def product(theta):
        ...     return 1 - np.prod(np.cos(theta / 2) ** 2)
        >>> found = sampled_variance(product, 3)
        >>> abs(found.value - global_cost_variance(3)) < 4 * found.error
        True

    References:
        Shift rule: K. Mitarai et al., Quantum circuit learning, 2018; M. Schuld et al., Evaluating analytic
        gradients on quantum hardware, 2019. Variance over random circuits: McClean et al. 2018.
    """
    require_count("angles", angles)
    require_count("index", index, 0)
    require_positive("precision", precision)
    if not 0 <= index < angles:
        raise ValueError(f"index is {index}; there are {angles} angles, from 0 on")
    source, squares = np.random.default_rng(seed), []
    while len(squares) < MOST:
        theta, shift = source.uniform(0, 2 * math.pi, angles), np.zeros(angles)
        shift[index] = math.pi / 2
        after, before = float(cost(theta + shift)), float(cost(theta - shift))
        squares.append(((require_finite("the cost", after) - require_finite("the cost", before)) / 2) ** 2)
        if len(squares) >= FEWEST and len(squares) % 10 == 0:
            mean, error = float(np.mean(squares)), float(np.std(squares, ddof=1)) / math.sqrt(len(squares))
            if error <= precision * mean:
                return SampledVariance(mean, error, len(squares))
    raise ValueError(f"a relative error of {precision:g} was not met in {MOST} draws; give a larger one")
