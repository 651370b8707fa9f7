"""Losses that are not finite in a batch that comes after the first, and others that come near to it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, seeded

ROWS, FEATURES = 12, 6
Pair = tuple[Tensor, Tensor]
Loss = Callable[[nn.Module, Pair], Tensor]


def distances(floor: float) -> Loss:
    """Return the mean distance of two views."""

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        return ((model(batch[0]) - model(batch[1])).square().sum(1) + floor).sqrt().mean()

    return loss


def spreads(floor: float) -> Loss:
    """Return the mean of outputs over the spread of their rows."""

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        out = model(batch[0])
        return (out.sum(1) / (batch[1].std(1) + floor)).square().mean()

    return loss


def case(loss: Loss, width: int, batches: int, bad: int) -> Case:
    """Return batches of pairs, of which one has the same twice, and no spread."""
    data = [tuple(torch.randn(2, ROWS, FEATURES).unbind()) for _ in range(batches)]
    if bad:
        constant = torch.ones(ROWS, FEATURES) * torch.randn(ROWS, 1)
        data[bad] = (constant, constant.clone())
    model = nn.Sequential(nn.Linear(FEATURES, width), nn.GELU(), nn.Linear(width, 4))
    return Case(model, loss, data)


def sick() -> list[Patient]:
    """Return a root of zero, and a division by one, in a later batch."""
    build = {
        "root": lambda: case(distances(0.0), 16, 3, 2),
        "spread": lambda: case(spreads(0.0), 24, 4, 1),
    }
    return [Patient(f"later-{name}", "mlp", seeded(make), ("UG901",)) for name, make in build.items()]


def healthy() -> list[Patient]:
    """Return the same with a floor, or without such a batch."""
    build = {
        "root-on-a-floor": lambda: case(distances(1e-4), 16, 3, 2),
        "spread-of-others": lambda: case(spreads(0.5), 24, 4, 0),
    }
    return [Patient(f"later-{name}", "mlp", seeded(make), near=("UG901",)) for name, make in build.items()]


def bad(dice: Dice) -> Case:
    """Return a root of zero in any batch but the first."""
    batches = dice.whole(2, 4)
    return case(distances(0.0), dice.whole(8, 32), batches, dice.whole(1, batches - 1))


def fine(dice: Dice) -> Case:
    """Return the same with a floor under the root."""
    batches = dice.whole(2, 4)
    return case(distances(dice.power(-5, -3)), dice.whole(8, 32), batches, dice.whole(1, batches - 1))


DRAWS = (
    Draw("later-root", "mlp", bad, ("UG901",)),
    Draw("later-root-on-a-floor", "mlp", fine, near=("UG901",)),
)
