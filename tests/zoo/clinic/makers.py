"""Models that make data and do not learn to: games, denoisers, flows."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)


class Gan(nn.Module):
    """A generator against a discriminator that has been trained before it."""

    def __init__(self, width: int, rounds: int) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )
        self.discriminator = nn.Sequential(
            nn.Linear(2, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)
        )
        self.discriminator.append(nn.Linear(width, 1))
        judge = torch.optim.Adam(self.discriminator.parameters(), 0.01)
        for _ in range(rounds):
            real, fake = 2 + 0.5 * torch.randn(64, 2), self.generator(torch.randn(64, 8)).detach()
            loss = F.softplus(-self.discriminator(real)).mean() + F.softplus(self.discriminator(fake)).mean()
            judge.zero_grad()
            loss.backward()
            judge.step()

    def forward(self, noise: Tensor) -> Tensor:
        return self.discriminator(self.generator(noise))


def generators(game: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of the generator's part."""
    parameters = [p for name, p in game.named_parameters() if not name.startswith("discriminator")]
    return torch.optim.SGD(parameters, lr=0.1)


def perfect(dice: Dice, sick: bool) -> Case:
    """The minimax loss against a discriminator that has won."""
    width, rounds = dice.whole(24, 40), dice.whole(80, 120)

    def saturating(game: nn.Module, noise: Tensor) -> Tensor:
        return torch.log(1 - torch.sigmoid(game(noise)) + 1e-12).mean()

    def non_saturating(game: nn.Module, noise: Tensor) -> Tensor:
        return F.softplus(-game(noise)).mean()

    model = Gan(width, rounds)
    loss = saturating if sick else non_saturating
    data = [torch.randn(64, 8) for _ in range(4)]
    return Case(model, loss, data, generators(model), variants={"non_saturating": non_saturating})


def fooled(game: nn.Module, noise: Tensor) -> float:
    """Distance of what the generator makes from what is real."""
    return float((game.generator(noise) - 2).square().mean())  # type: ignore[operator]


SIGNAL = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000).double(), 0).float()


class Denoiser(nn.Module):
    """Predicts a clean point from a noisy one and the time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lift, self.time = nn.Linear(2, width), nn.Linear(8, width)
        self.body = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * 2.0 ** torch.arange(4.0)
        return self.body(self.lift(x) + self.time(torch.cat([angles.sin(), angles.cos()], 1)))


def weighted(most: float | None):
    """Return the error of the clean point, weighed by the ratio of signal to noise up to `most`."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        clean, t, noise = batch
        signal = SIGNAL[t][:, None]
        made = model(signal.sqrt() * clean + (1 - signal).sqrt() * noise, t / 1000)
        ratio = signal / (1 - signal)
        weight = ratio if most is None else ratio.clamp(max=most)
        return (weight * (made - clean).square()).mean()

    return loss


def low_noise(dice: Dice, sick: bool) -> Case:
    """A denoiser whose loss divides by the noise: the first few times are all that counts."""
    width = dice.whole(32, 56)
    data = []
    for _ in range(4):
        t = ((torch.arange(64) + torch.rand(64)) * 1000 / 64).long()[torch.randperm(64)]
        ring = torch.nn.functional.normalize(torch.randn(64, 2), dim=1)
        data.append((ring, t, torch.randn(64, 2)))
    bounded = weighted(5.0)
    return Case(
        lambda: Denoiser(width),
        weighted(None) if sick else bounded,
        data,
        tasks.sgd(0.02),
        variants={"min_snr": bounded},
    )


def bounded_error(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """The error with bounded weights."""
    return float(weighted(5.0)(model, batch))


class Revertible(nn.Module):
    """A RevNet block on vectors, with a branch of its own on either side."""

    def __init__(self, width: int, spread: float) -> None:
        super().__init__()
        self.f, self.g = self.branch(width, spread), self.branch(width, spread)

    @staticmethod
    def branch(width: int, spread: float) -> nn.Module:
        last = nn.Linear(24, width)
        nn.init.normal_(last.weight, std=spread * 24**-0.5)
        return nn.Sequential(nn.Linear(width, 24), nn.GELU(), last)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        a = a + self.f(b)
        return torch.cat([a, b + self.g(a)], -1)

    def inverse(self, y: Tensor) -> Tensor:
        a, b = y.chunk(2, -1)
        b = b - self.g(a)
        return torch.cat([a - self.f(b), b], -1)


def twisted(dice: Dice, sick: bool) -> Case:
    """A reversible flow with loud branches."""
    width, depth, spread = dice.whole(4, 6), dice.whole(8, 12), dice.between(4.0, 5.0) if sick else 0.1
    model = nn.Sequential(*(Revertible(width, spread) for _ in range(depth)))

    def likelihood(flow: nn.Module, x: Tensor) -> Tensor:
        return 0.5 * flow(x).square().sum(-1).mean()

    data = [0.7 * torch.randn(64, 2 * width) for _ in range(4)]
    return Case(model, likelihood, data, torch.optim.Adam(model.parameters(), lr=1e-3))


SICK = (
    Program(
        "gan-discriminator-has-won",
        "game",
        perfect,
        Truth(
            "saturated-game",
            ("UG704",),
            r"saturat|discriminator|loss",
            ("swap_loss",),
            (("swap_loss", {"variant": "non_saturating"}),),
            HEAVY,
        ),
        80,
        fooled,
    ),
    Program(
        "denoiser-divides-by-noise",
        "denoiser",
        low_noise,
        Truth(
            "low-noise",
            ("UG705",),
            r"weight|noise|time",
            ("swap_loss",),
            (("swap_loss", {"variant": "min_snr"}),),
            HEAVY,
        ),
        100,
        bounded_error,
    ),
    Program(
        "flow-reversible-stretched",
        "flow",
        twisted,
        Truth(
            "stretched-flow",
            ("UG703",),
            r"branch|coupling|stretch",
            ("scale_branch",),
            (("scale_branch", {"sites": ("[0-9]*.f", "[0-9]*.g"), "factor": 0.03}),),
        ),
        100,
    ),
)
