"""Schedules of the learning rate: factors that are rates, and factors that are shares of one."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from unitygain._case import Case
from zoo import sound
from zoo.dice import Dice, Draw
from zoo.patient import Patient, classify

SHORT = (("UG602",), ())
Factor = Callable[[int], float]
ADAM, ADAMW, RMSPROP = torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop


def held(warm: int, most: float = 1.0) -> Factor:
    """A warm-up, and its last rate ever after."""
    return lambda step: most * min(1.0, (step + 1) / warm)


def from_nothing(warm: int, most: float = 1.0) -> Factor:
    """The same, whose first step is none."""
    return lambda step: most * min(1.0, step / warm)


def cosine(steps: int, most: float = 1.0) -> Factor:
    """A fall along half a cosine."""
    return lambda step: most * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def constant(most: float) -> Factor:
    """No schedule at all."""
    return lambda _: most


def noam(width: int, warm: int) -> Factor:
    """The first transformer's, which is a rate by itself."""
    return lambda step: width**-0.5 * min((step + 1) ** -0.5, (step + 1) * warm**-1.5)


def scheduled(kind: str, factor: Any, rate: float, optimizer: Any = ADAM) -> Case:
    """Return a case whose rate is multiplied by the factor, one for each group where there are several."""
    return sound.case(
        kind,
        optimizer=lambda parameters: optimizer(parameters, rate),
        schedule=lambda of: torch.optim.lr_scheduler.LambdaLR(of, factor),
    )


def discriminative(small: float) -> Case:
    """Return a fine-tuning whose body gets a small share of the rate, and whose head gets all of it."""
    model = sound.MODELS["transformer"]()
    head = list(sound.head(model).parameters())
    body = [p for p in model.parameters() if all(p is not other for other in head)]
    optimizer = ADAM([{"params": body}, {"params": head}], 1e-3)
    factors: list[Factor] = [held(20, small), held(20)]
    schedule = functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=factors)
    return Case(model, classify, [sound.batch("transformer")], optimizer, schedule=schedule)


class Staged(torch.optim.lr_scheduler.LambdaLR):
    """A rate that rises tenfold at the 800th step, after a long warm-up."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(optimizer, lambda step: 0.04 * min(1.0, (step + 1) / 400) if step < 800 else 1.0)


def sick() -> list[Patient]:
    """Return schedules that leave a thousandth of the rate."""
    return sound.patients({
        "rate-squared-held": ("transformer", lambda: scheduled("transformer", held(10, 2e-3), 2e-3), *SHORT),
        "rate-squared-from-nothing": (
            "residual",
            lambda: scheduled("residual", from_nothing(20, 1e-3), 1e-3, ADAMW),
            *SHORT,
        ),
        "rate-squared-constant": ("cnn", lambda: scheduled("cnn", constant(1e-3), 1e-3), *SHORT),
        "rate-squared-falling": (
            "recurrent",
            lambda: scheduled("recurrent", cosine(400, 2e-3), 2e-3, RMSPROP),
            *SHORT,
        ),
        "rate-of-noam-times-rate": (
            "transformer",
            lambda: scheduled("transformer", noam(64, 400), 1e-3),
            *SHORT,
        ),
        "rate-held-at-a-hundredth": ("mlp", lambda: scheduled("mlp", held(10, 1e-3), 3e-3), *SHORT),
    })


def healthy() -> list[Patient]:
    """Return schedules that give the rate, or a share of it that was meant."""
    staged: dict[str, Any] = {"optimizer": lambda p: ADAM(p, 1e-3), "schedule": Staged}
    build: dict[str, tuple[str, Callable[[], Case]]] = {
        "held": ("transformer", lambda: scheduled("transformer", held(10), 2e-3)),
        "from-nothing": ("residual", lambda: scheduled("residual", from_nothing(20), 1e-3)),
        "of-one": ("transformer", lambda: scheduled("transformer", noam(64, 400), 1.0)),
        "held-at-a-tenth": ("mlp", lambda: scheduled("mlp", held(10, 0.1), 1e-2)),
        "rate-itself-of-one": ("cnn", lambda: scheduled("cnn", cosine(400, 2e-3), 1.0)),
        "of-groups": ("transformer", lambda: discriminative(0.01)),
        "in-stages": ("mlp", lambda: sound.case("mlp", **staged)),
    }
    plan = {f"rate-{name}": (kind, make, (), ()) for name, (kind, make) in build.items()}
    return [
        Patient(found.name, found.family, found.make_case, near=("UG602",)) for found in sound.patients(plan)
    ]


def squared(dice: Dice) -> Case:
    """Return a schedule whose factors are rates."""
    rate, warm = dice.power(-3.3, -2.6), dice.whole(5, 200)
    factor = dice.one_of(held(warm, rate), from_nothing(warm, rate), cosine(2 * warm, rate))
    kind = dice.one_of("mlp", "cnn", "residual", "transformer")
    return scheduled(kind, factor, rate, dice.one_of(ADAM, ADAMW, RMSPROP))


def shared(dice: Dice) -> Case:
    """Return one whose factors are shares of the rate."""
    rate, warm = dice.power(-3.3, -2.6), dice.whole(5, 200)
    factor = dice.one_of(held(warm), from_nothing(warm), cosine(10 * warm))
    kind = dice.one_of("mlp", "cnn", "residual", "transformer")
    return scheduled(kind, factor, rate, dice.one_of(ADAM, ADAMW))


DRAWS = (
    Draw("rate-squared", "optimizers", squared, ("UG602",)),
    Draw("rate-shared", "optimizers", shared, near=("UG602",)),
)
