"""A variational circuit as a small statevector, for what is said of circuits."""

import torch
from torch import Tensor, nn

from unitygain._case import Case


class Circuit(nn.Module):
    """Layers of one rotation per qubit and a chain of CZ; gives the expectation of X on the first qubit.

    Args:
        qubits: Number of qubits.
        layers: Number of layers.
        turn: Which Pauli matrix the gates rotate about, ``x`` or ``y``.
    """

    def __init__(self, qubits: int, layers: int, turn: str = "y") -> None:
        super().__init__()
        self.angles = nn.Parameter(2 * torch.pi * torch.rand(layers, qubits))
        self.qubits, self.turn = qubits, turn

    def gate(self, angle: Tensor) -> Tensor:
        """exp(-i·angle·P/2)."""
        c, s = (part.to(torch.complex64) for part in ((angle / 2).cos(), (angle / 2).sin()))
        above, below = (-s, s) if self.turn == "y" else (-1j * s, -1j * s)
        return torch.stack([torch.stack([c, above]), torch.stack([below, c])])

    def state(self) -> Tensor:
        """The state that the circuit makes of |0...0>, one axis per qubit."""
        made = torch.zeros((2,) * self.qubits, dtype=torch.complex64)
        made[(0,) * self.qubits] = 1
        for layer in self.angles:
            for qubit, angle in enumerate(layer):
                made = torch.tensordot(self.gate(angle), made, dims=([1], [qubit])).movedim(0, qubit)
            for qubit in range(self.qubits - 1):
                sign = torch.ones((2, 2), dtype=torch.complex64)
                sign[1, 1] = -1
                made = made * sign.view((1,) * qubit + (2, 2) + (1,) * (self.qubits - qubit - 2))
        return made

    def forward(self, scale: Tensor) -> Tensor:
        """The expectation of X on the first qubit, times the scale."""
        made = self.state()
        return scale * (made.conj() * made.flip(0)).sum().real


def case(qubits: int, layers: int, turn: str = "y") -> Case:
    """Return the minimisation of that expectation."""
    return Case(Circuit(qubits, layers, turn), lambda m, x: m(x), [torch.ones(())])
