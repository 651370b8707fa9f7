"""Circuits of PennyLane against the laws of barren plateaus; nothing of the library imports PennyLane."""

import importlib
import warnings
from typing import Any

import numpy as np
import pytest

from unitygain.theory.circuits import (
    global_cost_variance,
    local_cost_variance,
    sampled_variance,
    two_design_variance,
)

# What PennyLane and its own dependencies deprecate is not ours to mend.
pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def qml() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("pennylane")


@pytest.mark.parametrize("qubits", [2, 4])
def test_costs_of_one_layer_have_their_variances(qml, qubits):
    device = qml.device("default.qubit", wires=qubits)

    @qml.qnode(device)
    def rotated(angles):
        for wire in range(qubits):
            qml.RX(angles[wire], wires=wire)
        return qml.probs(wires=range(qubits))

    zeros = np.array([[1 - (state >> bit & 1) for bit in range(qubits)] for state in range(2**qubits)])

    def whole(angles: np.ndarray) -> float:
        return 1 - float(rotated(angles)[0])

    def each(angles: np.ndarray) -> float:
        return 1 - float(rotated(angles) @ zeros.mean(axis=1))

    for cost, law in ((whole, global_cost_variance), (each, local_cost_variance)):
        found = sampled_variance(cost, qubits, precision=0.1)
        assert abs(found.value - law(qubits)) < 4 * found.error


def test_random_layers_reach_the_two_design_law(qml):
    qubits, layers = 3, 12
    device = qml.device("default.qubit", wires=qubits)

    @qml.qnode(device)
    def layered(angles):
        for layer in angles.reshape(layers, qubits, 3):
            for wire in range(qubits):
                qml.RZ(layer[wire, 0], wires=wire)
                qml.RY(layer[wire, 1], wires=wire)
                qml.RZ(layer[wire, 2], wires=wire)
            for wire in range(qubits - 1):
                qml.CZ(wires=[wire, wire + 1])
        return qml.expval(qml.PauliZ(0) @ qml.PauliZ(1))

    middle = (layers // 2) * qubits * 3 + 1
    found = sampled_variance(lambda a: float(layered(a)), layers * qubits * 3, index=middle, precision=0.1)
    assert abs(found.value - two_design_variance(qubits)) < 4 * found.error
