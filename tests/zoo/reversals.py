"""Gradients that are turned round: for all tasks, or on purpose for one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, classify, seeded

CLASSES, ROWS = 4, 48


class Turned(torch.autograd.Function):
    """The identity, or minus it; backwards a multiple of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ahead: float, back: float) -> Tensor:
        ctx.back = back
        return ahead * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back * gradients[0], None, None


class Hooked(nn.Module):
    """The identity, which sets hooks on what it hands on; each makes this multiple of the gradient."""

    def __init__(self, *backs: float) -> None:
        super().__init__()
        self.backs = backs

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1.0
        for back in self.backs if x.requires_grad else ():
            x.register_hook(lambda gradient, back=back: back * gradient)
        return x


class Turn(nn.Module):
    """The same as a layer, several times."""

    def __init__(self, ahead: float, back: float, times: int = 1) -> None:
        super().__init__()
        self.ahead, self.back, self.times = ahead, back, times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = Turned.apply(x, self.ahead, self.back)
        return x


def trunk(kind: str, width: int) -> nn.Module:
    """Return features of rows, of pictures, or of words."""
    if kind == "rows":
        layers = [layer for _ in range(3) for layer in (nn.Linear(width, width), nn.ReLU())]
        return nn.Sequential(*layers)
    if kind == "pictures":
        first = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        more = [nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(2)]
        return nn.Sequential(first, *more, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
    return nn.Sequential(nn.Embedding(12, width), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


def given(kind: str, width: int) -> Tensor:
    """Return what enters such features."""
    if kind == "words":
        return torch.randint(12, (ROWS, 6))
    return torch.randn(ROWS, 1, 8, 8) if kind == "pictures" else torch.randn(ROWS, width)


class Adapted(nn.Module):
    """Features for a label, and turned round for the domain that they came from."""

    def __init__(self, kind: str, width: int, turn: nn.Module, *, early: bool) -> None:
        super().__init__()
        self.features, self.turn, self.early = trunk(kind, width), turn, early
        self.label, self.domain = nn.Linear(width, CLASSES), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.features(x)
        z = z.mean(1) if z.ndim == 3 else z
        turned = self.turn(z)
        return self.label(turned if self.early else z), self.domain(turned)


def both(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the loss of the label, and a share of the domain's."""
    label, domain = model(batch[0])
    return F.cross_entropy(label, batch[1]) + 0.1 * F.cross_entropy(domain, batch[2])


def adapted(kind: str, width: int, factor: float, *, early: bool, hooked: bool = False) -> Case:
    """Return the training of a domain-adversarial network."""
    model = Adapted(kind, width, Hooked(factor) if hooked else Turn(1.0, factor), early=early)
    batch = (given(kind, width), torch.randint(CLASSES, (ROWS,)), torch.randint(2, (ROWS,)))
    return Case(model, both, [batch], adam)


def labelled(kind: str, width: int, turn: nn.Module) -> Case:
    """Return a classifier that turns the gradient in front of its head."""
    model = nn.Sequential(trunk(kind, width), turn, nn.Linear(width, CLASSES))
    return Case(model, classify, [(given(kind, width), torch.randint(CLASSES, (ROWS,)))], adam)


class Players(nn.Module):
    """A generator and a judge, with a turn between the two."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.maker = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width))
        self.turn = Turn(1.0, -1.0)
        self.judge = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, noise: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        return self.judge(self.turn(self.maker(noise))), self.judge(real)


def judged(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the judge's loss, which the turn makes the generator climb."""
    fake, real = model(*batch)
    return F.softplus(fake).mean() + F.softplus(-real).mean()


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Return Adam."""
    return torch.optim.Adam(parameters, 3e-3)


def sick() -> list[Patient]:
    """Return models of which everything before the heads climbs the loss."""
    build: dict[str, Callable[[], Case]] = {
        "rows": lambda: adapted("rows", 32, -0.8, early=True),
        "pictures": lambda: adapted("pictures", 12, -1.0, early=True),
        "words": lambda: adapted("words", 16, -0.5, early=True),
        "hooked-rows": lambda: adapted("rows", 32, -1.0, early=True, hooked=True),
        "hooked-words": lambda: adapted("words", 16, -0.5, early=True, hooked=True),
        "hooked-classifier": lambda: labelled("pictures", 12, Hooked(-1.0)),
        "classifier": lambda: labelled("rows", 32, Turn(1.0, -1.0)),
    }
    return [
        Patient(f"reversed-for-all-{name}", "reversals", seeded(make), ("UG105",), ("UG611",))
        for name, make in build.items()
    ]


def healthy() -> list[Patient]:
    """Return models that turn one branch, turn the signal with it, or turn twice; and a game of two."""
    build: dict[str, Callable[[], Case]] = {
        "domain-rows": lambda: adapted("rows", 32, -1.0, early=False),
        "domain-pictures": lambda: adapted("pictures", 12, -0.5, early=False),
        "domain-words": lambda: adapted("words", 16, -1.0, early=False),
        "minus": lambda: labelled("rows", 32, Turn(-1.0, -1.0)),
        "twice": lambda: labelled("rows", 32, Turn(1.0, -1.0, 2)),
        "domain-hooked": lambda: adapted("rows", 32, -1.0, early=False, hooked=True),
        "hooked-twice": lambda: labelled("rows", 32, Hooked(-1.0, -1.0)),
        "hooked-weaker": lambda: labelled("rows", 32, Hooked(0.8)),
        "plain": lambda: labelled("pictures", 12, Turn(1.0, 1.0)),
        "players": lambda: Case(Players(24), judged, [(torch.randn(ROWS, 4), torch.randn(ROWS, 24))], adam),
    }
    return [
        Patient(f"reversed-{name}", "reversals", seeded(make), near=("UG105",))
        for name, make in build.items()
    ]


def for_all(dice: Dice) -> Case:
    """Build one that is turned round for all tasks."""
    kind, width = dice.one_of("rows", "pictures", "words"), dice.one_of(16, 24, 32)
    return adapted(kind, width, -dice.between(0.3, 1.0), early=True)


def for_one(dice: Dice) -> Case:
    """Build one that is turned round for the adversary."""
    kind, width = dice.one_of("rows", "pictures", "words"), dice.one_of(16, 24, 32)
    return adapted(kind, width, -dice.between(0.3, 1.0), early=False)


DRAWS = (
    Draw("reversed-for-all", "reversals", for_all, ("UG105",), ("UG611",)),
    Draw("reversed-for-one", "reversals", for_one, near=("UG105",)),
)
