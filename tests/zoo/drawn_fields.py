"""Drawn by seed: flows, and games of a generator against a discriminator."""

from typing import Any

from unitygain._case import Case
from zoo import flows, games
from zoo.dice import Dice, Draw


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
)
