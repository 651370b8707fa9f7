"""Steps of one's own that scale the loss: clips of what still carries it, and of what does not."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo import sound
from zoo.dice import Dice, Draw
from zoo.patient import Patient

Step = Callable[[Case, Any], Tensor]
SHORT = (("UG602",), ())


def clip(limit: float) -> Callable[[Iterable[nn.Parameter]], Any]:
    """Return a clip by the global norm."""
    return lambda parameters: nn.utils.clip_grad_norm_(parameters, limit)


def by_hand(scale: float, *, first: bool) -> Step:
    """Scale the loss by hand, and clip before (`first`) or after the scale is taken off."""

    def step(case: Case, batch: Any) -> Tensor:
        case.optimizer.zero_grad()
        loss = case.compute_loss(batch)
        (scale * loss).backward()
        if first and case.clip is not None:
            case.clip(case.model.parameters())
        for parameter in case.model.parameters():
            if parameter.grad is not None:
                parameter.grad /= scale
        if not first and case.clip is not None:
            case.clip(case.model.parameters())
        case.optimizer.step()
        return loss.detach()

    return step


def by_scaler(scale: float, *, first: bool) -> Step:
    """The same with a GradScaler."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)

    def step(case: Case, batch: Any) -> Tensor:
        case.optimizer.zero_grad()
        loss = case.compute_loss(batch)
        scaler.scale(loss).backward()
        if not first:
            scaler.unscale_(case.optimizer)
        if case.clip is not None:
            case.clip(case.model.parameters())
        scaler.step(case.optimizer)
        scaler.update()
        return loss.detach()

    return step


def twice(case: Case, batch: Any) -> Tensor:
    """Take the scale off twice."""
    case.optimizer.zero_grad()
    loss = case.compute_loss(batch)
    (65536 * loss).backward()
    for parameter in case.model.parameters():
        if parameter.grad is not None:
            parameter.grad /= 65536.0**2
    case.optimizer.step()
    return loss.detach()


def case(kind: str, step: Step, limit: float = 1.0, rate: float = 0.05, **options: Any) -> Case:
    """Return a case of descent with momentum by such a step."""
    optimizer = options.pop("optimizer", lambda p: torch.optim.SGD(p, rate, momentum=0.9))
    return sound.case(kind, optimizer=optimizer, step=step, clip=clip(limit), **options)


def sick() -> list[Patient]:
    """Return steps that clip what carries the scale, and one that takes it off twice."""
    return sound.patients({
        "clip-of-scaled": ("mlp", lambda: case("mlp", by_hand(65536.0, first=True)), *SHORT),
        "clip-of-scaled-half": (
            "cnn",
            lambda: case("cnn", by_scaler(2.0**14, first=True), precision="float16"),
            *SHORT,
        ),
        "clip-of-scaled-words": (
            "transformer",
            lambda: case("transformer", by_scaler(65536.0, first=True), 0.5),
            *SHORT,
        ),
        "unscaled-twice": ("residual", lambda: case("residual", twice), *SHORT),
    })


def healthy() -> list[Patient]:
    """Return steps whose clip sees the loss's own gradient, or knows of the scale."""
    half: dict[str, Any] = {"precision": "float16"}
    build: dict[str, tuple[str, Callable[[], Case]]] = {
        "by-hand": ("mlp", lambda: case("mlp", by_hand(65536.0, first=False))),
        "by-scaler": ("cnn", lambda: case("cnn", by_scaler(2.0**14, first=False), **half)),
        "words": ("transformer", lambda: case("transformer", by_scaler(65536.0, first=False), 0.5)),
        "that-knows-the-scale": ("mlp", lambda: case("mlp", by_hand(1024.0, first=True), 1024.0)),
        "tight": ("residual", lambda: case("residual", by_hand(256.0, first=False), 0.05)),
        "of-no-scale": ("residual", lambda: case("residual", by_hand(1.0, first=True))),
    }
    plan = {f"clip-{name}": (kind, make, (), ()) for name, (kind, make) in build.items()}
    return [
        Patient(found.name, found.family, found.make_case, near=("UG602",)) for found in sound.patients(plan)
    ]


def clipped(dice: Dice) -> Case:
    """Return a step that clips what carries the scale."""
    make, kind = dice.one_of(by_hand, by_scaler), dice.one_of("mlp", "cnn", "residual", "transformer")
    scale = 2.0 ** dice.whole(14, 17)
    return case(kind, make(scale, first=True), dice.between(0.3, 2.0), dice.between(0.01, 0.1))


def unscaled(dice: Dice) -> Case:
    """Return one that clips behind it."""
    make, kind = dice.one_of(by_hand, by_scaler), dice.one_of("mlp", "cnn", "residual", "transformer")
    scale = 2.0 ** dice.whole(14, 17)
    return case(kind, make(scale, first=False), dice.between(0.3, 2.0), dice.between(0.01, 0.1))


DRAWS = (
    Draw("clip-of-scaled", "optimizers", clipped, ("UG602",)),
    Draw("clip-of-unscaled", "optimizers", unscaled, near=("UG602",)),
)
