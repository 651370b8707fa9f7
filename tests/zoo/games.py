"""Games of a generator against a discriminator, as the generator's loss sees them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case, Loss
from zoo.patient import Patient, seeded


class Game(nn.Module):
    """A generator and a discriminator; called, it gives the verdict on what the generator makes of noise."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def forward(self, noise: Tensor) -> Tensor:
        return self.discriminator(self.generator(noise))


class Gan(nn.Module):
    """The same with the names of another house, which leaves the calls to the loss."""

    def __init__(self, net_g: nn.Module, net_d: nn.Module) -> None:
        super().__init__()
        self.netG, self.netD = net_g, net_d


def logits(model: nn.Module, noise: Tensor) -> Tensor:
    """Return the verdict on generated samples, in the place of a model's own forward where it has none."""
    return model.netD(model.netG(noise)) if isinstance(model, Gan) else model(noise)


def saturating(model: nn.Module, noise: Tensor) -> Tensor:
    """Return the mean of log(1 - D)."""
    return -F.softplus(logits(model, noise)).mean()


def non_saturating(model: nn.Module, noise: Tensor) -> Tensor:
    """Return the mean of -log D."""
    return F.softplus(-logits(model, noise)).mean()


def wasserstein(model: nn.Module, noise: Tensor) -> Tensor:
    """Return the mean of minus the critic's value."""
    return -logits(model, noise).mean()


def least_squares(model: nn.Module, noise: Tensor) -> Tensor:
    """Return the mean squared distance from the verdict for real samples, 1."""
    return (logits(model, noise) - 1).square().mean()


def negated_entropy(model: nn.Module, noise: Tensor) -> Tensor:
    """Return minus the discriminator's own loss on fakes; the discriminator ends with a sigmoid."""
    made = logits(model, noise)
    return -0.01 * F.binary_cross_entropy(made, torch.zeros_like(made))


def points(width: int = 24) -> tuple[nn.Module, nn.Module]:
    """Return a generator of points and a discriminator of them."""
    made = nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
    )
    judge = nn.Sequential(
        nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
    )
    return made, judge


def images() -> tuple[nn.Module, nn.Module]:
    """Return a generator of images and a discriminator that ends with a sigmoid."""
    made = nn.Sequential(
        nn.ConvTranspose2d(8, 16, 4), nn.LeakyReLU(0.2), nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh()
    )
    judge = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4), nn.Flatten(), nn.Sigmoid()
    )
    return made, judge


def tables(width: int = 16) -> tuple[nn.Module, nn.Module]:
    """Return a generator of rows of a table and a discriminator of them, with norms."""
    made = nn.Sequential(nn.Linear(8, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 6))
    judge = nn.Sequential(nn.Linear(6, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 1))
    return made, judge


def verdict(judge: nn.Module, value: float) -> None:
    """Let the discriminator give about this logit to everything, as one does that has won."""
    layers = [m for m in judge.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert layers[-1].bias is not None
    nn.init.constant_(layers[-1].bias, value)


def won(made: nn.Module, judge: nn.Module) -> nn.Module:
    """Return the game after the discriminator alone has learned, with real points far from generated ones."""
    optimizer = torch.optim.Adam(judge.parameters(), 0.01)
    for _ in range(60):
        real, fake = 3 + torch.randn(64, 2), made(torch.randn(64, 8)).detach()
        loss = F.softplus(-judge(real)).mean() + F.softplus(judge(fake)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Game(made, judge)


def decided(
    parts: Callable[[], tuple[nn.Module, nn.Module]],
    value: float,
    loss: Loss,
    kind: Callable[..., nn.Module] = Game,
    **variants: Loss,
) -> Case:
    """Return a game in which the discriminator gives about the logit `value` to every generated sample."""
    made, judge = parts()
    verdict(judge, value)
    shape = (32, 8, 1, 1) if parts is images else (32, 8)
    return Case(kind(made, judge), loss, [torch.randn(shape)], variants=variants)


def sick() -> list[Patient]:
    """Return games whose generator is given no gradient."""
    both = {"wasserstein": wasserstein, "non_saturating": non_saturating}
    build: dict[str, Callable[[], Case]] = {
        "points-won": lambda: Case(won(*points()), saturating, [torch.randn(32, 8)], variants=both),
        "images-sure": lambda: decided(images, -8.0, negated_entropy),
        "tables-sure": lambda: decided(tables, -10.0, saturating, Gan, hinge=wasserstein),
    }
    return [Patient(f"game-{name}", "games", seeded(make), ("UG704",)) for name, make in build.items()]


def healthy() -> list[Patient]:
    """Return games whose generator is given a gradient, or needs none."""
    build: dict[str, Callable[[], Case]] = {
        "points-won-non-saturating": lambda: Case(won(*points()), non_saturating, [torch.randn(32, 8)]),
        "points-undecided": lambda: decided(points, 0.0, saturating),
        "points-fooled": lambda: decided(points, 9.0, non_saturating),
        "images-undecided": lambda: decided(images, -1.0, negated_entropy),
        "tables-critic": lambda: decided(tables, -50.0, wasserstein, Gan),
        "tables-least-squares": lambda: decided(tables, 1.0, least_squares),
    }
    return [Patient(f"game-{name}", "games", seeded(make)) for name, make in build.items()]
