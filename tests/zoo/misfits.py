"""Losses that are given what they are not defined for, and losses that look a little like those."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo import sound
from zoo.dice import Dice, Draw
from zoo.patient import Patient

Loss = Callable[[nn.Module, Any], Tensor]


def likelihood(dim: int | None) -> Loss:
    """Return the loss of log-probabilities over a dimension; None gives it raw outputs."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        out = model(batch[0])
        return F.nll_loss(out if dim is None else out.log_softmax(dim), batch[1])

    return loss


def signs(low: float) -> Loss:
    """Return a binary cross-entropy of the first output, whose targets are `low` and 1."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        targets = torch.where(batch[1] > 1, 1.0, low)
        return F.binary_cross_entropy_with_logits(model(batch[0])[:, 0], targets)

    return loss


def several(model: nn.Module, batch: Any) -> Tensor:
    """Binary cross-entropy of all classes at once."""
    return F.binary_cross_entropy_with_logits(model(batch[0]), F.one_hot(batch[1], sound.CLASSES).float())


def behind(end: nn.Module) -> Callable[[Any], nn.Module]:
    """Return what puts an activation behind a model."""
    return lambda model: nn.Sequential(model, end)


def numbers(kind: str, end: nn.Module, scale: float, *, positive: bool = False) -> Case:
    """Return a regression on normal numbers of a size, by a model that ends in an activation."""
    inputs, _ = sound.batch(kind)
    targets = scale * torch.randn(len(inputs), sound.CLASSES)
    data = [(inputs, targets.abs() if positive else targets)]
    return sound.case(kind, behind(end), loss=lambda m, b: F.mse_loss(m(b[0]), b[1]), data=data)


def raised(kind: str, end: nn.Module, bias: float) -> Case:
    """Return a classifier that ends in an activation, on a bias of its last layer."""

    def change(model: Any) -> nn.Module:
        nn.init.constant_(sound.head(model).bias, bias)
        return nn.Sequential(model, end)

    return sound.case(kind, change)


def sick() -> list[Patient]:
    """Return losses whose arguments do not fit them."""
    return sound.patients({
        "misfit-axis": (
            "transformer",
            lambda: sound.case("transformer", loss=likelihood(0)),
            ("UG614",),
            (),
        ),
        "misfit-raw-outputs": (
            "residual",
            lambda: sound.case("residual", loss=likelihood(None)),
            ("UG614",),
            (),
        ),
        "misfit-signs": (
            "recurrent",
            lambda: sound.case("recurrent", loss=signs(-1.0)),
            ("UG614",),
            (),
        ),
        "misfit-behind-tanh": ("cnn", lambda: numbers("cnn", nn.Tanh(), 3.0), ("UG614",), ()),
        "misfit-behind-relu": ("residual", lambda: numbers("residual", nn.ReLU(), 1.0), ("UG614",), ()),
        "misfit-rectified": ("mlp", lambda: raised("mlp", nn.ReLU(), 0.0), ("UG614",), ()),
        "misfit-positive": (
            "transformer",
            lambda: sound.case("transformer", behind(nn.Softplus()), loss=several),
            ("UG614",),
            (),
        ),
        "misfit-rectified-cnn": ("cnn", lambda: raised("cnn", nn.ReLU6(), -0.1), ("UG614",), ()),
        "misfit-rectified-lstm": ("recurrent", lambda: raised("recurrent", nn.ReLU(), 0.0), ("UG614",), ()),
    })


def healthy() -> list[Patient]:
    """Return losses that are given what they take."""
    return sound.patients({
        "fit-axis": ("transformer", lambda: sound.case("transformer", loss=likelihood(1)), (), ()),
        "fit-smoothed": ("recurrent", lambda: sound.case("recurrent", loss=signs(0.1)), (), ()),
        "fit-behind-tanh": ("cnn", lambda: numbers("cnn", nn.Tanh(), 0.5), (), ()),
        "fit-behind-softplus": (
            "residual",
            lambda: numbers("residual", nn.Softplus(), 1.0, positive=True),
            (),
            (),
        ),
        "fit-leaky": (
            "transformer",
            lambda: sound.case("transformer", behind(nn.LeakyReLU()), loss=several),
            (),
            (),
        ),
        "fit-rectified": ("mlp", lambda: raised("mlp", nn.ReLU(), 3.0), (), ()),
        "fit-softplus": ("cnn", lambda: raised("cnn", nn.Softplus(), 0.0), (), ()),
    })


def scaled(low: float, high: float) -> Callable[[Dice], Case]:
    """Return what builds a regression behind a tanh whose targets have a drawn size."""
    return lambda dice: numbers(dice.one_of("cnn", "residual", "mlp"), nn.Tanh(), dice.between(low, high))


def rectified(low: float, high: float) -> Callable[[Dice], Case]:
    """Return what builds a classifier behind a ReLU, whose last biases have a drawn size."""
    return lambda dice: raised(
        dice.one_of("mlp", "residual", "transformer"), nn.ReLU(), dice.between(low, high)
    )


DRAWS = (
    Draw("misfit-behind-tanh", "training", scaled(1.7, 6.0), ("UG614",)),
    Draw("misfit-rectified", "training", rectified(-0.05, 0.0), ("UG614",), ("UG203",)),
    Draw("fit-rectified", "training", rectified(2.0, 4.0), near=("UG614",)),
    Draw("fit-behind-tanh", "training", scaled(0.2, 0.7), near=("UG614",)),
)
