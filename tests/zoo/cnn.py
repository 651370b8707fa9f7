"""Convolutional networks: plain, with BatchNorm, with skips, a U-Net."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.patient import Patient, classify, labelled, regress, seeded

Norm = Callable[[int], nn.Module]


class Conv(nn.Module):
    """Convolution, norm, ReLU; and the input added where asked for."""

    def __init__(self, channels: int, norm: Norm, *, skip: bool, he: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = norm(channels)
        self.act = nn.ReLU(inplace=True)
        self.skip = skip
        if he:
            nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        branch = self.act(self.norm(self.conv(x)))
        return x + branch if self.skip else branch


class Network(nn.Module):
    """A stem, blocks of one kind, and a head on the mean over the image."""

    def __init__(
        self, depth: int, channels: int, norm: Norm, *, skip: bool = False, he: bool = False
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(Conv(channels, norm, skip=skip, he=he) for _ in range(depth)))
        self.last = nn.BatchNorm2d(channels) if skip else nn.Identity()
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))


class UNet(nn.Module):
    """Two levels down, two up, skips by concatenation."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.down1, self.down2 = self._pair(1, channels), self._pair(channels, 2 * channels)
        self.middle = self._pair(2 * channels, 4 * channels)
        self.up2, self.up1 = self._pair(6 * channels, 2 * channels), self._pair(3 * channels, channels)
        self.out = nn.Conv2d(channels, 1, 1)

    @staticmethod
    def _pair(inside: int, outside: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        halve, double = nn.functional.max_pool2d, nn.functional.interpolate
        fine = self.down1(x)
        coarse = self.down2(halve(fine, 2))
        low = self.middle(halve(coarse, 2))
        coarse = self.up2(torch.cat([double(low, scale_factor=2.0), coarse], 1))
        return self.out(self.up1(torch.cat([double(coarse, scale_factor=2.0), fine], 1)))


def case(model: nn.Module, *, size: int = 8, batch: int = 8) -> Case:
    """Return the classification of noise images by `model`."""
    return Case(
        model, classify, labelled(batch, 3, size, size), lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)
    )


def vgg() -> nn.Module:
    """Return a small VGG: three stages of He-initialised convolutions with pooling in between."""
    layers: list[nn.Module] = []
    inside = 3
    for channels in (8, 16, 32):
        for _ in range(2):
            conv = nn.Conv2d(inside, channels, 3, padding=1)
            nn.init.normal_(conv.weight, std=math.sqrt(2 / (9 * inside)))
            layers += [conv, nn.ReLU(inplace=True)]
            inside = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 10))


def born_dead() -> nn.Module:
    """Return a network whose second convolution has biases far below zero."""
    model = Network(4, 8, lambda _: nn.Identity(), he=True)
    nn.init.constant_(model.blocks[1].conv.bias, -40.0)  # type: ignore[union-attr, arg-type]
    return model


def mostly_dead() -> nn.Module:
    """Return a network in which the biases switch most channels of one layer off."""
    model = Network(4, 32, lambda _: nn.Identity(), he=True)
    bias = model.blocks[1].conv.bias  # type: ignore[union-attr]
    with torch.no_grad():
        bias[:29].fill_(-40.0)  # type: ignore[index]
    return model


def one_loud(factor: float) -> nn.Module:
    """Return a He-initialised network in which one convolution's weights are multiplied."""
    model = Network(8, 8, lambda _: nn.Identity(), he=True)
    with torch.no_grad():
        model.blocks[4].conv.weight.mul_(factor)  # type: ignore[union-attr, operator]
    return model


def tanh(depth: int, channels: int, gain: float) -> nn.Module:
    """Return plain convolutions with tanh and circular padding."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        conv = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular")
        nn.init.normal_(conv.weight, std=gain / math.sqrt(9 * channels))
        layers += [conv, nn.Tanh()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels, 10))


def shrinking() -> nn.Module:
    """Return convolutions without biases at 0.6 of the gain that ReLU needs."""
    model = Network(24, 8, lambda _: nn.Identity(), he=True)
    with torch.no_grad():
        for block in model.blocks:
            block.conv.weight.mul_(0.6)  # type: ignore[union-attr, operator]
    return model


def denoise() -> Case:
    """Return the U-Net on pairs of noisy and clean images."""
    clean = torch.rand(4, 1, 16, 16)
    return Case(UNet(), regress, [(clean + 0.3 * torch.randn_like(clean), clean)])


def sick() -> list[Patient]:
    """Return the sick convolutional networks."""
    build: dict[str, tuple[Callable[[], Case], tuple[str, ...], tuple[str, ...]]] = {
        "default-20": (lambda: case(Network(20, 8, lambda _: nn.Identity()), size=6), ("UG101", "UG205"), ()),
        "batchnorm-no-skip-50": (
            lambda: case(Network(50, 8, nn.BatchNorm2d, he=True)),
            ("UG102",),
            ("UG205",),
        ),
        "born-dead": (lambda: case(born_dead()), ("UG206",), ("UG205", "UG103", "UG603")),
        "mostly-dead": (lambda: case(mostly_dead()), ("UG203",), ("UG205",)),
        "one-layer-tiny": (lambda: case(one_loud(1e-4)), ("UG103",), ("UG205",)),
        "one-layer-loud": (lambda: case(one_loud(3000.0)), ("UG104",), ("UG205", "UG605", "UG601")),
        "tanh-saturated": (
            lambda: Case(tanh(10, 3, 14.0), classify, labelled(8, 3, 4, 4)),
            ("UG204", "UG301"),
            ("UG102",),
        ),
        "shrinking-24": (lambda: case(shrinking()), ("UG101", "UG202"), ("UG205", "UG602")),
        "skip-no-norm-30": (
            lambda: case(Network(30, 8, lambda _: nn.Identity(), skip=True, he=True), size=4),
            ("UG102", "UG201"),
            ("UG205",),
        ),
    }
    return [Patient(f"cnn-{k}", "cnn", seeded(make), codes, also) for k, (make, codes, also) in build.items()]


def healthy() -> list[Patient]:
    """Return convolutional networks that train."""
    build: dict[str, Callable[[], Case]] = {
        "he-12": lambda: case(Network(12, 16, lambda _: nn.Identity(), he=True)),
        "batchnorm-8": lambda: case(Network(8, 8, nn.BatchNorm2d)),
        "resnet-20": lambda: case(Network(20, 8, nn.BatchNorm2d, skip=True)),
        "batchnorm-no-skip-10": lambda: case(Network(10, 8, nn.BatchNorm2d, he=True)),
        "vgg": lambda: case(vgg()),
        "unet": denoise,
    }
    return [Patient(f"cnn-{name}", "cnn", seeded(make)) for name, make in build.items()]
