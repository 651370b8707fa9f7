"""Kept aside: training loops, losses, optimizers and number formats, sick or healthy (first half)."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HOT = (("lower_learning_rate", {"factor": 10.0}),)


def quarters(*columns: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(c.chunk(4) for c in columns), strict=True))


def clusters(rows: int, features: int, classes: int, noise: float) -> tuple[Tensor, Tensor]:
    y = torch.arange(rows) % classes
    y = y[torch.randperm(rows)]
    return torch.randn(classes, features)[y] + noise * torch.randn(rows, features), y


def error_rate(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    x, y = batch
    return float((model(x).argmax(-1) != y).float().mean())


# --- sick ---------------------------------------------------------------------------------------------------


def softmax_inside(dice: Dice, sick: bool) -> Case:
    """The model ends in nn.Softmax and is handed to nn.CrossEntropyLoss."""
    classes, width, rate = dice.whole(16, 24), dice.one_of(48, 64), dice.between(0.1, 0.2)
    criterion = nn.CrossEntropyLoss()

    def build() -> nn.Module:
        layers = [
            nn.Linear(20, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        ]
        return nn.Sequential(*layers, nn.Softmax(dim=1)) if sick else nn.Sequential(*layers)

    data = quarters(*clusters(480, 20, classes, 0.4))
    return Case(
        build,
        lambda model, batch: criterion(model(batch[0]), batch[1]),
        data,
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.5),
    )


class Embedder(nn.Module):
    """Maps each row into a space where like rows lie close."""

    def __init__(self, features: int, width: int, out: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(features, width), nn.Linear(width, out)
        self.ln = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.ln(self.fc1(x))))


def distance_to_itself(dice: Dice, sick: bool) -> Case:
    """Contrastive loss on all pairs of a batch, whose distance takes sqrt of a zero on the diagonal."""
    features, width, out = dice.whole(10, 16), dice.one_of(32, 48), dice.whole(4, 8)
    margin, rate = dice.between(1.0, 1.5), dice.power(-2.7, -2.4)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        z = model(x)
        square = (z[:, None, :] - z[None, :, :]).pow(2).sum(-1)
        dist = torch.sqrt(square) if sick else torch.sqrt(square + 1e-6)
        same = (y[:, None] == y[None, :]).float()
        return (same * square + (1 - same) * F.relu(margin - dist).pow(2)).mean()

    data = quarters(*clusters(160, features, 4, 0.7))
    return Case(lambda: Embedder(features, width, out), loss, data, lambda p: torch.optim.Adam(p, lr=rate))


class Denoise(nn.Module):
    """A small convolutional denoiser of signals."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, planes, 5, padding=2)
        self.second = nn.Conv1d(planes, planes, 5, padding=2)
        self.last = nn.Conv1d(planes, 1, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.first(x))
        return self.last(h + F.silu(self.second(h)))


def autocast_without_scaler(dice: Dice, sick: bool) -> Case:
    """Autocast to float16 in a loop by hand that has no GradScaler; the loss has a small weight."""
    planes, rate = dice.one_of(12, 16), dice.power(-2.4, -2.1)
    weight = dice.power(-5.6, -5.2)
    scale = 1.0 if sick else 2.0**16

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        noisy, clean = batch
        return weight * F.mse_loss(model(noisy).float(), clean)

    def step(case: Case, batch: Any) -> Tensor:
        case.optimizer.zero_grad(set_to_none=True)
        value = case.compute_loss(batch)
        (value * scale).backward()
        for p in case.model.parameters():
            if p.grad is not None:
                p.grad.div_(scale)
        if case.clip is not None:
            case.clip(case.model.parameters())
        case.optimizer.step()
        return value.detach()

    t = torch.linspace(0, 4 * math.pi, 64)
    clean = math.sqrt(2) * torch.sin(t * (0.5 + torch.rand(128, 1)) + 6 * torch.rand(128, 1))[:, None]
    return Case(
        lambda: Denoise(planes),
        loss,
        quarters(clean + 0.5 * torch.randn_like(clean), clean),
        lambda p: torch.optim.Adam(p, lr=rate, eps=1e-12),
        step=step,
        precision="float16",
    )


class Tagger(nn.Module):
    """A GRU and a linear head on its last state."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        _, last = self.rnn(x)
        return self.head(last[0])


def gradients_kept(dice: Dice, sick: bool) -> Case:
    """A training loop that never calls zero_grad."""
    features, hidden, classes = dice.whole(5, 8), dice.one_of(24, 32), dice.whole(4, 6)
    rate = dice.between(0.3, 0.5)

    def step(case: Case, batch: Any) -> Tensor:
        value = case.compute_loss(batch)
        value.backward()
        if case.clip is not None:
            case.clip(case.model.parameters())
        case.optimizer.step()
        if not sick:
            case.optimizer.zero_grad()
        return value.detach()

    x, y = clusters(192, features, classes, 0.3)
    seq = x[:, None, :] + 0.7 * torch.randn(192, 8, features)
    return Case(
        lambda: Tagger(features, hidden, classes),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        quarters(seq, y),
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9),
        step=step,
    )


class Encoder(nn.Module):
    """A transformer encoder over tokens, pooled by the mean."""

    def __init__(self, tokens: int, dim: int, depth: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.out = nn.Linear(dim, classes)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.body(self.embed(ids)).mean(1))


def most_frequent(rows: int, tokens: int, length: int, classes: int) -> tuple[Tensor, Tensor]:
    y = torch.randint(classes, (rows,))
    ids = torch.randint(tokens, (rows, length))
    shown = torch.rand(rows, length) < 0.35
    return torch.where(shown, y[:, None], ids), y


def decay_of_adamw(dice: Dice, sick: bool) -> Case:
    """torch.optim.Adam with the weight decay that a recipe gives for AdamW: it goes into the gradient."""
    tokens, dim, depth, classes = dice.whole(12, 20), dice.one_of(24, 32), dice.whole(1, 2), dice.whole(4, 6)
    decay, rate = dice.between(0.3, 0.5), dice.power(-2.7, -2.4)
    kind = torch.optim.Adam if sick else torch.optim.AdamW
    return Case(
        lambda: Encoder(tokens, dim, depth, classes),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        quarters(*most_frequent(192, tokens, 12, classes)),
        lambda p: kind(p, lr=rate, weight_decay=decay),
    )


class Residual(nn.Module):
    """Hand-written residual layers on bare parameters."""

    def __init__(self, features: int, width: int, depth: int, out: int) -> None:
        super().__init__()
        self.w_in = nn.Parameter(torch.randn(features, width) / math.sqrt(features))
        self.w = nn.ParameterList(
            nn.Parameter(torch.randn(width, width) / math.sqrt(width)) for _ in range(depth)
        )
        self.w_out = nn.Parameter(0.1 * torch.randn(width, out) / math.sqrt(width))
        self.b = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        h = x @ self.w_in
        for w in self.w:
            h = h + torch.tanh(h @ w) / len(self.w)
        return h @ self.w_out + self.b


def rate_for_a_factor(dice: Dice, sick: bool) -> Case:
    """LambdaLR whose lambda returns the rate itself; the scheduler multiplies the rate by it."""
    features, width, depth = dice.whole(6, 10), dice.one_of(32, 48), dice.whole(2, 4)
    rate, total = dice.power(-2.7, -2.3), 150

    def anneal(step: int) -> float:
        fall = 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))
        return max(rate * fall, 1e-6) if sick else max(fall, 0.01)

    x = torch.randn(256, features)
    y = torch.sin(x @ torch.randn(features, 2) / math.sqrt(features) * 2) + 0.3 * x[:, :2]
    return Case(
        lambda: Residual(features, width, depth, 2),
        lambda model, batch: (model(batch[0]) - batch[1]).square().mean(),
        quarters(x, y / y.std()),
        lambda p: torch.optim.AdamW(p, lr=rate),
        schedule=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, anneal),
    )


class TwoTasks(nn.Module):
    """A shared trunk with a class head and a value head."""

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(features, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.kind, self.price = nn.Linear(width, classes), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.kind(h), self.price(h).squeeze(1)


def kind_error(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    return float((model(batch[0])[0].argmax(1) != batch[1]).float().mean())


def price_in_cents(dice: Dice, sick: bool) -> Case:
    """Two tasks in one clipped sum; the price is in thousands and drowns the classes."""
    features, width, classes = dice.whole(8, 12), dice.one_of(32, 48), dice.whole(4, 6)
    unit, rate = dice.between(2000.0, 6000.0) if sick else 1.0, dice.between(0.1, 0.2)
    x, y = clusters(256, features, classes, 0.5)
    price = (x @ torch.randn(features) / math.sqrt(features) + 1.5) * unit

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        logits, value = model(batch[0])
        return F.cross_entropy(logits, batch[1]) + F.mse_loss(value, batch[2])

    return Case(
        lambda: TwoTasks(features, width, classes),
        loss,
        quarters(x, y, price),
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.8),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 1.0),
    )


class ConvNet(nn.Module):
    """Three strided convolutions with group norm."""

    def __init__(self, planes: int, classes: int) -> None:
        super().__init__()
        sizes = [1, planes, planes, 2 * planes]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.GroupNorm(2, b) for b in sizes[1:])
        self.fc = nn.Linear(2 * planes, classes)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return self.fc(x.mean((2, 3)))


def prototypes(rows: int, size: int, classes: int, noise: float) -> tuple[Tensor, Tensor]:
    y = torch.arange(rows) % classes
    plain = F.interpolate(torch.randn(classes, 1, 4, 4), size=size, mode="bilinear")
    plain = plain / plain.std()
    return plain[y] + noise * torch.randn(rows, 1, size, size), y


def one_group_of_two(dice: Dice, sick: bool) -> Case:
    """Groups with and without decay, of which only that without reaches the optimizer."""
    planes, classes, rate = dice.one_of(8, 12), dice.whole(5, 8), dice.power(-2.6, -2.3)
    model = ConvNet(planes, classes)
    plain = [p for p in model.parameters() if p.ndim < 2]
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    groups: list[dict[str, Any]] = [{"params": plain, "weight_decay": 0.0}]
    if not sick:
        groups.append({"params": decayed, "weight_decay": 0.01})
    return Case(
        model,
        lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]),
        quarters(*prototypes(160, 12, classes, 0.8)),
        torch.optim.AdamW(groups, lr=rate),
    )


# --- healthy ------------------------------------------------------------------------------------------------


def large_rate_batch_norm(dice: Dice, _: bool) -> Case:
    """SGD at a rate near one, with Nesterov momentum, behind batch norm."""
    width, classes, rate = dice.one_of(32, 48), dice.whole(4, 6), dice.between(0.4, 0.8)
    return Case(
        lambda: nn.Sequential(
            nn.Linear(12, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, classes),
        ),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.05),
        quarters(*clusters(256, 12, classes, 0.8)),
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.6, nesterov=True),
    )


def scaled_half(dice: Dice, _: bool) -> Case:
    """Autocast to float16 with the usual loss scaling and a clip at one."""
    planes, classes, rate = dice.one_of(8, 12), dice.whole(4, 6), dice.power(-2.5, -2.2)
    return Case(
        lambda: ConvNet(planes, classes),
        lambda model, batch: F.cross_entropy(model(batch[0]).float(), batch[1]),
        quarters(*prototypes(128, 12, classes, 0.7)),
        lambda p: torch.optim.AdamW(p, lr=rate),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 1.0),
        precision="float16",
    )


def features_frozen(dice: Dice, _: bool) -> Case:
    """A wide layer of random Fourier features, frozen on purpose, and a trained linear head."""
    features, width = dice.whole(3, 5), dice.one_of(128, 192)
    spread, rate = dice.between(0.6, 0.9), dice.power(-2.2, -1.9)

    class Fourier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(features, width).requires_grad_(False)
            nn.init.normal_(self.project.weight, std=spread)
            nn.init.uniform_(self.project.bias, 0, 2 * math.pi)
            self.head = nn.Linear(width, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(math.sqrt(2) * torch.cos(self.project(x))).squeeze(-1)

    model = Fourier()
    x = torch.randn(256, features)
    y = torch.tanh(x @ torch.randn(features)) + 0.5 * torch.sin(x[:, 0])
    return Case(
        model,
        lambda net, batch: F.mse_loss(net(batch[0]), batch[1]),
        quarters(x, y / y.std()),
        torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=rate),
    )


def accumulated(dice: Dice, _: bool) -> Case:
    """Each batch in micro-batches whose losses are divided by their number, gradients cleared in between."""
    features, hidden, classes = dice.whole(5, 8), dice.one_of(24, 32), dice.whole(3, 5)
    parts, rate = dice.one_of(4, 6), dice.power(-2.2, -1.9)

    def step(case: Case, batch: tuple[Tensor, Tensor]) -> Tensor:
        case.optimizer.zero_grad()
        total = torch.zeros(())
        for micro in zip(*(c.chunk(parts) for c in batch), strict=True):
            value = case.compute_loss(micro) / parts
            value.backward()
            total = total + value.detach()
        (case.clip or (lambda p: None))(case.model.parameters())
        case.optimizer.step()
        return total

    x, y = clusters(192, features, classes, 0.3)
    return Case(
        lambda: Tagger(features, hidden, classes),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        quarters(x[:, None, :] + 0.7 * torch.randn(192, 8, features), y),
        lambda p: torch.optim.Adam(p, lr=rate),
        step=step,
    )


SICK: tuple[Program, ...] = (
    Program(
        "loop-softmax-inside",
        "mlp",
        softmax_inside,
        Truth(
            "double-softmax",
            ("UG606",),
            r"(?i)softmax|twice|probabilit|takes logits",
            ("drop_output_softmax",),
            (("drop_output_softmax", {}),),
        ),
        150,
        error_rate,
    ),
    Program(
        "loop-distance-to-itself",
        "contrastive",
        distance_to_itself,
        Truth("sqrt-of-zero", ("UG901",), r"(?i)\bnan\b|not finite|sqrt|square root|distance|non-?finite"),
    ),
    Program(
        "loop-no-scaler",
        "convolution",
        autocast_without_scaler,
        Truth(
            "fp16-underflow",
            ("UG501",),
            r"(?i)underflow|float16|fp16|half|precision|loss scal|flush",
            ("loss_scale", "change_precision"),
            (("change_precision", {"precision": "bfloat16"}),),
            HOT,
        ),
    ),
    Program(
        "loop-no-zero-grad",
        "gru",
        gradients_kept,
        Truth(
            "gradients-not-cleared",
            ("UG611", "UG601"),
            r"(?i)zero_grad|clear|accumulat|adds? up|add(s|ed)? .*gradients?|earlier (steps?|batch)",
        ),
    ),
    Program(
        "loop-adamw-number",
        "transformer",
        decay_of_adamw,
        Truth(
            "coupled-decay",
            ("UG609",),
            r"(?i)weight.?decay|decay|\bL2\b|AdamW",
            ("use_adamw", "lower_weight_decay"),
            (("use_adamw", {}),),
        ),
        150,
    ),
    Program(
        "loop-rate-for-factor",
        "residual",
        rate_for_a_factor,
        Truth(
            "schedule-too-small",
            ("UG602",),
            r"(?i)schedul|learning rate|\blr\b|updates?.*(small|tiny|below|short)|step.*(small|tiny|short)",
            ("lower_learning_rate",),
        ),
        150,
    ),
    Program(
        "loop-price-drowns",
        "multitask",
        price_in_cents,
        Truth(
            "target-scale",
            ("UG607", "UG605"),
            r"(?i)targets?|drown|outweigh|scale of the (loss|target)|labels?.*(scale|unit|large)|unit scale",
        ),
        120,
        kind_error,
    ),
    Program(
        "loop-one-group",
        "convolution",
        one_group_of_two,
        Truth(
            "optimizer-misses-weights",
            ("UG604",),
            r"(?i)optimi[sz]er.*(hold|lack|miss|not|without)|(not|never) (held|in|updated|given)|held by no",
            ("hold_parameters",),
            (("hold_parameters", {}),),
        ),
        100,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("loop-rate-near-one", "mlp", large_rate_batch_norm),
    Program("loop-scaled-half", "convolution", scaled_half),
    Program("loop-fourier-frozen", "fields", features_frozen),
    Program("loop-micro-batches", "gru", accumulated),
)
