"""Drawn by seed: gradients and signals over depth, in one place, dead and saturated units, rank."""

import math
from typing import Any

import torch
from torch import nn

from unitygain._case import Case
from zoo import cnn, mlp, transformer
from zoo.dice import Dice, Draw


def identity(_: int) -> nn.Module:
    """Return no norm."""
    return nn.Identity()


def default_mlp(activation: type[nn.Module], shallowest: int) -> Any:
    """Return what builds layers of PyTorch's own initialisation."""

    def make(dice: Dice) -> Case:
        width, depth = dice.whole(40, 100), dice.whole(shallowest, 25)
        return mlp.case(mlp.plain(width, depth, activation), width)

    return make


def default_cnn(dice: Dice) -> Case:
    """Return convolutions of PyTorch's own initialisation."""
    return cnn.case(cnn.Network(dice.whole(12, 24), dice.whole(10, 16), identity), size=6)


def loud_mlp(dice: Dice) -> Case:
    """Return ReLU layers whose weights are two to four times He's."""
    width, gain = dice.whole(48, 80), dice.between(3.0, 5.5)
    return mlp.case(mlp.plain(width, dice.whole(12, 20), nn.ReLU, mlp.times(gain)), width)


def quiet_mlp(dice: Dice) -> Case:
    """Return ReLU layers whose weights are a third to a half of He's."""
    width, gain = dice.whole(48, 80), dice.between(0.4, 0.8)
    return mlp.case(mlp.plain(width, dice.whole(18, 30), nn.ReLU, mlp.times(gain)), width)


def one_layer(low: float, high: float) -> Any:
    """Return what builds a network in which one layer's weights are off by a power of ten."""

    def make(dice: Dice) -> Case:
        activation, gain = dice.one_of((nn.ReLU, math.sqrt(2)), (nn.SELU, 1.0))
        factor, layer = dice.power(low, high), dice.whole(2, 7)
        return mlp.case(mlp.loud_layer(layer, factor, activation, mlp.times(gain)), 48)

    return make


def one_taken_back(dice: Dice) -> Case:
    """Return a network in which one layer is too loud, or too quiet, and the next one takes it back."""
    width, layer, factor = dice.whole(48, 80), dice.whole(2, 7), dice.power(-1.3, 1.3)
    model: Any = mlp.plain(width, 10, nn.ReLU, mlp.he)
    with torch.no_grad():
        model[2 * layer].weight.mul_(factor)
        model[2 * layer + 2].weight.div_(factor)
    return mlp.case(model, width)


def switched_off(low: float, high: float) -> Any:
    """Return what builds a ReLU network in one layer of which a share of the units never opens."""

    def make(dice: Dice) -> Case:
        width, depth = dice.whole(48, 96), dice.whole(4, 6)
        share, layer = dice.between(low, high), dice.whole(1, 3)
        model: Any = mlp.plain(width, depth, nn.ReLU, mlp.he)
        nn.init.constant_(model[2 * layer].bias[: math.ceil(share * width)], -40.0)
        return mlp.case(model, width)

    return make


def tanh_mlp(low: float, high: float, shallowest: int = 5) -> Any:
    """Return what builds tanh layers with weights of a drawn gain."""

    def make(dice: Dice) -> Case:
        width, gain = dice.whole(48, 80), dice.between(low, high)
        depth = dice.whole(shallowest, shallowest + 4)
        return mlp.case(mlp.plain(width, depth, nn.Tanh, mlp.times(gain)), width)

    return make


def he_mlp(dice: Dice) -> Case:
    """Return ReLU layers at their gain."""
    width = dice.whole(48, 128)
    return mlp.case(mlp.plain(width, dice.whole(8, 16), nn.ReLU, mlp.he), width)


def he_cnn(dice: Dice) -> Case:
    """Return ReLU convolutions at their gain."""
    return cnn.case(cnn.Network(dice.whole(6, 12), dice.whole(12, 20), identity, he=True))


def residual(gain: float, shallowest: int) -> Any:
    """Return what builds residual blocks whose branches have `gain`, or 1/sqrt(depth) for 0."""

    def make(dice: Dice) -> Case:
        width, depth = dice.whole(40, 64), dice.whole(shallowest, shallowest + 12)
        return mlp.case(mlp.residual(width, depth, norm=False, gain=gain or 1 / math.sqrt(depth)), width)

    return make


def pre_norm(dice: Dice) -> Case:
    """Return a Pre-LN transformer."""
    return transformer.case(transformer.Transformer(dice.whole(4, 8), dice.one_of(32, 48, 64), first=True))


DRAWS = (
    Draw("relu-default", "mlp", default_mlp(nn.ReLU, 12), ("UG101",), ("UG205",)),
    Draw("tanh-default", "mlp", default_mlp(nn.Tanh, 16), ("UG101",), ("UG205",)),
    Draw("sigmoid-default", "mlp", default_mlp(nn.Sigmoid, 12), ("UG101", "UG205"), ()),
    Draw("cnn-default", "cnn", default_cnn, ("UG101",), ("UG205", "UG203")),
    Draw("loud-relu", "mlp", loud_mlp, ("UG102", "UG201"), ("UG605", "UG601")),
    Draw("unscaled-residual", "residual", residual(2.0, 24), ("UG102", "UG201"), ("UG205", "UG605", "UG601")),
    Draw("quiet-relu", "mlp", quiet_mlp, ("UG101", "UG202"), ("UG205",)),
    Draw("one-layer-tiny", "mlp", one_layer(-5, -3.5), ("UG103",), ("UG205",)),
    Draw("one-layer-loud", "mlp", one_layer(3.3, 4.3), ("UG104",), ("UG605", "UG601")),
    Draw("mostly-dead", "mlp", switched_off(0.82, 0.95), ("UG203",), ("UG301", "UG205")),
    Draw("saturated-tanh", "mlp", tanh_mlp(8.0, 16.0), ("UG204",), ("UG102", "UG301")),
    Draw("saturated-tanh-deep", "mlp", tanh_mlp(10.0, 16.0, 10), ("UG204", "UG301"), ("UG102",)),
    Draw("born-dead", "mlp", switched_off(1.0, 1.0), ("UG206",), ("UG205", "UG103", "UG603")),
    Draw("relu-he", "mlp", he_mlp, near=("UG101", "UG102", "UG201", "UG202", "UG301")),
    Draw("cnn-he", "cnn", he_cnn, near=("UG101", "UG205")),
    Draw("scaled-residual", "residual", residual(0.0, 16), near=("UG102", "UG201")),
    Draw("one-layer-taken-back", "mlp", one_taken_back, near=("UG103", "UG104")),
    Draw("partly-dead", "mlp", switched_off(0.3, 0.5), near=("UG203", "UG206")),
    Draw("steep-tanh", "mlp", tanh_mlp(1.0, 1.5), near=("UG204",)),
    Draw("pre-norm", "transformer", pre_norm, near=("UG205", "UG702")),
)
