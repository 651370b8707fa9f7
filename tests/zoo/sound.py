"""One sound little model of each architecture, with a batch: what the other files make sick in one place."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.patient import Patient, classify, seeded

CLASSES = 5
FEATURES = 16
WIDTH = 32
TOKENS = 20


class Residual(nn.Module):
    """A block that adds what its branch makes, behind a norm."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.act, self.down = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(self.norm(x))))


class Recurrent(nn.Module):
    """An LSTM and a head on its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Transformer(nn.Module):
    """Token embedding, two Pre-LN encoder layers, a head on the mean token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, batch_first=True, norm_first=True)
            for _ in range(3)
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(1))


def he(model: nn.Module) -> nn.Module:
    """Initialise the weights of linear maps and convolutions for ReLU, and the head for unit logits."""
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    nn.init.normal_(layers[-1].weight, std=0.5 * WIDTH**-0.5)
    return model


def mlp(depth: int = 3, width: int = WIDTH) -> nn.Sequential:
    """Return a ReLU perceptron; the head is its last module."""
    hidden = [part for _ in range(depth - 1) for part in (nn.Linear(width, width), nn.ReLU())]
    model = nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), *hidden, nn.Linear(width, CLASSES))
    he(model)
    return model


def cnn() -> nn.Sequential:
    """Return a small convolutional network with BatchNorm; the head is its last module."""
    layers: list[nn.Module] = []
    for inside, outside in ((3, 8), (8, 16), (16, WIDTH)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, CLASSES))
    he(model)
    return model


def residual() -> nn.Sequential:
    """Return a Pre-LN residual perceptron; the head is its last module."""
    return nn.Sequential(
        nn.Linear(FEATURES, WIDTH),
        *(Residual() for _ in range(4)),
        nn.LayerNorm(WIDTH),
        nn.Linear(WIDTH, CLASSES),
    )


MODELS: dict[str, Callable[[], Any]] = {
    "mlp": mlp,
    "cnn": cnn,
    "residual": residual,
    "recurrent": Recurrent,
    "transformer": Transformer,
}


def batch(kind: str, rows: int = 32) -> tuple[Tensor, Tensor]:
    """Return inputs for a model of `kind`, and random classes."""
    inputs: dict[str, Callable[[], Tensor]] = {
        "mlp": lambda: torch.randn(rows, FEATURES),
        "cnn": lambda: torch.randn(rows, 3, 8, 8),
        "residual": lambda: torch.randn(rows, FEATURES),
        "recurrent": lambda: torch.randn(rows, 8, FEATURES),
        "transformer": lambda: torch.randint(TOKENS, (rows, 8)),
    }
    return inputs[kind](), torch.randint(CLASSES, (rows,))


def head(model: nn.Module) -> nn.Linear:
    """Return the last linear map."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def case(kind: str, change: Callable[[Any], Any] | None = None, **options: Any) -> Case:
    """Return the classification of noise by a model of `kind`, which `change` may alter or replace."""
    model = MODELS[kind]()
    changed = change(model) if change else None
    model = changed if isinstance(changed, nn.Module) else model
    options.setdefault("loss", classify)
    options.setdefault("data", [batch(kind)])
    return Case(model, **options)


def patients(
    build: dict[str, tuple[str, Callable[[], Case], tuple[str, ...], tuple[str, ...]]],
) -> list[Patient]:
    """Return patients from (architecture, how to make the case, codes, further codes) by name."""
    return [Patient(name, kind, seeded(make), sick, also) for name, (kind, make, sick, also) in build.items()]
