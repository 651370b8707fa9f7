"""Variational circuits that give the state itself: what observes it stands in the loss."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo import circuits
from zoo.dice import Dice, Draw
from zoo.patient import Patient, seeded

Pair = tuple[Tensor, Tensor]
SAMPLES = 4


class Turns(nn.Module):
    """Real states: a turn about Y of each qubit by a feature, then layers of turns and of CZ.

    Args:
        qubits: Number of qubits.
        layers: Number of layers.
        spread: Angles are drawn from minus to plus this.
    """

    def __init__(self, qubits: int, layers: int, spread: float = torch.pi) -> None:
        super().__init__()
        self.n_qubits = qubits
        self.weights = nn.Parameter(spread * (2 * torch.rand(layers, qubits) - 1))
        self.register_buffer("signs", circuits.signs(qubits, circuits.ring(qubits)))

    def turn(self, state: Tensor, qubit: int, angle: Tensor) -> Tensor:
        """Turn one qubit of each state about Y, by one angle or one for each state."""
        parts = state.unflatten(1, (2**qubit, 2, -1))
        c, s = (part.reshape(-1, 1, 1) for part in ((angle / 2).cos(), (angle / 2).sin()))
        low, high = parts[:, :, 0], parts[:, :, 1]
        return torch.stack([c * low - s * high, s * low + c * high], 2).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """States, shape (samples, 2^qubits)."""
        state = F.one_hot(torch.zeros(len(x), dtype=torch.long), 2**self.n_qubits).to(x.dtype)
        for qubit in range(self.n_qubits):
            state = self.turn(state, qubit, x[:, qubit])
        for layer in self.weights:
            for qubit, angle in enumerate(layer):
                state = self.turn(state, qubit, angle)
            state = state * self.signs
        return state


class Prepared(circuits.Simulator):
    """Complex states, one for each sample: the simulator's, without its observable."""

    def start(self, x: Tensor, like: Tensor) -> Tensor:
        turned = torch.stack([(x / 2).cos(), (x / 2).sin()], -1).unsqueeze(-1)
        return circuits.products(turned).flatten(1).to(like.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """States, shape (samples, 2^qubits)."""
        gates, half = self.gates(), self.n_qubits // 2
        left, right = circuits.products(gates[:, :half]), circuits.products(gates[:, half:]).transpose(1, 2)
        sign = self.entangled.view(2**half, -1)
        state = self.start(x, gates).unflatten(1, sign.shape)
        for before, after in zip(left, right, strict=True):
            state = (before @ state @ after) * sign
        return state.flatten(1)


class Units(nn.Module):
    """Vectors of length one and 2^6 numbers, by a module that has such an attribute, and no circuit."""

    def __init__(self) -> None:
        super().__init__()
        self.n_qubits, self.map = 6, nn.Linear(6, 64)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.map(x), dim=1)


def infidelity(model: nn.Module, batch: Pair) -> Tensor:
    """How far the states are from those that are wanted: a cost of all qubits at once."""
    x, wanted = batch
    return 1 - (wanted.conj() * model(x)).sum(1).abs().square().mean()


def bits(model: nn.Module, batch: Pair) -> Tensor:
    """How often a qubit is found as one: a cost of single qubits."""
    odds = model(batch[0]).abs().square()
    ones = torch.arange(odds.shape[1]) >> torch.arange(odds.shape[1].bit_length() - 1)[:, None] & 1
    return (odds @ ones.T.to(odds.dtype)).mean()


def parity(model: nn.Module, batch: Pair) -> Tensor:
    """Expectation of Z on the first two qubits."""
    odds = model(batch[0]).abs().square().chunk(4, 1)
    return sum(sign * odd.sum(1).mean() for sign, odd in zip((1, -1, -1, 1), odds, strict=True))


def case(
    model: nn.Module, loss: Callable[[nn.Module, Pair], Tensor], teacher: nn.Module | None = None
) -> Case:
    """Return the training of a circuit; the teacher's states are wanted."""
    x = 0.4 * torch.randn(SAMPLES, model.n_qubits)
    with torch.no_grad():
        wanted = (teacher or model)(x)
    return Case(model, loss, [(x, wanted)], lambda p: torch.optim.SGD(p, 0.2))


def taught(qubits: int, layers: int, spread: float) -> Case:
    """Return the search for a teacher of the same layers, one of which turns."""
    teacher = Turns(qubits, layers, 0.0)
    with torch.no_grad():
        teacher.weights[layers // 2] += 0.9 * torch.randn(qubits).sign()
    return case(Turns(qubits, layers, spread), infidelity, teacher)


def prepared(qubits: int, layers: int, loss: Callable[[nn.Module, Pair], Tensor]) -> Case:
    """Return the training of a complex circuit with a cost of its states; its teacher is nearly none."""
    model, teacher = (Prepared(qubits, layers, circuits.ring(qubits)) for _ in range(2))
    made = case(teacher, loss)
    if layers % 3 == 0:
        circuits.identity(made, "angles", 3)
        with torch.no_grad():
            teacher.angles[layers // 2] += 0.7 * torch.randn(qubits).sign()
    return case(model, loss, teacher)


def sick() -> list[Patient]:
    """Return deep circuits at random angles."""
    build: dict[str, Callable[[], Case]] = {
        "wanted": lambda: taught(8, 8, torch.pi),
        "wanted-complex": lambda: prepared(6, 9, infidelity),
        "parity": lambda: prepared(6, 12, parity),
    }
    return [Patient(f"states-{name}", "circuits", seeded(make), ("UG706",)) for name, make in build.items()]


def healthy() -> list[Patient]:
    """Return circuits that start near to what they seek, or are shallow, or small; and what is none."""
    build: dict[str, Callable[[], Case]] = {
        "near": lambda: taught(8, 8, 0.05),
        "local-shallow": lambda: case(Turns(8, 1), bits),
        "local-shallow-complex": lambda: prepared(8, 2, bits),
        "few-qubits": lambda: prepared(4, 9, infidelity),
        "units": lambda: case(Units(), infidelity, Units()),
        "parity-identity": lambda: circuits.identity(prepared(6, 12, parity), "angles", 3),
        "identity": lambda: circuits.identity(prepared(6, 9, infidelity), "angles", 3),
    }
    return [
        Patient(f"states-{name}", "circuits", seeded(make), near=("UG706",)) for name, make in build.items()
    ]


def deep(dice: Dice) -> Case:
    """Build a deep circuit at random angles."""
    if dice.one_of(True, False):
        return taught(dice.whole(7, 9), dice.whole(8, 10), torch.pi)
    qubits, loss = dice.one_of((6, infidelity), (8, infidelity), (6, parity))
    return prepared(qubits, dice.one_of(9, 12), loss)


def easy(dice: Dice) -> Case:
    """Build one that starts near to what it seeks, or a shallow one with a cost of single qubits."""
    if dice.one_of(True, False):
        return taught(dice.whole(6, 9), dice.whole(4, 10), dice.between(0.02, 0.08))
    return case(Turns(dice.whole(6, 9), 1), bits)


DRAWS = (
    Draw("states-deep", "circuits", deep, ("UG706",)),
    Draw("states-easy", "circuits", easy, near=("UG706",)),
)
