"""Multilayer perceptrons: plain, normalised, residual."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.patient import Patient, classify, labelled, seeded

Initialise = Callable[[Tensor], object] | None


def plain(
    width: int, depth: int, activation: Callable[[], nn.Module], initialise: Initialise = None
) -> nn.Module:
    """Return `depth` linear layers with an activation after each, and a head of ten classes."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), activation()]
    if initialise:
        for layer in layers[::2]:
            assert isinstance(layer, nn.Linear)
            initialise(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers, nn.Linear(width, 10))


def normalised(width: int, depth: int) -> nn.Module:
    """Return `depth` layers of Linear, BatchNorm and ReLU without skips, and a head of ten classes."""
    layers = [
        part for _ in range(depth) for part in (nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())
    ]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def case(model: nn.Module, width: int, batch: int = 32, *, shift: float = 0.0, scale: float = 1.0) -> Case:
    """Return the classification of noise by `model`."""
    data = [(inputs * scale + shift, classes) for inputs, classes in labelled(batch, width)]
    return Case(model, classify, data, lambda p: torch.optim.AdamW(p, 1e-3))


def he(weight: Tensor) -> None:
    """Fill with variance 2 / fan_in."""
    nn.init.normal_(weight, std=math.sqrt(2 / weight.shape[1]))


def constant(weight: Tensor) -> None:
    """Fill with one number: every unit computes the same."""
    nn.init.constant_(weight, 1.5 / weight.shape[1])


def times(gain: float) -> Callable[[Tensor], None]:
    """Return an initialisation with standard deviation gain / sqrt(fan_in)."""

    def fill(weight: Tensor) -> None:
        nn.init.normal_(weight, std=gain / math.sqrt(weight.shape[1]))

    return fill


class Repeated(nn.Module):
    """The same block again and again, and a head."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.head = nn.Linear(width, 10)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.block(x)
        return self.head(x)


class Residual(nn.Module):
    """x + Linear(relu(Linear(x))), with LayerNorm in front of the branch where asked for."""

    def __init__(self, width: int, *, norm: bool, gain: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.rise, self.fall = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.normal_(self.rise.weight, std=math.sqrt(2 / width))
        nn.init.normal_(self.fall.weight, std=gain / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fall(torch.relu(self.rise(self.norm(x))))


def residual(width: int, depth: int, *, norm: bool, gain: float = 1.0) -> nn.Module:
    """Return a residual perceptron with a final LayerNorm where it is normalised."""
    blocks = [Residual(width, norm=norm, gain=gain) for _ in range(depth)]
    last = nn.LayerNorm(width) if norm else nn.Identity()
    return nn.Sequential(*blocks, last, nn.Linear(width, 10))


def one_layer(
    layer: int, weight: float = 1.0, bias: float = 0.0, *, depth: int = 10, width: int = 48
) -> nn.Module:
    """Return a healthy tanh network in which one layer's weights are multiplied and its bias shifted."""
    model = plain(width, depth, nn.Tanh, nn.init.orthogonal_)
    broken = model[2 * layer]  # type: ignore[index]
    with torch.no_grad():
        broken.weight.mul_(weight)
        broken.bias.add_(bias)
    return model


def loud_layer(
    layer: int,
    weight: float,
    activation: Callable[[], nn.Module] = nn.ReLU,
    initialise: Initialise = None,
) -> nn.Module:
    """Return a network at its own gain (He's for ReLU) in which one layer's weights are multiplied."""
    model = plain(48, 10, activation, initialise or he)
    with torch.no_grad():
        model[2 * layer].weight.mul_(weight)  # type: ignore[index]
    return model


def trained(case: Case, steps: int = 60) -> Case:
    """Return the case after some steps of its own optimizer on its own batch."""
    optimizer = case.build_optimizer()
    assert optimizer is not None
    for _ in range(steps):
        optimizer.zero_grad()
        case.compute_loss(case.batches[0]).backward()
        optimizer.step()
    case.model.zero_grad()
    return case


def one_sided(weight: Tensor) -> Tensor:
    """Fill with numbers of He's size, all of them negative."""
    return nn.init.uniform_(weight, -math.sqrt(6 / weight.shape[1]), 0.0)


def dying(width: int, depth: int, bias: float, layers: slice = slice(None)) -> nn.Module:
    """Return a He-initialised ReLU network whose biases are `bias` in the chosen layers."""
    model = plain(width, depth, nn.ReLU, he)
    for layer in list(model)[:-1:2][layers]:  # type: ignore[arg-type]
        nn.init.constant_(layer.bias, bias)
    return model


def sick() -> list[Patient]:
    """Return the sick perceptrons."""
    build: dict[str, tuple[Callable[[], Case], tuple[str, ...], tuple[str, ...]]] = {
        "relu-default-24": (lambda: case(plain(64, 24, nn.ReLU), 64), ("UG101", "UG205"), ()),
        "relu-default-130": (
            lambda: case(plain(24, 130, nn.ReLU), 24, 8),
            ("UG101",),
            ("UG205", "UG503", "UG602", "UG603"),
        ),
        "gelu-default-20": (lambda: case(plain(48, 20, nn.GELU), 48), ("UG101",), ("UG205",)),
        "tanh-shared-30": (lambda: case(Repeated(48, 30), 48), ("UG101",), ("UG205",)),
        "sigmoid-default-12": (lambda: case(plain(64, 12, nn.Sigmoid), 64), ("UG101", "UG205"), ()),
        "tanh-default-24": (lambda: case(plain(64, 24, nn.Tanh), 64), ("UG101",), ("UG205",)),
        "relu-large-weights-16": (
            lambda: case(plain(64, 16, nn.ReLU, times(4.0)), 64),
            ("UG102", "UG201"),
            ("UG605", "UG601"),
        ),
        "tanh-chaotic-40": (lambda: case(plain(96, 40, nn.Tanh, times(3.0)), 96), ("UG102",), ()),
        "relu-he-shrinking-30": (
            lambda: case(plain(64, 30, nn.ReLU, times(0.8)), 64),
            ("UG101", "UG202"),
            ("UG205",),
        ),
        "tanh-saturated": (
            lambda: case(plain(64, 8, nn.Tanh, times(12.0)), 64),
            ("UG204", "UG301"),
            ("UG102",),
        ),
        "sigmoid-saturated": (
            lambda: case(plain(64, 4, nn.Sigmoid, times(40.0)), 64),
            ("UG204",),
            ("UG102", "UG301", "UG605", "UG601"),
        ),
        "selu-one-layer-loud": (
            lambda: case(loud_layer(4, 3000.0, nn.SELU, times(1.0)), 48),
            ("UG104",),
            ("UG605", "UG601"),
        ),
        "relu-one-layer-tiny": (lambda: case(loud_layer(4, 1e-4), 48), ("UG103",), ("UG205",)),
        "tanh-inputs-in-hundreds": (
            lambda: case(plain(64, 2, nn.Tanh, nn.init.orthogonal_), 64, scale=300.0),
            ("UG204",),
            ("UG607",),
        ),
        "one-layer-saturated": (lambda: case(one_layer(5, bias=9.0), 48), ("UG103", "UG204"), ("UG205",)),
        "one-layer-huge": (lambda: case(one_layer(5, weight=400.0), 48), ("UG204",), ("UG301", "UG104")),
        "one-layer-loud": (
            lambda: case(loud_layer(4, 3000.0), 48),
            ("UG104",),
            ("UG201", "UG605", "UG601"),
        ),
        "relu-shrinking-forward-24": (
            lambda: case(plain(48, 24, nn.LeakyReLU, times(0.9)), 48),
            ("UG101", "UG202"),
            ("UG205",),
        ),
        "one-layer-tiny": (lambda: case(one_layer(4, weight=1e-4), 48), ("UG103",), ("UG201", "UG205")),
        "relu-mostly-dead": (
            lambda: case(dying(64, 4, -3.0, slice(1, 2)), 64),
            ("UG203",),
            ("UG301",),
        ),
        "relu-born-dead": (
            lambda: case(dying(64, 6, -30.0, slice(2, 3)), 64),
            ("UG206",),
            ("UG205", "UG103", "UG603"),
        ),
        "relu-all-zero": (
            lambda: case(plain(32, 4, nn.ReLU, nn.init.zeros_), 32),
            ("UG206",),
            ("UG205", "UG603", "UG105"),
        ),
        "relu-negative-weights": (
            lambda: case(plain(64, 4, nn.ReLU, one_sided), 64),
            ("UG206",),
            ("UG205", "UG603", "UG105"),
        ),
        "batchnorm-no-skip-34": (lambda: case(normalised(48, 34), 48, batch=64), ("UG102",), ()),
        "residual-unscaled-40": (
            lambda: case(residual(48, 40, norm=False, gain=2.0), 48),
            ("UG102", "UG201"),
            ("UG205", "UG605", "UG601"),
        ),
        "constant-weights": (
            lambda: case(plain(32, 5, nn.SiLU, constant), 32),
            ("UG207", "UG301"),
            ("UG101", "UG102", "UG201", "UG202", "UG205"),
        ),
        "narrow-born-dead-100": (
            lambda: case(plain(8, 100, nn.ReLU, he), 8),
            ("UG206",),
            ("UG205", "UG603"),
        ),
    }
    return [Patient(f"mlp-{k}", "mlp", seeded(make), codes, also) for k, (make, codes, also) in build.items()]


def healthy() -> list[Patient]:
    """Return perceptrons that train."""
    build: dict[str, Callable[[], Case]] = {
        "relu-he-20": lambda: case(plain(96, 20, nn.ReLU, he), 96),
        "relu-default-6": lambda: case(plain(64, 6, nn.ReLU), 64),
        "relu-default-4": lambda: case(plain(64, 4, nn.ReLU), 64),
        "tanh-orthogonal-24": lambda: case(plain(64, 24, nn.Tanh, nn.init.orthogonal_), 64),
        "selu-lecun-16": lambda: case(plain(64, 16, nn.SELU, times(1.0)), 64),
        "gelu-he-12": lambda: case(plain(64, 12, nn.GELU, times(1.5)), 64),
        "relu-he-40": lambda: case(plain(96, 40, nn.ReLU, he), 96),
        "relu-he-6-trained": lambda: trained(case(plain(64, 6, nn.ReLU, he), 64)),
        "tanh-4-trained": lambda: trained(case(plain(64, 4, nn.Tanh, nn.init.orthogonal_), 64)),
        "relu-alike-inputs": lambda: case(plain(64, 6, nn.ReLU, he), 64, shift=1.0, scale=0.05),
        "relu-one-sample": lambda: case(plain(64, 6, nn.ReLU, he), 64, 1),
        "sigmoid-2": lambda: case(plain(64, 2, nn.Sigmoid), 64),
        "batchnorm-24": lambda: case(normalised(48, 24), 48, batch=64),
        "residual-norm-24": lambda: case(residual(48, 24, norm=True), 48),
        "residual-scaled-24": lambda: case(residual(48, 24, norm=False, gain=1 / math.sqrt(24)), 48),
        "relu-he-positive-inputs": lambda: case(plain(96, 12, nn.ReLU, he), 96, shift=1.0),
    }
    return [Patient(f"mlp-{name}", "mlp", seeded(make)) for name, make in build.items()]
