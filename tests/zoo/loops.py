"""Recurrences of bare matrices, whose head is called at every step."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, regress, seeded

FEATURES, ROWS = 3, 16


class Gated(nn.Module):
    """An LSTM with all its gates in one matrix."""

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.width = width
        entries = FEATURES + width
        self.w = nn.Parameter(gain / math.sqrt(entries) * torch.randn(entries, 4 * width))
        self.shift = nn.Parameter(torch.zeros(4 * width))
        self.read = nn.Linear(width, 1)
        with torch.no_grad():
            self.shift[:width] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), self.width)
        told = []
        for now in x.unbind(1):
            forget, enter, leave, new = (torch.cat([now, h], 1) @ self.w + self.shift).chunk(4, 1)
            c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
            h = leave.sigmoid() * c.tanh()
            told.append(self.read(h))
        return torch.stack(told, 1)


class Plain(nn.Module):
    """A tanh recurrence of two matrices."""

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.enter = nn.Parameter(torch.randn(FEATURES, width) / math.sqrt(FEATURES))
        self.again = nn.Parameter(gain * nn.init.orthogonal_(torch.empty(width, width)))
        self.read = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), len(self.again))
        told = []
        for now in x.unbind(1):
            h = torch.tanh(now @ self.enter + h @ self.again)
            told.append(self.read(h))
        return torch.stack(told, 1)


def case(kind: Callable[[int, float], nn.Module], width: int, gain: float, steps: int) -> Case:
    """Return such a model on noise, with a running mean of it as the target of every step."""
    x = torch.randn(ROWS, steps, FEATURES)
    y = x.mean(2, keepdim=True).cumsum(1) / torch.arange(1, steps + 1)[:, None].sqrt()
    return Case(kind(width, gain), regress, [(x, y)])


def sick() -> list[Patient]:
    """Return recurrences whose gradient explodes over time, which their heads do not show."""
    build = {
        "gated": (lambda: case(Gated, 48, 9.0, 45), ("UG204",)),
        "tanh": (lambda: case(Plain, 48, 4.0, 60), ("UG204",)),
    }
    return [
        Patient(f"loop-{name}-explodes", "recurrent", seeded(make), ("UG402",), also)
        for name, (make, also) in build.items()
    ]


def healthy() -> list[Patient]:
    """Return the same at usual gains."""
    build = {
        "gated": lambda: case(Gated, 48, 1.0, 45),
        "gated-short": lambda: case(Gated, 32, 1.5, 16),
        "tanh": lambda: case(Plain, 48, 1.0, 30),
        "tanh-short": lambda: case(Plain, 32, 1.1, 12),
    }
    return [
        Patient(f"loop-{name}", "recurrent", seeded(make), near=("UG401", "UG402"))
        for name, make in build.items()
    ]


def explodes(dice: Dice) -> Case:
    """Return one that explodes."""
    if dice.one_of(True, False):
        return case(Gated, dice.whole(40, 64), dice.between(8, 11), dice.whole(40, 50))
    return case(Plain, dice.whole(40, 64), dice.between(3.5, 5), dice.whole(50, 70))


def steady(dice: Dice) -> Case:
    """Return one that does not."""
    if dice.one_of(True, False):
        return case(Gated, dice.whole(40, 64), dice.between(0.9, 1.2), dice.whole(16, 45))
    return case(Plain, dice.whole(40, 64), dice.between(0.95, 1.1), dice.whole(12, 30))


DRAWS = (
    Draw("loop-explodes", "recurrent", explodes, ("UG402",), ("UG204",)),
    Draw("loop-steady", "recurrent", steady, near=("UG401", "UG402")),
)
