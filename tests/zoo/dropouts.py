"""Dropout that leaves next to nothing, as a module, an argument or a function; and dropout as it is used."""

from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo import sound
from zoo.dice import Dice, Draw
from zoo.patient import Patient

F = nn.functional


def layers(p: float, depth: int = 2, width: int = sound.WIDTH) -> nn.Module:
    """Return a perceptron with dropout behind every activation."""
    parts = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU(), nn.Dropout(p))]
    model = nn.Sequential(
        nn.Linear(sound.FEATURES, width), nn.ReLU(), *parts, nn.Linear(width, sound.CLASSES)
    )
    return sound.he(model)


class Called(nn.Module):
    """A convolutional network whose forward calls dropout as a function."""

    def __init__(self, p: float, *, maps: bool = False) -> None:
        super().__init__()
        parts = list(sound.cnn())
        self.features, self.flat, self.head = (
            nn.Sequential(*parts[:-3]),
            nn.Sequential(*parts[-3:-1]),
            parts[-1],
        )
        self.p, self.maps = p, maps

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        if self.maps:
            return self.head(self.flat(F.dropout2d(y, self.p)))
        return self.head(F.dropout(self.flat(y), self.p))


class TwoLSTMs(nn.Module):
    """Two layers of LSTM with dropout between them, read at the last step."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(sound.FEATURES, sound.WIDTH, 2, batch_first=True, dropout=p)
        self.head = nn.Linear(sound.WIDTH, sound.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def encoder(p: float) -> nn.Module:
    """Return a transformer with dropout wherever torch's layers have it."""
    model = sound.Transformer()
    model.layers = nn.ModuleList(
        nn.TransformerEncoderLayer(sound.WIDTH, 4, 2 * sound.WIDTH, p, batch_first=True, norm_first=True)
        for _ in range(3)
    )
    return model


def attended(p: float) -> nn.Module:
    """Return a transformer with dropout on its attention weights alone."""
    model = encoder(0.0)
    for layer in model.layers:  # pyright: ignore[reportGeneralTypeIssues]
        layer.self_attn.dropout = p
    return model


def evaluated(p: float) -> nn.Module:
    """Return a perceptron whose dropout is switched off."""
    model = layers(p)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.eval()
    return model


class Deep(nn.Module):
    """Residual layers, of whose branches many are left out for whole rows (stochastic depth)."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(sound.FEATURES, sound.FEATURES) for _ in range(4))
        self.head = nn.Linear(sound.FEATURES, sound.CLASSES)
        self.keep = 1 - drop

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + torch.tanh(layer(x)) * x.new_empty(len(x), 1).bernoulli_(self.keep).div_(self.keep)
        return self.head(x)


class Hidden(nn.Module):
    """Residual layers on inputs most of which are hidden, without being put to scale."""

    def __init__(self, hidden: float) -> None:
        super().__init__()
        self.inner, self.hidden = sound.residual(), hidden

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x * torch.full_like(x, 1 - self.hidden).bernoulli())


def case(kind: str, model: nn.Module, rows: int = 32) -> Case:
    """Return the classification of noise by `model`, which reads what models of `kind` do."""
    return sound.case(kind, lambda m: model, data=[sound.batch(kind, rows)])


def sick() -> list[Patient]:
    """Return models whose dropout keeps a tenth or less."""
    return sound.patients({
        "dropout-keep-probability": ("mlp", lambda: case("mlp", layers(0.95)), ("UG612",), LOUD),
        "dropout-of-all": ("mlp", lambda: case("mlp", layers(1.0)), ("UG612",), ALL),
        "dropout-called": ("cnn", lambda: case("cnn", Called(0.92)), ("UG612",), ()),
        "dropout-called-on-maps": ("cnn", lambda: case("cnn", Called(0.9, maps=True)), ("UG612",), ()),
        "dropout-called-on-all": ("cnn", lambda: case("cnn", Called(1.0)), ("UG612",), ALL),
        "dropout-between-lstms": ("recurrent", lambda: case("recurrent", TwoLSTMs(0.9)), ("UG612",), ()),
        "dropout-in-encoder": ("transformer", lambda: case("transformer", encoder(0.95)), ("UG612",), ()),
        "dropout-in-attention": ("transformer", lambda: case("transformer", attended(0.95)), ("UG612",), ()),
    })


def healthy() -> list[Patient]:
    """Return models with dropout as recipes have it, or whose masks are something else."""
    return sound.patients({
        "dropout-of-a-half": ("mlp", lambda: case("mlp", layers(0.5)), (), ()),
        "dropout-of-eight-tenths": ("mlp", lambda: case("mlp", layers(0.8, depth=1)), (), ()),
        "dropout-called-lightly": ("cnn", lambda: case("cnn", Called(0.3)), (), ()),
        "dropout-light-between-lstms": ("recurrent", lambda: case("recurrent", TwoLSTMs(0.5)), (), ()),
        "dropout-light-in-encoder": ("transformer", lambda: case("transformer", encoder(0.1)), (), ()),
        "dropout-switched-off": ("mlp", lambda: case("mlp", evaluated(0.95)), (), ()),
        "stochastic-depth": ("residual", lambda: case("residual", Deep(0.9), 256), (), ()),
        "inputs-hidden": ("residual", lambda: case("residual", Hidden(0.9)), (), ()),
    })


# The noise of what is kept makes logits loud; where nothing passes, nothing in front of it learns.
LOUD = ("UG605",)
ALL = ("UG101", "UG103", "UG202", "UG205", "UG206", "UG603")
BUILD: dict[str, Any] = {"mlp": layers, "cnn": Called, "recurrent": TwoLSTMs, "transformer": encoder}


def dropped(low: float, high: float) -> Any:
    """Return what builds a case with a drawn share of dropout."""

    def make(dice: Dice) -> Case:
        kind = dice.one_of(*BUILD)
        return case(kind, BUILD[kind](dice.between(low, high)))

    return make


DRAWS = (
    Draw("dropout-high", "dropouts", dropped(0.91, 0.97), ("UG612",), LOUD),
    Draw("dropout", "dropouts", dropped(0.05, 0.6), near=("UG612",)),
)
