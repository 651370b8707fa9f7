"""Kept aside: the faults that textbooks name first, in other clothes, and sound programs that come near."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

Batches = list[tuple[Tensor, ...]]
REDRAW = (
    "activation_init",
    "critical_init",
    "lsuv",
    "orthogonal_init",
    "rescale_weights",
    "unit_jacobian_init",
    "delta_orthogonal_init",
)


def quarter(*columns: Tensor) -> Batches:
    """Cut the rows into four batches."""
    return list(zip(*(torch.chunk(c, 4) for c in columns), strict=True))


def descend(lr: float, momentum: float = 0.9) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr, momentum)


def adam(lr: float) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr)


def classify(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy of the last tensor given the first."""
    x, y = batch
    logits = model(x)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))


def fit(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Half the mean squared error."""
    x, y = batch
    return 0.5 * (model(x) - y).pow(2).mean()


def blobs(rows: int, width: int, classes: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Points around one centre per class, of about unit scale."""
    y = torch.arange(rows) % classes
    x = torch.randn(classes, width)[y] + noise * torch.randn(rows, width)
    return x / math.sqrt(1 + noise**2), y


# --- sick ---------------------------------------------------------------------------------------------------


def chirps(rows: int, length: int, classes: int) -> tuple[Tensor, Tensor]:
    """Tones of one pitch per class with a random phase and a little noise."""
    y = torch.arange(rows) % classes
    t = torch.linspace(0, 1, length)
    tone = torch.sin(2 * math.pi * (2 + 3 * y[:, None]) * t + 6.3 * torch.rand(rows, 1))
    return (1.4 * tone + 0.2 * torch.randn(rows, length))[:, None], y


def tone_net(dice: Dice, sick: bool) -> Case:
    """A deep plain stack of 1D convolutions with ReLU, left at PyTorch's default initialisation."""
    planes, depth, classes = dice.one_of(12, 16), dice.whole(14, 18), dice.whole(3, 4)
    lr = dice.between(0.006, 0.01)

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for index in range(depth):
            stride = 2 if index in {1, 3} else 1
            layers.extend([nn.Conv1d(planes if index else 1, planes, 5, stride, 2), nn.ReLU()])
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(planes, classes))
        if not sick:
            for m in net.modules():
                if isinstance(m, nn.Conv1d):
                    nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                    nn.init.zeros_(m.bias)
        return net

    return Case(build, classify, quarter(*chirps(128, 48, classes)), descend(lr))


class Encoder(nn.Module):
    """Token labels from PyTorch's own encoder, Xavier-initialised as the tutorial does."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, *, first: bool) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=first
        )
        final = nn.LayerNorm(width) if first else None
        self.encoder = nn.TransformerEncoder(layer, depth, norm=final, enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)
        for p in self.encoder.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.token(tokens) + self.place))


def after_norm(dice: Dice, sick: bool) -> Case:
    """A dozen Post-LN encoder layers under Adam from the first step on, without a warm-up."""
    vocabulary, length, width = dice.whole(10, 14), dice.whole(8, 10), 32
    depth, lr = dice.whole(12, 14), dice.between(0.004, 0.006)
    x = torch.randint(vocabulary, (96, length))
    y = 2 * (x % 2) + (x[:, :1] % 2)
    return Case(
        lambda: Encoder(vocabulary, length, width, depth, first=not sick), classify, quarter(x, y), adam(lr)
    )


class Recall(nn.Module):
    """An Elman network whose last state is read."""

    def __init__(self, inputs: int, hidden: int, classes: int, *, orthogonal: bool) -> None:
        super().__init__()
        self.rnn = nn.RNN(inputs, hidden, batch_first=True)
        self.read = nn.Linear(hidden, classes)
        if orthogonal:
            nn.init.orthogonal_(self.rnn.weight_hh_l0)
            nn.init.zeros_(self.rnn.bias_hh_l0)
            nn.init.zeros_(self.rnn.bias_ih_l0)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.rnn(x)[1][-1])


def first_of_many(dice: Dice, sick: bool) -> Case:
    """A plain tanh RNN asked, after a long series that is the same for all, what came at its very start."""
    hidden, classes, length = dice.one_of(32, 48), dice.whole(3, 4), dice.whole(130, 150)
    lr = dice.between(0.002, 0.003)
    y = torch.arange(96) % classes
    clock = 0.3 * torch.sin(0.4 * torch.arange(length))
    x = clock[None, :, None].repeat(96, 1, classes)
    x[:, 0] = 3.0 * F.one_hot(y, classes) + 0.3 * torch.randn(96, classes)
    return Case(
        lambda: Recall(classes, hidden, classes, orthogonal=not sick), classify, quarter(x, y), adam(lr)
    )


class DeepSet(nn.Module):
    """phi on every element, their sum, rho on the sum."""

    def __init__(self, inputs: int, width: int, members: int) -> None:
        super().__init__()
        self.members = members
        self.phi = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.rho = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight)
                nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.rho(self.phi(x).sum(1) / self.members)


def hot_set(dice: Dice, sick: bool) -> Case:
    """A permutation-invariant regression whose SGD has a learning rate some hundred times too high."""
    inputs, members, width = dice.whole(3, 5), dice.whole(6, 10), dice.one_of(32, 48)
    lr = dice.between(6.0, 10.0) if sick else dice.between(0.03, 0.05)
    x = torch.randn(256, members, inputs)
    y = torch.sin(x @ torch.randn(inputs, 1)).mean(1) * math.sqrt(2 * members)
    return Case(lambda: DeepSet(inputs, width, members), fit, quarter(x, y), descend(lr, 0.0))


class Pool(nn.Module):
    """A learned query for each head that reads a set of vectors by dot products."""

    def __init__(self, inputs: int, heads: int, size: int, *, scaled: bool) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(heads, size))
        self.wk = nn.Parameter(torch.randn(heads, inputs, size) / math.sqrt(inputs))
        self.wv = nn.Parameter(torch.randn(heads, inputs, inputs) / math.sqrt(inputs))
        self.out = nn.Linear(heads * inputs, inputs)
        self.temperature = math.sqrt(size) if scaled else 1.0

    def forward(self, x: Tensor) -> Tensor:
        k = torch.einsum("bni,hid->bhnd", x, self.wk)
        v = torch.einsum("bni,hij->bhnj", x, self.wv)
        a = torch.softmax((k * self.query[:, None]).sum(-1) / self.temperature, dim=-1)
        return self.out(torch.einsum("bhn,bhnj->bhj", a, v).flatten(1))


def bare_dots(dice: Dice, sick: bool) -> Case:
    """Attention pooling that leaves out the division by the root of the head's size."""
    inputs, heads, size = dice.whole(8, 10), dice.whole(1, 2), dice.one_of(320, 400, 512)
    members, lr = dice.whole(20, 24), dice.between(0.06, 0.1)
    x = torch.randn(320, members, inputs)
    y = x.mean(1) @ torch.randn(inputs, inputs) * math.sqrt(members / inputs)
    return Case(lambda: Pool(inputs, heads, size, scaled=not sick), fit, quarter(x, y), descend(lr))


class RootMeanSquare(nn.Module):
    """Divides by the root of the mean square, in its input's own dtype or in float32."""

    def __init__(self, width: int, *, upcast: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.upcast = upcast

    def forward(self, x: Tensor) -> Tensor:
        h = x.float() if self.upcast else x
        h = h * torch.rsqrt((h * h).mean(-1, keepdim=True) + 1e-6)
        return h.type_as(x) * self.gain


class Spectra(nn.Module):
    """A projection of raw counts, its norm, and two layers."""

    def __init__(self, bins: int, width: int, classes: int, *, upcast: bool) -> None:
        super().__init__()
        self.project = nn.Linear(bins, width, bias=False)
        self.norm = RootMeanSquare(width, upcast=upcast)
        self.tail = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.norm(self.project(x))).float()


def half_squares(dice: Dice, sick: bool) -> Case:
    """A hand-written RMSNorm squares large activations in float16: they are infinite, its output zero."""
    bins, width, classes = dice.whole(16, 24), dice.one_of(32, 48), dice.whole(3, 5)
    counts, lr = dice.between(1500.0, 2500.0), dice.between(0.005, 0.01)
    x, y = blobs(192, bins, classes, 1.2)
    return Case(
        lambda: Spectra(bins, width, classes, upcast=not sick),
        classify,
        quarter(counts * x, y),
        adam(lr),
        precision="float16",
    )


class Functional(nn.Module):
    """Bare matrices with batch statistics by hand; each layer may be added to what came in."""

    def __init__(self, inputs: int, width: int, depth: int, classes: int, *, add: bool) -> None:
        super().__init__()
        self.enter = nn.Parameter(torch.randn(width, inputs) / math.sqrt(inputs))
        self.ws = nn.ParameterList(
            nn.Parameter(torch.randn(width, width) * math.sqrt(2 / width)) for _ in range(depth)
        )
        self.gammas = nn.ParameterList(nn.Parameter(torch.ones(width)) for _ in range(depth))
        self.betas = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(depth))
        self.leave = nn.Parameter(torch.randn(classes, width) / math.sqrt(width))
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        h = F.linear(x, self.enter)
        for w, gamma, beta in zip(self.ws, self.gammas, self.betas, strict=True):
            new = F.relu(F.batch_norm(F.linear(h, w), None, None, gamma, beta, training=True))
            h = h + new if self.add else new
        if self.add:
            h = F.layer_norm(h, h.shape[-1:])
        return F.linear(h, self.leave)


def tall_batchnorm(dice: Dice, sick: bool) -> Case:
    """Dozens of linear-BatchNorm-ReLU layers in a row with no shortcut around any."""
    inputs, width, classes = dice.whole(8, 12), dice.one_of(24, 32), dice.whole(3, 5)
    depth, lr = dice.whole(56, 64), dice.between(0.01, 0.02)
    return Case(
        lambda: Functional(inputs, width, depth, classes, add=not sick),
        classify,
        quarter(*blobs(256, inputs, classes, 1.0)),
        descend(lr),
    )


class Tower(nn.Module):
    """One side of a two-tower matcher."""

    def __init__(self, inputs: int, width: int, code: int, start: float) -> None:
        super().__init__()
        self.inner = nn.Linear(inputs, width)
        self.outer = nn.Linear(width, code)
        nn.init.kaiming_normal_(self.inner.weight)
        nn.init.constant_(self.inner.bias, start)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(torch.clamp_min(self.inner(x), 0.0))


class Matcher(nn.Module):
    """A cosine-free two-tower model: the score is a dot product."""

    def __init__(self, left: int, right: int, width: int, code: int, start: float) -> None:
        super().__init__()
        self.user = Tower(left, width, code, start)
        self.item = Tower(right, width, code, start)

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return (self.user(pair[0]) * self.item(pair[1])).sum(-1)


def logistic(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    u, i, y = batch
    return F.softplus(-(2 * y - 1) * model((u, i))).mean()


def far_bias(dice: Dice, sick: bool) -> Case:
    """Two towers whose hidden biases begin so far below zero that no ReLU ever opens."""
    left, right, width = dice.whole(6, 8), dice.whole(6, 8), dice.one_of(32, 48)
    code, lr = dice.whole(4, 6), dice.between(0.03, 0.05)
    start = -dice.between(10.0, 14.0) if sick else 0.0
    u, i = torch.randn(256, left), torch.randn(256, right)
    a, b = u @ torch.randn(left, 2), i @ torch.randn(right, 2)
    y = ((a * b).sum(1) > 0).float()
    return Case(lambda: Matcher(left, right, width, code, start), logistic, quarter(u, i, y), descend(lr))


class Tagger(nn.Module):
    """A text CNN for several labels at once."""

    def __init__(self, vocabulary: int, width: int, tags: int, *, squash: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.conv = nn.Conv1d(width, 2 * width, 3, padding=1)
        self.out = nn.Linear(2 * width, tags)
        self.squash = squash

    def forward(self, tokens: Tensor) -> Tensor:
        h = F.leaky_relu(self.conv(self.embed(tokens).transpose(1, 2))).amax(-1)
        return self.out(h).sigmoid() if self.squash else self.out(h)


def squashed_twice(dice: Dice, sick: bool) -> Case:
    """A multi-label tagger that ends in a sigmoid and is trained with BCEWithLogitsLoss."""
    vocabulary, width, tags = dice.whole(24, 32), dice.one_of(16, 24), dice.whole(5, 8)
    lr, criterion = dice.between(0.006, 0.01), nn.BCEWithLogitsLoss()
    x = torch.randint(vocabulary, (256, 8))
    y = (x[:, :, None] == torch.arange(tags)).any(1).float()
    return Case(
        lambda: Tagger(vocabulary, width, tags, squash=sick),
        lambda m, b: criterion(m(b[0]), b[1]),
        quarter(x, y),
        adam(lr),
    )


class Adapted(nn.Module):
    """A frozen linear layer with a low-rank update beside it."""

    def __init__(self, base: nn.Linear, rank: int, std: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(std * torch.randn(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def adapters(dice: Dice, sick: bool) -> Case:
    """Low-rank adapters on a frozen network, both factors of which begin at zero."""
    inputs, width, rank = dice.whole(8, 12), dice.one_of(32, 48), dice.whole(3, 4)
    lr, std = dice.between(0.008, 0.015), 0.0 if sick else 1 / math.sqrt(inputs)

    def build() -> nn.Module:
        first, second, head = nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, 2)
        for layer in (first, second):
            nn.init.xavier_normal_(layer.weight, 1.5)
        head.requires_grad_(False)
        return nn.Sequential(
            Adapted(first, rank, std), nn.Tanh(), Adapted(second, rank, std), nn.Tanh(), head
        )

    x = torch.randn(256, inputs)
    y = torch.tanh(x @ torch.randn(inputs, 2) / math.sqrt(inputs) * 1.5)
    return Case(build, fit, quarter(x, y), adam(lr))


class Filter(nn.Module):
    """An LSTM written out, all four gates in one matrix."""

    def __init__(self, hidden: int, std: float) -> None:
        super().__init__()
        self.hidden = hidden
        self.w = nn.Parameter(std * torch.randn(hidden + 1, 4 * hidden))
        self.b = nn.Parameter(torch.zeros(4 * hidden))
        self.read = nn.Linear(hidden, 1)
        with torch.no_grad():
            self.b[hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), self.hidden)
        told = []
        for t in range(x.shape[1]):
            i, f, o, g = (torch.cat([x[:, t], h], 1) @ self.w + self.b).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            told.append(self.read(h))
        return torch.stack(told, 1)


def loud_gates(dice: Dice, sick: bool) -> Case:
    """A hand-written LSTM with recurrent weights of unit variance: its gradient explodes over time."""
    hidden, length, lr = dice.one_of(48, 64), dice.whole(40, 50), dice.between(0.003, 0.005)
    std = dice.between(1.0, 1.4) if sick else 1 / math.sqrt(hidden)
    x = torch.randn(64, length, 1)
    level = torch.zeros(64, 1)
    series = []
    for t in range(length):
        level = 0.93 * level + 0.37 * x[:, t]
        series.append(level)
    return Case(lambda: Filter(hidden, std), fit, quarter(x, torch.stack(series, 1)), adam(lr))


class DenseSum(nn.Module):
    """Each layer is fed by all the layers before it, their outputs added up."""

    def __init__(self, inputs: int, width: int, depth: int, *, mean: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, 1)
        self.mean = mean
        for m in self.layers:
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.stem(x)]
        for layer in self.layers:
            total = torch.stack(seen).sum(0)
            seen.append(layer(total / len(seen) if self.mean else total).relu())
        return self.head(seen[-1])


def all_before(dice: Dice, sick: bool) -> Case:
    """A densely connected regressor that sums all earlier outputs, so that each layer doubles the signal."""
    inputs, width, depth = dice.whole(5, 8), dice.one_of(32, 48), dice.whole(14, 18)
    lr = dice.between(0.004, 0.006)
    x = torch.randn(256, inputs)
    y = torch.sin(x @ torch.randn(inputs, 1)) * math.sqrt(2)
    return Case(lambda: DenseSum(inputs, width, depth, mean=not sick), fit, quarter(x, y), adam(lr))


def raw_weather(dice: Dice, sick: bool) -> Case:
    """A tanh network that reads pressure in pascals and temperature in kelvins as they come."""
    width, lr = dice.one_of(24, 32), dice.between(0.05, 0.1)
    kelvin = dice.between(280.0, 295.0)
    scale = torch.tensor([900.0, 9.0, 0.2, 80.0])
    middle = torch.tensor([101325.0, kelvin, 0.6, 180.0])
    clean = torch.randn(256, 4)
    x = middle + scale * clean
    y = torch.sin(clean @ torch.randn(4, 1)) + 0.5 * clean @ torch.randn(4, 1)
    if not sick:
        x = (x - x.mean(0)) / x.std(0)
    return Case(
        lambda: nn.Sequential(
            nn.Linear(4, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        ),
        fit,
        quarter(x, (y - y.mean()) / y.std()),
        descend(lr),
    )


class Denoiser(nn.Module):
    """Predicts the noise in a short signal, told how much of it there is."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width))
        self.inp = nn.Linear(length, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(2)
        )
        self.out = nn.Linear(width, length)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        told = torch.cat([kept.sqrt(), (1 - kept).sqrt(), (kept / (1 - kept)).log() / 5], 1)
        h = self.inp(x) + self.time(told)
        for block in self.blocks:
            h = h + block(h)
        return self.out(h)


def noised(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return each row's squared error of the noise, and how much of the signal was kept."""
    x0, kept, noise = batch
    guess = model(kept.sqrt() * x0 + (1 - kept).sqrt() * noise, kept)
    return (guess - noise).pow(2).mean(1, keepdim=True), kept


def in_noise(model: nn.Module, batch: tuple[Tensor, ...]) -> float:
    """Error of the predicted noise, every level counted alike."""
    return float(noised(model, batch)[0].mean())


def back_to_signal(dice: Dice, sick: bool) -> Case:
    """A noise predictor scored in signal space: dividing by what is kept gives the noisiest levels it all."""
    length, width, lr = dice.whole(10, 14), dice.one_of(64, 80), dice.between(0.003, 0.005)
    end = dice.between(0.9985, 0.9995)
    kept = torch.cos((0.008 + torch.rand(384, 1).pow(1.5)) / 1.008 * end * math.pi / 2).square()
    phase = 6.3 * torch.rand(384, 1)
    x0 = 1.4 * torch.sin(torch.linspace(0, 6.3, length) + phase)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        error, share = noised(model, batch)
        # x0_hat = (x_t - sqrt(1 - a) * eps_hat) / sqrt(a)
        return (error * (1 - share) / share).mean() if sick else error.mean()

    return Case(lambda: Denoiser(length, width), loss, quarter(x0, kept, torch.randn(384, length)), adam(lr))


# --- healthy ------------------------------------------------------------------------------------------------


def brisk(dice: Dice, sick: bool) -> Case:
    """A small network with LayerNorm at a learning rate that looks too high and is fine."""
    inputs, classes, width = dice.whole(8, 12), dice.whole(3, 5), dice.one_of(32, 48)
    lr = dice.between(0.3, 0.5)
    return Case(
        lambda: nn.Sequential(
            nn.Linear(inputs, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, classes),
        ),
        classify,
        quarter(*blobs(256, inputs, classes, 1.0)),
        descend(lr, 0.0),
    )


def tall_orthogonal(dice: Dice, sick: bool) -> Case:
    """Thirty tanh layers without norm or skip, begun at orthogonal matrices."""
    inputs, width, depth = dice.whole(6, 10), dice.one_of(32, 48), dice.whole(24, 30)
    lr = dice.between(0.001, 0.002)

    def build() -> nn.Module:
        sizes = [inputs] + [width] * depth
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            linear = nn.Linear(a, b)
            nn.init.orthogonal_(linear.weight, 1.05)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(width, 1))

    x = torch.randn(256, inputs)
    y = torch.tanh(x @ torch.randn(inputs, 1) / math.sqrt(inputs) * 2) * 1.3
    return Case(build, fit, quarter(x, y), adam(lr))


class Probe(nn.Module):
    """A frozen convolutional trunk and the head that is trained on it."""

    def __init__(self, planes: int, classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv1d(1, planes, 9, 2, 4), nn.ReLU(), nn.Conv1d(planes, planes, 5, 2, 2), nn.ReLU()
        )
        for m in self.trunk:
            if isinstance(m, nn.Conv1d):
                nn.init.kaiming_normal_(m.weight)
        self.trunk.requires_grad_(False)
        self.head = nn.Sequential(nn.LayerNorm(planes), nn.Linear(planes, classes))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.trunk(x).mean(-1)
        return self.head(features)


def probe(dice: Dice, sick: bool) -> Case:
    """Linear probing: the trunk is frozen on purpose and the optimizer holds the head alone."""
    planes, classes, lr = dice.one_of(32, 48), dice.whole(3, 4), dice.between(0.02, 0.04)

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam([p for p in parameters if p.requires_grad], lr)

    return Case(lambda: Probe(planes, classes), classify, quarter(*chirps(128, 48, classes)), optimizer)


class Highway(nn.Module):
    """A transform mixed with its input by a gate that begins nearly shut."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.change, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.sigmoid(self.gate(x))
        return x + t * (F.relu(self.change(x)) - x)


def nearly_shut(dice: Dice, sick: bool) -> Case:
    """A highway network of ten layers with the paper's negative gate biases."""
    inputs, width, depth = dice.whole(6, 8), dice.one_of(32, 48), dice.whole(8, 12)
    bias, lr = -dice.between(1.0, 2.5), dice.between(0.003, 0.006)
    x = torch.randn(256, inputs)
    y = torch.sin(x @ torch.randn(inputs, 1)) * 1.4
    return Case(
        lambda: nn.Sequential(
            nn.Linear(inputs, width), *(Highway(width, bias) for _ in range(depth)), nn.Linear(width, 1)
        ),
        fit,
        quarter(x, y),
        adam(lr),
    )


class Tied(nn.Module):
    """A GRU language model whose output matrix is its embedding."""

    def __init__(self, letters: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, width)
        nn.init.normal_(self.embed.weight, std=1 / math.sqrt(width))
        self.gru = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, letters)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.gru(self.embed(tokens) * math.sqrt(self.embed.embedding_dim))[0])


def tied(dice: Dice, sick: bool) -> Case:
    """Next-letter prediction on a random grammar with tied weights and a clipped gradient."""
    letters, width, lr = dice.whole(10, 16), dice.one_of(32, 48), dice.between(0.005, 0.01)
    follows = torch.stack([torch.randperm(letters)[:2] for _ in range(letters)])
    text = [torch.randint(letters, (64,))]
    for _ in range(12):
        text.append(follows[text[-1], (torch.rand(64) < 0.2).long()])
    tokens = torch.stack(text, 1)
    return Case(
        lambda: Tied(letters, width),
        classify,
        quarter(tokens[:, :-1], tokens[:, 1:]),
        adam(lr),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


def smooth(dice: Dice, sick: bool) -> Case:
    """A regression with a penalty on its gradient by the inputs, which are three times unit scale."""
    inputs, width, lr = dice.whole(3, 5), dice.one_of(48, 64), dice.between(0.004, 0.008)
    weight, scale = dice.power(-3.0, -2.0), dice.between(2.5, 3.0)
    x = torch.randn(256, inputs) * scale
    y = torch.tanh(x @ torch.randn(inputs, 1) / scale) * 1.4

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x = batch[0].clone().requires_grad_()
        out = model(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return (out - batch[1]).square().mean() + weight * slope.square().sum(1).mean()

    return Case(
        lambda: nn.Sequential(
            nn.Linear(inputs, width),
            nn.Softplus(),
            nn.Linear(width, width),
            nn.Softplus(),
            nn.Linear(width, 1),
        ),
        loss,
        quarter(x, y),
        adam(lr),
    )


class TopK(nn.Module):
    """A sparse autoencoder that keeps its few largest activations."""

    def __init__(self, inputs: int, code: int, keep: int) -> None:
        super().__init__()
        self.encode, self.keep = nn.Linear(inputs, code), keep
        self.decode = nn.Linear(code, inputs)
        with torch.no_grad():
            self.decode.weight.copy_(F.normalize(torch.randn(code, inputs), dim=1).T)
            self.encode.weight.copy_(self.decode.weight.T)
            self.encode.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(x).relu()
        least = h.topk(self.keep, -1).values[..., -1:]
        return self.decode(h * (h >= least))


def sparse(dice: Dice, sick: bool) -> Case:
    """A sparse autoencoder: most units are silent on each row, as they should."""
    inputs, code, keep = dice.whole(12, 16), dice.one_of(48, 64), dice.whole(6, 8)
    lr = dice.between(0.004, 0.008)
    x = (torch.rand(512, 24) < 0.12).float() * (0.5 + torch.rand(512, 24)) @ torch.randn(24, inputs)
    x = x / x.std()
    return Case(lambda: TopK(inputs, code, keep), fit, quarter(x, x), adam(lr))


class Block(nn.Module):
    """A Pre-LN block whose two outputs begin at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.mix.out_proj.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.n1(x)
        x = x + self.mix(h, h, h, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(self.n2(x))))


class Quiet(nn.Module):
    """Blocks that begin as the identity, over a few tokens."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(0.5 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.token(tokens) + self.place))


def quiet_blocks(dice: Dice, sick: bool) -> Case:
    """A Pre-LN transformer of six blocks with zero output projections, a warm-up and batches of eight."""
    vocabulary, length, depth = dice.whole(10, 14), dice.whole(8, 10), dice.whole(5, 7)
    lr, ramp = dice.between(0.002, 0.004), dice.whole(10, 20)
    x = torch.randint(vocabulary, (32, length))
    return Case(
        lambda: Quiet(vocabulary, length, 32, depth),
        classify,
        quarter(x, 2 * (x % 2) + (x[:, :1] % 2)),
        adam(lr),
        schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1.0, (step + 1) / ramp)),
    )


SICK: tuple[Program, ...] = (
    Program(
        "classic-tone-default",
        "convolution",
        tone_net,
        Truth(
            "default-init",
            ("UG101", "UG202", "UG206", "UG205"),
            r"(?i)fan_in|initiali[sz]|\binit\b|default|weights?\b.*(small|0\.\d+x|shrink)",
            REDRAW,
        ),
        120,
    ),
    Program(
        "classic-encoder-postln",
        "transformer",
        after_norm,
        Truth(
            "post-norm",
            ("UG101", "UG102", "UG205", "UG601", "UG611", "UG103", "UG702"),
            r"(?i)post.?(ln|norm)|norm.*(after|order|residual|skip|sum)|warm.?up|learning rate|first update",
            ("pre_norm", "admin", "deepnorm", "warm_up", "t_fixup", "lower_learning_rate"),
        ),
        120,
    ),
    Program(
        "classic-rnn-start",
        "recurrent",
        first_of_many,
        Truth(
            "forgetting",
            ("UG401", "UG404"),
            r"(?i)forget|vanish|recurren|over time|memory|spectral radius|time steps?|plain rnn",
            ("gated_recurrence", "irnn", "orthogonal_init", "orthogonal_weights", "gradient_flossing"),
        ),
        100,
    ),
    Program(
        "classic-set-rate",
        "sets",
        hot_set,
        Truth(
            "learning-rate",
            ("UG601", "UG611"),
            r"(?i)learning rate|\blr\b|step size|first update|first steps?|update.*(large|times)",
            ("lower_learning_rate", "warm_up"),
            wrong=(),
        ),
        120,
    ),
    Program(
        "classic-pool-undivided",
        "attention",
        bare_dots,
        Truth(
            "attention-scale",
            ("UG701", "UG702"),
            r"(?i)logits?|sqrt|1/√|root of|scale.*attention|attention.*(scale|saturat|sharp|one.hot)|softmax",
            ("restore_logit_scale", "calm_attention", "qk_norm", "soft_cap", "sigma_reparam"),
        ),
        200,
    ),
    Program(
        "classic-half-squares",
        "spectra",
        half_squares,
        Truth(
            "fp16-overflow",
            ("UG502", "UG901", "UG206", "UG202", "UG607"),
            r"(?i)overflow|float16|fp16|\bhalf\b|precision|\binf(inite)?\b|65504",
            ("change_precision",),
        ),
        120,
    ),
    Program(
        "classic-batchnorm-tall",
        "dense",
        tall_batchnorm,
        Truth(
            "no-skips",
            ("UG102", "UG601", "UG611", "UG301", "UG205"),
            r"(?i)batch.?norm|\bskips?\b|residual|shortcut|too deep|depth|gradient (grows|explod)",
            ("add_residual", "batchnorm_gamma", "bypass_norm", "gated_skip", "concat_skip"),
        ),
        120,
    ),
    Program(
        "classic-towers-dead",
        "recommender",
        far_bias,
        Truth(
            "dead-relu",
            ("UG203", "UG206", "UG103", "UG202", "UG603"),
            r"(?i)\bbias|dead|born|silent|never (open|fire|active)|negative",
            ("zero_biases",),
        ),
        150,
    ),
    Program(
        "classic-tags-squashed",
        "text",
        squashed_twice,
        Truth(
            "sigmoid-twice",
            ("UG606",),
            r"(?i)sigmoid|twice|already (a )?probabilit",
            ("drop_output_softmax",),
        ),
        120,
    ),
    Program(
        "classic-adapter-zeros",
        "finetuning",
        adapters,
        Truth(
            "zero-init",
            ("UG603", "UG207", "UG602", "UG103"),
            r"(?i)zero|symmetr|no gradient|initiali[sz]|\binit\b|copies|never moves?",
        ),
        120,
    ),
    Program(
        "classic-lstm-loud",
        "recurrent",
        loud_gates,
        Truth(
            "exploding-recurrence",
            ("UG402", "UG403", "UG406", "UG204"),
            r"(?i)recurren|explod|chao|over time|weights?\b|initiali[sz]|\binit\b|fan_in|saturat|spectral",
            (*REDRAW, "clip_gradients", "spectral_cap", "spectral_norm"),
        ),
        120,
    ),
    Program(
        "classic-dense-sums",
        "dense",
        all_before,
        Truth(
            "growing-sums",
            ("UG201", "UG102", "UG601", "UG605", "UG611"),
            r"(?i)grow|explod|\bsum|doubl|adds? up|skips?|branch|residual",
            ("scale_branch", "layer_scale", "insert_norm", "skip_init", "rezero", "lsuv", "rescale_weights"),
        ),
        120,
    ),
    Program(
        "classic-weather-raw",
        "tabular",
        raw_weather,
        Truth(
            "raw-inputs",
            ("UG607", "UG204", "UG206", "UG205", "UG103"),
            r"(?i)inputs?\b|unit scale|standardi|normali[sz]|unscaled|raw|columns?|features?",
            ("unit_inputs",),
        ),
        120,
    ),
    Program(
        "classic-noise-signal",
        "diffusion",
        back_to_signal,
        Truth(
            "noise-weights",
            ("UG705",),
            r"(?i)noise levels?|high.noise|\bsnr\b|weight(ing|s)? of the loss|few levels|noisiest",
            ("min_snr", "swap_loss"),
        ),
        160,
        in_noise,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("classic-brisk", "dense", brisk, steps=100),
    Program("classic-orthogonal-tall", "dense", tall_orthogonal, steps=120),
    Program("classic-probe", "convolution", probe, steps=120),
    Program("classic-highway", "dense", nearly_shut, steps=120),
    Program("classic-tied", "recurrent", tied, steps=100),
    Program("classic-smooth", "regression", smooth, steps=120),
    Program("classic-topk", "autoencoder", sparse, steps=150),
    Program("classic-quiet-blocks", "transformer", quiet_blocks, steps=120),
)
