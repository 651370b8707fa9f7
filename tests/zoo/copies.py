"""Layers whose units start as copies of each other, and starts that look like it and are none."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo import sound
from zoo.dice import Dice, Draw
from zoo.patient import Patient


def constant(value: float, *kinds: type[nn.Module]) -> Callable[[nn.Module], None]:
    """Return what fills the weights of linear maps, or modules of these kinds, with one number."""

    def fill(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, kinds or (nn.Linear, nn.Conv2d)):
                for name, parameter in module.named_parameters(recurse=False):
                    nn.init.constant_(parameter, 0.0 if "bias" in name else value)

    return fill


def branches(model: nn.Module) -> None:
    """Fill both maps of every residual branch with one number."""
    for module in model.modules():
        if isinstance(module, sound.Residual):
            constant(0.1)(module)


def zero_branches(model: nn.Module) -> None:
    """Start the last map of every residual branch at zero."""
    for module in model.modules():
        if isinstance(module, sound.Residual):
            nn.init.zeros_(module.down.weight)
            nn.init.zeros_(module.down.bias)


def same_head(model: Any) -> None:
    """Start a head at equal rows of different entries."""
    head = sound.head(model)
    with torch.no_grad():
        head.weight.copy_(head.weight[:1].expand_as(head.weight))
        head.bias.zero_()


def twice(model: Any) -> None:
    """Make a hidden layer wider by copies of its units, which the layer behind weighs differently."""
    with torch.no_grad():
        half = len(model[2].weight) // 2
        model[2].weight[half:] = model[2].weight[:half]
        model[2].bias[half:] = model[2].bias[:half]


def dirac(model: Any) -> None:
    """Start the second convolution at the identity, with channels of zeros beside it."""
    nn.init.dirac_(model[3].weight)


class Gated(nn.Module):
    """Hidden units behind gates of zero weights that are held open by a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate = nn.Linear(sound.FEATURES, sound.WIDTH), nn.Linear(sound.FEATURES, sound.WIDTH)
        self.head = nn.Linear(sound.WIDTH, sound.CLASSES)
        nn.init.zeros_(self.gate.weight)
        nn.init.ones_(self.gate.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.up(x)) * torch.sigmoid(self.gate(x)))


def drawn(sick: bool) -> Any:
    """Return what builds a network of drawn sizes, of which one layer or none is a constant."""

    def make(dice: Dice) -> Case:
        depth, width = dice.whole(3, 4), dice.whole(24, 48)

        def change(_: nn.Module) -> nn.Module:
            model = sound.mlp(depth, width)
            if sick:
                constant(dice.power(-2.0, -1.0))(model[:-1])
            else:
                same_head(model)
            return model

        return sound.case("mlp", change)

    return make


ALSO = ("UG101", "UG102", "UG103", "UG104", "UG201", "UG202", "UG205", "UG301", "UG603")


def sick() -> list[Patient]:
    """Return cases in which units stay copies."""
    return sound.patients({
        "copies-mlp": ("mlp", lambda: sound.case("mlp", constant(0.02)), ("UG207",), ALSO),
        "copies-cnn": ("cnn", lambda: sound.case("cnn", constant(0.05)), ("UG207",), ALSO),
        "copies-residual": ("residual", lambda: sound.case("residual", branches), ("UG207",), ALSO),
        "copies-recurrent": (
            "recurrent",
            lambda: sound.case("recurrent", constant(0.05, nn.LSTM, nn.Linear)),
            ("UG207",),
            ALSO,
        ),
    })


def healthy() -> list[Patient]:
    """Return cases with rows of zeros, identities, and copies that something tells apart."""
    return sound.patients({
        "copies-zero-branches": ("residual", lambda: sound.case("residual", zero_branches), (), ()),
        "copies-told-apart": ("mlp", lambda: sound.case("mlp", twice), (), ()),
        "copies-dirac": ("cnn", lambda: sound.case("cnn", dirac), (), ()),
        "copies-open-gates": ("mlp", lambda: sound.case("mlp", lambda _: Gated()), (), ()),
    })


DRAWS = (
    Draw("copies-constant", "copies", drawn(sick=True), ("UG207",), ALSO),
    Draw("copies-head", "copies", drawn(sick=False), near=("UG207",)),
)
