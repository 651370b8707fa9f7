"""Loops that apply one map again and again until it settles, and those that never do."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, seeded

FEATURES, WIDTH = 6, 48


class Matrix(nn.Module):
    """Iterates tanh(zW + u) with a bare matrix."""

    def __init__(self, gain: float, rounds: int, width: int = WIDTH) -> None:
        super().__init__()
        self.rounds = rounds
        self.weight = nn.Parameter(gain * torch.randn(width, width) / math.sqrt(width))
        self.drive, self.read = nn.Linear(FEATURES, width), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        drive = self.drive(x)
        z = torch.zeros_like(drive)
        for _ in range(self.rounds):
            z = torch.tanh(z @ self.weight + drive)
        return self.read(z)


class Sines(nn.Module):
    """Iterates sin(Wz + u) with a layer that a function applies."""

    def __init__(self, gain: float, rounds: int, width: int = WIDTH) -> None:
        super().__init__()
        self.rounds = rounds
        self.drive, self.read = nn.Linear(FEATURES, width), nn.Linear(width, 1)
        self.weight, self.bias = nn.Parameter(torch.empty(width, width)), nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.weight, std=gain / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        drive = self.drive(x)
        z = torch.sin(drive)
        for _ in range(self.rounds):
            z = torch.sin(nn.functional.linear(z, self.weight, self.bias) + drive)
        return self.read(z)


class Layer(nn.Module):
    """Iterates tanh of one layer, without what enters in every round."""

    def __init__(self, gain: float, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.drive, self.map, self.read = (
            nn.Linear(FEATURES, WIDTH),
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, 1),
        )
        nn.init.normal_(self.map.weight, std=gain / math.sqrt(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        z = self.drive(x)
        for _ in range(self.rounds):
            z = torch.tanh(self.map(z))
        return self.read(z)


def fit(model: nn.Module, batch: Any) -> Tensor:
    """Mean squared error."""
    return (model(batch[0]) - batch[1]).square().mean()


def case(model: nn.Module) -> Case:
    """Return the fit of a smooth function."""
    x = torch.randn(64, FEATURES)
    return Case(model, fit, [(x, torch.sin(x.sum(1, keepdim=True)))], lambda p: torch.optim.Adam(p, 1e-3))


def drawn(dice: Dice) -> Case:
    """A map that does not contract, of a drawn size."""
    model = dice.one_of(Matrix, Sines)
    return case(model(dice.between(4.5, 6.5), dice.whole(30, 45), dice.one_of(40, 56)))


def drawn_well(dice: Dice) -> Case:
    """A map that contracts, of a drawn size."""
    model = dice.one_of(Matrix, Sines)
    return case(model(dice.between(0.3, 0.8), dice.whole(30, 45), dice.one_of(40, 56)))


SICK = {"matrix": lambda: case(Matrix(5.0, 35)), "sines": lambda: case(Sines(4.0, 40))}
HEALTHY = {
    "contracts": lambda: case(Matrix(0.5, 35)),
    "contracts-in-sines": lambda: case(Sines(0.6, 40)),
    "at-the-edge": lambda: case(Matrix(1.0, 35)),
    "of-two-rounds": lambda: case(Matrix(4.0, 2)),
    "chaos-of-few-rounds": lambda: case(Sines(3.0, 4)),
}
ALSO = ("UG204", "UG205", "UG601", "UG611")


def sick() -> list[Patient]:
    """Return loops that never settle; one over a module is known as a recurrence."""
    return [
        *(
            Patient(f"settle-never-{name}", "settling", seeded(make), ("UG104",), ALSO)
            for name, make in SICK.items()
        ),
        Patient("settle-never-layer", "settling", seeded(lambda: case(Layer(5.0, 35))), ("UG402",), ALSO),
    ]


def healthy() -> list[Patient]:
    """Return loops that settle, or that run a few rounds only."""
    return [
        Patient(f"settle-{name}", "settling", seeded(make), near=("UG104",)) for name, make in HEALTHY.items()
    ]


DRAWS = (
    Draw("settle-never", "settling", drawn, ("UG104",), ALSO),
    Draw("settle", "settling", drawn_well, near=("UG104",)),
)
