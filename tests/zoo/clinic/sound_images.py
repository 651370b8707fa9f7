"""Healthy programs on images and tables."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.around import mlp
from zoo.clinic.program import Program
from zoo.dice import Dice


def linear(dice: Dice, sick: bool) -> Case:
    """Linear regression."""
    features = dice.whole(5, 20)
    inputs = torch.randn(128, features)
    targets = inputs @ torch.randn(features, 1) / features**0.5 + 0.1 * torch.randn(128, 1)
    return Case(nn.Linear(features, 1), tasks.regress, tasks.split(inputs, targets), tasks.sgd(0.1))


def logistic(dice: Dice, sick: bool) -> Case:
    """Logistic regression by LBFGS."""
    model = nn.Linear(dice.whole(6, 12), 1)

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(net(batch[0]).squeeze(-1), batch[1].float())

    return Case(model, loss, tasks.centres(model.in_features, 2), lambda p: torch.optim.LBFGS(p, lr=0.1))


def selu(dice: Dice, sick: bool) -> Case:
    """A self-normalising network with alpha dropout."""
    width, depth = dice.whole(48, 96), dice.whole(6, 10)

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for k in range(depth):
            linear = nn.Linear(width if k else 16, width)
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.SELU(), nn.AlphaDropout(0.02)]
        return nn.Sequential(*layers, nn.Linear(width, 5))

    return Case(build, tasks.classify, tasks.centres(16), tasks.sgd(0.03))


class Identity(nn.Module):
    """A basic block that adds in place and ends in ReLU."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        stride = 1 if inside == outside else 2
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, 2), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def resnet(dice: Dice, sick: bool) -> Case:
    """A small residual network as everyone has one."""
    channels, depth = dice.whole(8, 12), dice.whole(2, 4)

    def build() -> nn.Module:
        blocks = [Identity(channels, channels) for _ in range(depth)]
        blocks += [Identity(channels, 2 * channels)] + [Identity(2 * channels, 2 * channels)] * 1
        stem = [nn.Conv2d(1, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * channels, 4)]
        return nn.Sequential(*stem, *blocks, *head)

    return Case(build, tasks.classify, tasks.stripes(10), tasks.sgd(0.1, momentum=0.9, weight_decay=5e-4))


class Unet(nn.Module):
    """Down, up, and a concatenation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.ReLU())
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, 2)
        self.last = nn.Conv2d(2 * channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        return self.last(torch.cat([a, F.relu(self.up(self.down2(a)))], 1))


def segmentation(dice: Dice, sick: bool) -> Case:
    """Where an image is bright, smoothed: a mask for every pixel."""
    data = [(x, (F.avg_pool2d(x, 3, 1, 1) > 0).float()) for x, _ in tasks.stripes(12)]

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(net(batch[0]), batch[1])

    channels = dice.whole(6, 12)
    return Case(lambda: Unet(channels), loss, data, tasks.adam(1e-2))


def separable(dice: Dice, sick: bool) -> Case:
    """Depthwise convolutions with GroupNorm and SiLU beside skip paths, under a cosine schedule."""
    channels = 4 * dice.whole(3, 6)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(4, channels)
            self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
            self.pointwise = nn.Conv2d(channels, channels, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.pointwise(F.silu(self.depthwise(self.norm(x))))

    model = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), *(Block() for _ in range(4)), nn.Flatten())
    model.append(nn.Linear(64 * channels, 4))
    return Case(
        model,
        tasks.classify,
        tasks.stripes(8),
        torch.optim.AdamW(model.parameters(), lr=2e-3),
        schedule=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200),
    )


class Mixer(nn.Module):
    """An MLP-Mixer block."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token = nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens))
        self.channel = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel(self.norm2(x))


def mixer(dice: Dice, sick: bool) -> Case:
    """Patches, mixed."""
    width = dice.one_of(24, 32, 48)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(1, width, 3, 3)
            self.blocks = nn.Sequential(Mixer(16, width), Mixer(16, width), Mixer(16, width))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.blocks(self.patch(x).flatten(2).transpose(1, 2))
            return self.head(self.norm(x).mean(1))

    return Case(Net, tasks.classify, tasks.stripes(12), tasks.adamw(2e-3, weight_decay=0.05))


def variational(dice: Dice, sick: bool) -> Case:
    """A variational autoencoder, with its noise drawn in the forward pass."""
    width = dice.whole(32, 64)

    class Vae(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(64, width), nn.ReLU())
            self.mu, self.logvar = nn.Linear(width, 4), nn.Linear(width, 4)
            self.decoder = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 64))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            h = self.encoder(x)
            mu, logvar = self.mu(h), self.logvar(h)
            return self.decoder(mu + (0.5 * logvar).exp() * torch.randn_like(mu)), mu, logvar

    def elbo(model: nn.Module, x: Tensor) -> Tensor:
        made, mu, logvar = model(x)
        divergence = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1).mean()
        return F.mse_loss(made, x, reduction="none").sum(1).mean() + 0.1 * divergence

    codes = torch.rand(4, 32, 2) @ torch.randn(2, 64) + 0.1 * torch.randn(4, 32, 64)
    return Case(Vae, elbo, list(codes), tasks.adam(3e-3))


def siren(dice: Dice, sick: bool) -> Case:
    """Sines that fit a signal, with their own initial weights."""
    width = dice.whole(32, 64)

    class Sine(nn.Module):
        def __init__(self, inside: int, outside: int, *, first: bool) -> None:
            super().__init__()
            self.linear = nn.Linear(inside, outside)
            bound = 1 / inside if first else math.sqrt(6 / inside) / 30
            nn.init.uniform_(self.linear.weight, -bound, bound)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(30 * self.linear(x))

    def build() -> nn.Module:
        return nn.Sequential(Sine(1, width, first=True), Sine(width, width, first=False), nn.Linear(width, 1))

    x = torch.linspace(-1, 1, 256)[:, None]
    x = x[torch.randperm(256)]
    return Case(build, tasks.regress, tasks.split(x, torch.sin(12 * x) * x), tasks.adam(1e-3))


def physics(dice: Dice, sick: bool) -> Case:
    """A network whose own derivative enters the loss: y' = -y from y(0) = 1."""
    width = dice.whole(16, 32)

    def residual(model: nn.Module, t: Tensor) -> Tensor:
        t = t.requires_grad_()
        y = model(t)
        slope = torch.autograd.grad(y.sum(), t, create_graph=True)[0]
        return (slope + y).square().mean() + (model(torch.zeros(1, 1)) - 1).square().mean()

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )

    return Case(build, residual, [3 * torch.rand(32, 1) for _ in range(4)], tasks.adam(1e-2))


def experts(dice: Dice, sick: bool) -> Case:
    """A soft mixture of experts."""

    class Mixture(nn.Module):
        def __init__(self, count: int, width: int) -> None:
            super().__init__()
            self.gate = nn.Linear(12, count)
            self.experts = nn.ModuleList([mlp(12, width, 4, 1) for _ in range(count)])

        def forward(self, x: Tensor) -> Tensor:
            made = torch.stack([expert(x) for expert in self.experts], 1)
            return (self.gate(x).softmax(-1)[..., None] * made).sum(1)

    model = Mixture(dice.whole(3, 6), dice.whole(16, 32))
    return Case(model, tasks.classify, tasks.centres(12, 4), torch.optim.Adam(model.parameters(), 5e-3))


def half_frozen(dice: Dice, sick: bool) -> Case:
    """A backbone that has been trained and frozen, and a new head."""
    width = dice.whole(32, 64)
    data = tasks.centres(16)
    body = nn.Sequential(*mlp(16, width, 5)[:-1])
    first = nn.Sequential(body, nn.Linear(width, 5))
    optimizer = torch.optim.Adam(first.parameters(), 1e-2)
    for batch in itertools.islice(itertools.cycle(data), 40):
        optimizer.zero_grad()
        tasks.classify(first, (batch[0], (batch[1] + 1) % 5)).backward()
        optimizer.step()
    body.requires_grad_(False)
    model = nn.Sequential(body, nn.Linear(width, 5))
    held = [p for p in model.parameters() if p.requires_grad]
    return Case(model, tasks.classify, data, torch.optim.Adam(held, 1e-2))


def robust(dice: Dice, sick: bool) -> Case:
    """Quantiles by the pinball loss, with dropout and RMSprop."""
    width = dice.whole(32, 64)
    levels = torch.tensor([0.1, 0.5, 0.9])

    def pinball(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        gap = batch[1] - model(batch[0])
        return torch.maximum(levels * gap, (levels - 1) * gap).mean()

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3))

    return Case(build, pinball, tasks.smooth(10), lambda p: torch.optim.RMSprop(p, 3e-3))


HEALTHY = tuple(
    Program(name, family, make, steps=steps)
    for name, family, make, steps in (
        ("linear-regression", "mlp", linear, 100),
        ("logistic-regression-lbfgs", "mlp", logistic, 20),
        ("selu-alpha-dropout", "mlp", selu, 120),
        ("resnet-in-place", "cnn", resnet, 60),
        ("unet-masks", "cnn", segmentation, 80),
        ("separable-groupnorm-cosine", "cnn", separable, 80),
        ("mlp-mixer", "residual", mixer, 80),
        ("variational-autoencoder", "generative", variational, 120),
        ("siren", "mlp", siren, 200),
        ("physics-informed", "mlp", physics, 150),
        ("soft-experts", "mlp", experts, 100),
        ("frozen-backbone-new-head", "mlp", half_frozen, 100),
        ("quantiles-dropout", "mlp", robust, 150),
    )
)
