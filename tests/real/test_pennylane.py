"""Circuits of PennyLane against the laws of barren plateaus; nothing of the library imports PennyLane."""

import importlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from unitygain._case import Case
from unitygain._diagnose import diagnose
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


@pytest.mark.parametrize(("layers", "codes"), [(9, ["UG706"]), (1, [])])
def test_a_torch_layer_on_a_plateau_is_found(qml, layers, codes):
    """About Y and X in turn with a ring of CZ, on data that turns the qubits first."""
    qubits = 6
    device = qml.device("default.qubit", wires=qubits)

    @qml.qnode(device, interface="torch")
    def circuit(inputs, angles):
        qml.AngleEmbedding(inputs, wires=range(qubits), rotation="Y")
        for number in range(layers):
            turn = qml.RX if number % 2 else qml.RY
            for wire in range(qubits):
                turn(angles[number, wire], wires=wire)
            for wire in range(qubits):
                qml.CZ(wires=[wire, (wire + 1) % qubits])
        return [qml.expval(qml.PauliX(0)), qml.expval(qml.PauliX(3))]

    torch.manual_seed(0)
    layer = qml.qnn.TorchLayer(circuit, {"angles": (layers, qubits)})
    torch.nn.init.uniform_(layer.angles, 0, 2 * np.pi)
    model = torch.nn.Sequential(torch.nn.Linear(3, qubits), layer, torch.nn.Linear(2, 1))
    case = Case(model, lambda m, x: m(x).square().mean(), [torch.randn(2, 3)])
    report = diagnose(case, only=["UG706"])
    assert report.profiles["circuit_grad_variance"].labels == ("the wires of its device",)
    assert [finding.code for finding in report.findings] == codes
    assert all(finding.causes[0].status == "confirmed" for finding in report.findings)
