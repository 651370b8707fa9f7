"""Norms by hand over the batch: by a slip, or on purpose and kept for evaluation."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.mixed import CLASSES, FEATURES, ROWS, Dependent, labelled, vectors
from zoo.patient import Patient, classify, seeded


def by_batch(h: Tensor) -> Tensor:
    """Put every feature to mean zero and unit spread over the samples."""
    return (h - h.mean(0)) / (h.std(0) + 1e-5)


def by_batch_rooted(h: Tensor) -> Tensor:
    """Do the same with the variance written out."""
    centred = h - h.mean(0, keepdim=True)
    return centred * torch.rsqrt(centred.pow(2).mean(0, keepdim=True) + 1e-5)


def by_whole(h: Tensor) -> Tensor:
    """Put all numbers of the batch to mean zero and unit spread."""
    var, mean = torch.var_mean(h)
    return (h - mean) / (var + 1e-5).sqrt()


def by_features(h: Tensor) -> Tensor:
    """Put every sample to mean zero and unit spread."""
    return (h - h.mean(-1, keepdim=True)) / (h.std(-1, keepdim=True) + 1e-5)


def with_spread(h: Tensor) -> Tensor:
    """Give every sample the spread of the batch in one more feature, as judges of pictures do."""
    return torch.cat([h[:, 1:], h.std(0).mean().expand(len(h), 1)], 1)


class Running(nn.Module):
    """A norm over the batch, by hand, that keeps its statistics for evaluation."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))

    def forward(self, h: Tensor) -> Tensor:
        if not self.training:
            return (h - self.mean) / (self.var + 1e-5).sqrt()
        var, mean = torch.var_mean(h, 0)
        self.mean.lerp_(mean.detach(), 0.1)
        self.var.lerp_(var.detach(), 0.1)
        return (h - mean) / (var + 1e-5).sqrt()


class Flipped(nn.Module):
    """A layer norm of what is transposed to have the features first."""

    def __init__(self, rows: int = ROWS) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(rows)

    def forward(self, h: Tensor) -> Tensor:
        return self.norm(h.T).T


class Standard(nn.Module):
    """Pre-LN layers over the steps with a norm by hand."""

    def __init__(self, norm: Callable[[Tensor], Tensor], width: int = 24) -> None:
        super().__init__()
        self.inner = nn.Linear(FEATURES, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.head, self.norm = nn.Linear(width, CLASSES), norm

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        for layer in self.layers:
            h = h + F.gelu(layer(self.norm(h)))
        return self.head(h.mean(1))


class Twins(nn.Module):
    """Features whose every number has unit spread over the batch, to be told apart."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(FEATURES, 32), nn.GELU(), nn.Linear(32, width))

    def forward(self, x: Tensor) -> Tensor:
        return by_batch(self.inner(x))


def decorrelated(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return how much the features are correlated with each other."""
    z = model(batch[0])
    return (z.T @ z / len(z) - torch.eye(z.shape[1])).square().mean()


def drawn_standard(
    norm: Callable[[Tensor], Tensor], *more: Callable[[Tensor], Tensor]
) -> Callable[[Dice], Case]:
    """Return what builds a model of any size with one of these norms."""

    def make(dice: Dice) -> Case:
        chosen, rows = dice.one_of(norm, *more), dice.whole(8, 40)
        if dice.one_of(True, False):
            return Case(Standard(chosen, dice.whole(16, 40)), classify, labelled(rows, dice.whole(5, 12)))
        return Case(Dependent(chosen, dice.whole(16, 40)), classify, vectors(rows))

    return make


def sick() -> list[Patient]:
    """Return models whose samples share a mean and a spread."""
    build: dict[str, Callable[[], Case]] = {
        "rows": lambda: Case(Dependent(by_batch), classify, vectors()),
        "steps": lambda: Case(Standard(by_batch_rooted), classify, labelled()),
        "everything": lambda: Case(Dependent(by_whole), classify, vectors()),
        "layer-norm": lambda: Case(Dependent(Flipped()), classify, vectors()),
        "layer-norm-called": lambda: Case(
            Dependent(lambda h: F.layer_norm(h.T, (len(h),)).T), classify, vectors()
        ),
    }
    return [
        Patient(f"standard-over-batch-{name}", "standards", seeded(make), ("UG106",))
        for name, make in build.items()
    ]


def healthy() -> list[Patient]:
    """Return models whose samples stay apart, or meet on purpose."""
    build: dict[str, Callable[[], Case]] = {
        "of-each": lambda: Case(Dependent(by_features), classify, vectors()),
        "of-each-step": lambda: Case(Standard(by_features), classify, labelled()),
        "that-is-kept": lambda: Case(Dependent(Running()), classify, vectors()),
        "of-what-is-put-out": lambda: Case(Twins(), decorrelated, vectors(24)),
        "as-a-feature": lambda: Case(Dependent(with_spread), classify, vectors()),
        "centred": lambda: Case(Dependent(lambda h: h - 0.3 * h.mean(0)), classify, vectors()),
    }
    return [
        Patient(f"standard-{name}", "standards", seeded(make), near=("UG106",))
        for name, make in build.items()
    ]


DRAWS = (
    Draw("standard-over-batch", "standards", drawn_standard(by_batch, by_batch_rooted), ("UG106",)),
    Draw("standard-of-each", "standards", drawn_standard(by_features), near=("UG106",)),
)
