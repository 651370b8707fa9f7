"""Kept aside once: the faults that courses, papers and forums name most, and sound twins."""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
Pair = tuple[Tensor, Tensor]


def quarters(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Return four batches of the tensors' rows."""
    return list(zip(*(t.chunk(4) for t in tensors), strict=True))


def cross_entropy(model: nn.Module, batch: Pair) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


def clip_one(parameters: Iterable[nn.Parameter]) -> None:
    nn.utils.clip_grad_norm_(parameters, 1.0)


# --- data ---------------------------------------------------------------------------------------------------


def stripes(rows: int, size: int, classes: int = 4) -> Pair:
    """Return noisy gratings of one of several directions, and the direction."""
    y = torch.randint(classes, (rows,))
    angle = math.pi * y / classes
    grid = torch.arange(size).float()
    along = angle.cos()[:, None, None] * grid[:, None] + angle.sin()[:, None, None] * grid
    x = torch.sin(1.4 * along + 2 * math.pi * torch.rand(rows, 1, 1)) + 0.3 * torch.randn(rows, size, size)
    return ((x - x.mean()) / x.std())[:, None], y


def discs(rows: int, size: int) -> Pair:
    """Return noisy pictures of a bright disc, and the disc's mask."""
    grid = torch.linspace(-1, 1, size)
    middle, radius = 1.2 * torch.rand(rows, 2, 1, 1) - 0.6, 0.25 + 0.2 * torch.rand(rows, 1, 1)
    far = ((grid[:, None] - middle[:, 0]) ** 2 + (grid - middle[:, 1]) ** 2).sqrt()
    mask = (far < radius).float()
    x = mask + 0.5 * torch.randn(rows, size, size)
    return ((x - x.mean()) / x.std())[:, None], mask[:, None]


def curled(rows: int, features: int, classes: int) -> Pair:
    """Return standard normal features and the class that a smooth function of them chooses."""
    x = torch.randn(rows, features)
    scores = torch.tanh(x @ torch.randn(features, 6)) @ torch.randn(6, classes)
    return x, scores.argmax(1)


def recall(rows: int, length: int, classes: int) -> Pair:
    """Return noise after one opening symbol, and the symbol."""
    y = torch.randint(classes, (rows,))
    x = 0.1 * torch.randn(rows, length, classes)
    x[:, 0] += 2 * F.one_hot(y, classes)
    return x, y


def chatter(rows: int, length: int, vocabulary: int) -> Tensor:
    """Return sentences of a Markov chain whose words have two likely successors each."""
    likely = torch.stack([torch.randperm(vocabulary), torch.randperm(vocabulary)], 1)
    words = [torch.randint(vocabulary, (rows,))]
    for _ in range(length):
        choice = (torch.rand(rows) < 0.2).long()
        words.append(likely[words[-1], choice])
    return torch.stack(words, 1)


def next_word(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
    (words,) = batch
    logits = model(words[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), words[:, 1:].flatten())


def curve(rows: int, size: int) -> Tensor:
    """Return sampled waves of two frequencies, of unit variance."""
    t = torch.linspace(0, 2 * math.pi, size)
    return math.sqrt(2) * torch.sin((1 + torch.randint(2, (rows, 1))) * t + 2 * math.pi * torch.rand(rows, 1))


def sheet(rows: int, size: int) -> Tensor:
    """Return points near a curved sheet, standardised."""
    z = torch.randn(rows, 3)
    x = torch.sin(1.5 * z @ torch.randn(3, size)) + z @ torch.randn(3, size) + 0.1 * torch.randn(rows, size)
    return (x - x.mean(0)) / x.std(0)


def blots(rows: int, size: int) -> Tensor:
    """Return pictures with one soft blot, between 0 and 1, one row each."""
    grid = torch.linspace(-1, 1, size)
    middle = 1.2 * torch.rand(rows, 2, 1, 1) - 0.6
    far = (grid[:, None] - middle[:, 0]) ** 2 + (grid - middle[:, 1]) ** 2
    return torch.exp(-far / 0.3).flatten(1)


# --- sick ---------------------------------------------------------------------------------------------------


class VGG(nn.Module):
    def __init__(self, stages: list[tuple[int, int]], classes: int, init: Callable[[Tensor], Any]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inp = 1
        for planes, convs in stages:
            for _ in range(convs):
                layers += [nn.Conv2d(inp, planes, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
                inp = planes
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inp, classes)
        for m in self.modules():
            if isinstance(m, (nn.Conv2d, nn.Linear)):
                init(m.weight)
                nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def vgg_hundredth(dice: Dice, sick: bool) -> Case:
    """A deep plain VGG whose weights are all drawn with the standard deviation 0.01 of AlexNet."""
    planes, convs, rate = dice.one_of(12, 16), dice.whole(3, 4), dice.between(0.02, 0.035)
    std = dice.between(0.008, 0.015)
    stages = [(planes, convs), (2 * planes, convs), (2 * planes, convs - 1)]

    def narrow(w: Tensor) -> None:
        nn.init.normal_(w, 0.0, std)

    init = narrow if sick else nn.init.kaiming_normal_
    return Case(
        lambda: VGG(stages, 4, init),
        cross_entropy,
        quarters(*stripes(160, 12)),
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9),
        clip=clip_one,
    )


class RandnNet(nn.Module):
    def __init__(self, sizes: list[int], *, scaled: bool) -> None:
        super().__init__()
        self.w = nn.ParameterList()
        self.b = nn.ParameterList()
        for a, b in itertools.pairwise(sizes):
            w = torch.randn(a, b)
            self.w.append(nn.Parameter(w / math.sqrt(a) if scaled else w))
            self.b.append(nn.Parameter(torch.zeros(b)))

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.w) - 1
        for i, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            x = x @ w + b
            if i < last:
                x = torch.tanh(x)
        return x


def randn_weights(dice: Dice, sick: bool) -> Case:
    """A tanh network from a course's notebook, whose matrices are plain torch.randn."""
    features, width, depth = dice.whole(8, 14), dice.one_of(64, 96, 128), dice.whole(6, 9)
    rate = dice.between(0.02, 0.05)
    sizes = [features] + [width] * depth + [3]
    return Case(
        lambda: RandnNet(sizes, scaled=not sick),
        cross_entropy,
        quarters(*curled(512, features, 3)),
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9),
    )


class Elman(nn.Module):
    def __init__(self, inp: int, hidden: int, out: int, *, orthogonal: bool) -> None:
        super().__init__()
        self.hidden = hidden
        self.i2h = nn.Linear(inp, hidden)
        self.h2h = nn.Linear(hidden, hidden)
        self.h2o = nn.Linear(hidden, out)
        if orthogonal:
            nn.init.orthogonal_(self.h2h.weight)
            nn.init.zeros_(self.h2h.bias)
            nn.init.zeros_(self.i2h.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.hidden)
        for t in range(x.shape[1]):
            h = torch.tanh(self.i2h(x[:, t]) + self.h2h(h))
        return self.h2o(h)


def elman_recall(dice: Dice, sick: bool) -> Case:
    """An Elman cell of plain nn.Linear layers that should recall the first symbol of a long sequence."""
    length, hidden, classes = dice.whole(75, 100), dice.one_of(48, 64), dice.whole(3, 4)
    rate = dice.power(-3.2, -3.0)
    return Case(
        lambda: Elman(classes, hidden, classes, orthogonal=not sick),
        cross_entropy,
        quarters(*recall(256, length, classes)),
        lambda p: torch.optim.Adam(p, lr=rate),
        clip=clip_one,
    )


class LSTMClassifier(nn.Module):
    def __init__(self, inp: int, hidden: int, out: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inp, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.lstm(x)
        return self.fc(h[-1])


def zero_bias_lstm(dice: Dice, sick: bool) -> Case:
    """An LSTM over long sequences whose initialisation sets every bias to zero, the forget gate's too."""
    length, hidden, classes = dice.whole(80, 120), dice.one_of(32, 48), dice.whole(3, 4)
    rate, forget = dice.power(-2.3, -2.0), math.log(length)

    def build() -> nn.Module:
        model = LSTMClassifier(classes, hidden, classes)
        for name, p in model.lstm.named_parameters():
            if "weight_ih" in name:
                nn.init.xavier_uniform_(p)
            elif "weight_hh" in name:
                nn.init.orthogonal_(p)
            else:
                nn.init.zeros_(p)
        if not sick:
            with torch.no_grad():
                model.lstm.bias_hh_l0[hidden : 2 * hidden].fill_(forget)
        return model

    return Case(
        build,
        cross_entropy,
        quarters(*recall(256, length, classes)),
        lambda p: torch.optim.Adam(p, lr=rate),
        clip=clip_one,
    )


class GRUTagger(nn.Module):
    def __init__(self, inp: int, hidden: int, out: int, **more: Any) -> None:
        super().__init__()
        self.gru = nn.GRU(inp, hidden, num_layers=2, **more)
        self.fc = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        # x: (batch, seq, feature)
        out, _ = self.gru(x)
        return self.fc(out[:, -1, :])


def turned_around(model: nn.Module, batch: Pair) -> float:
    """Cross-entropy with the rows of the batch in the reverse order, which should change nothing."""
    return float(cross_entropy(model, (batch[0].flip(0), batch[1].flip(0))))


def batch_first(dice: Dice, sick: bool) -> Case:
    """A GRU that is given (batch, time, feature) without batch_first=True, and so walks along the batch."""
    length, inp, hidden = dice.whole(10, 16), dice.whole(4, 6), dice.one_of(32, 48)
    rate = dice.power(-2.2, -1.9)
    more = {} if sick else {"batch_first": True}
    x = torch.randn(384, length, inp)
    y = x[:, :, :3].mean(1).argmax(1)
    return Case(
        lambda: GRUTagger(inp, hidden, 3, **more),
        cross_entropy,
        quarters(x, y),
        lambda p: torch.optim.Adam(p, lr=rate),
    )


class SentenceEncoder(nn.Module):
    """Reads the class off a first token; 0 pads."""

    def __init__(self, words: int, d: int, layers: int, length: int, classes: int, *, keep: bool) -> None:
        super().__init__()
        self.keep = keep
        self.embed = nn.Embedding(words, d, padding_idx=0)
        self.pos = nn.Parameter(0.02 * torch.randn(length, d))
        layer = nn.TransformerEncoderLayer(
            d, nhead=4, dim_feedforward=2 * d, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(d), enable_nested_tensor=False)
        self.head = nn.Linear(d, classes)

    def forward(self, ids: Tensor) -> Tensor:
        attention_mask = ids != 0
        mask = attention_mask if self.keep else ~attention_mask
        h = self.encoder(self.embed(ids) + self.pos, src_key_padding_mask=mask)
        return self.head(h[:, 0])


def mask_inverted(dice: Dice, sick: bool) -> Case:
    """A padded encoder whose mask says which tokens to keep where PyTorch wants those to leave out."""
    words, d, layers = dice.whole(24, 32), dice.one_of(32, 48), dice.whole(2, 3)
    length, rate, classes = dice.whole(12, 16), dice.power(-2.9, -2.6), 4
    ids = torch.randint(6, words, (320, length))
    y = torch.randint(classes, (320,))
    known = torch.randint(length // 2, length - 1, (320,))
    where = 1 + (torch.rand(320) * (known - 1)).long()
    ids[torch.arange(320), where] = 2 + y
    ids[:, 0] = 1
    ids[torch.arange(length) >= known[:, None]] = 0
    return Case(
        lambda: SentenceEncoder(words, d, layers, length, classes, keep=sick),
        cross_entropy,
        quarters(ids, y),
        lambda p: torch.optim.AdamW(p, lr=rate),
    )


class PostNormBlock(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.ff = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.norm1(x + self.proj(a.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.ff(x))


class PostNormDecoder(nn.Module):
    """The original Transformer's decoder without its cross-attention."""

    def __init__(self, words: int, d: int, layers: int, length: int, *, tied: bool = False) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(words, d), nn.Embedding(length, d)
        nn.init.normal_(self.tok.weight, std=d**-0.5)
        nn.init.normal_(self.pos.weight, std=d**-0.5)
        self.blocks = nn.ModuleList(PostNormBlock(d, 4) for _ in range(layers))
        self.lm_head = nn.Linear(d, words, bias=False)
        if tied:
            self.lm_head.weight = self.tok.weight
        self.scale = math.sqrt(d)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.scale * (self.tok(ids) + self.pos(torch.arange(ids.shape[1], device=ids.device)))
        for block in self.blocks:
            x = block(x)
        return self.lm_head(x)


def lambda_returns_rate(dice: Dice, sick: bool) -> Case:
    """A LambdaLR whose function returns the learning rate itself, which is then multiplied by the rate."""
    words, d, layers, length = dice.whole(16, 24), dice.one_of(32, 48), dice.whole(2, 3), dice.whole(12, 20)
    rate, warm = dice.power(-2.9, -2.6), dice.whole(8, 15)

    def rate_at(step: int) -> float:
        rising = min(1.0, (step + 1) / warm)
        return rate * rising if sick else rising

    return Case(
        lambda: PostNormDecoder(words, d, layers, length),
        next_word,
        quarters(chatter(128, length, words)),
        lambda p: torch.optim.Adam(p, lr=rate, betas=(0.9, 0.98)),
        clip=clip_one,
        schedule=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=rate_at),
    )


def double_conv(inp: int, out: int, groups: int = 0) -> nn.Sequential:
    """Return two convolutions, each with its norm."""

    def norm() -> nn.Module:
        return nn.GroupNorm(groups, out) if groups else nn.BatchNorm2d(out)

    return nn.Sequential(
        nn.Conv2d(inp, out, 3, padding=1, bias=False),
        norm(),
        nn.ReLU(),
        nn.Conv2d(out, out, 3, padding=1, bias=False),
        norm(),
        nn.ReLU(),
    )


class UNet(nn.Module):
    def __init__(self, planes: int, *, sigmoid: bool, groups: int = 0) -> None:
        super().__init__()
        self.down1, self.down2 = double_conv(1, planes, groups), double_conv(planes, 2 * planes, groups)
        self.mid = double_conv(2 * planes, 4 * planes, groups)
        self.up2 = nn.ConvTranspose2d(4 * planes, 2 * planes, 2, 2)
        self.dec2 = double_conv(4 * planes, 2 * planes, groups)
        self.up1 = nn.ConvTranspose2d(2 * planes, planes, 2, 2)
        self.dec1 = double_conv(2 * planes, planes, groups)
        self.out = nn.Conv2d(planes, 1, 1)
        self.sigmoid = sigmoid

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        h = self.mid(F.max_pool2d(b, 2))
        h = self.dec2(torch.cat([self.up2(h), b], 1))
        h = self.dec1(torch.cat([self.up1(h), a], 1))
        out = self.out(h)
        return torch.sigmoid(out) if self.sigmoid else out


def sigmoid_then_logits(dice: Dice, sick: bool) -> Case:
    """A U-Net that ends in a sigmoid, trained with BCEWithLogitsLoss."""
    planes, rate = dice.one_of(6, 8), dice.power(-2.5, -2.1)
    criterion = nn.BCEWithLogitsLoss()

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        images, masks = batch
        return criterion(model(images), masks)

    return Case(
        lambda: UNet(planes, sigmoid=sick),
        loss,
        quarters(*discs(48, 16)),
        lambda p: torch.optim.Adam(p, lr=rate),
    )


class BasicBlock(nn.Module):
    def __init__(self, planes: int, norm: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes, planes, 3, 1, 1)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1)
        self.bn1, self.bn2 = norm(planes), norm(planes)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


def resnet_bare(dice: Dice, sick: bool) -> Case:
    """A ResNet with He weights whose batch norms were taken out, so that each block doubles the variance."""
    planes, blocks, rate = dice.one_of(10, 12), dice.whole(14, 20), dice.between(0.02, 0.04)
    norm = nn.Identity if sick else nn.BatchNorm2d

    def build() -> nn.Module:
        net = nn.Sequential(
            nn.Conv2d(1, planes, 3, 1, 1),
            *(BasicBlock(planes, norm) for _ in range(blocks)),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(planes, 4),
        )
        for m in net.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)
        return net

    return Case(
        build,
        cross_entropy,
        quarters(*stripes(128, 8)),
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9),
    )


class DenseLayer(nn.Module):
    def __init__(self, inp: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inp)
        self.conv = nn.Conv2d(inp, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(torch.relu(self.norm(x)))], 1)


class DenseNet(nn.Module):
    def __init__(self, growth: int, layers: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2 * growth, 3, padding=1, bias=False)
        planes, stages = 2 * growth, []
        for _ in range(2):
            stages += [DenseLayer(planes + i * growth, growth) for i in range(layers)]
            planes += layers * growth
            stages += [nn.Conv2d(planes, planes // 2, 1, bias=False), nn.AvgPool2d(2)]
            planes //= 2
        self.features = nn.Sequential(*stages, nn.BatchNorm2d(planes), nn.ReLU())
        self.classifier = nn.Linear(planes, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(self.stem(x.to(self.stem.weight.dtype)))
        return self.classifier(h.mean((2, 3)))


def half_adam(dice: Dice, sick: bool) -> Case:
    """A DenseNet cast with .half() under Adam, whose epsilon of 1e-8 is zero in float16."""
    growth, layers, rate = dice.one_of(4, 6), dice.whole(2, 3), dice.power(-2.8, -2.3)

    def build() -> nn.Module:
        model = DenseNet(growth, layers, 4)
        return model.half() if sick else model

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x).float(), y)

    return Case(build, loss, quarters(*stripes(128, 8)), lambda p: torch.optim.Adam(p, lr=rate))


class AffineCoupling(nn.Module):
    def __init__(self, size: int, width: int, *, flip: bool, zero: bool) -> None:
        super().__init__()
        self.flip, half = flip, size // 2
        self.net = nn.Sequential(
            nn.Linear(half, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * half)
        )
        for layer in self.net[::2]:
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        if zero:
            nn.init.zeros_(self.net[-1].weight)

    def forward(self, x: Tensor, logdet: Tensor) -> Pair:
        a, b = x.chunk(2, 1)
        if self.flip:
            a, b = b, a
        s, t = self.net(a).chunk(2, 1)
        b = b * torch.exp(s) + t
        return torch.cat([b, a] if self.flip else [a, b], 1), logdet + s.sum(1)


class RealNVP(nn.Module):
    def __init__(self, size: int, width: int, steps: int, *, zero: bool) -> None:
        super().__init__()
        self.flows = nn.ModuleList(
            AffineCoupling(size, width, flip=bool(i % 2), zero=zero) for i in range(steps)
        )

    def forward(self, x: Tensor) -> Pair:
        logdet = x.new_zeros(len(x))
        for flow in self.flows:
            x, logdet = flow(x, logdet)
        return x, logdet


def nll(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
    z, logdet = model(batch[0])
    return (0.5 * z.pow(2).sum(1) - logdet).mean()


def raw_exponent(dice: Dice, sick: bool) -> Case:
    """A RealNVP with He weights down to the last layer, whose raw output is the exponent of the scale."""
    size, width, steps = 2 * dice.whole(3, 5), dice.one_of(32, 48), dice.whole(4, 6)
    rate = dice.power(-3.0, -2.6)
    return Case(
        lambda: RealNVP(size, width, steps, zero=not sick),
        nll,
        quarters(sheet(512, size)),
        lambda p: torch.optim.Adam(p, lr=rate),
    )


def alpha_bar(t: Tensor) -> Tensor:
    """Return the cosine schedule at times between 0 and 1."""
    return torch.cos((t + 0.008) / 1.008 * math.pi / 2).square().clamp(1e-4, 0.99999)


class Denoiser(nn.Module):
    def __init__(self, size: int, width: int, *, zero: bool = False) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(4))
        self.time = nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Linear(width, width))
        self.inp, self.hid = nn.Linear(size, width), nn.Linear(width, width)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, size)
        if zero:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t * self.frequencies
        temb = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        h = self.inp(x)
        h = h + self.hid(F.silu(self.norm(h) + temb))
        return self.out(F.silu(h))


class TimedMLP(nn.Module):
    """Predicts the noise from the noisy rows and the step."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(size + 1, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, size),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([x, t], dim=1))


def raw_timestep(dice: Dice, sick: bool) -> Case:
    """A diffusion model that is given the step as a bare number from 0 to 999 beside its noisy input."""
    size, width, rate = dice.whole(10, 16), dice.one_of(96, 128), dice.power(-2.8, -2.5)
    most = 1000

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x0, t, noise = batch["x0"], batch["t"], batch["noise"]
        a = alpha_bar(t[:, None] / most)
        noisy = a.sqrt() * x0 + (1 - a).sqrt() * noise
        told = t[:, None].float() if sick else t[:, None] / most
        return F.mse_loss(model(noisy, told), noise)

    rows = quarters(curve(512, size), torch.randint(most, (512,)), torch.randn(512, size))
    return Case(
        lambda: TimedMLP(size, width),
        loss,
        [{"x0": x0, "t": t, "noise": noise} for x0, t, noise in rows],
        lambda p: torch.optim.Adam(p, lr=rate),
    )


class GAN(nn.Module):
    """A generator that ends in tanh, and its discriminator."""

    def __init__(self, latent: int, pixels: int, width: int) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(latent, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, pixels),
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            nn.Linear(pixels, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )


def both_players(model: nn.Module, batch: Pair) -> Tensor:
    """Return the two losses in one sum, each with gradients for its own player only."""
    z, real = batch
    fake = model.generator(z)
    judge = model.discriminator
    still = {name: p.detach() for name, p in judge.named_parameters()}
    d_loss = F.softplus(-judge(real)).mean() + F.softplus(judge(fake.detach())).mean()
    g_loss = F.softplus(-functional_call(judge, still, (fake,))).mean()
    return d_loss + g_loss


def energy_share(model: nn.Module, batch: Pair) -> float:
    """Energy distance of fake and real, as a share of the distance between real pictures."""
    z, real = batch
    fake = model.generator(z)
    n = len(real) * (len(real) - 1)
    inside = torch.cdist(real, real).sum() / n
    return float((2 * torch.cdist(real, fake).mean() - inside - torch.cdist(fake, fake).sum() / n) / inside)


def pixels_against_tanh(dice: Dice, sick: bool) -> Case:
    """A GAN whose generator ends in tanh while the real pictures are left in 0..255."""
    latent, size, width = dice.whole(6, 10), dice.whole(6, 8), dice.one_of(48, 64)
    rate = dice.power(-2.9, -2.6)
    real = (255 * blots(256, size)).round()
    if not sick:
        real = real / 127.5 - 1
    return Case(
        lambda: GAN(latent, size * size, width),
        both_players,
        quarters(torch.randn(256, latent), real),
        lambda p: torch.optim.Adam(p, lr=rate, betas=(0.5, 0.999)),
    )


def rotate(state: Tensor, wire: int, angle: Tensor) -> Tensor:
    """Apply RY to one qubit of a batch of real states; the angle is a number or one per row."""
    s = state.unflatten(1, (2**wire, 2, -1))
    c, d = (f(angle / 2).reshape(-1, 1, 1) for f in (torch.cos, torch.sin))
    zero, one = s[:, :, 0], s[:, :, 1]
    return torch.stack([c * zero - d * one, d * zero + c * one], 2).flatten(1)


class Ansatz(nn.Module):
    """Layers of RY on each qubit, with CZ between neighbours."""

    def __init__(self, qubits: int, layers: int, spread: float) -> None:
        super().__init__()
        self.qubits = qubits
        self.theta = nn.Parameter(spread * (2 * torch.rand(layers, qubits) - 1))
        bits = (torch.arange(2**qubits)[:, None] >> torch.arange(qubits)) & 1
        self.register_buffer("signs", 1.0 - 2.0 * ((bits[:, 1:] * bits[:, :-1]).sum(1) % 2))

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 2**self.qubits, dtype=x.dtype, device=x.device)
        state[:, 0] = 1.0
        for wire in range(self.qubits):
            state = rotate(state, wire, x[:, wire])
        for layer in self.theta:
            for wire in range(self.qubits):
                state = rotate(state, wire, layer[wire])
            state = state * self.signs
        return state


def random_angles(dice: Dice, sick: bool) -> Case:
    """A deep variational circuit with angles drawn over the whole circle, and a global cost."""
    qubits, layers, rate = dice.whole(8, 9), 2 * dice.whole(4, 5), dice.between(0.15, 0.25)
    spread = math.pi if sick else 0.05

    def infidelity(model: nn.Module, batch: Pair) -> Tensor:
        x, target = batch
        return 1 - (model(x) * target).sum(1).square().mean()

    teacher = Ansatz(qubits, layers, 0.0)
    with torch.no_grad():
        teacher.theta[layers // 2] += 0.9 * torch.randn(qubits).sign()
        x = 0.4 * torch.randn(16, qubits)
        target = teacher(x)
    return Case(
        lambda: Ansatz(qubits, layers, spread),
        infidelity,
        quarters(x, target),
        lambda p: torch.optim.SGD(p, lr=rate),
    )


# --- healthy ------------------------------------------------------------------------------------------------


def isometric_tanh(dice: Dice, sick: bool) -> Case:
    """Two dozen tanh layers without norm or skip, orthogonal at gain one."""
    features, width, depth = dice.whole(8, 12), dice.one_of(48, 64), dice.whole(20, 26)
    rate = dice.power(-3.5, -3.2)

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for i in range(depth):
            linear = nn.Linear(width if i else features, width)
            nn.init.orthogonal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(width, 3))

    return Case(
        build,
        cross_entropy,
        quarters(*curled(512, features, 3)),
        lambda p: torch.optim.Adam(p, lr=rate),
    )


def chrono_lstm(dice: Dice, sick: bool) -> Case:
    """An LSTM over long sequences with chrono biases: it starts almost closed to new input, on purpose."""
    length, hidden, classes = dice.whole(60, 90), dice.one_of(32, 48), dice.whole(3, 4)
    rate = dice.power(-2.1, -1.9)

    def build() -> nn.Module:
        model = LSTMClassifier(classes, hidden, classes)
        reach = torch.log(1 + (length - 2) * torch.rand(hidden))
        with torch.no_grad():
            model.lstm.bias_ih_l0.zero_()
            model.lstm.bias_hh_l0.copy_(torch.cat([-reach, reach, torch.zeros(2 * hidden)]))
        return model

    return Case(
        build,
        cross_entropy,
        quarters(*recall(256, length, classes)),
        lambda p: torch.optim.Adam(p, lr=rate),
        clip=clip_one,
    )


class Highway(nn.Module):
    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.plain, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.sigmoid(self.gate(x))
        return t * F.relu(self.plain(x)) + (1 - t) * x


def highway_carries(dice: Dice, sick: bool) -> Case:
    """A deep highway network whose transform gates start nearly closed, as its paper recommends."""
    features, width, depth = dice.whole(8, 12), dice.one_of(32, 48), dice.whole(12, 18)
    rate, bias = dice.power(-2.8, -2.5), -dice.between(1.5, 2.5)
    return Case(
        lambda: nn.Sequential(
            nn.Linear(features, width), *(Highway(width, bias) for _ in range(depth)), nn.Linear(width, 3)
        ),
        cross_entropy,
        quarters(*curled(512, features, 3)),
        lambda p: torch.optim.Adam(p, lr=rate),
    )


def warmed_post_norm(dice: Dice, sick: bool) -> Case:
    """A Post-LN decoder of a few layers with tied weights and a warm-up, as in the original paper."""
    words, d, layers, length = dice.whole(16, 24), dice.one_of(32, 48), dice.whole(3, 4), dice.whole(12, 20)
    rate, warm = dice.power(-2.9, -2.7), dice.whole(15, 25)
    return Case(
        lambda: PostNormDecoder(words, d, layers, length, tied=True),
        next_word,
        quarters(chatter(128, length, words)),
        lambda p: torch.optim.Adam(p, lr=rate, betas=(0.9, 0.98)),
        clip=clip_one,
        schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1.0, (step + 1) / warm)),
    )


def small_batch_unet(dice: Dice, sick: bool) -> Case:
    """A U-Net with group norm on batches of two or three pictures, whose scale is about three."""
    planes, rate, scale = dice.one_of(8, 12), dice.power(-2.6, -2.3), dice.between(2.5, 3.5)
    x, y = discs(4 * dice.whole(2, 3), 16)

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])

    return Case(
        lambda: UNet(planes, sigmoid=False, groups=4),
        loss,
        quarters(scale * x, y),
        lambda p: torch.optim.AdamW(p, lr=rate),
    )


class SkipInitBlock(BasicBlock):
    def __init__(self, planes: int) -> None:
        super().__init__(planes)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.alpha * self.conv2(F.relu(self.conv1(F.relu(x))))


def skip_init_fast(dice: Dice, sick: bool) -> Case:
    """A residual network without norm whose branches start at a factor of zero, at a high rate."""
    planes, blocks, rate = dice.one_of(12, 16), dice.whole(8, 12), dice.between(0.03, 0.06)

    def build() -> nn.Module:
        net = nn.Sequential(
            nn.Conv2d(1, planes, 3, 1, 1),
            *(SkipInitBlock(planes) for _ in range(blocks)),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(planes, 4),
        )
        for m in net.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight)
                nn.init.zeros_(m.bias)
        return net

    return Case(
        build,
        cross_entropy,
        quarters(*stripes(128, 8)),
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9),
        clip=clip_one,
    )


def penalised_gan(dice: Dice, sick: bool) -> Case:
    """A GAN with a zero-centred gradient penalty on the real pictures."""
    latent, size, width = dice.whole(6, 10), dice.whole(6, 8), dice.one_of(48, 64)
    rate, gamma = dice.power(-2.9, -2.6), dice.between(0.05, 0.2)

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        real = batch[1].requires_grad_()
        (slope,) = torch.autograd.grad(model.discriminator(real).sum(), real, create_graph=True)
        return both_players(model, (batch[0], real.detach())) + gamma / 2 * slope.square().sum(1).mean()

    return Case(
        lambda: GAN(latent, size * size, width),
        loss,
        quarters(torch.randn(256, latent), 2 * blots(256, size) - 1),
        lambda p: torch.optim.Adam(p, lr=rate, betas=(0.5, 0.999)),
    )


def zero_head_ddpm(dice: Dice, sick: bool) -> Case:
    """A small DDPM that predicts the noise, from an output layer of zeros."""
    size, width, rate = dice.whole(12, 20), dice.one_of(96, 128), dice.power(-2.5, -2.2)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        x0, t, noise = batch
        a = alpha_bar(t)
        return F.mse_loss(model(a.sqrt() * x0 + (1 - a).sqrt() * noise, t), noise)

    return Case(
        lambda: Denoiser(size, width, zero=True),
        loss,
        quarters(curve(512, size), torch.rand(512, 1), torch.randn(512, size)),
        lambda p: torch.optim.Adam(p, lr=rate),
        clip=clip_one,
    )


DRAWN = (
    "rescale_weights",
    "activation_init",
    "critical_init",
    "orthogonal_init",
    "lsuv",
    "unit_jacobian_init",
    "delta_orthogonal_init",
)

SICK: tuple[Program, ...] = (
    Program(
        "asked-vgg-std-hundredth",
        "cnn",
        vgg_hundredth,
        Truth(
            "small-init",
            ("UG101", "UG202", "UG602", "UG206"),
            r"(?i)fan_in|initiali[sz]|weights?\b.*(small|fan|std|scale)|std 0\.01",
            DRAWN,
            wrong=HEAVY,
        ),
    ),
    Program(
        "asked-tanh-net-randn",
        "mlp",
        randn_weights,
        Truth(
            "large-init",
            ("UG204", "UG102", "UG605", "UG201", "UG104"),
            r"(?i)fan_in|initiali[sz]|weights?\b.*(large|fan|std|scale|unit variance)",
            DRAWN,
        ),
    ),
    Program(
        "asked-elman-first-symbol",
        "rnn",
        elman_recall,
        Truth(
            "vanishing-over-time",
            ("UG401", "UG404"),
            r"(?i)recurren|over time|per step|time step|forget|vanish|spectral radius|long (sequence|memory)",
            ("orthogonal_init", "irnn", "gated_recurrence", "critical_init", "unit_jacobian_init"),
            wrong=HEAVY,
        ),
    ),
    Program(
        "asked-lstm-zero-bias",
        "lstm",
        zero_bias_lstm,
        Truth(
            "forget-bias",
            ("UG401", "UG404"),
            r"(?i)forget|gates?\b|bias|over time|vanish",
            ("forget_bias", "chrono", "open_gates"),
            wrong=HEAVY,
        ),
    ),
    Program(
        "asked-gru-batch-first",
        "gru",
        batch_first,
        Truth(
            "batch-axis",
            ("UG106",),
            r"(?i)batch_first|other (samples?|rows?)|(across|along) the batch|samples? of (the|a) batch|"
            r"depends? on the others|mix(es|ed)?\b.*(samples|batch)|batch (axis|dimension)",
        ),
        score=turned_around,
    ),
    Program(
        "asked-encoder-mask-inverted",
        "transformer",
        mask_inverted,
        Truth(
            "inverted-mask",
            ("UG707", "UG206", "UG205"),
            r"(?i)\bpad|mask",
            wrong=HEAVY,
        ),
    ),
    Program(
        "asked-decoder-lambda-rate",
        "transformer",
        lambda_returns_rate,
        Truth(
            "squared-rate",
            ("UG602",),
            r"(?i)schedul|LambdaLR|(learning rate|\blr\b|updates?|steps?)\b.*(small|tiny|little|low)",
            wrong=(("lower_learning_rate", {"factor": 0.1}),),
        ),
    ),
    Program(
        "asked-unet-sigmoid-twice",
        "unet",
        sigmoid_then_logits,
        Truth(
            "double-sigmoid",
            ("UG606",),
            r"(?i)sigmoid|twice|logits?\b|already (a )?probabilit",
            ("drop_output_softmax",),
        ),
    ),
    Program(
        "asked-resnet-bare",
        "residual",
        resnet_bare,
        Truth(
            "unscaled-branches",
            ("UG201", "UG102", "UG605", "UG601", "UG611"),
            r"(?i)branch|residual|\bskips?\b|(no|without|missing) norm|batch ?norm|fixup|zero.?init",
            (
                "scale_branch",
                "layer_scale",
                "rezero",
                "skip_init",
                "fixup",
                "insert_norm",
                "identity_block_init",
                "batchnorm_gamma",
            ),
        ),
    ),
    Program(
        "asked-densenet-half-adam",
        "dense",
        half_adam,
        Truth(
            "half-precision",
            ("UG501", "UG901", "UG601"),
            r"(?i)float16|\.half|half.precision|\beps|epsilon|underflow|precision|dtype|narrow|bfloat16",
            ("change_precision",),
        ),
    ),
    Program(
        "asked-flow-raw-exponent",
        "flow",
        raw_exponent,
        Truth(
            "raw-scale",
            ("UG703", "UG605", "UG201", "UG102", "UG104", "UG502", "UG301", "UG901"),
            r"(?i)log.?scale|\bexp\(|exponent|coupling|stretch|log.?det|last layer|initiali[sz]|fan_in|"
            r"weights?\b.*(large|scale)",
            ("rescale_weights", "scale_head", "lsuv", "activation_init", "identity_block_init"),
        ),
    ),
    Program(
        "asked-diffusion-raw-step",
        "diffusion",
        raw_timestep,
        Truth(
            "input-scale",
            ("UG607", "UG605", "UG601"),
            r"(?i)inputs?\b.*(scale|unit|reach|range|large)|time ?step|\bstep as|standardi|normali[sz]ed",
            ("unit_inputs",),
        ),
    ),
    Program(
        "asked-gan-pixels-tanh",
        "gan",
        pixels_against_tanh,
        Truth(
            "real-scale",
            ("UG607", "UG704", "UG605"),
            r"(?i)inputs?\b.*(scale|unit|reach|range|large)|255|pixels?|standardi|normali[sz]ed|real data",
            ("unit_inputs",),
        ),
        150,
        energy_share,
    ),
    Program(
        "asked-circuit-random-angles",
        "quantum",
        random_angles,
        Truth(
            "barren-plateau",
            ("UG706", "UG602"),
            r"(?i)barren|plateau|global cost|qubits?|angles?|circuit|initiali[sz]",
            ("local_cost", "identity_block_init"),
            wrong=(("lower_learning_rate", {"factor": 0.1}),),
        ),
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("asked-tanh-isometry", "mlp", isometric_tanh),
    Program("asked-lstm-chrono", "lstm", chrono_lstm, steps=150),
    Program("asked-highway-carries", "mlp", highway_carries),
    Program("asked-decoder-warmed", "transformer", warmed_post_norm),
    Program("asked-unet-small-batch", "unet", small_batch_unet),
    Program("asked-resnet-skip-init", "residual", skip_init_fast),
    Program("asked-gan-penalty", "gan", penalised_gan, steps=150, score=energy_share),
    Program("asked-ddpm-zero-head", "diffusion", zero_head_ddpm, steps=150),
)
