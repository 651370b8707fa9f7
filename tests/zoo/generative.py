"""Models that make data: autoencoder, generator, denoiser, flow."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.mlp import trained
from zoo.patient import Patient, reconstruct, regress, seeded


def autoencoder(
    activation: Callable[[], nn.Module], widths: tuple[int, ...], *, he: bool = False
) -> nn.Module:
    """Return an encoder through `widths` and its mirror image."""
    sizes = [*widths, *widths[-2::-1]]
    layers: list[nn.Module] = []
    for inside, outside in itertools.pairwise(sizes):
        linear = nn.Linear(inside, outside)
        if he:
            nn.init.normal_(linear.weight, std=math.sqrt(2 / inside))
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


def generator(*, slope: float = 0.2) -> nn.Module:
    """Return a small DCGAN generator: transposed convolutions with BatchNorm from 1x1 to 16x16, tanh last."""
    layers: list[nn.Module] = []
    for inside, outside, stride in ((16, 32, 1), (32, 16, 2), (16, 8, 2)):
        layers += [
            nn.ConvTranspose2d(inside, outside, 4, stride, 0 if stride == 1 else 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.LeakyReLU(slope),
        ]
    model = nn.Sequential(*layers, nn.ConvTranspose2d(8, 1, 3, 1, 1), nn.Tanh())
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
    return model


class Denoiser(nn.Module):
    """Predicts the noise in a point from the point and the time: residual blocks that see an embedding."""

    def __init__(self, width: int = 48, depth: int = 6, scale: float = 1.0) -> None:
        super().__init__()
        self.lift, self.time = nn.Linear(2, width), nn.Linear(16, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.out = nn.Linear(width, 2)
        nn.init.zeros_(self.out.bias)
        self.scale = scale

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * 2.0 ** torch.arange(8.0)
        h = self.lift(x) + self.time(torch.cat([angles.sin(), angles.cos()], 1))
        for block in self.blocks:
            h = h + self.scale * block(h)
        return self.out(h)


class Coupling(nn.Module):
    """An affine coupling layer; the two halves change places afterwards."""

    def __init__(self, features: int, width: int, *, spread: float, growth: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(features // 2, width), nn.Tanh(), nn.Linear(width, features))
        nn.init.normal_(self.net[2].weight, std=spread)  # type: ignore[arg-type]
        nn.init.constant_(self.net[2].bias[: features // 2], growth)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        kept, moved = x.chunk(2, -1)
        scale, shift = self.net(kept).chunk(2, -1)
        return torch.cat([moved * scale.exp() + shift, kept], -1)


def flow(depth: int, *, spread: float, growth: float = 0.0) -> nn.Module:
    """Return a chain of coupling layers on eight features, each of which scales by about exp(growth)."""
    return nn.Sequential(*(Coupling(8, 16, spread=spread, growth=growth) for _ in range(depth)))


def denoise(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Mean squared error of the predicted noise."""
    points, times, noise = batch
    return (model(points, times) - noise).square().mean()


def mean_energy(model: nn.Module, batch: Tensor) -> Tensor:
    """Half the squared length of the output: the data term of a flow's likelihood."""
    return 0.5 * model(batch).square().sum(-1).mean()


def realism(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Distance of the made images' pixels from the real ones: a stand-in for a critic."""
    return regress(model, batch)


def sick() -> list[Patient]:
    """Return the sick generative models."""
    deep = (64, 56, 48, 40, 32, 24, 16)
    build: dict[str, tuple[Callable[[], Case], tuple[str, ...], tuple[str, ...]]] = {
        "autoencoder-sigmoid-deep": (
            lambda: Case(autoencoder(nn.Sigmoid, deep), reconstruct, [torch.randn(16, 64)]),
            ("UG101",),
            ("UG205",),
        ),
        "autoencoder-born-dead": (_dead_autoencoder, ("UG206",), ("UG205", "UG103", "UG603")),
        "flow-growing-40": (
            lambda: Case(flow(40, spread=0.01, growth=0.5), mean_energy, [torch.randn(32, 8)]),
            ("UG102", "UG201"),
            ("UG204", "UG205", "UG603", "UG605", "UG601"),
        ),
        "generator-loud": (_loud_generator, ("UG204", "UG301"), ("UG102",)),
    }
    return [
        Patient(f"generative-{k}", "generative", seeded(make), c, also)
        for k, (make, c, also) in build.items()
    ]


def _dead_autoencoder() -> Case:
    model = autoencoder(nn.ReLU, (32, 24, 8), he=True)
    nn.init.constant_(model[2].bias, -50.0)  # type: ignore[index, arg-type]
    return Case(model, reconstruct, [torch.randn(16, 32)])


def _loud_generator() -> Case:
    layers: list[nn.Module] = []
    for _ in range(6):
        linear = nn.Linear(32, 32)
        nn.init.normal_(linear.weight, std=15 / math.sqrt(32))
        layers += [linear, nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(32, 32))
    return Case(model, regress, [(torch.randn(16, 32), torch.randn(16, 32))])


def _dark_images() -> Case:
    """Return an autoencoder that has learned that most pixels are black: its output is shut, rightly."""
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8), nn.Linear(8, 32), nn.ReLU())
    model.extend([nn.Linear(32, 64), nn.Sigmoid()])
    images = (torch.rand(16, 64) < 0.05).float()
    case = Case(model, reconstruct, [images], lambda p: torch.optim.Adam(p, 0.05))
    return trained(case, 60)


def healthy() -> list[Patient]:
    """Return generative models that train."""
    build: dict[str, Callable[[], Case]] = {
        "autoencoder-relu": lambda: Case(
            autoencoder(nn.ReLU, (64, 32, 16, 4), he=True), reconstruct, [torch.randn(16, 64)]
        ),
        "autoencoder-tanh": lambda: Case(
            autoencoder(nn.Tanh, (64, 32, 8)), reconstruct, [torch.randn(16, 64)]
        ),
        "generator": lambda: Case(
            generator(), realism, [(torch.randn(8, 16, 1, 1), torch.rand(8, 1, 16, 16) * 2 - 1)]
        ),
        "autoencoder-dark-images-trained": _dark_images,
        "denoiser": lambda: Case(
            Denoiser(), denoise, [(torch.randn(32, 2), torch.rand(32), torch.randn(32, 2))]
        ),
        "flow-calm-8": lambda: Case(flow(8, spread=0.02), mean_energy, [torch.randn(32, 8)]),
    }
    return [Patient(f"generative-{name}", "generative", seeded(make)) for name, make in build.items()]
