"""Normalisations in evaluation mode: on statistics of no batch, and on those of batches."""

from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo import sound
from zoo.dice import Dice, Draw
from zoo.patient import Patient

NORMS = nn.modules.batchnorm._NormBase


def perceptron(depth: int = 3, width: int = sound.WIDTH) -> nn.Sequential:
    """Return a ReLU perceptron with batch normalisation."""
    parts: list[nn.Module] = []
    for k in range(depth):
        parts += [nn.Linear(width if k else sound.FEATURES, width), nn.BatchNorm1d(width), nn.ReLU()]
    model = nn.Sequential(*parts, nn.Linear(width, sound.CLASSES))
    sound.he(model)
    return model


class Branches(nn.Module):
    """Residual layers with batch normalisation in each branch."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        width = sound.FEATURES
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(depth))
        self.head = nn.Linear(width, sound.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + torch.tanh(norm(layer(x)))
        return self.head(x)


def instances() -> nn.Sequential:
    """Return a small convolutional network with instance normalisation that keeps statistics."""
    model = sound.cnn()
    for index, part in enumerate(model):
        if isinstance(part, nn.BatchNorm2d):
            model[index] = nn.InstanceNorm2d(part.num_features, affine=True, track_running_stats=True)
    return model


BUILD: dict[str, Any] = {"mlp": perceptron, "residual": Branches, "cnn": sound.cnn}


def deep(depth: int, width: int = 16) -> nn.Sequential:
    """Return many default convolutions, each with a batch normalisation behind it."""
    parts: list[nn.Module] = []
    for k in range(depth):
        inside = width if k else 3
        parts += [nn.Conv2d(inside, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, sound.CLASSES))


def still(kind: str, model: nn.Module, batches: int = 0, *, all_of_it: bool = True) -> Case:
    """Return a case whose normalisations, or the whole model, are in eval mode after so many batches."""
    for _ in range(batches):
        model(sound.batch(kind)[0])
    if all_of_it:
        model.eval()
    for part in model.modules():
        if isinstance(part, NORMS):
            part.eval()
    return sound.case(kind, lambda m: model)


def sick() -> list[Patient]:
    """Return models whose norms normalise nothing."""
    return sound.patients({
        "norm-never-set": ("mlp", lambda: still("mlp", perceptron()), ("UG613",), ()),
        "norm-never-set-in-training": (
            "residual",
            lambda: still("residual", Branches(), all_of_it=False),
            ("UG613",),
            (),
        ),
        "norm-never-set-cnn": ("cnn", lambda: still("cnn", sound.cnn()), ("UG613",), ()),
        "norm-never-set-instances": ("cnn", lambda: still("cnn", instances()), ("UG613",), ()),
        "norm-never-set-deep": (
            "cnn",
            lambda: still("cnn", deep(9)),
            ("UG101", "UG202", "UG613"),
            ("UG205", "UG602"),
        ),
    })


def healthy() -> list[Patient]:
    """Return models whose frozen norms have statistics, by a batch or by a checkpoint."""
    return sound.patients({
        "norm-set-once": ("mlp", lambda: still("mlp", perceptron(), 1), (), ()),
        "norm-set-in-branches": ("residual", lambda: still("residual", Branches(), 20), (), ()),
        "norm-set-cnn": ("cnn", lambda: still("cnn", sound.cnn(), 20, all_of_it=False), (), ()),
        "norm-set-instances": ("cnn", lambda: still("cnn", instances(), 20), (), ()),
        "norm-loaded": ("mlp", lambda: still("mlp", loaded()), (), ()),
    })


def loaded() -> nn.Module:
    """Return a perceptron with the statistics of another one, which came without a count."""
    model, other = perceptron(), perceptron()
    other(4 * sound.batch("mlp", 256)[0])
    kept = {name: value for name, value in other.state_dict().items() if "running" in name}
    model.load_state_dict(kept, strict=False)
    return model


def drawn(batches: int) -> Any:
    """Return what builds a case of drawn depth whose norms are in eval mode."""

    def make(dice: Dice) -> Case:
        kind = dice.one_of("mlp", "residual")
        return still(kind, BUILD[kind](dice.whole(2, 4)), batches, all_of_it=dice.one_of(True, False))

    return make


DRAWS = (
    Draw("norm-never-set", "norms", drawn(0), ("UG613",)),
    Draw("norm-set", "norms", drawn(10), near=("UG613",)),
)
