"""Deep networks of matrices that are multiplied by hand, at a gain of 1 and at others."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, classify, seeded

FEATURES, WIDTH, CLASSES, ROWS = 16, 48, 4, 64
Act = Callable[[Tensor], Tensor]


class Own(nn.Module):
    """A layer with a matrix of its own name."""

    def __init__(self, inputs: int, outputs: int, gain: float, act: Act) -> None:
        super().__init__()
        self.W = nn.Parameter(gain / math.sqrt(inputs) * torch.randn(inputs, outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x @ self.W + self.shift)


class Owned(nn.Module):
    """A list of such layers."""

    def __init__(self, depth: int, gain: float, act: Act, width: int = WIDTH) -> None:
        super().__init__()
        sizes = [FEATURES] + [width] * depth
        self.layers = nn.ModuleList(Own(a, b, gain, act) for a, b in itertools.pairwise(sizes))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Listed(nn.Module):
    """A list of matrices and nothing else."""

    def __init__(self, depth: int, gain: float, act: Act, width: int = WIDTH) -> None:
        super().__init__()
        sizes = [FEATURES] + [width] * depth + [CLASSES]
        self.weights = nn.ParameterList(
            gain / math.sqrt(a) * torch.randn(a, b) for a, b in itertools.pairwise(sizes)
        )
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        *first, last = self.weights
        for weight in first:
            x = self.act(x @ weight)
        return x @ last


class Stacked(nn.Module):
    """Matrices in one tensor between two layers."""

    def __init__(self, depth: int, gain: float, act: Act, width: int = WIDTH) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(FEATURES, width), nn.Linear(width, CLASSES)
        self.stack = nn.Parameter(gain / math.sqrt(width) * torch.randn(depth, width, width))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for matrix in self.stack:
            x = self.act(F.linear(x, matrix))
        return self.out(x)


class Normed(nn.Module):
    """Matrices in a list, each before a batch norm and a ReLU, added to a stream or not."""

    def __init__(self, depth: int, width: int = 32, *, add: bool) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(FEATURES, width), nn.Linear(width, CLASSES)
        self.weights = nn.ParameterList(
            torch.randn(width, width) * math.sqrt(2 / width) for _ in range(depth)
        )
        self.share = 1 / math.sqrt(depth) if add else 1.0
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for weight in self.weights:
            new = self.share * F.relu(F.batch_norm(F.linear(x, weight), None, None, training=True))
            x = x + new if self.add else new
        return self.out(x)


class Dense(nn.Module):
    """Layers that read the sum, or the mean, of all outputs before."""

    def __init__(self, depth: int, width: int = WIDTH, *, mean: bool) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(FEATURES, width), nn.Linear(width, CLASSES)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        seen = [F.relu(self.into(x))]
        for layer in self.layers:
            whole = torch.stack(seen).sum(0)
            seen.append(F.relu(layer(whole / len(seen) if self.mean else whole)))
        return self.out(seen[-1])


KINDS: dict[str, Callable[..., nn.Module]] = {"own": Owned, "list": Listed, "stack": Stacked}


def data() -> list[tuple[Tensor, Tensor]]:
    """Points and their classes."""
    x = torch.randn(ROWS, FEATURES)
    return [(x, (x @ torch.randn(FEATURES, CLASSES)).argmax(1))]


def make(kind: str, depth: int, gain: float, act: Act, width: int = WIDTH) -> Case:
    """Return the training of such a network."""
    return Case(KINDS[kind](depth, gain, act, width), classify, data())


def sick() -> list[Patient]:
    """Return networks far from a gain of 1."""
    found = [
        Patient(
            f"by-hand-{kind}-shrinks",
            "mlp",
            seeded(lambda kind=kind: make(kind, 14, 0.4, torch.tanh)),
            ("UG101", "UG202"),
            ("UG205", "UG206"),
        )
        for kind in KINDS
    ]
    grows = [
        Patient(
            f"by-hand-{kind}-grows",
            "mlp",
            seeded(lambda kind=kind: make(kind, 14, 4.0, torch.relu)),
            ("UG102", "UG201"),
            ("UG605", "UG607", "UG104"),
        )
        for kind in KINDS
    ]
    loud = seeded(lambda: make("list", 8, 8.0, torch.tanh))
    flat = Patient("by-hand-list-saturated", "mlp", loud, ("UG204",), ("UG605", "UG102"))
    normed = seeded(lambda: Case(Normed(60, add=False), classify, data()))
    sums = seeded(lambda: Case(Dense(20, mean=False), classify, data()))
    return [
        *found,
        *grows,
        flat,
        Patient("by-hand-batch-norms", "mlp", normed, ("UG102",), ("UG205",)),
        Patient("by-hand-dense-sums", "mlp", sums, ("UG201",), ("UG102", "UG605")),
    ]


def healthy() -> list[Patient]:
    """Return the same at the gain that their activation needs, beside a stream, and by means."""
    beside = seeded(lambda: Case(Normed(60, add=True), classify, data()))
    means = seeded(lambda: Case(Dense(20, mean=True), classify, data()))
    plain = [
        Patient(
            f"by-hand-{kind}-{name}",
            "mlp",
            seeded(lambda kind=kind, gain=gain, act=act: make(kind, 10, gain, act)),
            near=("UG101", "UG102", "UG201", "UG202", "UG204"),
        )
        for kind in KINDS
        for name, gain, act in (("relu", math.sqrt(2), torch.relu), ("tanh", 1.05, torch.tanh))
    ]
    return [
        *plain,
        Patient("by-hand-batch-norms-beside", "mlp", beside, near=("UG102",)),
        Patient("by-hand-dense-means", "mlp", means, near=("UG201",)),
    ]


def drawn(low: float, high: float, act: Act) -> Callable[[Dice], Case]:
    """Return what builds such a network at a gain that is drawn."""

    def build(dice: Dice) -> Case:
        kind, width = dice.one_of(*KINDS), dice.one_of(32, 48, 64)
        return make(kind, dice.whole(12, 16), dice.between(low, high), act, width)

    return build


DRAWS = (
    Draw("by-hand-shrinks", "mlp", drawn(0.3, 0.42, torch.tanh), ("UG101", "UG202"), ("UG205", "UG206")),
    Draw(
        "by-hand-grows", "mlp", drawn(3.6, 5.0, torch.relu), ("UG102", "UG201"), ("UG605", "UG607", "UG104")
    ),
    Draw("by-hand-at-one", "mlp", drawn(1.38, 1.46, torch.relu), near=("UG101", "UG102", "UG201", "UG202")),
)
