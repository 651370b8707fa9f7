"""Drawn by seed: flows, games of a generator against a discriminator, denoisers, circuits."""

from typing import Any

import torch

from unitygain._case import Case
from zoo import circuits, denoisers, flows, games
from zoo.dice import Dice, Draw
from zoo.generative import Denoiser


def additive(low: float, high: float, shallowest: int) -> Any:
    """Return what builds additive couplings whose nets end with weights of a size between the two."""

    def make(dice: Dice) -> Case:
        features, spread = 2 * dice.whole(3, 6), dice.between(low, high)
        depth = dice.whole(shallowest, shallowest + 4)
        return flows.case(lambda: flows.Additive(features, 24, spread), depth, 32, features)

    return make


def mixed(low: float, high: float, shallowest: int) -> Any:
    """Return what builds affine couplings with orthogonal maps between them."""

    def make(dice: Dice) -> Case:
        features, spread = 2 * dice.whole(4, 7), dice.between(low, high)
        depth = dice.whole(shallowest, shallowest + 4)
        return flows.case(lambda: flows.Step(features, 24, spread), depth, 32, features)

    return make


def whole(low: float, high: float) -> Any:
    """Return what builds a flow that is seen as a whole: triangular maps, or couplings in a list."""

    def make(dice: Dice) -> Case:
        features, spread = 2 * dice.whole(4, 7), dice.between(low, high)
        if dice.one_of(True, False):
            return flows.told(lambda: flows.Triangular(features, 0.4 * spread), features)
        return flows.told(lambda: flows.Coupled(features, spread), features)

    return make


def game(low: float, high: float, *losses: Any) -> Any:
    """Return what builds a game in which the discriminator's logits are about a number between the two."""

    def make(dice: Dice) -> Case:
        parts, value = dice.one_of(games.points, games.tables), dice.between(low, high)
        return games.decided(parts, value, dice.one_of(*losses), wasserstein=games.wasserstein)

    return make


def denoiser(*losses: tuple[str, denoisers.Weight]) -> Any:
    """Return what builds a diffusion model that predicts one thing under one weight."""

    def make(dice: Dice) -> Case:
        predicts, weight = dice.one_of(*losses)
        model, shape = dice.one_of(
            (lambda: Denoiser(dice.whole(24, 48), 4), (32, 2)),
            (lambda: denoisers.Pixels(dice.whole(6, 12)), (32, 1, 5, 5)),
            (lambda: denoisers.Rows(5, dice.whole(24, 48)), (32, 5)),
        )
        return denoisers.case(model(), predicts, weight, shape)

    return make


def deep(dice: Dice) -> Case:
    """Build a circuit of many layers at random angles."""
    kind, pairs = dice.one_of(
        (circuits.Simulator, circuits.ring),
        (circuits.Simulator, circuits.dense),
        (circuits.RealAnsatz, circuits.dense),
    )
    return circuits.minimised(kind(6, dice.one_of(9, 15), pairs(6)))


def shallow(dice: Dice) -> Case:
    """Build a circuit of one or two layers between neighbours, of X on one qubit."""
    kind, qubits = dice.one_of(circuits.Simulator, circuits.RealAnsatz), dice.one_of(6, 8)
    return circuits.minimised(kind(qubits, dice.whole(1, 2), circuits.ring(qubits)))


def undone(dice: Dice) -> Case:
    """Build a deep circuit that starts close to blocks of the identity."""
    size, pairs = dice.one_of(3, 5), dice.one_of(circuits.ring, circuits.dense)
    made = circuits.minimised(circuits.Simulator(6, size * dice.whole(2, 4), pairs(6)))
    near = circuits.identity(made, "angles", size)
    with torch.no_grad():
        near.model.angles.add_(0.02 * torch.randn(near.model.angles.shape))
    return near


UNBOUNDED = (("sample", denoisers.ratio), ("v", denoisers.ratio), ("noise", denoisers.bound))
EVEN = (("sample", denoisers.one), ("v", denoisers.one), ("noise", denoisers.one))

DRAWS = (
    # Ten such couplings turn every sample into the direction that is stretched.
    Draw(
        "flow-additive-loud", "flows", additive(5.0, 7.0, 8), ("UG703",), ("UG102", "UG201", "UG104", "UG205")
    ),
    Draw("flow-affine-mixed-loud", "flows", mixed(5.0, 8.0, 12), ("UG703",), ("UG102", "UG201")),
    Draw("flow-told-loud", "flows", whole(2.5, 3.5), ("UG703",), ("UG102", "UG201", "UG104", "UG605")),
    Draw("flow-told", "flows", whole(0.01, 0.1), near=("UG703",)),
    Draw("flow-additive", "flows", additive(0.1, 0.6, 6), near=("UG703",)),
    Draw("flow-affine-mixed", "flows", mixed(0.1, 0.6, 6), near=("UG703",)),
    Draw("game-sure", "games", game(-25, -7, games.saturating), ("UG704",)),
    Draw(
        "game-sure-steady", "games", game(-25, -7, games.non_saturating, games.wasserstein), near=("UG704",)
    ),
    Draw("game-undecided", "games", game(-2, 2, games.saturating), near=("UG704",)),
    Draw("denoiser-unbounded", "denoisers", denoiser(*UNBOUNDED), ("UG705",)),
    Draw("denoiser-even", "denoisers", denoiser(*EVEN), near=("UG705",)),
    Draw("denoiser-min-snr", "denoisers", denoiser(("sample", denoisers.bounded)), near=("UG705",)),
    Draw("circuit-deep", "circuits", deep, ("UG706",)),
    Draw("circuit-shallow", "circuits", shallow, near=("UG706",)),
    Draw("circuit-identity", "circuits", undone, near=("UG706",)),
)
