"""Convolutional networks that do not train."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.layers import HEAVY, INIT, RESCALE, ROOT, UNDER
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice


class Plain(nn.Module):
    """Convolutions without normalisation, functional ReLU, mean over the image."""

    def __init__(self, depth: int, channels: int, classes: int = 4, colours: int = 1) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(colours, channels, 3, padding=1)
        self.convs = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth)])
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.conv_in(images))
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.classifier(x.mean((2, 3)))


def deep(dice: Dice, sick: bool) -> Case:
    """A deep chain of convolutions as nn.Conv2d makes them."""
    depth, channels = dice.whole(16, 20), dice.whole(16, 24)

    def build() -> nn.Module:
        model = Plain(depth if sick else depth // 2, channels)
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and not sick:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        return model

    return Case(build, tasks.classify, tasks.stripes(8), tasks.adam(2e-3))


def block(inside: int, outside: int, *, norm: bool) -> list[nn.Module]:
    """Return convolution, norm if wanted, and ReLU."""
    conv = nn.Conv2d(inside, outside, 3, padding=1, bias=not norm)
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    return [conv, *([nn.BatchNorm2d(outside)] if norm else []), nn.ReLU(inplace=True)]


def normalised(dice: Dice, sick: bool) -> Case:
    """Convolution, BatchNorm, ReLU, thirty times."""
    channels, depth = dice.whole(12, 16), dice.whole(32, 40) if sick else 4
    layers = block(1, channels, norm=True)
    for _ in range(depth):
        layers += block(channels, channels, norm=True)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Case(model, tasks.classify, tasks.stripes(6), optimizer)


def shut(dice: Dice, sick: bool) -> Case:
    """A detection head's negative prior on every layer's bias."""
    channels, prior = dice.whole(12, 20), -math.log((1 - 0.01) / 0.01)

    def build() -> nn.Module:
        model = nn.Sequential(
            *block(1, channels, norm=False), *block(channels, channels, norm=False), nn.MaxPool2d(2)
        )
        model.extend([*block(channels, channels, norm=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()])
        model.append(nn.Linear(channels, 4))
        for module in model if sick else ():
            if isinstance(module, nn.Conv2d):
                nn.init.constant_(module.bias, prior)  # type: ignore[arg-type]
        return model

    return Case(build, tasks.classify, tasks.stripes(10), tasks.adam(3e-3))


def bytes_(dice: Dice, sick: bool) -> Case:
    """Pixels from 0 to 255 as they come from the file."""
    channels = dice.whole(8, 16)

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, channels, 5), nn.Conv2d(channels, 2 * channels, 3)
            self.fc1, self.fc2 = nn.Linear(2 * channels * 4, 48), nn.Linear(48, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = F.max_pool2d(F.relu(self.conv2(x)), 2) if x.shape[-1] > 5 else F.relu(self.conv2(x))
            return self.fc2(F.relu(self.fc1(x[:, :, :2, :2].flatten(1))))

    data = []
    for images, labels in tasks.stripes(12, channels=3):
        pixels = ((images / 4 + 0.5).clamp(0, 1) * 255).round()
        data.append((pixels if sick else (pixels - 127.5) / 64, labels))
    return Case(LeNet, tasks.classify, data, tasks.sgd(dice.between(0.02, 0.04), momentum=0.9))


class Basic(nn.Module):
    """Two convolutions beside a skip path, without normalisation."""

    def __init__(self, channels: int, share: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight)
        self.conv2.weight.data.mul_(share)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


def unscaled(dice: Dice, sick: bool) -> Case:
    """A ResNet whose BatchNorm was taken out."""
    channels, depth = dice.whole(8, 12), dice.whole(14, 18)

    def build() -> nn.Module:
        blocks = [Basic(channels, 1.0 if sick else 0.15) for _ in range(depth)]
        stem = nn.Conv2d(1, channels, 3, padding=1)
        return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))

    return Case(build, tasks.classify, tasks.stripes(8), tasks.adam(1e-3))


SICK = (
    Program(
        "conv-default-deep",
        "cnn",
        deep,
        Truth("default-init", INIT, UNDER, RESCALE, (("rescale_weights", {"gain": ROOT}),), HEAVY),
        200,
    ),
    Program(
        "conv-batchnorm-no-skips",
        "cnn",
        normalised,
        Truth(
            "batchnorm-depth",
            ("UG102",),
            r"^normalisation:",
            ("bypass_norm", "add_residual"),
            (("add_residual", {}),),
        ),
        30,
    ),
    Program(
        "conv-negative-prior",
        "cnn",
        shut,
        Truth("bias", ("UG206", "UG203"), r"^bias", ("zero_biases",), (("zero_biases", {}),), HEAVY),
        80,
    ),
    Program(
        "conv-bytes",
        "cnn",
        bytes_,
        Truth(
            "inputs",
            ("UG607", "UG605", "UG601"),
            r"^inputs?:",
            ("unit_inputs",),
            (("unit_inputs", {}),),
            HEAVY,
        ),
        80,
    ),
    Program(
        "resnet-norm-taken-out",
        "cnn",
        unscaled,
        Truth(
            "branches",
            ("UG201", "UG102"),
            r"^branch",
            ("scale_branch",),
            (("scale_branch", {"sites": tuple(f"{k}" for k in range(1, 20)), "factor": 0.15}),),
            (("rescale_weights", {"gain": ROOT}),),
        ),
        80,
    ),
)
