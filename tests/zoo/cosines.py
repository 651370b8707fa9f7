"""Losses of bounded logits, such as cosines: with a scale that lets them be right, and without one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, seeded

FEATURES, WIDTH = 16, 32


class Prototypes(nn.Module):
    """A classifier by the cosine of features and of a vector of each class."""

    def __init__(self, classes: int, scale: float | None, *, fixed: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        vectors = torch.randn(classes, WIDTH)
        if fixed:
            self.register_buffer("vectors", F.normalize(vectors))
        else:
            self.vectors = nn.Parameter(vectors)
        # One that is learned begins at 1.
        self.scale = nn.Parameter(torch.ones(())) if scale is None else scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(self.body(x)), F.normalize(self.vectors))


class SoftCap(nn.Module):
    """A classifier whose logits are held below thirty."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes))

    def forward(self, x: Tensor) -> Tensor:
        return 30 * torch.tanh(self.net(x) / 30)


class Similar(nn.Module):
    """The same by `cosine_similarity`."""

    def __init__(self, classes: int, temperature: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.vectors, self.temperature = nn.Parameter(torch.randn(classes, WIDTH)), temperature

    def forward(self, x: Tensor) -> Tensor:
        return F.cosine_similarity(self.body(x)[:, None], self.vectors[None], -1) / self.temperature


def centres(classes: int, rows: int = 96) -> list[tuple[Tensor, Tensor]]:
    """Points around a centre of each class."""
    labels = torch.arange(rows) % classes
    return [(torch.randn(classes, FEATURES)[labels] + 0.4 * torch.randn(rows, FEATURES), labels)]


def classify(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


def contrast(temperature: float) -> Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]:
    """Return the cross-entropy of finding the other view of each sample among all."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x = batch[0]
        a, b = (F.normalize(model(x + 0.1 * torch.randn_like(x)), dim=-1) for _ in range(2))
        return F.cross_entropy(a @ b.T / temperature, torch.arange(len(x), device=x.device))

    return loss


def queue(temperature: float) -> Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]:
    """Return the same among keys that are held without a gradient."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x = batch[0]
        queries = model(x + 0.1 * torch.randn_like(x))
        queries = queries / queries.norm(dim=1, keepdim=True)
        with torch.no_grad():
            keys = F.normalize(model(x), dim=1)
        right = (queries * keys).sum(-1, keepdim=True)
        wrong = queries @ F.normalize(torch.randn(64, queries.shape[1], device=x.device), dim=1).T
        logits = torch.cat([right, wrong], 1) / temperature
        return F.cross_entropy(logits, torch.zeros(len(x), dtype=torch.long, device=x.device))

    return loss


def encoder() -> nn.Module:
    """Return a perceptron."""
    return nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


def squashed(classes: int, end: nn.Module) -> nn.Module:
    """Return a perceptron that ends in an activation."""
    return nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes), end)


def sick() -> list[Patient]:
    """Return losses that cannot fall."""
    build: dict[str, Callable[[], Case]] = {
        "prototypes": lambda: Case(Prototypes(24, 1.0), classify, centres(24)),
        "prototypes-fixed": lambda: Case(Prototypes(24, 1.0, fixed=True), classify, centres(24)),
        "similar": lambda: Case(Similar(32, 1.0), classify, centres(32)),
        "contrast": lambda: Case(encoder(), contrast(1.0), centres(24)),
        "queue": lambda: Case(encoder(), queue(1.0), centres(24)),
        "tanh": lambda: Case(squashed(24, nn.Tanh()), classify, centres(24)),
        "sigmoid": lambda: Case(squashed(6, nn.Sigmoid()), classify, centres(6)),
    }
    return [
        Patient(f"cosines-unscaled-{name}", "metric", seeded(make), ("UG614",))
        for name, make in build.items()
    ]


def healthy() -> list[Patient]:
    """Return losses of cosines with a scale, and of two classes without."""
    build: dict[str, Callable[[], Case]] = {
        "prototypes": lambda: Case(Prototypes(24, 12.0), classify, centres(24)),
        "prototypes-fixed": lambda: Case(Prototypes(24, 16.0, fixed=True), classify, centres(24)),
        "learned": lambda: Case(Prototypes(24, None), classify, centres(24)),
        "similar": lambda: Case(Similar(32, 0.1), classify, centres(32)),
        "contrast": lambda: Case(encoder(), contrast(0.2), centres(24)),
        "queue": lambda: Case(encoder(), queue(0.1), centres(24)),
        "soft-cap": lambda: Case(SoftCap(24), classify, centres(24)),
        "two-classes": lambda: Case(Prototypes(2, 1.0), classify, centres(2)),
    }
    return [
        Patient(f"cosines-scaled-{name}", "metric", seeded(make), near=("UG614",))
        for name, make in build.items()
    ]


def drawn(low: float, high: float) -> Callable[[Dice], Case]:
    """Return what builds a loss of cosines whose scale is drawn."""

    def make(dice: Dice) -> Case:
        classes, scale = dice.whole(16, 40), dice.between(low, high)
        return dice.one_of(
            lambda: Case(Prototypes(classes, scale), classify, centres(classes)),
            lambda: Case(Prototypes(classes, scale, fixed=True), classify, centres(classes)),
            lambda: Case(Similar(classes, 1 / scale), classify, centres(classes)),
            lambda: Case(encoder(), contrast(1 / scale), centres(classes)),
            lambda: Case(encoder(), queue(1 / scale), centres(classes)),
        )()

    return make


DRAWS = (
    Draw("cosines-unscaled", "metric", drawn(0.7, 1.05), ("UG614",)),
    Draw("cosines-scaled", "metric", drawn(3.0, 20.0), near=("UG614",)),
)
