"""Adam with betas that have changed places, and with others as recipes have them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo import sound
from zoo.dice import Dice, Draw
from zoo.patient import Patient, seeded

Betas = tuple[float, float]
KINDS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam)


class Belief(torch.optim.Optimizer):
    """AdaBelief: the mean of the gradient over that of how far it is from it."""

    def __init__(self, parameters: Any, lr: float, betas: Betas) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step."""
        for group in self.param_groups:
            (first, second), rate = group["betas"], group["lr"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_var": torch.zeros_like(p)}
                state["step"] += 1
                mean = state["exp_avg"].lerp_(p.grad, 1 - first)
                spread = state["exp_avg_var"].lerp_((p.grad - mean).square() + 1e-16, 1 - second)
                whole = (spread / (1 - second ** state["step"])).sqrt() + 1e-8
                p.addcdiv_(mean / (1 - first ** state["step"]), whole, value=-rate)


class Lion(torch.optim.Optimizer):
    """The sign of a mean, without a scale."""

    def __init__(self, parameters: Any, lr: float, betas: Betas) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step."""
        for group in self.param_groups:
            (first, second), rate = group["betas"], group["lr"]
            for p in group["params"]:
                if p.grad is not None:
                    mean = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                    p.sub_(rate * torch.lerp(mean, p.grad, 1 - first).sign())
                    mean.lerp_(p.grad, 1 - second)


def by(optimizer: Callable[..., torch.optim.Optimizer], betas: Betas, rate: float = 1e-3) -> Any:
    """Return a factory of an optimizer with these betas."""
    return lambda parameters: optimizer(parameters, lr=rate, betas=betas)


def trained(kind: str, optimizer: Callable[..., torch.optim.Optimizer], betas: Betas) -> Case:
    """Return the training of a sound model."""
    return sound.case(kind, optimizer=by(optimizer, betas))


def in_groups(kind: str, body: Betas, head: Betas) -> Case:
    """Return the training of a sound model whose head has betas of its own."""
    model = sound.MODELS[kind]()
    parameters = list(model.parameters())
    groups = [{"params": parameters[:-2], "betas": body}, {"params": parameters[-2:], "betas": head}]
    return sound.case(kind, lambda m: model, optimizer=torch.optim.AdamW(groups, 1e-3))


def stepped(betas: Betas) -> Case:
    """Return a training that takes its steps by itself."""

    def step(case: Case, batch: Any) -> Tensor:
        assert case.optimizer is not None
        optimizer: Any = case.optimizer
        optimizer.zero_grad()
        loss = case.compute_loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(case.model.parameters(), 1.0)
        optimizer.step()
        return loss

    model = sound.MODELS["cnn"]()
    made = sound.case("cnn", lambda m: model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, betas=betas)
    return Case(model, made.loss, made.batches, optimizer, step=step)


def sick() -> list[Patient]:
    """Return trainings whose momentum outlasts the scale."""
    build: dict[str, tuple[str, Callable[[], Case]]] = {
        "adam": ("mlp", lambda: trained("mlp", torch.optim.Adam, (0.999, 0.9))),
        "adamw": ("transformer", lambda: trained("transformer", torch.optim.AdamW, (0.999, 0.9))),
        "nadam": ("recurrent", lambda: trained("recurrent", torch.optim.NAdam, (0.99, 0.9))),
        "radam": ("cnn", lambda: trained("cnn", torch.optim.RAdam, (0.95, 0.8))),
        "belief": ("mlp", lambda: trained("mlp", Belief, (0.999, 0.9))),
        "groups": ("residual", lambda: in_groups("residual", (0.9, 0.999), (0.999, 0.9))),
        "own-step": ("cnn", lambda: stepped((0.999, 0.9))),
    }
    return sound.patients({
        f"betas-swapped-{name}": (kind, make, ("UG615",), ()) for name, (kind, make) in build.items()
    })


def healthy() -> list[Patient]:
    """Return trainings with betas of recipes, and optimizers without that condition."""
    build: dict[str, tuple[str, Callable[[], Case]]] = {
        "usual": ("mlp", lambda: trained("mlp", torch.optim.Adam, (0.9, 0.999))),
        "of-language-models": ("transformer", lambda: trained("transformer", torch.optim.AdamW, (0.9, 0.95))),
        "alike": ("recurrent", lambda: trained("recurrent", torch.optim.AdamW, (0.95, 0.95))),
        "of-adversaries": ("cnn", lambda: trained("cnn", torch.optim.Adam, (0.5, 0.9))),
        "without-momentum": ("cnn", lambda: trained("cnn", torch.optim.Adam, (0.0, 0.99))),
        "without-scale": ("mlp", lambda: trained("mlp", torch.optim.Adamax, (0.95, 0.8))),
        "of-signs": ("residual", lambda: trained("residual", Lion, (0.95, 0.8))),
        "groups": ("residual", lambda: in_groups("residual", (0.9, 0.999), (0.5, 0.9))),
        "own-step": ("cnn", lambda: stepped((0.9, 0.999))),
    }
    return [
        Patient(f"betas-{name}", kind, seeded(make), near=("UG615",)) for name, (kind, make) in build.items()
    ]


def drawn(*betas: Betas) -> Callable[[Dice], Case]:
    """Return what builds a training with some of these betas."""

    def make(dice: Dice) -> Case:
        return trained(dice.one_of("mlp", "cnn", "recurrent"), dice.one_of(*KINDS), dice.one_of(*betas))

    return make


DRAWS = (
    Draw("betas-swapped", "mlp", drawn((0.999, 0.9), (0.99, 0.9), (0.98, 0.9)), ("UG615",)),
    Draw("betas", "mlp", drawn((0.9, 0.999), (0.9, 0.95), (0.5, 0.9), (0.95, 0.95)), near=("UG615",)),
)
