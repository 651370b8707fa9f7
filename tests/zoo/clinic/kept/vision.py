"""Kept aside: small networks of vision, autoencoders and metric nets that do not train, and good ones."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Config:
    """Sizes of a picture task."""

    classes: int = 5
    size: int = 12
    rows: int = 96
    channels: int = 1
    noise: float = 0.3


def split(*columns: Tensor) -> list[Any]:
    """Return four batches of the columns."""
    return list(zip(*(c.chunk(4) for c in columns), strict=True))


def gratings(cfg: Config) -> Pairs:
    """Return standardised gratings of random phase; the class is the direction."""
    y = torch.arange(cfg.rows) % cfg.classes
    theta = math.pi * y / cfg.classes
    axis = torch.arange(cfg.size).float()
    along = theta.cos()[:, None, None] * axis[:, None] + theta.sin()[:, None, None] * axis
    phase = 2 * math.pi * torch.rand(cfg.rows, 1, 1)
    x = torch.sin(1.1 * along + phase)[:, None].repeat(1, cfg.channels, 1, 1)
    x = x + cfg.noise * torch.randn_like(x)
    return split((x - x.mean()) / x.std(), y)


def bumps(size: int, rows: int = 128) -> Tensor:
    """Return pictures between 0 and 1 of one or two round bumps."""
    axis = torch.linspace(-1, 1, size)

    def one() -> Tensor:
        cx, cy, w = (torch.rand(rows, 1, 1) * s + o for s, o in ((1.4, -0.7), (1.4, -0.7), (0.3, 0.3)))
        return torch.exp(-((axis[:, None] - cx) ** 2 + (axis - cy) ** 2) / (2 * w**2))

    return (one() + one() * (torch.rand(rows, 1, 1) < 0.5)).clamp(max=1.0)[:, None]


def cells(size: int = 16, rows: int = 48, *, noise: float = 0.5) -> Pairs:
    """Return noisy pictures of discs, and their masks."""
    axis = torch.linspace(-1, 1, size)
    cx, cy = (1.2 * torch.rand(rows, 1, 1) - 0.6 for _ in range(2))
    radius = 0.2 + 0.25 * torch.rand(rows, 1, 1)
    mask = (((axis[:, None] - cx) ** 2 + (axis - cy) ** 2) < radius**2).float()[:, None]
    x = mask + noise * torch.randn_like(mask)
    return split((x - x.mean()) / x.std(), mask)


def teacher(features: int, classes: int, rows: int = 192) -> Pairs:
    """Return Gaussian vectors and what a random net says of them."""
    x = torch.randn(rows, features)
    score = torch.tanh(1.5 * x @ torch.randn(features, 6) / math.sqrt(features)) @ torch.randn(6, classes)
    return split(x, ((score - score.mean(0)) / score.std(0)).argmax(1))


def classify(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the classes."""
    x, y = batch
    return F.cross_entropy(model(x), y)


def rebuild(model: nn.Module, x: Tensor) -> Tensor:
    """Mean squared error of the reconstruction."""
    return F.mse_loss(model(x), x)


def he(module: nn.Module) -> None:
    """Apply He's initialisation to convolutions and linear layers."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# ---------------------------------------------------------------- sick


def plain_vgg(dice: Dice, sick: bool) -> Case:
    """Some twenty 3x3 convolutions with ReLU, without norm and as PyTorch initialises them."""
    planes, depth = dice.one_of(10, 12), dice.whole(24, 26)
    lr = dice.power(-3.0, -2.9)

    class VGG(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, planes, 3, stride=2, padding=1)
            self.features = nn.ModuleList(nn.Conv2d(planes, planes, 3, padding=1) for _ in range(depth))
            self.classifier = nn.Linear(planes, 5)
            if not sick:
                self.apply(he)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            for conv in self.features:
                x = F.relu(conv(x))
            return self.classifier(x.mean((2, 3)))

    return Case(VGG, classify, gratings(Config(size=8)), lambda ps: torch.optim.Adam(ps, lr=lr))


class Tower(nn.Module):
    """The embedding of a siamese net."""

    def __init__(self, features: int, width: int, depth: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        sizes = [features, *[width] * depth]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.embed = nn.Linear(width, 8)
        self.act = act
        for layer in (*self.layers, self.embed):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.act(layer(x))
        return self.embed(x)


def identities(features: int, people: int, rows: int = 256) -> list[dict[str, Tensor]]:
    """Return pairs of noisy vectors, half of them of the same person."""
    centre = torch.randn(people, features)
    a = torch.randint(people, (rows,))
    same = (torch.arange(rows) % 2).bool()
    b = torch.where(same, a, (a + torch.randint(1, people, (rows,))) % people)
    left, right = (centre[k] + 0.4 * torch.randn(rows, features) for k in (a, b))
    return [
        {"left": u, "right": v, "same": s}
        for u, v, s in zip(left.chunk(4), right.chunk(4), same.float().chunk(4), strict=True)
    ]


def contrastive(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Contrastive loss with a margin of one."""
    d = F.pairwise_distance(model(batch["left"]), model(batch["right"]))
    return (batch["same"] * d**2 + (1 - batch["same"]) * F.relu(1.0 - d) ** 2).mean()


def siamese_sigmoid(dice: Dice, sick: bool) -> Case:
    """A siamese net with sigmoids all through its deep towers."""
    features, width, depth = dice.whole(10, 16), dice.one_of(32, 40, 48), dice.whole(6, 8)
    lr = dice.between(0.02, 0.04)
    act = torch.sigmoid if sick else F.relu
    return Case(
        lambda: Tower(features, width, depth, act),
        contrastive,
        identities(features, 6),
        lambda ps: torch.optim.SGD(ps, lr=lr, momentum=0.9),
    )


def unit_normal(dice: Dice, sick: bool) -> Case:
    """An autoencoder with tanh initialised by nn.init.normal_ with its default standard deviation."""
    size, width, code = dice.whole(9, 11), dice.one_of(48, 64, 80), dice.whole(6, 9)
    lr = dice.power(-3.0, -2.7)

    def build() -> nn.Module:
        dims = [size * size, width, width, code, width, width]
        net = nn.Sequential()
        for k, (a, b) in enumerate(pairwise(dims)):
            net.add_module(f"fc{k}", nn.Linear(a, b))
            net.add_module(f"tanh{k}", nn.Tanh())
        net.add_module("out", nn.Linear(width, size * size))
        for name, p in net.named_parameters():
            if name.endswith("weight") and sick:
                nn.init.normal_(p)
            elif name.endswith("weight"):
                nn.init.xavier_normal_(p)
            else:
                nn.init.zeros_(p)
        return net

    x = bumps(size).flatten(1)
    x = (x - x.mean()) / x.std()
    return Case(build, rebuild, list(x.chunk(4)), lambda ps: torch.optim.Adam(ps, lr=lr))


class SumBlock(nn.Module):
    """Two convolutions whose result is added to the input."""

    def __init__(self, planes: int, scale: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes, planes, 3, padding=1)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.conv2(F.relu(self.conv1(x)))


def residual_sum(dice: Dice, sick: bool) -> Case:
    """A ResNet from which the norms were taken out: every block adds a branch of full size."""
    planes, blocks = dice.one_of(8, 10), dice.whole(16, 20)
    lr = dice.between(0.02, 0.04)
    scale = 1.0 if sick else 1 / blocks

    def build() -> nn.Module:
        net = nn.Sequential(
            nn.Conv2d(3, planes, 3, stride=2, padding=1),
            *(SumBlock(planes, scale) for _ in range(blocks)),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(planes, 5),
        )
        return net.apply(he)

    data = gratings(Config(size=8, channels=3))
    return Case(build, classify, data, lambda ps: torch.optim.SGD(ps, lr=lr, momentum=0.9))


def lonely_groups(dice: Dice, sick: bool) -> Case:
    """GroupNorm with one channel to each group, behind the global pooling."""
    planes, width, lr = dice.one_of(12, 16), dice.one_of(24, 32), dice.power(-2.7, -2.4)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, planes, 3, stride=2, padding=1)
            self.gn1 = nn.GroupNorm(4, planes)
            self.dw = nn.Conv2d(planes, planes, 3, padding=1, groups=planes)
            self.pw = nn.Conv2d(planes, planes, 1)
            self.gn2 = nn.GroupNorm(4, planes)
            self.fc = nn.Linear(planes, width)
            self.gn3 = nn.GroupNorm(width if sick else 4, width)
            self.head = nn.Linear(width, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.gn1(self.stem(x)))
            x = F.relu(self.gn2(self.pw(self.dw(x))))
            x = F.adaptive_avg_pool2d(x, 1).flatten(1)
            x = F.relu(self.gn3(self.fc(x)))
            return self.head(x)

    return Case(Net, classify, gratings(Config()), lambda ps: torch.optim.Adam(ps, lr=lr))


def raw_counts(dice: Dice, sick: bool) -> Case:
    """A LeNet with tanh that is fed the raw counts of a 16-bit infrared camera."""
    planes, lr = dice.one_of(6, 8, 10), dice.power(-2.6, -2.4)
    level, swing = dice.between(18_000, 26_000), dice.between(150, 300)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, planes, 3),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(planes, 2 * planes, 3),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(18 * planes, 32),
            nn.Tanh(),
            nn.Linear(32, 4),
        )

    data = [(level + swing * x if sick else x, y) for x, y in gratings(Config(classes=4))]
    return Case(build, classify, data, lambda ps: torch.optim.Adam(ps, lr=lr))


class UNet(nn.Module):
    """Two levels down and up again, with concatenation."""

    def __init__(self, planes: int, end: nn.Module) -> None:
        super().__init__()
        self.down1 = self.double(1, planes)
        self.down2 = self.double(planes, 2 * planes)
        self.middle = self.double(2 * planes, 2 * planes)
        self.up2 = self.double(4 * planes, planes)
        self.up1 = self.double(2 * planes, planes)
        self.last = nn.Conv2d(planes, 1, 1)
        self.end = end

    @staticmethod
    def double(a: int, b: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        low = self.middle(F.max_pool2d(two, 2))
        y = self.up2(torch.cat([two, F.interpolate(low, scale_factor=2.0)], 1))
        y = self.up1(torch.cat([one, F.interpolate(y, scale_factor=2.0)], 1))
        return self.end(self.last(y))


def segment(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Binary cross-entropy of the mask, from logits."""
    return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])


def sigmoid_twice(dice: Dice, sick: bool) -> Case:
    """A U-Net that ends in a sigmoid, and a loss that applies another one."""
    planes, lr = dice.one_of(6, 8), dice.power(-2.4, -2.1)
    return Case(
        lambda: UNet(planes, nn.Sigmoid() if sick else nn.Identity()),
        segment,
        cells(),
        lambda ps: torch.optim.Adam(ps, lr=lr),
    )


class MixerLayer(nn.Module):
    """Mixing of tokens, then of channels, each with a residual sum."""

    def __init__(self, tokens: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.tok1, self.tok2 = nn.Linear(tokens, hidden), nn.Linear(hidden, tokens)
        self.ch1, self.ch2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x).transpose(1, 2)
        x = x + self.tok2(F.gelu(self.tok1(y))).transpose(1, 2)
        return x + self.ch2(F.gelu(self.ch1(self.norm2(x))))


class Mixer(nn.Module):
    """An MLP-mixer over patches that are vectors already."""

    def __init__(self, tokens: int, patch: int, dim: int, hidden: int, depth: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(patch, dim)
        self.layers = nn.ModuleList(MixerLayer(tokens, dim, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(1))


def patch_sums(kinds: int, tokens: int, patch: int, rows: int = 192) -> Pairs:
    """Return rows of patches; the class is the sum of the kinds of the first two, modulo their number."""
    kind = torch.randint(kinds, (rows, tokens))
    x = torch.randn(kinds, patch)[kind] + 0.25 * torch.randn(rows, tokens, patch)
    return split(x, (kind[:, 0] + kind[:, 1]) % kinds)


def mixer_zero(dice: Dice, sick: bool) -> Case:
    """An MLP-mixer in which both layers of every MLP start at zero, to begin as the identity."""
    tokens, dim, depth = dice.whole(4, 6), dice.one_of(24, 32), dice.whole(2, 4)
    lr = dice.power(-2.4, -2.2)

    def build() -> nn.Module:
        net = Mixer(tokens, 12, dim, 48, depth, 3)
        for layer in net.layers:
            silent = [layer.tok2, layer.ch2]
            if sick:
                silent += [layer.tok1, layer.ch1]
            for linear in silent:
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)
        return net

    return Case(build, classify, patch_sums(3, tokens, 12), lambda ps: torch.optim.AdamW(ps, lr=lr))


class Dense(nn.Module):
    """A dense block of vectors: each layer reads everything before it."""

    def __init__(self, features: int, growth: int, layers: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(features + k * growth, growth) for k in range(layers))
        self.head = nn.Linear(features + layers * growth, classes)
        self.apply(he)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, F.relu(layer(x))], dim=1)
        return self.head(x)


def lost_group(dice: Dice, sick: bool) -> Case:
    """Parameters split into those with and without decay, and one of the groups is not handed over."""
    features, growth, layers = dice.whole(8, 14), dice.one_of(12, 16), dice.whole(3, 5)
    lr = dice.power(-2.5, -2.2)

    def optimizer(params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        decay, no_decay = [], []
        for p in params:
            (no_decay if p.ndim == 1 else decay).append(p)
        groups = [{"params": no_decay, "weight_decay": 0.0}]
        if not sick:
            groups.append({"params": decay, "weight_decay": 0.01})
        return torch.optim.AdamW(groups, lr=lr)

    return Case(lambda: Dense(features, growth, layers, 4), classify, teacher(features, 4), optimizer)


def prior_everywhere(dice: Dice, sick: bool) -> Case:
    """The bias that tells a detector's head how rare an object is, set in every convolution."""
    planes, rate = dice.one_of(8, 12), dice.between(0.008, 0.02)
    lr = dice.power(-2.7, -2.4)
    prior = -math.log((1 - rate) / rate)

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, planes, 3, padding=1)
            self.conv2 = nn.Conv2d(planes, planes, 3, padding=1)
            self.conv3 = nn.Conv2d(planes, planes, 3, padding=1)
            self.heat = nn.Conv2d(planes, 1, 1)
            self.apply(he)
            nn.init.normal_(self.heat.weight, std=0.01)
            for m in self.modules():
                if isinstance(m, nn.Conv2d) and (sick or m is self.heat):
                    nn.init.constant_(m.bias, prior)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.conv1(x))
            x = F.relu(self.conv2(x))
            return self.heat(F.relu(self.conv3(x)))

    spots = []
    for _ in range(4):
        where = F.one_hot(torch.randint(144, (24,)), 144).float().view(24, 1, 12, 12)
        x = 4 * F.avg_pool2d(where, 3, 1, 1) + 3 * where + 0.6 * torch.randn(24, 1, 12, 12)
        spots.append(((x - x.mean()) / x.std(), where))
    return Case(Detector, segment, spots, lambda ps: torch.optim.Adam(ps, lr=lr))


def summed_pixels(dice: Dice, sick: bool) -> Case:
    """SGD at its usual rate under a loss that sums over pixels and pictures instead of averaging."""
    planes, lr = dice.one_of(8, 12), dice.between(0.05, 0.1)
    reduction = "sum" if sick else "mean"

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, planes, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(planes, planes, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(planes, planes, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(planes, 2, 1),
        ).apply(he)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, mask = batch
        return F.cross_entropy(model(x), mask[:, 0].long(), reduction=reduction)

    return Case(build, loss, cells(), lambda ps: torch.optim.SGD(ps, lr=lr, momentum=0.9))


def per_pixel(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Cross-entropy of a pixel."""
    return float(F.cross_entropy(model(batch[0]), batch[1][:, 0].long()))


def half_unscaled(dice: Dice, sick: bool) -> Case:
    """An autoencoder in float16 without a GradScaler, its mean error weighted down among other terms."""
    size, width, code = dice.whole(10, 12), dice.one_of(48, 64), dice.whole(8, 12)
    weight, lr = dice.power(-4.4, -4.0), dice.power(-2.6, -2.4)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(size * size, width),
            nn.GELU(),
            nn.Linear(width, code),
            nn.Linear(code, width),
            nn.GELU(),
            nn.Linear(width, size * size),
            nn.Unflatten(1, (1, size, size)),
        )

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return weight * F.mse_loss(model(x).float(), x)

    def optimizer(ps: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(ps, lr=lr, eps=1e-10)

    def step(case: Case, batch: Tensor) -> Tensor:
        case.optimizer.zero_grad()
        value = case.compute_loss(batch)
        value.backward()
        case.optimizer.step()
        return value.detach()

    x = bumps(size, rows=256)
    data = list((x - x.mean()).chunk(4))
    precision = "float16" if sick else "bfloat16"
    return Case(build, loss, data, optimizer, step=step, precision=precision)


def hard_overlap(dice: Dice, sick: bool) -> Case:
    """The overlap of thresholded masks as the loss, and a faint term that keeps masks smooth."""
    planes, lr, smooth = dice.one_of(6, 8), dice.between(0.1, 0.2), dice.power(-3.5, -3.0)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, mask = batch
        p = torch.sigmoid(model(x))
        guess = (p > 0.5).float() if sick else p
        inter = (guess * mask).sum((1, 2, 3))
        union = (guess + mask - guess * mask).sum((1, 2, 3))
        rough = (p[..., 1:] - p[..., :-1]).abs().mean()
        return (1 - (inter + 1) / (union + 1)).mean() + smooth * rough

    def optimizer(ps: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(ps, lr=lr, momentum=0.9)

    return Case(lambda: UNet(planes, nn.Identity()), loss, cells(), optimizer)


def missed(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """One minus the soft overlap."""
    p, mask = torch.sigmoid(model(batch[0])), batch[1]
    return float(1 - (p * mask).sum() / (p + mask - p * mask).sum())


def absolute_lambda(dice: Dice, sick: bool) -> Case:
    """LambdaLR whose function returns the rate itself, where a factor is asked for."""
    width, blocks, lr = dice.one_of(32, 48), dice.whole(2, 3), dice.power(-3.0, -2.7)
    features = dice.whole(10, 16)

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.a, self.b = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(F.silu(self.a(self.norm(x))))

    def build() -> nn.Module:
        blocks_ = [Residual() for _ in range(blocks)]
        return nn.Sequential(nn.Linear(features, width), *blocks_, nn.LayerNorm(width), nn.Linear(width, 4))

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        peak = lr if sick else 1.0
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: peak / (1 + step / 200))

    return Case(
        build, classify, teacher(features, 4), lambda ps: torch.optim.AdamW(ps, lr=lr), schedule=schedule
    )


# ---------------------------------------------------------------- healthy


class PreAct(nn.Module):
    """A pre-activation residual block."""

    def __init__(self, a: int, b: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(a), nn.BatchNorm2d(b)
        self.conv1 = nn.Conv2d(a, b, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.short = nn.Conv2d(a, b, 1, stride, bias=False) if a != b or stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(x))
        skip = x if self.short is None else self.short(h)
        return skip + self.conv2(F.relu(self.bn2(self.conv1(h))))


def preact_resnet(dice: Dice, sick: bool) -> Case:
    """A pre-activation ResNet with Nesterov momentum and one cycle of the rate."""
    planes, lr = dice.one_of(8, 12), dice.between(0.05, 0.1)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, planes, 3, padding=1, bias=False),
            PreAct(planes, planes),
            PreAct(planes, 2 * planes, 2),
            PreAct(2 * planes, 2 * planes),
            nn.BatchNorm2d(2 * planes),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * planes, 5),
        ).apply(he)

    def optimizer(ps: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(ps, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)

    return Case(
        build,
        classify,
        gratings(Config(size=10, channels=3, noise=0.5)),
        optimizer,
        schedule=lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=lr, total_steps=400),
    )


class NextBlock(nn.Module):
    """A block of ConvNeXt."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pw1, self.pw2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pw2(F.gelu(self.pw1(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext(dice: Dice, sick: bool) -> Case:
    """A small ConvNeXt with layer scale, truncated normal weights and AdamW."""
    dim, depth, lr = dice.one_of(16, 24), dice.whole(2, 4), dice.power(-2.6, -2.3)

    class ConvNext(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, dim, 2, stride=2)
            self.norm0 = nn.GroupNorm(1, dim)
            self.blocks = nn.Sequential(*(NextBlock(dim) for _ in range(depth)))
            self.norm = nn.LayerNorm(dim)
            self.head = nn.Linear(dim, 5)
            for m in self.modules():
                if isinstance(m, (nn.Conv2d, nn.Linear)):
                    nn.init.trunc_normal_(m.weight, std=0.02)
                    nn.init.zeros_(m.bias)

        def forward(self, x: Tensor) -> Tensor:
            x = self.blocks(self.norm0(self.stem(x)))
            return self.head(self.norm(x.mean((-2, -1))))

    def optimizer(ps: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(ps, lr=lr, weight_decay=0.05)

    return Case(ConvNext, classify, gratings(Config()), optimizer)


def patch_vit(dice: Dice, sick: bool) -> Case:
    """A small ViT with a class token, in bfloat16 autocast, with warm-up and a clip at one."""
    dim, depth, lr = dice.one_of(24, 32), dice.whole(2, 3), dice.power(-2.6, -2.4)

    class ViT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(1, dim, 4, stride=4)
            self.cls = nn.Parameter(torch.zeros(1, 1, dim))
            self.pos = nn.Parameter(0.02 * torch.randn(1, 10, dim))
            layer = nn.TransformerEncoderLayer(
                dim, 4, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
            self.norm = nn.LayerNorm(dim)
            self.head = nn.Linear(dim, 5)

        def forward(self, x: Tensor) -> Tensor:
            t = self.patch(x).flatten(2).transpose(1, 2)
            t = torch.cat([self.cls.expand(len(t), -1, -1), t], 1) + self.pos
            return self.head(self.norm(self.encoder(t)[:, 0]))

    return Case(
        ViT,
        classify,
        gratings(Config()),
        lambda ps: torch.optim.AdamW(ps, lr=lr, weight_decay=0.05),
        clip=lambda ps: nn.utils.clip_grad_norm_(ps, 1.0),
        precision="bfloat16",
        schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda k: min(1.0, (k + 1) / 10)),
    )


def densenet(dice: Dice, sick: bool) -> Case:
    """A small DenseNet with BatchNorm before each convolution and one transition."""
    growth, layers, lr = dice.one_of(6, 8), dice.whole(3, 4), dice.between(0.04, 0.08)

    class Layer(nn.Module):
        def __init__(self, a: int) -> None:
            super().__init__()
            self.bn, self.conv = nn.BatchNorm2d(a), nn.Conv2d(a, growth, 3, padding=1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((x, self.conv(F.relu(self.bn(x)))), 1)

    def build() -> nn.Module:
        c = 2 * growth
        net: list[nn.Module] = [nn.Conv2d(1, c, 3, padding=1, bias=False)]
        for last in (False, True):
            for _ in range(layers):
                net.append(Layer(c))
                c += growth
            net += [nn.BatchNorm2d(c), nn.ReLU()]
            if not last:
                net += [nn.Conv2d(c, c // 2, 1, bias=False), nn.AvgPool2d(2)]
                c //= 2
        return nn.Sequential(*net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 5)).apply(he)

    def optimizer(ps: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(ps, lr=lr, momentum=0.9, weight_decay=1e-4)

    return Case(build, classify, gratings(Config(size=8)), optimizer)


def good_unet(dice: Dice, sick: bool) -> Case:
    """A U-Net with binary cross-entropy and Dice together."""
    planes, lr = dice.one_of(6, 8), dice.power(-2.6, -2.2)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits, mask = model(batch[0]), batch[1]
        p = logits.sigmoid()
        overlap = (2 * (p * mask).sum((1, 2, 3)) + 1) / (p.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
        return F.binary_cross_entropy_with_logits(logits, mask) + 1 - overlap.mean()

    return Case(
        lambda: UNet(planes, nn.Identity()),
        loss,
        cells(noise=0.7),
        lambda ps: torch.optim.Adam(ps, lr=lr),
    )


def vae(dice: Dice, sick: bool) -> Case:
    """A variational autoencoder with logits of pixels and the evidence bound, per picture."""
    size, width, code, lr = dice.whole(8, 10), dice.one_of(64, 96), dice.whole(4, 6), dice.power(-2.8, -2.5)

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc = nn.Linear(size * size, width)
            self.mu, self.logvar = nn.Linear(width, code), nn.Linear(width, code)
            self.dec1, self.dec2 = nn.Linear(code, width), nn.Linear(width, size * size)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            h = F.relu(self.enc(x.flatten(1)))
            mu, logvar = self.mu(h), self.logvar(h)
            z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
            return self.dec2(F.relu(self.dec1(z))), mu, logvar

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        logits, mu, logvar = model(x)
        bce = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
        return (bce + kl) / len(x)

    data = list(bumps(size, rows=192).chunk(4))
    return Case(VAE, loss, data, lambda ps: torch.optim.Adam(ps, lr=lr))


class Inverted(nn.Module):
    """An inverted residual with a linear bottleneck."""

    def __init__(self, a: int, b: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = a * expand
        self.body = nn.Sequential(
            nn.Conv2d(a, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, b, 1, bias=False),
            nn.BatchNorm2d(b),
        )
        self.same = a == b and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def mobilenet(dice: Dice, sick: bool) -> Case:
    """A small MobileNet of the second kind with label smoothing."""
    planes, expand, lr = dice.one_of(8, 12), dice.one_of(3, 4), dice.between(0.03, 0.06)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, planes, 3, padding=1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU6(),
            Inverted(planes, planes, 1, expand),
            Inverted(planes, 2 * planes, 2, expand),
            Inverted(2 * planes, 2 * planes, 1, expand),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(2 * planes, 5),
        )

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)

    def optimizer(ps: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(ps, lr=lr, momentum=0.9, weight_decay=4e-5)

    return Case(build, loss, gratings(Config(size=8, channels=3)), optimizer)


def selu_net(dice: Dice, sick: bool) -> Case:
    """A self-normalising net of eight layers: LeCun's weights, SELU, alpha dropout."""
    features, width, lr = dice.whole(10, 16), dice.one_of(48, 64), dice.between(0.01, 0.02)

    def lecun(m: nn.Module) -> None:
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight, nonlinearity="linear")
            nn.init.zeros_(m.bias)

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for k in range(8):
            layers += [nn.Linear(width if k else features, width), nn.SELU(), nn.AlphaDropout(0.02)]
        return nn.Sequential(*layers, nn.Linear(width, 3)).apply(lecun)

    return Case(build, classify, teacher(features, 3), lambda ps: torch.optim.SGD(ps, lr=lr, momentum=0.9))


def tied(dice: Dice, sick: bool) -> Case:
    """A denoising autoencoder whose decoder is the transposed encoder."""
    size, wide, code = dice.whole(8, 10), dice.one_of(48, 64), dice.whole(10, 16)
    lr = dice.power(-2.8, -2.5)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = [size * size, wide, code]
            self.w = nn.ParameterList(torch.empty(b, a) for a, b in pairwise(sizes))
            self.up = nn.ParameterList(torch.zeros(b) for b in sizes[1:])
            self.down = nn.ParameterList(torch.zeros(a) for a in sizes[:-1])
            for w in self.w:
                nn.init.xavier_uniform_(w)

        def forward(self, x: Tensor) -> Tensor:
            for w, b in zip(self.w, self.up, strict=True):
                x = torch.tanh(torch.einsum("ni,oi->no", x, w) + b)
            x = torch.tanh(torch.einsum("no,oi->ni", x, self.w[1]) + self.down[1])
            return torch.einsum("no,oi->ni", x, self.w[0]) + self.down[0]

    x = bumps(size).flatten(1)
    x = (x - x.mean()) / x.std()
    noisy = x + 0.2 * torch.randn_like(x)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    return Case(Tied, loss, split(noisy, x), lambda ps: torch.optim.Adam(ps, lr=lr))


def fine_tuned(dice: Dice, sick: bool) -> Case:
    """A backbone trained on other classes, frozen with its BatchNorm in eval, under a new head."""
    planes, lr = dice.one_of(12, 16), dice.power(-2.2, -2.0)

    class Backbone(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(
                nn.Conv2d(1, planes, 3, padding=1, bias=False),
                nn.BatchNorm2d(planes),
                nn.ReLU(),
                PreAct(planes, 2 * planes, 2),
                nn.BatchNorm2d(2 * planes),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )

    source = nn.Sequential(Backbone(), nn.Linear(2 * planes, 8))
    upstream = gratings(Config(classes=8, size=10))
    trainer = torch.optim.Adam(source.parameters(), lr=5e-3)
    for step in range(80):
        trainer.zero_grad()
        classify(source, upstream[step % 4]).backward()
        trainer.step()
    weights = {k: v.clone() for k, v in source[0].state_dict().items()}

    class Transfer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = Backbone()
            self.backbone.load_state_dict(weights)
            self.backbone.requires_grad_(False)
            self.head = nn.Linear(2 * planes, 4)

        def train(self, mode: bool = True) -> "Transfer":
            super().train(mode)
            self.backbone.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.backbone(x))

    def build() -> nn.Module:
        return Transfer().train()

    def optimizer(ps: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(filter(lambda p: p.requires_grad, ps), lr=lr)

    return Case(build, classify, gratings(Config(classes=4, size=10)), optimizer)


INITS = (
    "activation_init",
    "critical_init",
    "orthogonal_init",
    "delta_orthogonal_init",
    "lsuv",
    "unit_jacobian_init",
    "rescale_weights",
)
INIT = r"(?i)initiali[sz]|\binit\b|weights? (are|is|start|too|drawn|of)|weights:|\bgain\b|\bHe\b|kaiming"
HOTTER = (("lower_learning_rate", {"factor": 10.0}),)
RATE = r"(?i)learning.rate|step size|\blr\b|updates? (is|are|too)|first (step|update)"
SICK: tuple[Program, ...] = (
    Program(
        "seen-plain-vgg-default",
        "cnn",
        plain_vgg,
        Truth(
            "small-init",
            ("UG101", "UG202", "UG205", "UG206"),
            INIT,
            INITS,
            (("activation_init", {}),),
            HOTTER,
        ),
        130,
    ),
    Program(
        "seen-siamese-sigmoid-towers",
        "siamese",
        siamese_sigmoid,
        Truth(
            "sigmoid-depth",
            ("UG101", "UG202", "UG205", "UG204"),
            r"(?i)sigmoid|saturating|activation function|nonlinearit|swap.*activation",
            ("swap_to_relu", "swap_activation"),
            (),
            HOTTER,
        ),
        150,
    ),
    Program(
        "seen-normal-without-std",
        "mlp",
        unit_normal,
        Truth(
            "large-init",
            ("UG204", "UG102", "UG104", "UG201", "UG605"),
            INIT,
            (*INITS, "orthogonal_weights", "spectral_cap"),
            (("activation_init", {}),),
        ),
        120,
    ),
    Program(
        "seen-residual-full-branches",
        "residual",
        residual_sum,
        Truth(
            "unscaled-residual",
            ("UG201", "UG102", "UG105", "UG605", "UG601", "UG611"),
            r"(?i)residual|branch|\bskip|block.*(doubles?|adds?|grow)|without (a )?norm|shortcut|identity",
            (
                "fixup",
                "skip_init",
                "rezero",
                "layer_scale",
                "scale_branch",
                "gpt2_residual_scale",
                "deepnorm",
                "identity_block_init",
                "insert_norm",
                "pre_norm",
            ),
            (("fixup", {}),),
        ),
        100,
    ),
    Program(
        "seen-groups-of-one",
        "mobile",
        lonely_groups,
        Truth(
            "norm-of-one-value",
            ("UG206", "UG205", "UG103", "UG202", "UG101", "UG603"),
            r"(?i)group.?norm|normali[sz]|gn3|norm layer|(one|single) (value|channel|element)",
            ("bypass_norm",),
            (("bypass_norm", {}),),
            HOTTER,
        ),
        120,
    ),
    Program(
        "seen-raw-camera-counts",
        "cnn",
        raw_counts,
        Truth(
            "input-scale",
            ("UG607", "UG204", "UG206", "UG205", "UG103"),
            r"(?i)inputs?\b.*(scale|unit|large|rms|mean|standard)|(scale|size|rms|mean) of.*input|standardi",
            ("unit_inputs",),
            (("unit_inputs", {}),),
            HOTTER,
        ),
        120,
    ),
    Program(
        "seen-unet-two-sigmoids",
        "unet",
        sigmoid_twice,
        Truth(
            "double-sigmoid",
            ("UG606",),
            r"(?i)sigmoid|softmax|probabilit|twice|squash|logits?\b",
            ("drop_output_softmax",),
            (),
            HOTTER,
        ),
        100,
    ),
    Program(
        "seen-mixer-zero-blocks",
        "mixer",
        mixer_zero,
        Truth(
            "zero-init",
            ("UG207", "UG206", "UG103", "UG603", "UG202", "UG105"),
            r"(?i)(weight|init|layer|start|both|matri|block|branch).*\bzeros?\b|\bzeros?\b.*(weight|init|matri)|"
            r"identical|symmetr",
            INITS,
            (("activation_init", {}),),
            HOTTER,
        ),
        150,
    ),
    Program(
        "seen-lost-parameter-group",
        "densenet",
        lost_group,
        Truth(
            "not-in-optimizer",
            ("UG603", "UG604"),
            r"(?i)optimi[sz]er|not (held|given|train|updated|learn)|\bgroup\b|never (learn|train|mov|updat)",
            ("hold_parameters", "unfreeze"),
            (("hold_parameters", {}),),
            HOTTER,
        ),
        120,
    ),
    Program(
        "seen-prior-bias-everywhere",
        "detector",
        prior_everywhere,
        Truth(
            "negative-bias",
            ("UG203", "UG206", "UG202", "UG205", "UG103", "UG101", "UG603"),
            r"(?i)\bbias(es)?\b|\bprior\b",
            ("zero_biases",),
            (("zero_biases", {}),),
            HOTTER,
        ),
        120,
    ),
    Program(
        "seen-summed-pixels",
        "segmentation",
        summed_pixels,
        Truth(
            "summed-loss",
            ("UG601", "UG611", "UG605"),
            RATE + r"|\bsum|reduction|scale of the loss|loss.*(scale|large)",
            ("lower_learning_rate",),
            (("lower_learning_rate", {"factor": 3e-4}),),
            (("activation_init", {}),),
        ),
        100,
        per_pixel,
    ),
    Program(
        "seen-half-without-scaler",
        "autoencoder",
        half_unscaled,
        Truth(
            "half-underflow",
            ("UG501",),
            r"(?i)underflow|float16|\bhalf\b|precision|loss.?scal|scaler",
            ("loss_scale", "change_precision"),
            (("change_precision", {}),),
            HOTTER,
        ),
        120,
    ),
    Program(
        "seen-hard-overlap",
        "unet",
        hard_overlap,
        Truth(
            "thresholded-loss",
            (
                "UG608",
                "UG614",
            ),
            r"(?i)threshold|\bhard\b|loss.*(not|no|hardly|barely|little).*(pull|reach|depend|gradient|predict)|"
            r"link.*loss|loss.*\blink|differentiab|detach",
            ("swap_loss",),
            (),
            HOTTER,
        ),
        120,
        missed,
    ),
    Program(
        "seen-lambda-returns-rate",
        "residual",
        absolute_lambda,
        Truth(
            "low-rate",
            ("UG602",),
            RATE + r"|schedul",
            ("lower_learning_rate",),
            (("lower_learning_rate", {"factor": 1000.0}),),
            (("activation_init", {}),),
        ),
        120,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("seen-preact-resnet-one-cycle", "residual", preact_resnet),
    Program("seen-convnext-layer-scale", "cnn", convnext),
    Program("seen-vit-bfloat16", "attention", patch_vit, steps=80),
    Program("seen-densenet-transition", "densenet", densenet, steps=80),
    Program("seen-unet-dice-and-entropy", "unet", good_unet, steps=80),
    Program("seen-vae-per-picture", "autoencoder", vae, steps=150),
    Program("seen-mobilenet-inverted", "mobile", mobilenet, steps=80),
    Program("seen-selu-alpha-dropout", "mlp", selu_net, steps=150),
    Program("seen-tied-denoiser", "autoencoder", tied),
    Program("seen-new-head-frozen-norms", "residual", fine_tuned, steps=150),
)
