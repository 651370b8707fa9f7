"""Numbers that leave their dtype: underflow and overflow of float16 and float32, infinities and NaN."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo import sound
from zoo.patient import Patient, classify

F = nn.functional


class Logarithm(nn.Module):
    """The logarithm of something that ReLU has set to zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().log()


class Standardised(nn.Module):
    """Divides by a standard deviation that is zero for a constant channel."""

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
        scaled = (flat - flat.mean((2, 3), keepdim=True)) / flat.var((2, 3), keepdim=True).sqrt()
        return scaled[:, 1:]


class Lengths(nn.Module):
    """Divides a sequence by its length, which has no slope where the sequence is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + (x[:, :1] * 0).square().sum(-1, keepdim=True).sqrt())


class Masked(nn.Module):
    """Attention under a mask that leaves one row nothing to look at, or always the row itself."""

    def __init__(self, *, keep_self: bool) -> None:
        super().__init__()
        self.maps = nn.Linear(sound.FEATURES, 3 * sound.FEATURES)
        self.keep_self = keep_self
        self.head = nn.Linear(sound.FEATURES, sound.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.maps(x).chunk(3, -1)
        mask = torch.ones(x.shape[1], x.shape[1]).tril(0 if self.keep_self else -1).bool()
        scores = (q @ k.mT / sound.FEATURES**0.5).masked_fill(~mask, -torch.inf)
        return self.head((scores.softmax(-1) @ v).mean(1))


def half(kind: str, change: Callable[[Any], Any] | None = None, **options: Any) -> Case:
    """Return a case that runs in float16."""
    return sound.case(kind, change, precision="float16", **options)


def times(factor: float) -> Callable[[nn.Module, Any], Tensor]:
    """Return a cross-entropy that is multiplied by `factor`."""
    return lambda model, batch: classify(model, batch) * factor


def amplify(factor: float, index: int = 0) -> Callable[[Any], None]:
    """Return what multiplies a weight near the input, and takes it back in the next one."""

    def change(model: nn.Module) -> None:
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        with torch.no_grad():
            layers[index].weight.mul_(factor)
            layers[index + 1].weight.div_(factor)

    return change


def sigmoids(depth: int) -> Case:
    """Return a chain of sigmoid layers with small weights, each of which passes on a fiftieth or so."""
    parts = [p for _ in range(depth) for p in (nn.Linear(24, 24), nn.Sigmoid())]
    for part in parts[::2]:
        nn.init.normal_(part.weight, std=0.015)
    model = nn.Sequential(*parts, nn.Linear(24, sound.CLASSES))
    return Case(model, classify, [(torch.randn(16, 24), torch.randint(sound.CLASSES, (16,)))])


def convolutions(depth: int) -> Case:
    """Return a chain of convolutions with tiny weights."""
    parts = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(depth)]
    for part in parts:
        nn.init.normal_(part.weight, std=0.0001)
        nn.init.zeros_(part.bias)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), *parts, nn.Flatten(), nn.Linear(4 * 36, sound.CLASSES))
    return Case(model, classify, [(torch.randn(8, 3, 6, 6), torch.randint(sound.CLASSES, (8,)))])


def placed(kind: str, part: nn.Module, index: int) -> Case:
    """Return a case with one more part in its sequence."""
    return sound.case(kind, lambda model: nn.Sequential(*list(model)[:index], part, *list(model)[index:]))


def before(kind: str, part: nn.Module) -> Case:
    """Return a case with a part before the model."""
    return sound.case(kind, lambda model: nn.Sequential(part, model))


def spoiled(kind: str) -> Case:
    """Return a case with a NaN in one sample."""
    inputs, labels = sound.batch(kind)
    inputs[3, 2] = torch.nan
    return sound.case(kind, data=[(inputs, labels)])


def burnt(model: Any) -> None:
    """Leave an infinity in one weight."""
    with torch.no_grad():
        sound.head(model).weight[0, 0] = torch.inf


def attention(*, keep_self: bool) -> Case:
    """Return a small attention under a mask."""
    return Case(Masked(keep_self=keep_self), classify, [sound.batch("recurrent")])


def own_step(case: Case, batch: Any) -> Tensor:
    """Scale the loss and take it off the gradients again, as torch.amp.GradScaler does."""
    case.optimizer.zero_grad()
    loss = case.compute_loss(batch)
    (loss * 65536).backward()
    for parameter in case.model.parameters():
        parameter.grad /= 65536
    case.optimizer.step()
    return loss


def sick() -> list[Patient]:
    """Return cases in which numbers leave their dtype."""
    return sound.patients({
        "float16-small-loss": ("mlp", lambda: half("mlp", loss=times(1e-6)), ("UG501",), ()),
        "float16-small-loss-cnn": ("cnn", lambda: half("cnn", loss=times(1e-4)), ("UG501",), ()),
        "float16-small-loss-residual": (
            "residual",
            lambda: half("residual", loss=times(3e-7)),
            ("UG501",),
            (),
        ),
        "float16-small-loss-attention": (
            "transformer",
            lambda: half("transformer", loss=times(1e-6)),
            ("UG501",),
            (),
        ),
        "float16-near-the-end": ("mlp", lambda: half("mlp", amplify(1e4)), ("UG502",), ("UG501",)),
        "float16-near-the-end-cnn": (
            "cnn",
            lambda: half("cnn", lambda m: m[0].weight.data.mul_(4e3)),
            ("UG502",),
            ("UG501",),
        ),
        "float16-near-the-end-residual": (
            "residual",
            lambda: half("residual", lambda m: m[0].weight.data.mul_(1e4)),
            ("UG502",),
            ("UG501",),
        ),
        "float32-sigmoids-23": (
            "mlp",
            lambda: sigmoids(23),
            ("UG503",),
            ("UG101", "UG205", "UG301", "UG202"),
        ),
        "float32-convolutions-13": (
            "cnn",
            lambda: convolutions(13),
            ("UG503",),
            ("UG101", "UG104", "UG205", "UG202", "UG301"),
        ),
        "float32-tiny-loss": (
            "transformer",
            lambda: sound.case("transformer", loss=times(1e-38)),
            ("UG503",),
            (),
        ),
        "float32-tiny-loss-lstm": (
            "recurrent",
            lambda: sound.case("recurrent", loss=times(1e-38)),
            ("UG503",),
            (),
        ),
        "nan-log-of-zero": ("mlp", lambda: placed("mlp", Logarithm(), 2), ("UG901",), ()),
        "nan-division-by-zero": ("cnn", lambda: before("cnn", Standardised()), ("UG901",), ()),
        "nan-root-at-zero": ("residual", lambda: placed("residual", Lengths(), 3), ("UG901",), ()),
        "nan-empty-mask": ("transformer", lambda: attention(keep_self=False), ("UG901",), ()),
        "nan-in-a-sample": ("recurrent", lambda: spoiled("recurrent"), ("UG901",), ()),
        "nan-in-a-weight": ("transformer", lambda: sound.case("transformer", burnt), ("UG901",), ()),
        "nan-float16-overflow": (
            "mlp",
            lambda: half("mlp", lambda m: m[0].weight.data.mul_(1e6)),
            ("UG901", "UG502"),
            (),
        ),
    })


def healthy() -> list[Patient]:
    """Return cases that come near the ends of their dtype and stay inside."""
    return sound.patients({
        "float16-scaled-loss": ("mlp", lambda: half("mlp", loss=times(1024.0)), (), ()),
        "float16-scaled-loss-cnn": ("cnn", lambda: half("cnn", loss=times(1024.0)), (), ()),
        "float16-own-step": (
            "transformer",
            lambda: half(
                "transformer", loss=times(1e-2), step=own_step, optimizer=lambda p: torch.optim.SGD(p, 1.0)
            ),
            (),
            (),
        ),
        "bfloat16-small-loss": (
            "mlp",
            lambda: sound.case("mlp", loss=times(1e-6), precision="bfloat16"),
            (),
            (),
        ),
        "bfloat16-large-outputs": (
            "cnn",
            lambda: sound.case("cnn", lambda m: m[0].weight.data.mul_(1e6), precision="bfloat16"),
            (),
            (),
        ),
        "float32-large-outputs": (
            "cnn",
            lambda: sound.case("cnn", lambda m: m[0].weight.data.mul_(1e12)),
            (),
            (),
        ),
        "float32-small-loss": ("recurrent", lambda: sound.case("recurrent", loss=times(1e-20)), (), ()),
        "mask-with-infinities": ("transformer", lambda: attention(keep_self=True), (), ()),
    })
