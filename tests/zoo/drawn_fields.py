"""Drawn by seed: flows, and games of a generator against a discriminator, denoisers."""

from typing import Any

from unitygain._case import Case
from zoo import denoisers, flows, games
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


UNBOUNDED = (("sample", denoisers.ratio), ("v", denoisers.ratio), ("noise", denoisers.bound))
EVEN = (("sample", denoisers.one), ("v", denoisers.one), ("noise", denoisers.one))

DRAWS = (
    Draw("flow-additive-loud", "flows", additive(5.0, 7.0, 8), ("UG703",), ("UG102", "UG201", "UG104")),
    Draw("flow-affine-mixed-loud", "flows", mixed(5.0, 8.0, 12), ("UG703",), ("UG102", "UG201")),
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
)
