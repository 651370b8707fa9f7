"""Small models of every kind that is easily disturbed by looking at it, each with a loss and a batch."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch._dynamo  # noqa: F401 (checkpointing imports it on first use, which adds a warning filter)
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from unitygain import Case

WIDTH = 6


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        y += x
        return y


class Repeated(nn.Module):
    """One layer, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return x


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, WIDTH)
        self.head = nn.Linear(WIDTH, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens))


class Tokens(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, WIDTH, **options)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens))


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first = nn.Linear(WIDTH, WIDTH)
        self.block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, self.first(x), use_reentrant=self.reentrant)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(x.to(torch.complex64) @ self.weight)


class Noisy(nn.Module):
    """Draws from all three generators, counts its calls, and replaces a buffer by a new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("average", torch.zeros(WIDTH))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x) + torch.randn(WIDTH) + random.random() + float(np.random.rand())  # noqa: NPY002
        self.average = 0.9 * self.average + 0.1 * x.detach().mean(0)
        self.scratch += 1
        return nn.functional.dropout(x)


class Frozen(nn.Module):
    """A frozen backbone whose BatchNorm stays in eval mode while the rest trains."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())
        self.head = nn.Linear(WIDTH, 2)
        self.backbone.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class OldSpectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.spectral_norm(nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Broken(nn.Module):
    """Changes its BatchNorm statistics, then raises."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)
        self.last = Raising()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(x) + torch.randn(WIDTH))


class Raising(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        self.layer(x)
        raise ArithmeticError("the third law")


class Uncopyable(nn.Module):
    """Holds a model that cannot be copied, so that it must be worked on in place."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def __deepcopy__(self, memo: object) -> "Uncopyable":
        raise TypeError("cannot be copied")


def normalised() -> nn.Module:
    trunk = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten())
    return nn.Sequential(trunk, nn.Linear(32, 2))


def parametrised() -> nn.Module:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
        parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)),
        parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH)),
    )


def compiled() -> nn.Module:
    return torch.compile(Repeated(), backend="eager")  # pyright: ignore[reportReturnType]


def floats() -> Tensor:
    return torch.randn(5, WIDTH)


def images() -> Tensor:
    return torch.randn(3, 1, 6, 6)


def tokens() -> Tensor:
    return torch.randint(10, (3, 4))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "residual with in-place activation and addition": (lambda: nn.Sequential(Residual(), Residual()), floats),
    "batch norm": (normalised, images),
    "one layer called three times": (Repeated, floats),
    "tied": (Tied, tokens),
    "sparse gradient": (lambda: Tokens(sparse=True), tokens),
    "renormalised embedding": (lambda: Tokens(max_norm=0.5), tokens),
    "checkpointed": (lambda: Checkpointed(reentrant=False), floats),
    "checkpointed, reentrant": (lambda: Checkpointed(reentrant=True), floats),
    "complex": (Complex, floats),
    "random, buffers replaced": (Noisy, floats),
    "frozen backbone": (Frozen, floats),
    "spectral norm as a hook": (OldSpectral, floats),
    "parametrised": (parametrised, floats),
    "recurrent": (lambda: nn.Sequential(nn.LSTM(WIDTH, WIDTH, num_layers=2, dropout=0.5)), floats),
    "attention": (lambda: nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True), lambda: floats()[None]),
}


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean square of the first floating output."""
    output = model(batch)
    return (output[0] if isinstance(output, tuple) else output).square().mean()


def case(model: nn.Module, batch: Tensor, **options: Any) -> Case:
    """Return a case, its model with gradients of an earlier step and hooks of the user's own."""
    built = Case(model, loss=loss, data=[batch], batches=1, **options)
    for index, parameter in enumerate(model.parameters()):
        if not isinstance(parameter, nn.parameter.UninitializedParameter) and index % 2 == 0:
            parameter.grad = torch.full_like(parameter, 0.5)
    return built
