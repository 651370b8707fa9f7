"""Barren plateaus: how small the gradient of a random quantum circuit is."""

from unitygain.theory._given import require_count


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
