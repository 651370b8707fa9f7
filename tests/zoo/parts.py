"""Losses that call the parts of a model one by one, whose inputs differ in scale."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, seeded

Pair = tuple[Tensor, Tensor]
SAMPLES, LATENT, SIDE = 32, 6, 8


class Parts(nn.Module):
    """Two parts that the loss calls."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second


def players(width: int, *entry: nn.Module) -> nn.Module:
    """Return a generator of rows that ends in tanh, and their judge."""
    made = nn.Sequential(
        nn.Linear(LATENT, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, SIDE**2), nn.Tanh()
    )
    judge = nn.Sequential(
        *entry, nn.Linear(SIDE**2, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)
    )
    return Parts(made, judge.append(nn.Linear(width, 1)))


def painters(planes: int) -> nn.Module:
    """Return a generator of pictures that ends in tanh, and their judge."""
    made = nn.Sequential(
        nn.Linear(LATENT, 2 * planes * 4),
        nn.Unflatten(1, (2 * planes, 2, 2)),
        nn.ConvTranspose2d(2 * planes, planes, 4, 2, 1),
        nn.BatchNorm2d(planes),
        nn.ReLU(),
        nn.ConvTranspose2d(planes, 1, 4, 2, 1),
        nn.Tanh(),
    )
    judge = nn.Sequential(
        nn.Conv2d(1, planes, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(planes, 2 * planes, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(8 * planes, 1),
    )
    return Parts(made, judge)


def towers(width: int) -> nn.Module:
    """Return two encoders of what belongs together."""
    return Parts(
        *(
            nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            for size in (6, 4)
        )
    )


class Sines(nn.Module):
    """Tells a step by sines of it."""

    def forward(self, t: Tensor) -> Tensor:
        turns = t * 10 ** (-torch.arange(8) / 2)
        return torch.cat([turns.sin(), turns.cos()], 1)


def game(model: nn.Module, batch: Pair) -> Tensor:
    """Return the losses of both players, each with gradients for its own alone."""
    noise, real = batch
    fake, judge = model.first(noise).reshape(real.shape), model.second
    still = {name: p.detach() for name, p in judge.named_parameters()}
    real_loss = F.softplus(-judge(real)).mean()
    fakes = F.softplus(judge(fake.detach())).mean()
    return real_loss + fakes + F.softplus(-functional_call(judge, still, (fake,))).mean()


def agree(model: nn.Module, batch: Pair) -> Tensor:
    """Return a contrastive loss of both towers."""
    left, right = (F.normalize(part(x), dim=1) for part, x in zip(model.children(), batch, strict=True))
    return F.cross_entropy(left @ right.T / 0.2, torch.arange(len(left)))


def denoise(model: nn.Module, batch: Pair) -> Tensor:
    """Return the error of a net that is told the step."""
    noise, t = batch
    return (model.second(torch.cat([noise, model.first(t)], 1)) - noise).square().mean()


def pictures(scale: float, shift: float, *shape: int) -> list[Pair]:
    """Return noise and soft blots from 0 to `scale`, shifted."""
    grid = torch.linspace(-1, 1, SIDE)
    middle = 1.2 * torch.rand(SAMPLES, 2, 1, 1) - 0.6
    far = (grid[:, None] - middle[:, 0]) ** 2 + (grid - middle[:, 1]) ** 2
    real = scale * (-far / 0.3).exp() + shift
    return [(torch.randn(SAMPLES, LATENT), real.reshape(SAMPLES, *shape))]


def pairs(scale: float) -> list[Pair]:
    """Return what belongs together; the second half in other units."""
    x = torch.randn(SAMPLES, 6)
    return [(x, scale * (x[:, :4] + 0.1 * torch.randn(SAMPLES, 4)))]


def played(model: nn.Module, scale: float, shift: float = 0.0) -> Case:
    """Return a game about pictures."""
    shape = (SIDE**2,) if isinstance(model.second[-2], nn.LeakyReLU) else (1, SIDE, SIDE)
    return Case(model, game, pictures(scale, shift, *shape), adam)


def met(scale: float, width: int = 32) -> Case:
    """Return the training of two towers."""
    return Case(towers(width), agree, pairs(scale), adam)


def told(width: int = 32) -> Case:
    """Return a denoiser that is told its step, from 0 to 999, by sines."""
    net = nn.Sequential(nn.Linear(22, width), nn.ReLU(), nn.Linear(width, 6))
    model = Parts(nn.Sequential(Sines(), nn.Linear(16, 16)), net)
    batch = (torch.randn(SAMPLES, 6), 1000 * torch.rand(SAMPLES, 1))
    return Case(model, denoise, [batch], adam)


def adam(parameters: object) -> torch.optim.Optimizer:
    """Return Adam at 2e-3."""
    return torch.optim.Adam(parameters, 2e-3, betas=(0.5, 0.999))


ALSO = ("UG605", "UG601", "UG611", "UG704", "UG203", "UG206")


def sick() -> list[Patient]:
    """Return parts that are given what is far from unit scale."""
    build: dict[str, Callable[[], Case]] = {
        "players": lambda: played(players(48), 255.0),
        "painters": lambda: played(painters(8), 255.0),
        "towers": lambda: met(300.0),
    }
    return [
        Patient(f"parts-in-units-{name}", "parts", seeded(make), ("UG607",), ALSO)
        for name, make in build.items()
    ]


def healthy() -> list[Patient]:
    """Return parts that are given unit scale, or see to it themselves."""
    build: dict[str, Callable[[], Case]] = {
        "players": lambda: played(players(48), 2.0, -1.0),
        "painters": lambda: played(painters(8), 2.0, -1.0),
        "towers": lambda: met(1.0),
        "towers-in-threes": lambda: met(3.0),
        "norm-first": lambda: played(players(48, nn.LayerNorm(SIDE**2)), 255.0),
        "sines": told,
    }
    return [Patient(f"parts-{name}", "parts", seeded(make), near=("UG607",)) for name, make in build.items()]


def large(dice: Dice) -> Case:
    """Build one with an input in hundreds."""
    if dice.one_of(True, False):
        return met(dice.power(1.8, 3.0), dice.one_of(24, 32, 48))
    return played(dice.one_of(players, painters)(dice.whole(12, 24)), dice.one_of(255.0, 1000.0))


def unit(dice: Dice) -> Case:
    """Build one without."""
    if dice.one_of(True, False):
        return met(dice.between(0.5, 4.0), dice.one_of(24, 32, 48))
    return played(dice.one_of(players, painters)(dice.whole(12, 24)), 2.0, -1.0)


DRAWS = (
    Draw("parts-in-units", "parts", large, ("UG607",), ALSO),
    Draw("parts", "parts", unit, near=("UG607",)),
)
