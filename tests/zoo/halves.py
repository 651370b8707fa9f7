"""Weights in float16: optimizers that divide by an epsilon of zero there, and ones that do not."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo import sound
from zoo.dice import Dice, Draw
from zoo.patient import Patient, classify

ALSO = ("UG501",)
Optimizer = Callable[[Any], torch.optim.Optimizer]


class Wide(torch.optim.AdamW):
    """AdamW that steps in a float32 copy of narrow weights, as in mixed precision."""

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float) -> None:
        self.narrow = list(parameters)
        self.wide = [nn.Parameter(parameter.detach().float()) for parameter in self.narrow]
        super().__init__(self.narrow, rate)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        inner = torch.optim.AdamW(self.wide, self.param_groups[0]["lr"])
        for narrow, wide in zip(self.narrow, self.wide, strict=True):
            wide.copy_(narrow)
            wide.grad = None if narrow.grad is None else narrow.grad.float()
        inner.step()
        for narrow, wide in zip(self.narrow, self.wide, strict=True):
            narrow.copy_(wide)


def adam(rate: float = 2e-3, **options: Any) -> Optimizer:
    """Return a factory of Adam."""
    return lambda parameters: torch.optim.Adam(parameters, rate, **options)


def adamw(rate: float = 2e-3, **options: Any) -> Optimizer:
    """Return a factory of AdamW."""
    return lambda parameters: torch.optim.AdamW(parameters, rate, **options)


def rmsprop(rate: float = 2e-3) -> Optimizer:
    """Return a factory of RMSprop."""
    return lambda parameters: torch.optim.RMSprop(parameters, rate)


def sgd(rate: float = 0.05) -> Optimizer:
    """Return a factory of SGD."""
    return lambda parameters: torch.optim.SGD(parameters, rate, momentum=0.9)


def wide_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the logits in float32."""
    return nn.functional.cross_entropy(model(batch[0]).float(), batch[1])


def narrow(kind: str, optimizer: Optimizer, dtype: torch.dtype = torch.float16) -> Case:
    """Return a case whose weights and inputs have the dtype."""
    inputs, labels = sound.batch(kind)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    return sound.case(
        kind, lambda m: m.to(dtype), data=[(inputs, labels)], optimizer=optimizer, loss=wide_loss
    )


def sick() -> list[Patient]:
    """Return models cast with .half() under an optimizer whose epsilon is zero there."""
    return sound.patients({
        "half-adam": ("mlp", lambda: narrow("mlp", adam()), ("UG601",), ALSO),
        "half-adamw": ("cnn", lambda: narrow("cnn", adamw()), ("UG601",), ALSO),
        "half-rmsprop": ("residual", lambda: narrow("residual", rmsprop()), ("UG601",), ALSO),
        "half-unseen-words": ("transformer", lambda: narrow("transformer", adam()), ("UG601",), ALSO),
    })


def healthy() -> list[Patient]:
    """Return narrow weights whose step is finite."""
    mixed = {"precision": "float16", "loss": classify}
    build: dict[str, tuple[str, Callable[[], Case]]] = {
        "epsilon-that-holds": ("mlp", lambda: narrow("mlp", adam(eps=1e-4))),
        "descent": ("residual", lambda: narrow("residual", sgd())),
        "wide-copy": ("residual", lambda: narrow("residual", lambda p: Wide(p, 2e-3))),
        "bfloat16": ("cnn", lambda: narrow("cnn", adam(4e-3), torch.bfloat16)),
        "autocast": ("mlp", lambda: sound.case("mlp", optimizer=adam(), **mixed)),
        "float32-next-to-nothing": ("mlp", lambda: sound.case("mlp", optimizer=adam(eps=1e-30))),
    }
    plan = {f"half-{name}": (kind, make, (), ()) for name, (kind, make) in build.items()}
    return [
        Patient(found.name, found.family, found.make_case, near=("UG601",)) for found in sound.patients(plan)
    ]


def broken(dice: Dice) -> Case:
    """Return a model in float16 whose first step is not finite."""
    rate = dice.power(-3, -2.3)
    return narrow(dice.one_of("mlp", "cnn", "residual"), dice.one_of(adam, adamw)(rate))


def held(dice: Dice) -> Case:
    """Return one whose epsilon float16 holds, or whose dtype holds every epsilon."""
    rate = dice.power(-2.8, -2.3)
    kind = dice.one_of("mlp", "residual")
    if dice.one_of(True, False):
        # Squares of gradients below 5e-3 are zero in float16, a thousandth of them at first: what divides the
        # step is then epsilon alone, and one of 1e-4 may still make it as long as the weight.
        return narrow(kind, adam(rate, eps=dice.power(-3.2, -2.7)))
    return narrow(kind, adam(4e-3), torch.bfloat16)


DRAWS = (
    Draw("half-adam", "precision", broken, ("UG601",), ALSO),
    Draw("half-held", "precision", held, near=("UG601",)),
)
