"""Networks of known design at their first step: what theory must predict, and the seed of each."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unitygain._case import Case

WIDTH, CHANNELS = 64, 16


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def linear(gain: float) -> nn.Linear:
    """Return a linear layer with sqrt(fan_in·var) = gain and no bias."""
    layer = nn.Linear(WIDTH, WIDTH)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(WIDTH))
    nn.init.zeros_(layer.bias)
    return layer


def convolution() -> nn.Conv2d:
    """Return a convolution with He's weights."""
    layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight)
    return layer


def stack(block: Callable[[], tuple[nn.Module, ...]], depth: int) -> nn.Sequential:
    """Return so many blocks."""
    return nn.Sequential(*(nn.Sequential(*block()) for _ in range(depth)))


def skips(block: Callable[[], tuple[nn.Module, ...]], depth: int) -> nn.Sequential:
    """Return so many residual blocks."""
    return nn.Sequential(*(Residual(*block()) for _ in range(depth)))


def encoder(*, norm_first: bool, dropout: float = 0.0) -> nn.Sequential:
    """Return PyTorch's own transformer layers as they are initialised."""
    layers = (
        nn.TransformerEncoderLayer(
            WIDTH, 4, 2 * WIDTH, dropout=dropout, batch_first=True, norm_first=norm_first
        )
        for _ in range(6)
    )
    return nn.Sequential(*layers)


def vectors() -> Tensor:
    """Return 32 samples."""
    return torch.randn(32, WIDTH)


def images() -> Tensor:
    """Return 16 small images."""
    return torch.randn(16, CHANNELS, 10, 10)


def tokens() -> Tensor:
    """Return 8 sequences of 12 tokens."""
    return torch.randn(8, 12, WIDTH)


Family = tuple[Callable[[], nn.Module], Callable[[], Tensor]]
FAMILIES: dict[str, Family] = {
    "relu": (lambda: stack(lambda: (linear(math.sqrt(2)), nn.ReLU()), 12), vectors),
    "relu default": (lambda: stack(lambda: (nn.Linear(WIDTH, WIDTH), nn.ReLU()), 12), vectors),
    "tanh": (lambda: stack(lambda: (linear(1.0), nn.Tanh()), 12), vectors),
    "tanh chaotic": (lambda: stack(lambda: (linear(1.5), nn.Tanh()), 12), vectors),
    "gelu": (lambda: stack(lambda: (linear(1.4), nn.GELU()), 12), vectors),
    "silu": (lambda: stack(lambda: (linear(1.5), nn.SiLU()), 12), vectors),
    "residual": (lambda: skips(lambda: (linear(1.0), nn.ReLU(), linear(0.5)), 10), vectors),
    "residual layer norm": (
        lambda: skips(lambda: (nn.LayerNorm(WIDTH), linear(1.0), nn.GELU(), linear(1.0)), 10),
        vectors,
    ),
    "layer norm": (lambda: stack(lambda: (linear(1.0), nn.LayerNorm(WIDTH), nn.Tanh()), 12), vectors),
    "rms norm": (lambda: stack(lambda: (linear(1.0), nn.RMSNorm(WIDTH), nn.ReLU()), 12), vectors),
    "batch norm": (lambda: stack(lambda: (linear(1.0), nn.BatchNorm1d(WIDTH), nn.ReLU()), 12), vectors),
    "convolution": (lambda: stack(lambda: (convolution(), nn.ReLU()), 10), images),
    "convolution batch norm": (
        lambda: stack(lambda: (convolution(), nn.BatchNorm2d(CHANNELS), nn.ReLU()), 10),
        images,
    ),
    "convolution group norm": (
        lambda: stack(lambda: (convolution(), nn.GroupNorm(4, CHANNELS), nn.SiLU()), 8),
        images,
    ),
    "residual convolution": (
        lambda: skips(lambda: (convolution(), nn.BatchNorm2d(CHANNELS), nn.ReLU(), convolution()), 8),
        images,
    ),
    "transformer pre-norm": (lambda: encoder(norm_first=True), tokens),
    "transformer post-norm": (lambda: encoder(norm_first=False), tokens),
    "transformer dropout": (lambda: encoder(norm_first=True, dropout=0.1), tokens),
}


def mean_square(model: nn.Module, batch: Tensor) -> Tensor:
    """A loss that reads every output."""
    return model(batch).square().mean()


def draw(name: str, seed: int) -> Case:
    """Return the family's network and data of this seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build, data = FAMILIES[name]
        return Case(build(), mean_square, [data()])
