"""Little things to learn, made on the spot: each a list of four batches that a small model can fit."""

import inspect
import json.decoder
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

F = nn.functional
Pairs = list[tuple[Tensor, Tensor]]


def split(inputs: Tensor, targets: Tensor, parts: int = 4) -> Pairs:
    """Return batches of equal size."""
    return list(zip(inputs.chunk(parts), targets.chunk(parts), strict=True))


def centres(features: int, classes: int = 5, rows: int = 192, noise: float = 0.5) -> Pairs:
    """Return points around one centre per class."""
    labels = torch.randint(classes, (rows,))
    middle = torch.randn(classes, features)
    return split(middle[labels] + noise * torch.randn(rows, features), labels)


def folded(features: int, classes: int = 4, rows: int = 192) -> Pairs:
    """Return points whose class no linear map tells: the signs of two projections, multiplied and joined."""
    inputs = torch.randn(rows, features)
    signs = (inputs @ torch.randn(features, 3) > 0).long()
    return split(inputs, (signs[:, 0] ^ signs[:, 1]) + (classes // 2) * (signs[:, 1] ^ signs[:, 2]))


def smooth(features: int, outputs: int = 1, rows: int = 256) -> Pairs:
    """Return inputs with targets of a random smooth function, of unit size."""
    inputs = torch.randn(rows, features)
    targets = torch.tanh(inputs @ torch.randn(features, 16) / math.sqrt(features)) @ torch.randn(16, outputs)
    return split(inputs, targets / targets.std())


def stripes(size: int = 12, classes: int = 4, channels: int = 1, rows: int = 96) -> Pairs:
    """Return images of stripes whose direction is the class, in noise."""
    labels = torch.randint(classes, (rows,))
    angle = labels * math.pi / classes
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    along = torch.cos(angle)[:, None, None] * x + torch.sin(angle)[:, None, None] * y
    waves = torch.sin(1.3 * along + 6.3 * torch.rand(rows, 1, 1))
    images = waves[:, None].expand(-1, channels, -1, -1) + 0.3 * torch.randn(rows, channels, size, size)
    return split(images.contiguous(), labels)


def first_mark(steps: int, features: int = 6, classes: int = 4, rows: int = 64, noise: float = 0.1) -> Pairs:
    """Return sequences of noise whose class is written into the first step."""
    labels = torch.randint(classes, (rows,))
    inputs = noise * torch.randn(rows, steps, features)
    inputs[:, 0] += 2 * F.one_hot(labels, features)
    return split(inputs, labels)


def waves(steps: int, rows: int = 96, classes: int = 4) -> Pairs:
    """Return sines in noise whose frequency is the class."""
    labels = torch.randint(classes, (rows,))
    phase = 6.3 * torch.rand(rows, 1) + torch.arange(steps) * (0.25 + 0.3 * labels[:, None])
    return split((torch.sin(phase) + 0.1 * torch.randn(rows, steps))[..., None], labels)


def forecast(steps: int, rows: int = 64) -> Pairs:
    """Return sines and their next value at every step."""
    phase = 6.3 * torch.rand(rows, 1) + torch.arange(steps + 1) * (0.2 + 0.4 * torch.rand(rows, 1))
    values = torch.sin(phase)[..., None]
    return split(values[:, :-1], values[:, 1:])


def majority(length: int, tokens: int = 12, classes: int = 4, rows: int = 128) -> Pairs:
    """Return sequences of tokens, of which the most frequent of the first few is the class."""
    labels = torch.randint(classes, (rows,))
    inputs = torch.randint(tokens, (rows, length))
    often = torch.rand(rows, length) < 0.35
    return split(torch.where(often, labels[:, None], inputs), labels)


@cache
def written() -> tuple[Tensor, int]:
    """Return a text of the standard library as numbers of characters, and how many there are."""
    text = inspect.getsource(json.decoder)
    alphabet = {letter: index for index, letter in enumerate(sorted(set(text)))}
    return torch.tensor([alphabet[letter] for letter in text]), len(alphabet)


def letters(length: int, rows: int = 32) -> tuple[list[Tensor], int]:
    """Return pieces of a text with one more letter than `length`, and the size of the alphabet."""
    text, size = written()
    starts = torch.randint(len(text) - length - 1, (rows,))
    pieces = torch.stack([text[start : start + length + 1] for start in starts.tolist()])
    return list(pieces.chunk(4)), size


def classify(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the model's output."""
    return F.cross_entropy(model(batch[0]), batch[1])


def regress(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error of the model's output."""
    return F.mse_loss(model(batch[0]), batch[1])


def next_letter(model: nn.Module, pieces: Tensor) -> Tensor:
    """Cross-entropy of the next letter, over all places."""
    logits = model(pieces[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())


def errors(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Fraction of the batch that is told wrongly."""
    return float((model(batch[0]).argmax(-1) != batch[1]).float().mean())


def sgd(rate: float, **more: float) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds stochastic gradient descent."""
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, **more)


def adam(rate: float = 1e-3, **more: float) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds Adam."""
    return lambda parameters: torch.optim.Adam(parameters, lr=rate, **more)


def adamw(rate: float = 1e-3, **more: float) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds AdamW."""
    return lambda parameters: torch.optim.AdamW(parameters, lr=rate, **more)
