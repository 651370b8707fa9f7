"""Drawn by seed: recurrent networks that forget, explode, are chaotic or shut, and their near misses."""

from typing import Any

from torch import nn

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.recurrent import Reader, case, noisy, passing, remembering, shut


def tanh(shortest: int, longest: int, *, every_step: bool = False) -> Any:
    """Return what builds a tanh network of PyTorch's own initialisation."""

    def make(dice: Dice) -> Case:
        layer = nn.RNN(8, dice.whole(16, 63), batch_first=True)
        return case(Reader(layer, every_step=every_step), dice.whole(shortest, longest))

    return make


def gaussian(low: float, high: float, steps: int) -> Any:
    """Return what builds a tanh network whose recurrent weights have a drawn gain."""

    def make(dice: Dice) -> Case:
        layer = noisy(dice.between(low, high), dice.whole(48, 80))
        return case(Reader(layer), dice.whole(steps, steps + 20))

    return make


def gated(low: float, high: float) -> Any:
    """Return what builds an LSTM or GRU with a drawn shift at the gate that keeps the state."""

    def make(dice: Dice) -> Case:
        layer = dice.one_of(nn.LSTM, nn.GRU)(8, dice.whole(16, 32), batch_first=True)
        return case(Reader(shut(layer, dice.between(low, high)), every_step=True), dice.whole(10, 14))

    return make


def chain(dice: Dice) -> Case:
    """Return decaying units in a row."""
    layer = nn.RNN(8, dice.whole(14, 20), batch_first=True)
    layer = passing(layer, dice.between(0.45, 0.55), dice.between(0.95, 1.05))
    return case(Reader(layer), 100, scale=0.1)


def delay_line(dice: Dice) -> Case:
    """Return units in a row that hand on what they get, and keep nothing."""
    layer = nn.RNN(8, dice.whole(16, 28), batch_first=True)
    return case(Reader(passing(layer, 0.0, dice.between(0.97, 1.0))), 20)


def short_gru(dice: Dice) -> Case:
    """Return a GRU over few steps."""
    return case(Reader(nn.GRU(8, dice.whole(16, 40), batch_first=True)), dice.whole(10, 24))


def open_lstm(dice: Dice) -> Case:
    """Return an LSTM whose forget gates start open."""
    return case(Reader(remembering(dice.between(3.5, 5.0), dice.whole(16, 40))), dice.whole(60, 100))


DRAWS = (
    Draw("tanh-long", "recurrent", tanh(60, 199), ("UG401",), ("UG404",)),
    Draw("tanh-gaussian-loud", "recurrent", gaussian(3.5, 6.0, 50), ("UG402", "UG403"), ("UG601", "UG605")),
    Draw("tanh-every-step", "recurrent", tanh(150, 250, every_step=True), ("UG404",), ("UG601", "UG605")),
    Draw("gate-shut", "recurrent", gated(-5.0, -3.5), ("UG405",), ("UG404", "UG601", "UG605")),
    Draw("tanh-chain", "recurrent", chain, ("UG406",), ("UG401", "UG404", "UG601", "UG605")),
    Draw("gru-short", "recurrent", short_gru, near=("UG401", "UG404")),
    Draw("tanh-short", "recurrent", tanh(6, 14), near=("UG401",)),
    Draw("tanh-gaussian-even", "recurrent", gaussian(0.85, 1.1, 20), near=("UG402", "UG403")),
    Draw("lstm-open", "recurrent", open_lstm, near=("UG404",)),
    Draw("gate-half-shut", "recurrent", gated(-1.2, -0.4), near=("UG405",)),
    Draw("tanh-delay-line", "recurrent", delay_line, near=("UG406",)),
)
