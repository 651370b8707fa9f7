"""Steps of one's own that never clear their gradients, and others that do so late, seldom or by a share."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo import sound
from zoo.dice import Dice, Draw
from zoo.patient import Patient

Step = Callable[[Case, Any], Tensor]
PILES = (("UG601",), ())


def backward(case: Case, batch: Any) -> Tensor:
    """Add this batch's gradient to what is there."""
    loss = case.compute_loss(batch)
    loss.backward()
    return loss.detach()


def never(case: Case, batch: Any) -> Tensor:
    """Step on the sum of all gradients so far."""
    loss = backward(case, batch)
    case.optimizer.step()
    return loss


def never_but_clipped(case: Case, batch: Any) -> Tensor:
    """Clip that sum."""
    loss = backward(case, batch)
    case.clip(case.model.parameters())
    case.optimizer.step()
    return loss


def before(case: Case, batch: Any) -> Tensor:
    """Clear what is there, at first."""
    case.optimizer.zero_grad()
    return never(case, batch)


def afterwards(case: Case, batch: Any) -> Tensor:
    """Clear it at the end, with zeros in its place."""
    loss = never(case, batch)
    case.optimizer.zero_grad(set_to_none=False)
    return loss


def by_hand(case: Case, batch: Any) -> Tensor:
    """Clear it without the optimizer."""
    for parameter in case.model.parameters():
        parameter.grad = None
    return never_but_clipped(case, batch)


def shrunk(share: float) -> Step:
    """Keep a share of it on purpose, which is a momentum."""

    def step(case: Case, batch: Any) -> Tensor:
        for parameter in case.model.parameters():
            if parameter.grad is not None:
                parameter.grad *= share
        return never(case, batch)

    return step


def of_several(count: int, first: int = 0, *, cleared: bool = True) -> Step:
    """Step on the mean over several batches, and clear it then."""
    seen = [first]

    def step(case: Case, batch: Any) -> Tensor:
        loss = case.compute_loss(batch)
        (loss / count).backward()
        seen[0] += 1
        if seen[0] % count == 0:
            case.optimizer.step()
            if cleared:
                case.optimizer.zero_grad()
        return loss.detach()

    return step


def sgd(rate: float = 0.02) -> Callable[[Any], torch.optim.Optimizer]:
    """Return a factory of plain descent."""
    return lambda parameters: torch.optim.SGD(parameters, rate)


def adam(rate: float = 1e-3) -> Callable[[Any], torch.optim.Optimizer]:
    """Return a factory of Adam."""
    return lambda parameters: torch.optim.Adam(parameters, rate)


def norm_clip(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Clip by a norm of 1."""
    return nn.utils.clip_grad_norm_(parameters, 1.0)


def sick() -> list[Patient]:
    """Return steps that add to all before."""
    return sound.patients({
        "piled-up": ("mlp", lambda: sound.case("mlp", optimizer=sgd(), step=never), *PILES),
        "piled-up-words": (
            "transformer",
            lambda: sound.case("transformer", optimizer=adam(), step=never),
            *PILES,
        ),
        "piled-up-clipped": (
            "cnn",
            lambda: sound.case("cnn", optimizer=adam(), step=never_but_clipped, clip=norm_clip),
            *PILES,
        ),
        "piled-up-batches": (
            "residual",
            lambda: sound.case("residual", optimizer=sgd(), step=of_several(4, cleared=False)),
            *PILES,
        ),
    })


def healthy() -> list[Patient]:
    """Return steps that clear it at some time, or keep a share."""
    build: dict[str, tuple[str, Callable[[], Case]]] = {
        "before": ("mlp", lambda: sound.case("mlp", optimizer=sgd(), step=before)),
        "afterwards": ("cnn", lambda: sound.case("cnn", optimizer=adam(), step=afterwards)),
        "by-hand": (
            "residual",
            lambda: sound.case("residual", optimizer=sgd(), step=by_hand, clip=norm_clip),
        ),
        "by-a-share": ("mlp", lambda: sound.case("mlp", optimizer=sgd(), step=shrunk(0.9))),
        "after-several": (
            "transformer",
            lambda: sound.case("transformer", optimizer=adam(), step=of_several(4)),
        ),
        "after-the-last-of-several": (
            "residual",
            lambda: sound.case("residual", optimizer=sgd(), step=of_several(2, 1)),
        ),
    }
    plan = {f"cleared-{name}": (kind, make, (), ()) for name, (kind, make) in build.items()}
    return [
        Patient(found.name, found.family, found.make_case, near=("UG601",)) for found in sound.patients(plan)
    ]


def piled(dice: Dice) -> Case:
    """Return a step that never clears."""
    kind, optimizer = dice.one_of("mlp", "cnn", "residual", "transformer"), dice.one_of(sgd, adam)
    step = dice.one_of(never, of_several(dice.whole(2, 5), cleared=False))
    return sound.case(kind, optimizer=optimizer(dice.power(-3.5, -2.5)), step=step)


def cleared(dice: Dice) -> Case:
    """Return one that clears at some time, or keeps a share."""
    kind, optimizer = dice.one_of("mlp", "cnn", "residual", "transformer"), dice.one_of(sgd, adam)
    step = dice.one_of(before, afterwards, shrunk(dice.between(0.5, 0.95)), of_several(dice.whole(2, 5)))
    return sound.case(kind, optimizer=optimizer(dice.power(-3.5, -2.5)), step=step)


DRAWS = (
    Draw("piled-up", "optimizers", piled, ("UG601",)),
    Draw("cleared", "optimizers", cleared, near=("UG601",)),
)
