"""Variational circuits as small statevectors, on plateaus and off them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.remedies import identity_block_init
from zoo.patient import Patient, regress, seeded


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


def all_zero(qubits: int, layers: int, turn: str = "y") -> Case:
    """Return the search for |0...0> by a cost of all qubits, and a local one beside it."""

    def odds(model: nn.Module) -> Tensor:
        return model.state().abs().square()

    def together(model: nn.Module, x: Tensor) -> Tensor:
        return x - odds(model).flatten()[0]

    def local(model: nn.Module, x: Tensor) -> Tensor:
        found = odds(model)
        return x - torch.stack([found.select(qubit, 0).sum() for qubit in range(qubits)]).mean()

    model = Circuit(qubits, layers, turn)
    adam = torch.optim.Adam(model.parameters(), 0.1)
    return Case(model, together, [torch.ones(())], adam, variants={"local_cost": local})


def signs(qubits: int, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """The diagonal of controlled-Z gates between pairs of qubits."""
    states = torch.arange(2**qubits)
    sign = torch.ones(2**qubits)
    for one, other in pairs:
        sign = sign * (1 - 2 * (states >> one & 1) * (states >> other & 1))
    return sign


def products(gates: Tensor) -> Tensor:
    """The Kronecker products over the second axis, shape (layers, qubits, 2, 2 or 1)."""
    made = gates[:, 0]
    for qubit in range(1, gates.shape[1]):
        rows, columns = 2 * made.shape[1], gates.shape[3] * made.shape[2]
        made = torch.einsum("lab,lcd->lacbd", made, gates[:, qubit]).reshape(-1, rows, columns)
    return made


def dense(qubits: int) -> list[tuple[int, int]]:
    """All pairs of qubits."""
    return [(one, other) for one in range(qubits) for other in range(one)]


def ring(qubits: int) -> list[tuple[int, int]]:
    """Neighbours, and the last with the first."""
    return [(one, (one + 1) % qubits) for one in range(qubits)]


class Simulator(nn.Module):
    """Layers of rotations about Y and X in turn and controlled-Z gates; gives X of one qubit or of all.

    Args:
        qubits: Number of qubits, even.
        layers: Number of layers.
        pairs: What is entangled.
        every: Whether X of each qubit is given.
    """

    def __init__(
        self, qubits: int, layers: int, pairs: Sequence[tuple[int, int]], every: bool = False
    ) -> None:
        super().__init__()
        self.angles = nn.Parameter(2 * torch.pi * torch.rand(layers, qubits))
        self.n_qubits, self.every = qubits, every
        self.register_buffer("entangled", signs(qubits, pairs))
        self.register_buffer("flips", torch.arange(2**qubits) ^ 2 ** torch.arange(qubits).flip(0)[:, None])

    def gates(self) -> Tensor:
        """The rotations, shape (layers, qubits, 2, 2)."""
        c, s = (self.angles / 2).cos(), (self.angles / 2).sin()
        about_y, about_x = torch.stack([c, -s, s, c], -1), torch.stack([c + 0j, -1j * s, -1j * s, c + 0j], -1)
        turned = (torch.arange(len(c)) % 2 == 1)[:, None, None]
        return torch.where(turned, about_x, about_y.to(about_x.dtype)).unflatten(-1, (2, 2))

    def start(self, x: Tensor, like: Tensor) -> Tensor:
        """The state |0...0>, once."""
        return torch.eye(1, 2**self.n_qubits, dtype=like.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Expectations, times the input where the circuit has none: shape () or (samples, qubits)."""
        gates, half = self.gates(), self.n_qubits // 2
        left, right = products(gates[:, :half]), products(gates[:, half:]).transpose(1, 2)
        sign = self.entangled.view(2**half, -1)
        state = self.start(x, gates).unflatten(1, sign.shape)
        for before, after in zip(left, right, strict=True):
            state = (before @ state @ after) * sign
        state = state.flatten(1)
        flipped = state[:, self.flips] if self.every else state[:, self.flips[:1]]
        found = (state.conj().unsqueeze(1) * flipped).sum(-1).real
        return found if self.every else x * found[0, 0]


class RealAnsatz(Simulator):
    """The same about Y alone, so that all amplitudes are real; nothing but its name tells what it is."""

    def __init__(self, qubits: int, layers: int, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__(qubits, layers, pairs)
        self.n_qubits, self.size = 0, qubits

    def gates(self) -> Tensor:
        c, s = (self.angles / 2).cos(), (self.angles / 2).sin()
        return torch.stack([c, -s, s, c], -1).unflatten(-1, (2, 2))

    def forward(self, x: Tensor) -> Tensor:
        gates, half = self.gates(), self.size // 2
        left, right = products(gates[:, :half]), products(gates[:, half:]).transpose(1, 2)
        sign = self.entangled.view(2**half, -1)
        state = torch.eye(1, 2**self.size).view(sign.shape)
        for before, after in zip(left, right, strict=True):
            state = (before @ state @ after) * sign
        low, high = state.flatten().chunk(2)
        return 2 * x * (low * high).sum()


class Encoded(Simulator):
    """The same of samples whose features turn each qubit first."""

    def start(self, x: Tensor, like: Tensor) -> Tensor:
        turned = torch.stack([(x / 2).cos(), (x / 2).sin()], -1).unsqueeze(-1)
        return products(turned).flatten(1).to(like.dtype)


class Hybrid(nn.Sequential):
    """A linear encoder, a circuit, and a linear head."""

    def __init__(self, qubits: int, layers: int) -> None:
        super().__init__(
            nn.Linear(4, qubits), nn.Tanh(), Encoded(qubits, layers, ring(qubits), True), nn.Linear(qubits, 1)
        )


class Phases(nn.Module):
    """Random Fourier features whose phases are learned: first harmonics too, and no circuit."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.phase, self.num_qubits = nn.Parameter(2 * torch.pi * torch.rand(features)), 6
        self.register_buffer("maps", torch.randn(4, features))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.maps + self.phase).cos()


def minimised(model: nn.Module) -> Case:
    """Return the minimisation of one expectation."""
    return Case(model, lambda m, x: m(x), [torch.ones(())])


def local(model: nn.Module) -> Case:
    """Return the minimisation of the mean over qubits."""
    return Case(model, lambda m, x: m(x).mean(), [torch.ones(())])


def fitted(model: nn.Module) -> Case:
    """Return a regression on four samples."""
    return Case(model, regress, [(torch.randn(4, 4), torch.randn(4, 1))])


def identity(made: Case, names: str, size: int) -> Case:
    """Return the case with blocks that start as the identity."""
    identity_block_init(made, names=names, size=size)
    return made


def sick() -> list[Patient]:
    """Return deep circuits at random angles."""
    build: dict[str, Callable[[], Case]] = {
        "complex-9": lambda: minimised(Simulator(6, 9, ring(6))),
        "real-15": lambda: minimised(RealAnsatz(6, 15, dense(6))),
        "hybrid-9": lambda: fitted(Hybrid(6, 9)),
    }
    return [Patient(f"circuit-{name}", "circuits", seeded(make), ("UG706",)) for name, make in build.items()]


def healthy() -> list[Patient]:
    """Return circuits that are shallow, few qubits wide, or start as the identity; and what is none."""
    build: dict[str, Callable[[], Case]] = {
        "shallow": lambda: minimised(Simulator(8, 2, ring(8))),
        "few-qubits": lambda: minimised(Simulator(4, 9, ring(4))),
        "identity": lambda: identity(minimised(Simulator(6, 9, ring(6))), "angles", 3),
        "real-shallow": lambda: minimised(RealAnsatz(6, 3, ring(6))),
        "local": lambda: local(Simulator(8, 2, ring(8), every=True)),
        "random-features": lambda: fitted(nn.Sequential(Phases(32), nn.Linear(32, 1))),
    }
    return [Patient(f"circuit-{name}", "circuits", seeded(make)) for name, make in build.items()]
