"""Diffusion models: what they predict, and how their loss weighs the noise levels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unitygain._case import Case, Loss
from zoo.generative import Denoiser
from zoo.mlp import trained
from zoo.patient import Patient, seeded

STEPS = 1000
BETA = torch.linspace(1e-4, 0.02, STEPS)
SIGNAL = torch.cumprod(1 - BETA.double(), 0).float()
Weight = Callable[[Tensor, Tensor], Tensor]


class Pixels(nn.Module):
    """Convolutions over an image, shifted by a map of the time."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.first, self.time = nn.Conv2d(1, channels, 3, padding=1), nn.Linear(1, channels)
        self.act = nn.ReLU()
        self.blocks = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.last = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        h = self.first(x) + self.time(timestep[:, None])[..., None, None]
        for block in self.blocks:
            h = h + self.act(block(h))
        return self.last(h)


class Rows(nn.Module):
    """A perceptron of rows of a table with a table of times, in a module that keeps it with its schedule."""

    def __init__(self, features: int = 5, width: int = 32) -> None:
        super().__init__()
        self.times = nn.Embedding(50, width)
        self.layers = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.last = nn.Linear(width, features)

    def forward(self, rows: Tensor, t: Tensor) -> Tensor:
        return self.last(self.layers(rows) + self.times((t * 50).long().clamp(max=49)))


class Unnamed(Rows):
    """The same, told how much is left of the signal under a name of its own."""

    def forward(self, rows: Tensor, kept: Tensor) -> Tensor:
        return super().forward(rows, kept)


def one(snr: Tensor, beta: Tensor) -> Tensor:
    """Return the weight of the simple loss."""
    return torch.ones_like(snr)


def ratio(snr: Tensor, beta: Tensor) -> Tensor:
    """Return the signal-to-noise ratio, which an error of the noise puts on a prediction of the sample."""
    return snr


def bounded(snr: Tensor, beta: Tensor) -> Tensor:
    """Return min-SNR for predictions of the sample."""
    return snr.clamp(max=5)


def bound(snr: Tensor, beta: Tensor) -> Tensor:
    """Return the variational bound's weight on predictions of the noise."""
    return (1 + snr) / (2 * (1 - beta))


def error(predicts: str, weight: Weight) -> Loss:
    """Return the weighted squared error of what the model predicts: the noise, the sample, or v."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        data, t, noise = batch
        axes = (slice(None), *(None,) * (data.ndim - 1))
        signal, beta, times = (part.to(data) for part in (SIGNAL[t][axes], BETA[t][axes], t / STEPS))
        goals = {
            "noise": noise,
            "sample": data,
            "v": signal.sqrt() * noise - (1 - signal).sqrt() * data,
        }
        made = model(signal.sqrt() * data + (1 - signal).sqrt() * noise, times)
        return (weight(signal / (1 - signal), beta) * (made - goals[predicts]).square()).mean()

    return loss


def case(
    model: nn.Module, predicts: str, weight: Weight, shape: tuple[int, ...] = (32, 2), **variants: Loss
) -> Case:
    """Return a diffusion model of normal data, at one random time in each of as many stretches as samples."""
    samples = shape[0]
    t = ((torch.arange(samples) + torch.rand(samples)) * STEPS / samples).long()[torch.randperm(samples)]
    batch = (torch.randn(shape), t, torch.randn(shape))
    return Case(model, error(predicts, weight), [batch], variants=variants)


def learned() -> Case:
    """Return predictions of the noise after some training: what is left to learn is at the first times."""
    made = case(Denoiser(), "noise", one, (64, 2))
    made.optimizer = lambda parameters: torch.optim.Adam(parameters, 2e-3)
    return trained(made, 80)


def sick() -> list[Patient]:
    """Return diffusion models that learn from the first few times alone."""
    build: dict[str, Callable[[], Case]] = {
        "points-sample-unbounded": lambda: case(
            Denoiser(), "sample", ratio, min_snr=error("sample", bounded), plain=error("sample", one)
        ),
        "pixels-noise-by-the-bound": lambda: case(Pixels(), "noise", bound, (32, 1, 6, 6)),
        "rows-of-another-name": lambda: case(Unnamed(), "noise", bound, (32, 5)),
        "rows-v-unbounded": lambda: case(Rows(), "v", ratio, (32, 5), plain=error("v", one)),
    }
    return [
        Patient(f"denoiser-{name}", "denoisers", seeded(make), ("UG705",)) for name, make in build.items()
    ]


def healthy() -> list[Patient]:
    """Return diffusion models that learn from all times, or from many."""
    build: dict[str, Callable[[], Case]] = {
        "points-noise": lambda: case(Denoiser(), "noise", one),
        "points-noise-trained": learned,
        "points-sample-min-snr": lambda: case(Denoiser(), "sample", bounded),
        "points-v": lambda: case(Denoiser(), "v", one),
        "pixels-noise": lambda: case(Pixels(), "noise", one, (32, 1, 6, 6)),
        "rows-sample": lambda: case(Rows(), "sample", one, (32, 5)),
        "rows-of-another-name-even": lambda: case(Unnamed(), "noise", one, (32, 5)),
    }
    return [Patient(f"denoiser-{name}", "denoisers", seeded(make)) for name, make in build.items()]
