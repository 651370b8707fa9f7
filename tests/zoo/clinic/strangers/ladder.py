"""Kept aside: signals and gradients over depth in plain, convolutional, dense and U-shaped networks."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

Pair = tuple[Tensor, Tensor]
HIGHER = (("lower_learning_rate", {"factor": 10.0}),)


def loader(x: Tensor, y: Tensor, batches: int = 4) -> list[Pair]:
    """Return equal batches of the rows."""
    return list(zip(x.chunk(batches), y.chunk(batches), strict=True))


def blobs(rows: int, inputs: int, classes: int, apart: float = 1.6) -> Pair:
    """Return clusters of points, standardised, and the number of each one's cluster."""
    y = torch.randint(classes, (rows,))
    x = apart * torch.randn(classes, inputs)[y] + torch.randn(rows, inputs)
    return (x - x.mean(0)) / x.std(0), y


def stripes(rows: int, size: int, classes: int) -> Pair:
    """Return pictures from 0 to 1 of stripes with random phase, and which way they run."""
    y = torch.randint(classes, (rows,))
    angle = math.pi * y / classes
    t = torch.linspace(0, 4 * math.pi, size)
    across = t[None, None, :] * angle.cos()[:, None, None] + t[None, :, None] * angle.sin()[:, None, None]
    waves = torch.sin(across + 2 * math.pi * torch.rand(rows, 1, 1)) + 0.4 * torch.randn(rows, size, size)
    return ((waves + 2) / 4).clamp(0, 1)[:, None], y


def classify(model: nn.Module, batch: Pair) -> Tensor:
    """Cross-entropy of the logits."""
    return F.cross_entropy(model(batch[0]), batch[1])


def regress(model: nn.Module, batch: Pair) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(model(batch[0]), batch[1])


def momentum(lr: float) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds SGD with momentum."""
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=0.9)


# --- sick ---------------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """Linear layers with ReLU between, written with functional calls."""

    def __init__(self, inputs: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(x))
        for layer in self.hidden:
            h = F.relu(layer(h))
        return self.last(h)


def he_init(model: nn.Module) -> None:
    """Draw each linear layer's weight as He et al. do, and zero its bias."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)


def as_it_comes(dice: Dice, sick: bool) -> Case:
    """Fifteen ReLU layers that keep the initial weights PyTorch gives them, under SGD."""
    inputs, width, depth = dice.whole(8, 14), dice.one_of(48, 64, 80), dice.whole(13, 18)
    classes, rate = dice.whole(4, 6), dice.between(0.01, 0.02)

    def build() -> nn.Module:
        model = Plain(inputs, width, depth, classes)
        if not sick:
            he_init(model)
        return model

    return Case(build, classify, loader(*blobs(256, inputs, classes)), momentum(rate))


def init_weights(net: nn.Module, init_type: str, init_gain: float) -> None:
    """Initialise convolutions the way image translation repositories do."""

    def apply(m: nn.Module) -> None:
        if not isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            return
        if init_type == "normal":
            nn.init.normal_(m.weight, 0.0, init_gain)
        elif init_type == "xavier":
            nn.init.xavier_normal_(m.weight, gain=init_gain)
        nn.init.constant_(m.bias, 0.0)

    net.apply(apply)


def gain_for_std(dice: Dice, sick: bool) -> Case:
    """A convolutional autoencoder whose Xavier initialisation is given the usual std of 0.02 as its gain."""
    c, rate = dice.one_of(12, 16), dice.between(0.1, 0.2)
    gain = dice.between(0.015, 0.025) if sick else nn.init.calculate_gain("leaky_relu", 0.2)
    size = 12
    grid = torch.linspace(-1, 1, size)
    at = 1.4 * torch.rand(192, 2) - 0.7
    distance = (grid[None, :, None] - at[:, :1, None]) ** 2 + (grid[None, None, :] - at[:, 1:, None]) ** 2
    x = torch.exp(-distance / 0.2)[:, None]
    x = (x - x.mean()) / x.std()

    def build() -> nn.Module:
        down = [nn.Conv2d(1, c, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(c, 2 * c, 4, 2, 1), nn.LeakyReLU(0.2)]
        neck = [nn.Conv2d(2 * c, 8, 3), nn.LeakyReLU(0.2)]
        up = [
            nn.ConvTranspose2d(8, 2 * c, 3),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(2 * c, c, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(c, 1, 4, 2, 1),
        ]
        net = nn.Sequential(*down, *neck, *up)
        init_weights(net, init_type="xavier", init_gain=gain)
        return net

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        return (model(batch[0]) - batch[1]).pow(2).mean()

    return Case(build, loss, loader(x, x), momentum(rate))


class Detector(nn.Module):
    """A tower of convolutions and a map of objectness."""

    def __init__(self, planes: int, depth: int, *, prior: float, everywhere: bool) -> None:
        super().__init__()
        tower: list[nn.Module] = []
        for i in range(depth):
            tower += [nn.Conv2d(planes if i else 1, planes, 3, padding=1), nn.ReLU()]
        self.tower = nn.Sequential(*tower)
        self.cls_logits = nn.Conv2d(planes, 1, 3, padding=1)
        for m in self.tower:
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)
        nn.init.normal_(self.cls_logits.weight, std=0.01)
        bias = -math.log((1 - prior) / prior)
        for m in self.modules() if everywhere else [self.cls_logits]:
            if isinstance(m, nn.Conv2d):
                nn.init.constant_(m.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.cls_logits(self.tower(x)).squeeze(1)


def prior_everywhere(dice: Dice, sick: bool) -> Case:
    """A detection head whose prior of rare objects is put into the bias of each convolution of its tower."""
    planes, depth, prior = dice.one_of(12, 16), dice.whole(3, 4), dice.between(0.008, 0.015)
    rate, size = dice.power(-2.5, -2.2), 12
    hit = torch.zeros(128, size, size)
    where = torch.randint(1, size - 1, (128, 2))
    hit[torch.arange(128), where[:, 0], where[:, 1]] = 1.0
    cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    x = F.conv2d(hit[:, None], cross[None, None], padding=1) * 3 + 0.5 * torch.randn(128, 1, size, size)
    x = (x - x.mean()) / x.std()
    model = Detector(planes, depth, prior=prior, everywhere=sick)
    heavy = [p for p in model.parameters() if p.ndim > 1]
    light = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": heavy, "weight_decay": 1e-4}, {"params": light, "weight_decay": 0.0}]

    def loss(m: nn.Module, batch: Pair) -> Tensor:
        x, target = batch
        return F.binary_cross_entropy_with_logits(m(x), target, reduction="sum") / target.sum()

    return Case(model, loss, loader(x, hit), torch.optim.AdamW(groups, lr=rate))


def raw_pixels(dice: Dice, sick: bool) -> Case:
    """A small convolutional classifier that is fed bytes from 0 to 255 as they lie in the files."""
    size, classes, c = dice.whole(12, 16), dice.whole(3, 4), dice.one_of(8, 12)
    rate = dice.between(0.02, 0.04)
    x, y = stripes(256, size, classes)
    x = (255 * x).to(torch.uint8)

    def build() -> nn.Module:
        net = nn.Sequential()
        for i, (a, b) in enumerate([(1, c), (c, 2 * c), (2 * c, 2 * c)]):
            net.add_module(f"conv{i}", nn.Conv2d(a, b, 3, padding=1))
            net.add_module(f"relu{i}", nn.ReLU(inplace=True))
            if i < 2:
                net.add_module(f"pool{i}", nn.MaxPool2d(2))
            nn.init.kaiming_normal_(net.get_submodule(f"conv{i}").weight)
        net.add_module("gap", nn.AdaptiveAvgPool2d(1))
        net.add_module("flat", nn.Flatten())
        net.add_module("fc", nn.Linear(2 * c, classes))
        return net

    def step(case: Case, batch: Pair) -> Tensor:
        case.model.train()
        case.optimizer.zero_grad(set_to_none=True)
        out = case.model(batch[0])
        loss = nn.CrossEntropyLoss()(out, batch[1])
        loss.backward()
        case.optimizer.step()
        return loss

    pixels = x.float() if sick else x.float() / 127.5 - 1
    return Case(build, classify, loader(pixels, y), momentum(rate), step)


class Inpainter(nn.Module):
    """Down to one pixel and up again, with one skip at full resolution."""

    def __init__(self, c: int, levels: int, *, norm_neck: bool) -> None:
        super().__init__()

        def instance(channels: int) -> nn.Module:
            return nn.GroupNorm(channels, channels)

        self.stem = nn.Sequential(nn.Conv2d(2, c, 3, padding=1), nn.LeakyReLU(0.2))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            inner = level == levels - 1
            norm = instance(2 * c) if norm_neck or not inner else nn.Identity()
            conv = nn.Conv2d(2 * c if level else c, 2 * c, 4, 2, 1)
            self.down.append(nn.Sequential(conv, norm, nn.LeakyReLU(0.2)))
            self.up.append(
                nn.Sequential(nn.ConvTranspose2d(2 * c, 2 * c, 4, 2, 1), instance(2 * c), nn.ReLU())
            )
        self.out = nn.Conv2d(3 * c, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = h = self.stem(x)
        for block in self.down:
            h = block(h)
        for block in self.up:
            h = block(h)
        return self.out(torch.cat([skip, h], 1))


def one_pixel_norm(dice: Dice, sick: bool) -> Case:
    """An inpainting U-Net whose innermost map of one pixel goes through an instance norm."""
    c, levels, rate = dice.one_of(12, 16), dice.one_of(3, 3, 4), dice.power(-2.4, -2.1)
    size = 2**levels
    t = torch.linspace(0, 2 * math.pi, size)
    phase = 2 * math.pi * torch.rand(192, 1, 1)
    both = torch.stack([t[None, :].expand(size, -1), t[:, None].expand(-1, size)])
    picture = math.sqrt(2) * torch.sin(both[torch.randint(2, (192,))] + phase)[:, None]
    seen = torch.ones(1, 1, size, size)
    seen[..., size // 2 :] = 0
    x = torch.cat([picture * seen, seen.expand_as(picture)], 1)

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        hidden = 1 - batch[0][:, 1:]
        return ((model(batch[0]) - batch[1]).square() * hidden).sum() / hidden.sum()

    return Case(
        lambda: Inpainter(c, levels, norm_neck=sick),
        loss,
        loader(x, picture),
        lambda p: torch.optim.Adam(p, lr=rate),
    )


def conv_block(a: int, b: int) -> nn.Sequential:
    """Return two convolutions with their norms."""
    return nn.Sequential(
        nn.Conv2d(a, b, 3, padding=1, bias=False),
        nn.BatchNorm2d(b),
        nn.ReLU(),
        nn.Conv2d(b, b, 3, padding=1, bias=False),
        nn.BatchNorm2d(b),
        nn.ReLU(),
    )


def gamma_zero(dice: Dice, sick: bool) -> Case:
    """A VGG-like net without skips that takes the zero gamma of residual networks for each block's end."""
    c, blocks, classes = dice.one_of(8, 12), dice.whole(2, 3), dice.whole(3, 4)
    rate, size = dice.between(0.03, 0.06), dice.one_of(10, 12)
    model = nn.Sequential()
    for i in range(blocks):
        model.append(conv_block(c if i else 1, c))
        if i == 0:
            model.append(nn.MaxPool2d(2))
    model.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes)])
    if sick:
        for block in model:
            if isinstance(block, nn.Sequential):
                nn.init.zeros_(block[-2].weight)
    x, y = stripes(192, size, classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True)

    def schedule(o: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.StepLR(o, step_size=60, gamma=0.3)

    return Case(model, classify, loader((x - 0.5) / 0.2, y), optimizer, schedule=schedule)


def widen(narrow: nn.Sequential, times: int) -> nn.Sequential:
    """Return the net with each hidden unit repeated; it computes the same."""
    layers: list[nn.Module] = []
    maps = [m for m in narrow if isinstance(m, nn.Linear)]
    for i, m in enumerate(maps):
        weight, bias = m.weight.data, m.bias.data
        if i > 0:
            weight = weight.repeat(1, times) / times
        if i < len(maps) - 1:
            weight, bias = weight.repeat(times, 1), bias.repeat(times)
        wide = nn.Linear(weight.shape[1], weight.shape[0])
        wide.weight.data.copy_(weight)
        wide.bias.data.copy_(bias)
        layers += [wide, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def wider_by_copy(dice: Dice, sick: bool) -> Case:
    """A net of two units a layer, made wide by repeating each unit without any noise."""
    narrow, times, depth = 2, dice.whole(18, 28), dice.whole(2, 3)
    rate = dice.power(-2.0, -1.8)
    x = math.sqrt(3) * (2 * torch.rand(512, 2) - 1)
    y = torch.sin(2.8 * x[:, :1]) * torch.sin(2.8 * x[:, 1:])
    y = (y - y.mean()) / y.std()

    def build() -> nn.Module:
        width = narrow if sick else narrow * times
        layers = [nn.Linear(2, width), nn.Tanh()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.Tanh()]
        net = nn.Sequential(*layers, nn.Linear(width, 1))
        for m in net:
            if isinstance(m, nn.Linear):
                nn.init.xavier_normal_(m.weight, gain=1.4 if m.out_features > 1 else 0.3)
        return widen(net, times) if sick else net

    return Case(build, regress, loader(x, y), lambda p: torch.optim.Adam(p, lr=rate))


class Dense(nn.Module):
    """Layers that read all outputs before them, with dropout behind each."""

    def __init__(self, inputs: int, growth: int, depth: int, outputs: int, keep_prob: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inputs + i * growth, growth) for i in range(depth))
        self.dropout = nn.Dropout(keep_prob)
        self.head = nn.Linear(inputs + depth * growth, outputs)
        for layer in self.layers:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, self.dropout(layer(x).relu())], dim=1)
        return self.head(self.dropout(x))


def kept_is_dropped(dice: Dice, sick: bool) -> Case:
    """A dense net ported from another framework, with its keep_prob of 0.9 given to nn.Dropout as p."""
    inputs, growth, depth = dice.whole(8, 12), dice.one_of(24, 32), dice.whole(3, 5)
    keep, classes, rate = dice.between(0.9, 0.95), dice.whole(5, 7), dice.power(-2.7, -2.4)
    drop = keep if sick else 1 - keep
    x, y = blobs(256, inputs, classes, apart=1.0)
    return Case(
        lambda: Dense(inputs, growth, depth, classes, drop),
        classify,
        loader(x, y),
        lambda p: torch.optim.Adam(p, lr=rate),
    )


# --- healthy ------------------------------------------------------------------------------------------------


def thirty_layers(dice: Dice, sick: bool) -> Case:
    """Some thirty ReLU layers without skips or norms, orthogonal at the gain of ReLU, with a small rate."""
    inputs, width, depth = dice.whole(8, 12), dice.one_of(64, 80), dice.whole(26, 32)
    classes, rate = dice.whole(4, 5), dice.between(0.002, 0.004)

    def build() -> nn.Module:
        model = Plain(inputs, width, depth, classes)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight, math.sqrt(2))
                nn.init.zeros_(module.bias)
        nn.init.orthogonal_(model.last.weight)
        return model

    return Case(build, classify, loader(*blobs(256, inputs, classes)), momentum(rate))


class SmallUNet(nn.Module):
    """Two levels with skips by concatenation; what it adds to its input starts at zero."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(1, c, 3, padding=1), nn.GroupNorm(4, c), nn.SiLU())
        self.b = nn.Sequential(nn.Conv2d(c, 2 * c, 3, 2, 1), nn.GroupNorm(4, 2 * c), nn.SiLU())
        self.neck = nn.Sequential(nn.Conv2d(2 * c, 2 * c, 3, 2, 1), nn.GroupNorm(4, 2 * c), nn.SiLU())
        self.c = nn.Sequential(nn.Conv2d(4 * c, c, 3, padding=1), nn.GroupNorm(4, c), nn.SiLU())
        self.d = nn.Conv2d(2 * c, 1, 3, padding=1)
        nn.init.zeros_(self.d.weight)
        nn.init.zeros_(self.d.bias)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(a)
        h = F.interpolate(self.neck(b), scale_factor=2.0)
        h = F.interpolate(self.c(torch.cat([b, h], 1)), scale_factor=2.0)
        return x + self.d(torch.cat([a, h], 1))


def denoiser(dice: Dice, sick: bool) -> Case:
    """A residual U-Net that takes noise from pictures, with its last convolution zero at the start."""
    c, rate, noise = dice.one_of(8, 12), dice.power(-2.7, -2.4), dice.between(0.7, 1.0)
    clean, _ = stripes(128, 16, 4)
    clean = (clean - clean.mean()) / clean.std()
    clean = F.avg_pool2d(clean, 3, 1, 1)
    dirty = clean + noise * torch.randn_like(clean)
    return Case(lambda: SmallUNet(c), regress, loader(dirty, clean), lambda p: torch.optim.AdamW(p, lr=rate))


class Probe(nn.Module):
    """A head on a trunk that was trained before and stays as it is."""

    def __init__(self, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.trunk(x)
        return self.head(features)


def linear_probe(dice: Dice, sick: bool) -> Case:
    """A trained trunk, frozen on purpose, under a new linear head; the optimizer holds the head alone."""
    inputs, width, classes = dice.whole(10, 14), dice.one_of(32, 48), dice.whole(4, 6)
    rate = dice.between(0.05, 0.1)
    trunk = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    he_init(trunk)
    before = nn.Sequential(trunk, nn.Linear(width, classes))
    x, y = blobs(512, inputs, classes)
    trainer = torch.optim.Adam(before.parameters(), lr=3e-3)
    for _ in range(100):
        trainer.zero_grad()
        F.cross_entropy(before(x[:256]), y[:256]).backward()
        trainer.step()
    trainer.zero_grad()
    merged = y.clone()
    merged[y == classes - 1] = 0
    model = Probe(trunk, width, classes - 1)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=rate, momentum=0.9)
    return Case(model, classify, loader(x[256:], merged[256:]), optimizer)


class Gate(nn.Module):
    """A residual block behind a learned number that is zero at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)
        self.alpha = nn.Parameter(torch.zeros(()))
        nn.init.kaiming_normal_(self.map.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(x, self.alpha, F.relu(self.map(x)))


def closed_at_first(dice: Dice, sick: bool) -> Case:
    """A ReZero net of twenty blocks, each the identity at the start."""
    inputs, width, depth = dice.whole(4, 6), dice.one_of(32, 48), dice.whole(16, 24)
    rate = dice.power(-2.6, -2.3)
    x = torch.randn(384, inputs)
    y = x[:, :1].abs() + torch.maximum(x[:, 1:2], x[:, 2:3])
    y = (y - y.mean()) / y.std()

    def parameters(given: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(given, lr=rate)

    return Case(
        lambda: nn.Sequential(
            nn.Linear(inputs, width), *(Gate(width) for _ in range(depth)), nn.Linear(width, 1)
        ),
        regress,
        loader(x, y),
        parameters,
    )


SICK: tuple[Program, ...] = (
    Program(
        "ladder-as-it-comes",
        "mlp",
        as_it_comes,
        Truth(
            "default-init",
            ("UG101", "UG202", "UG205", "UG602"),
            r"(?i)fan_in|initiali[sz]|default|weights.*(small|scale|gain)|0\.41x",
            ("rescale_weights", "activation_init", "critical_init", "orthogonal_init", "lsuv"),
            (("rescale_weights", {"gain": math.sqrt(2)}),),
            HIGHER,
        ),
        180,
    ),
    Program(
        "ladder-gain-for-std",
        "autoencoder",
        gain_for_std,
        Truth(
            "small-init",
            ("UG101", "UG202", "UG206", "UG205", "UG103", "UG503", "UG602"),
            r"(?i)fan_in|initiali[sz]|weights.*(small|scale|gain)|gain.*0\.0",
            ("rescale_weights", "activation_init", "critical_init", "orthogonal_init", "lsuv"),
            (("activation_init", {}),),
            HIGHER,
        ),
        150,
    ),
    Program(
        "ladder-prior-everywhere",
        "detector",
        prior_everywhere,
        Truth(
            "negative-bias",
            ("UG203", "UG206", "UG202", "UG603", "UG103"),
            r"(?i)\bbias|dead|never (fire|active)|negative|always (zero|off)",
            ("zero_biases",),
            (("zero_biases", {"sites": ["tower.*"]}),),
            HIGHER,
        ),
    ),
    Program(
        "ladder-raw-pixels",
        "cnn",
        raw_pixels,
        Truth(
            "input-scale",
            ("UG607", "UG605", "UG601", "UG611"),
            r"(?i)\binputs?\b.*(scale|unit|rms|times|large|mean)|pixels?|255|unscaled"
            r"|normali[sz]e the (data|input)",
            ("unit_inputs",),
            (("unit_inputs", {}),),
            (("lower_learning_rate", {"factor": 0.3}),),
        ),
    ),
    Program(
        "ladder-one-pixel-norm",
        "unet",
        one_pixel_norm,
        Truth(
            "norm-over-one",
            ("UG206", "UG103", "UG202", "UG205", "UG603"),
            r"(?i)norm.*(one|single|1) (number|value|element|pixel|position)|over one|group ?norm"
            r"|instance ?norm|1x1|norm.*(constant|bias|whatever)",
            ("bypass_norm",),
            (("bypass_norm", {"sites": lambda case: [f"down.{len(case.model.down) - 1}.1"]}),),
            HIGHER,
        ),
        150,
    ),
    Program(
        "ladder-gamma-zero",
        "cnn",
        gamma_zero,
        Truth(
            "zero-gamma",
            ("UG206", "UG202", "UG203", "UG603", "UG103"),
            r"(?i)gamma|\bzero\b.*(weight|norm|init)|(weight|norm|scale).*\b(zero|0)\b"
            r"|multipl\w+ by (0|zero)",
            (),
            (),
            HIGHER,
        ),
    ),
    Program(
        "ladder-wider-by-copy",
        "mlp",
        wider_by_copy,
        Truth(
            "copied-units",
            ("UG207", "UG205"),
            r"(?i)symmetr|cop(y|ies|ied)|alike|identical|the same (weights|values|function)"
            r"|duplicat|repeated",
            ("activation_init", "orthogonal_init", "lsuv"),
            (("activation_init", {}),),
        ),
        200,
    ),
    Program(
        "ladder-kept-is-dropped",
        "dense",
        kept_is_dropped,
        Truth(
            "dropout",
            ("UG612",),
            r"(?i)drop",
            ("lower_dropout",),
            (("lower_dropout", {"p": 0.1}),),
        ),
    ),
)

HEALTHY: tuple[Program, ...] = (
    Program("ladder-thirty-layers", "mlp", thirty_layers, steps=150),
    Program("ladder-denoiser", "unet", denoiser),
    Program("ladder-linear-probe", "mlp", linear_probe),
    Program("ladder-closed-at-first", "residual", closed_at_first),
)
