"""Kept aside once: healthy programs near to the less usual faults, with settings that are sound."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program
from zoo.dice import Dice


def parts(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Return several tensors in four batches."""
    return list(zip(*(tensor.chunk(4) for tensor in tensors), strict=True))


def half_dropped(dice: Dice, sick: bool) -> Case:
    """A classifier of tables with half of its units dropped, by Nesterov's momentum."""
    features, width, p = dice.whole(16, 24), dice.one_of(96, 128), dice.between(0.4, 0.5)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Dropout(0.1),
            nn.Linear(features, width),
            nn.ReLU(),
            nn.Dropout(p),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(p),
            nn.Linear(width, 5),
        )

    data = tasks.centres(features, 5, rows=256)
    return Case(build, tasks.classify, data, tasks.sgd(0.03, momentum=0.9, nesterov=True))


class Tagger(nn.Module):
    """A bidirectional LSTM over packed words that names every one of them."""

    def __init__(self, tokens: int, dim: int, tags: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, dim, padding_idx=0)
        self.lstm = nn.LSTM(dim, dim, batch_first=True, bidirectional=True)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(2 * dim, tags)

    def forward(self, words: Tensor) -> Tensor:
        lengths = (words != 0).sum(1)
        packed = pack_padded_sequence(self.embed(words), lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=words.shape[1])
        return self.fc(self.drop(out))


def tagging(dice: Dice, sick: bool) -> Case:
    """Tags of words that depend on the word before, padding left out of the loss."""
    dim, length = dice.one_of(24, 32), dice.whole(12, 18)
    words = torch.randint(1, 9, (96, length))
    tags = (words + words.roll(1, 1)) % 3
    tags[:, 0] = words[:, 0] % 3
    for row, end in enumerate(torch.randint(5, length + 1, (96,)).tolist()):
        words[row, end:], tags[row, end:] = 0, -100

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    return Case(lambda: Tagger(9, dim, 3), loss, parts(words, tags), tasks.adam(8e-3))


class MiniGPT(nn.Module):
    """A decoder in the manner of GPT-2: small draws, residual ends smaller, tied letters."""

    def __init__(self, size: int, dim: int, depth: int, length: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(size, dim), nn.Embedding(length, dim)
        layer = nn.TransformerEncoderLayer(
            dim, 4, 4 * dim, 0.1, F.gelu, batch_first=True, norm_first=True, bias=False
        )
        self.h = nn.TransformerEncoder(layer, depth, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.lm_head = nn.Linear(dim, size, bias=False)
        self.lm_head.weight = self.wte.weight
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                ends = name.endswith(("out_proj.weight", "linear2.weight"))
                nn.init.normal_(parameter, 0, 0.02 / math.sqrt(2 * depth) if ends else 0.02)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        h = self.wte(x) + self.wpe.weight[:length]
        return self.lm_head(self.h(h, mask=hidden))


def gpt(dice: Dice, sick: bool) -> Case:
    """A small GPT on letters with tied weights, smoothed labels, warm-up and a clip."""
    dim, depth, length = dice.one_of(32, 48), dice.whole(2, 3), 24
    pieces, size = tasks.letters(length, rows=32)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        logits = model(batch[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), label_smoothing=0.05)

    return Case(
        lambda: MiniGPT(size, dim, depth, length),
        loss,
        pieces,
        lambda p: torch.optim.AdamW(p, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 1.0),
        schedule=lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 15),
    )


class Neighbours(nn.Module):
    """Three layers of attention over neighbours, with the identity beside each."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.inp = nn.Linear(features, width)
        self.values = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))
        self.source = nn.ModuleList(nn.Linear(width, 1) for _ in range(3))
        self.goal = nn.ModuleList(nn.Linear(width, 1) for _ in range(3))
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor, links: Tensor) -> Tensor:
        h = F.elu(self.inp(x))
        for value, source, goal in zip(self.values, self.source, self.goal, strict=True):
            v = value(h)
            score = F.leaky_relu(source(v) + goal(v).transpose(-1, -2), 0.2)
            weights = score.masked_fill(links == 0, -1e9).softmax(-1)
            h = h + F.elu(weights @ v)
        return self.out(h)


def graph_attention(dice: Dice, sick: bool) -> Case:
    """A graph attention network on communities, a few nodes of which are labelled."""
    nodes, width, features = dice.whole(60, 90), dice.one_of(24, 32), dice.whole(8, 12)
    centre, graphs = torch.randn(3, features), []
    for _ in range(4):
        labels = torch.randint(3, (nodes,))
        same = labels[:, None] == labels[None]
        links = (torch.rand(nodes, nodes) < torch.where(same, 0.2, 0.04)).float().triu(1)
        links = links + links.T + torch.eye(nodes)
        shown = torch.rand(nodes) < 0.6
        graphs.append((centre[labels] + torch.randn(nodes, features), links, labels, shown))

    def loss(model: nn.Module, graph: tuple[Tensor, ...]) -> Tensor:
        x, links, labels, shown = graph
        return F.cross_entropy(model(x, links)[shown], labels[shown])

    return Case(lambda: Neighbours(features, width), loss, graphs, tasks.adam(5e-3, weight_decay=5e-4))


class Vae(nn.Module):
    """A variational autoencoder on binary pictures, flat."""

    def __init__(self, pixels: int, width: int, code: int) -> None:
        super().__init__()
        self.enc = nn.Linear(pixels, width)
        self.mu, self.logvar = nn.Linear(width, code), nn.Linear(width, code)
        self.dec = nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, pixels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.enc(x))
        mu, logvar = self.mu(h), self.logvar(h)
        return self.dec(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar


def summed_vae(dice: Dice, sick: bool) -> Case:
    """A VAE as in the examples of PyTorch: entropy and divergence both summed, divided by the images."""
    size, width, code = dice.whole(8, 10), dice.one_of(48, 64), dice.whole(4, 8)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    corner = torch.randint(1, size - 3, (2, 256, 1, 1))
    inside = (x >= corner[0]) & (x < corner[0] + 3) & (y >= corner[1]) & (y < corner[1] + 3)
    data = list(inside.float().flatten(1).chunk(4))

    def loss(model: nn.Module, images: Tensor) -> Tensor:
        logits, mu, logvar = model(images)
        entropy = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
        divergence = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum()
        return (entropy + divergence) / len(images)

    return Case(lambda: Vae(size * size, width, code), loss, data, tasks.adam(3e-3))


class Experts(nn.Module):
    """A few experts, mixed by a softmax over a gate."""

    def __init__(self, features: int, width: int, many: int) -> None:
        super().__init__()
        self.gate = nn.Linear(features, many)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, 1)) for _ in range(many)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gates = self.gate(x).softmax(-1)
        return (gates * torch.cat([expert(x) for expert in self.experts], 1)).sum(1, keepdim=True), gates


def mixture(dice: Dice, sick: bool) -> Case:
    """A mixture of experts with a small term that keeps all of them in use."""
    features, width, many = dice.whole(6, 10), dice.one_of(24, 32), dice.whole(3, 5)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        out, gates = model(batch[0])
        return F.huber_loss(out, batch[1]) + 0.01 * many * gates.mean(0).square().sum()

    return Case(lambda: Experts(features, width, many), loss, tasks.smooth(features), tasks.adam(1e-2))


class SineNet(nn.Module):
    """A coordinate network of sines, drawn as its authors say."""

    def __init__(self, width: int, depth: int, omega: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width if k else 1, width) for k in range(depth))
        self.last = nn.Linear(width, 1)
        self.omega = omega
        for k, layer in enumerate([*self.layers, self.last]):
            bound = math.sqrt(6 / width) / omega if k else 1.0
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(self.omega * layer(x))
        return self.last(x)


def sound(dice: Dice, sick: bool) -> Case:
    """A SIREN with its own draw on a piece of sound."""
    width, depth, omega = dice.one_of(48, 64), dice.whole(2, 3), dice.between(20, 30)
    t = torch.linspace(-1, 1, 512)[torch.randperm(512)][:, None]
    wave = torch.sin(9 * t) + 0.5 * torch.sin(23 * t + 1) * torch.exp(-t.square())
    return Case(
        lambda: SineNet(width, depth, omega),
        tasks.regress,
        tasks.split(t, wave / wave.std()),
        tasks.adam(5e-4),
    )


class Table(nn.Module):
    """Categories through embeddings, numbers through BatchNorm, and two layers on both."""

    def __init__(self, sizes: tuple[int, ...], numbers: int, width: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(size, min(8, size)) for size in sizes)
        self.norm = nn.BatchNorm1d(numbers)
        joined = numbers + sum(min(8, size) for size in sizes)
        self.net = nn.Sequential(
            nn.Linear(joined, width),
            nn.ReLU(),
            nn.BatchNorm1d(width),
            nn.Dropout(0.1),
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.BatchNorm1d(width // 2),
            nn.Linear(width // 2, 1),
        )

    def forward(self, kinds: Tensor, numbers: Tensor) -> Tensor:
        embedded = [embed(kinds[:, k]) for k, embed in enumerate(self.embeddings)]
        return self.net(torch.cat([*embedded, self.norm(numbers)], 1)).squeeze(1)


def table(dice: Dice, sick: bool) -> Case:
    """Rows of categories and of numbers on mixed scales, a binary outcome, one cycle of the rate."""
    sizes = (dice.whole(4, 8), dice.whole(10, 30), 2)
    width = dice.one_of(48, 64)
    kinds = torch.stack([torch.randint(size, (320,)) for size in sizes], 1)
    plain = torch.randn(320, 5)
    effect = sum(torch.randn(size)[kinds[:, k]] for k, size in enumerate(sizes))
    labels = (effect + plain[:, 0] * plain[:, 1] + plain[:, 2] > 0).float()
    numbers = plain * torch.tensor([1.0, 20.0, 0.1, 300.0, 5.0]) + torch.tensor([0.0, 50.0, 1.0, 900.0, -3.0])

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0], batch[1]), batch[2])

    return Case(
        lambda: Table(sizes, 5, width),
        loss,
        parts(kinds, numbers, labels),
        tasks.adamw(4e-3, weight_decay=1e-2),
        schedule=lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1e-2, total_steps=2000),
    )


class Modulated(nn.Module):
    """Convolutions whose channels a question scales and shifts."""

    def __init__(self, channels: int, questions: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for _ in range(2))
        self.films = nn.ModuleList(nn.Embedding(questions, 2 * channels) for _ in range(2))
        for film in self.films:
            nn.init.normal_(film.weight, 0, 0.2)
        self.fc = nn.Linear(channels, 2)

    def forward(self, x: Tensor, question: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for conv, norm, film in zip(self.convs, self.norms, self.films, strict=True):
            gamma, beta = film(question)[:, :, None, None].chunk(2, 1)
            x = x + F.relu((1 + gamma) * norm(conv(x)) + beta)
        return self.fc(x.mean((2, 3)))


def questions(dice: Dice, sick: bool) -> Case:
    """Whether an image shows the stripes that are asked for, by modulated convolutions."""
    channels = dice.one_of(12, 16)
    images, labels = (torch.cat(part) for part in zip(*tasks.stripes(10, rows=192), strict=True))
    asked = torch.where(torch.rand(192) < 0.5, labels, torch.randint(4, (192,)))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.cross_entropy(model(batch[0], batch[1]), batch[2])

    answers = (asked == labels).long()
    return Case(lambda: Modulated(channels, 4), loss, parts(images, asked, answers), tasks.adam(8e-3))


class Embedder(nn.Module):
    """A perceptron with a unit vector for an output."""

    def __init__(self, features: int, width: int, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(features, width), nn.PReLU(), nn.Linear(width, dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.net(x), dim=-1)


def supervised_contrast(dice: Dice, sick: bool) -> Case:
    """Supervised contrast of unit vectors at a temperature of a tenth."""
    features, width, temperature = dice.whole(16, 24), dice.one_of(48, 64), dice.between(0.1, 0.2)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        z, labels = model(batch[0]), batch[1]
        itself = torch.eye(len(z), dtype=torch.bool)
        same = (labels[:, None] == labels[None]) & ~itself
        logp = F.log_softmax((z @ z.T / temperature).masked_fill(itself, -1e9), -1)
        return -((logp * same).sum(1) / same.sum(1).clamp(min=1)).mean()

    data = tasks.centres(features, 8, rows=256, noise=1.2)
    return Case(lambda: Embedder(features, width, 16), loss, data, tasks.adam(3e-3))


class Squeeze(nn.Module):
    """An inverted bottleneck with a gate over its channels and a hard swish."""

    def __init__(self, channels: int, expand: int) -> None:
        super().__init__()
        wide = channels * expand
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, wide // 4, 1),
            nn.ReLU(),
            nn.Conv2d(wide // 4, wide, 1),
            nn.Hardsigmoid(),
        )
        self.end = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return x + self.end(h * self.gate(h))


def mobile(dice: Dice, sick: bool) -> Case:
    """A small MobileNet with gated channels, by RMSprop with momentum."""
    channels, depth = dice.one_of(8, 12), dice.whole(2, 3)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.Hardswish(),
            *(Squeeze(channels, 3) for _ in range(depth)),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(4 * channels, 4),
        )

    def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, lr=2e-3, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-5)

    return Case(build, tasks.classify, tasks.stripes(14, rows=128), optimizer)


class Dilated(nn.Module):
    """A causal convolution of growing reach with weight norm, beside the identity."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.conv = parametrizations.weight_norm(nn.Conv1d(channels, channels, 3, dilation=dilation))
        self.drop = nn.Dropout(0.05)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.drop(F.relu(self.conv(F.pad(x, (self.pad, 0))))))


def causal_forecast(dice: Dice, sick: bool) -> Case:
    """A temporal convolutional network that forecasts the next value of sines."""
    channels, steps = dice.one_of(12, 16), dice.whole(40, 60)

    def build() -> nn.Module:
        blocks = (Dilated(channels, 2**k) for k in range(4))
        return nn.Sequential(nn.Conv1d(1, channels, 1), *blocks, nn.Conv1d(channels, 1, 1))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.l1_loss(model(batch[0].transpose(1, 2)), batch[1].transpose(1, 2))

    return Case(build, loss, tasks.forecast(steps), tasks.adam(4e-3))


class Cloud(nn.Module):
    """A network on sets: each point by itself, their mean and maximum, and a reading."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.rho = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, points: Tensor) -> Tensor:
        h = self.phi(points)
        return self.rho(torch.cat([h.mean(1), h.amax(1)], 1))


def clouds(dice: Dice, sick: bool) -> Case:
    """Clouds of points whose shape is their class: discs, rings and crosses."""
    many, width = dice.whole(40, 120), dice.one_of(32, 48)
    labels = torch.randint(3, (192,))
    angle, radius = 6.28 * torch.rand(192, many), torch.rand(192, many)
    radius = torch.where(labels[:, None] == 1, torch.ones_like(radius), radius.sqrt())
    quarter = torch.round(angle / 1.57) * 1.57
    angle = torch.where(labels[:, None] == 2, quarter, angle)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], -1) + 0.1 * torch.randn(192, many, 2)
    return Case(lambda: Cloud(width), tasks.classify, tasks.split(points, labels), tasks.adam(3e-3))


class Uncertain(nn.Module):
    """A mean, and a deviation that depends on the input."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.mean, self.spread = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.mean(h), F.softplus(self.spread(h)) + 1e-3


def uncertain(dice: Dice, sick: bool) -> Case:
    """A regression that tells its own uncertainty, by the likelihood of a Gaussian."""
    features, width = dice.whole(5, 9), dice.one_of(32, 48)
    x, y = (torch.cat(part) for part in zip(*tasks.smooth(features), strict=True))
    y = y + 0.3 * torch.sigmoid(2 * x[:, :1]) * torch.randn_like(y)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        mean, spread = model(batch[0])
        return F.gaussian_nll_loss(mean, batch[1], spread**2)

    return Case(lambda: Uncertain(features, width), loss, tasks.split(x, y), tasks.adam(4e-3))


class ActorCritic(nn.Module):
    """A policy with a small last layer, and a value."""

    def __init__(self, features: int, actions: int) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(features, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        self.critic = nn.Sequential(nn.Linear(features, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        for trunk in (self.actor, self.critic):
            for layer in trunk:
                if isinstance(layer, nn.Linear):
                    nn.init.orthogonal_(layer.weight, math.sqrt(2))
                    nn.init.zeros_(layer.bias)
        self.policy, self.value = nn.Linear(48, actions), nn.Linear(48, 1)
        nn.init.orthogonal_(self.policy.weight, 0.01)
        nn.init.orthogonal_(self.value.weight, 1.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.log_softmax(self.policy(self.actor(x)), -1), self.value(self.critic(x)).squeeze(-1)


def proximal(dice: Dice, sick: bool) -> Case:
    """Proximal policy optimisation on collected steps: ratio clipped, advantages normalised."""
    features, actions = dice.whole(4, 8), dice.whole(3, 4)
    states, taken = torch.randn(256, features), torch.randint(actions, (256,))
    returns = 2 * torch.tanh((states * torch.randn(actions, features)[taken]).sum(1)) + states[:, 0]
    advantage = (returns - returns.mean()) / returns.std()

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        state, action, gained, better = batch
        logp, value = model(state)
        ratio = (logp.gather(1, action[:, None]).squeeze(1) + math.log(actions)).exp()
        policy = -torch.minimum(ratio * better, ratio.clamp(0.8, 1.2) * better).mean()
        entropy = -(logp.exp() * logp).sum(-1).mean()
        return policy + 0.5 * F.mse_loss(value, gained) - 0.01 * entropy

    return Case(
        lambda: ActorCritic(features, actions),
        loss,
        parts(states, taken, returns, advantage),
        lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-5),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 0.5),
    )


class SkipGram(nn.Module):
    """Vectors of words, which start small, and of their surroundings, which start at zero."""

    def __init__(self, words: int, dim: int) -> None:
        super().__init__()
        self.centre, self.context = nn.Embedding(words, dim), nn.Embedding(words, dim)
        nn.init.uniform_(self.centre.weight, -0.5 / dim, 0.5 / dim)
        nn.init.zeros_(self.context.weight)

    def forward(self, word: Tensor, others: Tensor) -> Tensor:
        return (self.context(others) @ self.centre(word)[..., None]).squeeze(-1)


def word_vectors(dice: Dice, sick: bool) -> Case:
    """Word vectors by negative sampling, drawn as in word2vec."""
    topics, each, dim = dice.whole(4, 6), dice.whole(6, 10), dice.one_of(16, 24)
    words = topics * each
    word = torch.randint(words, (512,))
    partner = (word // each) * each + torch.randint(each, (512,))
    others = torch.cat([partner[:, None], torch.randint(words, (512, 5))], 1)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits = model(*batch)
        return -F.logsigmoid(logits[:, 0]).mean() - F.logsigmoid(-logits[:, 1:]).sum(1).mean()

    return Case(lambda: SkipGram(words, dim), loss, parts(word, others), tasks.adam(2e-2))


class Ratings(nn.Module):
    """Factors and biases of users and items around a mean."""

    def __init__(self, users: int, items: int, dim: int) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, dim), nn.Embedding(items, dim)
        self.user_bias, self.item_bias = nn.Embedding(users, 1), nn.Embedding(items, 1)
        self.mean = nn.Parameter(torch.zeros(()))
        for table_, std in ((self.users, 0.1), (self.items, 0.1), (self.user_bias, 0), (self.item_bias, 0)):
            nn.init.normal_(table_.weight, 0, std)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        together = (self.users(user) * self.items(item)).sum(-1)
        return together + self.user_bias(user)[:, 0] + self.item_bias(item)[:, 0] + self.mean


def ratings(dice: Dice, sick: bool) -> Case:
    """A factorised matrix of ratings, by Adagrad with a little decay."""
    users, items, dim = dice.whole(20, 30), dice.whole(15, 25), dice.one_of(4, 6)
    user, item = torch.randint(users, (600,)), torch.randint(items, (600,))
    tastes = (torch.randn(users, 2)[user] * torch.randn(items, 2)[item]).sum(1)
    stars = tastes + torch.randn(users)[user] + 0.1 * torch.randn(600) + 0.5

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.mse_loss(model(batch[0], batch[1]), batch[2])

    return Case(
        lambda: Ratings(users, items, dim),
        loss,
        parts(user, item, stars),
        lambda p: torch.optim.Adagrad(p, lr=0.2, weight_decay=1e-5),
    )


class Spoken(nn.Module):
    """A convolution over frames, a GRU both ways, and letters or blanks at every frame."""

    def __init__(self, features: int, hidden: int, letters: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(features, hidden, 3, padding=1)
        self.rnn = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, letters + 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return F.log_softmax(self.out(self.rnn(h)[0]), -1)


def spoken(dice: Dice, sick: bool) -> Case:
    """Letters of a series without their places, by connectionist temporal classification."""
    letters_, hidden, many = dice.whole(4, 5), dice.one_of(24, 32), dice.whole(3, 4)
    said = torch.randint(1, letters_ + 1, (96, many))
    frames = F.one_hot(said, letters_ + 1).float().repeat_interleave(5, 1)
    frames = torch.roll(frames, int(torch.randint(2, ())), 1) + 0.2 * torch.randn(96, 5 * many, letters_ + 1)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logp = model(batch[0]).transpose(0, 1)
        steps, rows = logp.shape[:2]
        lengths = torch.full((rows,), steps), torch.full((rows,), many)
        return F.ctc_loss(logp, batch[1], *lengths)

    return Case(lambda: Spoken(letters_ + 1, hidden, letters_), loss, parts(frames, said), tasks.adam(5e-3))


class Latents(nn.Module):
    """A few learned queries that read a long series by attention, twice, and think in between."""

    def __init__(self, features: int, dim: int, many: int) -> None:
        super().__init__()
        self.inp = nn.Linear(features, dim)
        self.queries = nn.Parameter(0.2 * torch.randn(many, dim))
        self.reads = nn.ModuleList(nn.MultiheadAttention(dim, 2, batch_first=True) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4))
        self.thinks = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)) for _ in range(2)
        )
        self.fc = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        z = self.queries.expand(len(x), -1, -1)
        for k, (read, think) in enumerate(zip(self.reads, self.thinks, strict=True)):
            z = z + read(self.norms[2 * k](z), x, x, need_weights=False)[0]
            z = z + think(self.norms[2 * k + 1](z))
        return self.fc(z.mean(1))


def latents(dice: Dice, sick: bool) -> Case:
    """A Perceiver on a series whose class is marked somewhere."""
    steps, dim = dice.whole(24, 40), dice.one_of(32, 48)
    labels = torch.randint(4, (192,))
    series = 0.5 * torch.randn(192, steps, 6)
    series[torch.arange(192), torch.randint(steps, (192,)), labels] += 4
    return Case(lambda: Latents(6, dim, 4), tasks.classify, tasks.split(series, labels), tasks.adamw(2e-3))


class Flow(nn.Module):
    """A state that follows a learned field for a unit of time, by Runge and Kutta."""

    def __init__(self, features: int, width: int, steps: int) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(features + 1, width), nn.Tanh(), nn.Linear(width, features))
        self.out = nn.Linear(features, 2)
        self.steps = steps

    def slope(self, t: float, x: Tensor) -> Tensor:
        return self.field(F.pad(x, (0, 1), value=t))

    def forward(self, x: Tensor) -> Tensor:
        dt = 1 / self.steps
        for k in range(self.steps):
            t = k * dt
            k1 = self.slope(t, x)
            k2 = self.slope(t + dt / 2, x + dt / 2 * k1)
            k3 = self.slope(t + dt / 2, x + dt / 2 * k2)
            k4 = self.slope(t + dt, x + dt * k3)
            x = x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return self.out(x)


def unit_time(dice: Dice, sick: bool) -> Case:
    """A neural differential equation over a unit of time, with extra dimensions that start at zero."""
    width, steps, extra = dice.one_of(32, 48), dice.whole(4, 8), dice.whole(2, 3)
    labels = torch.randint(2, (256,))
    direction = F.normalize(torch.randn(256, 2), dim=1)
    points = F.pad(direction * (0.6 + 0.9 * labels[:, None]) + 0.1 * torch.randn(256, 2), (0, extra))
    return Case(
        lambda: Flow(2 + extra, width, steps), tasks.classify, tasks.split(points, labels), tasks.adam(1e-2)
    )


HEALTHY: tuple[Program, ...] = (
    Program("table-half-dropped", "mlp", half_dropped),
    Program("tagger-packed-padding", "lstm", tagging),
    Program("gpt-tied-small-draws", "transformer", gpt),
    Program("graph-attention-residual", "graph", graph_attention),
    Program("vae-both-summed", "vae", summed_vae),
    Program("experts-soft-gate", "mixture", mixture),
    Program("siren-own-draw", "coordinates", sound),
    Program("categories-and-numbers", "tabular", table),
    Program("modulated-convolutions", "cnn", questions),
    Program("supervised-contrast", "metric", supervised_contrast),
    Program("mobile-gated-channels", "cnn", mobile),
    Program("causal-dilated-weight-norm", "tcn", causal_forecast),
    Program("clouds-mean-and-max", "set", clouds),
    Program("uncertain-by-softplus", "mlp", uncertain),
    Program("proximal-policy-small-head", "rl", proximal),
    Program("word-vectors-zero-context", "embedding", word_vectors),
    Program("ratings-factorised", "embedding", ratings),
    Program("spoken-without-places", "gru", spoken),
    Program("perceiver-few-queries", "transformer", latents),
    Program("field-over-unit-time", "ode", unit_time),
)
