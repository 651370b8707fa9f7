"""Kept aside once: the faults that people ask about most, in attention, time and generation, and healthy."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
COLD = (("lower_learning_rate", {"factor": 0.01}),)
Batches = list[tuple[Tensor, Tensor]]


def quarters(x: Tensor, y: Tensor) -> Batches:
    """Return four batches of equal size."""
    return list(zip(x.chunk(4), y.chunk(4), strict=True))


def words(length: int, vocabulary: int, classes: int, rows: int = 96) -> Batches:
    """Return sentences whose class shows in some of their words, at any place."""
    y = torch.arange(rows) % classes
    x = torch.randint(classes * 3, vocabulary, (rows, length))
    telling = 3 * y[:, None] + torch.randint(3, (rows, length))
    return quarters(torch.where(torch.rand(rows, length) < 0.3, telling, x), y)


def votes(length: int, classes: int, rows: int = 128) -> Batches:
    """Return votes for one of the classes each; the class is the one with most of them."""
    y = torch.arange(rows) % classes
    x = torch.randint(classes, (rows, length))
    return quarters(torch.where(torch.rand(rows, length) < 0.4, y[:, None], x), y)


def chains(length: int, vocabulary: int, rows: int = 64) -> list[Tensor]:
    """Return sequences of tokens in which each token has one usual successor."""
    follow = torch.randperm(vocabulary)
    x = torch.randint(vocabulary, (rows, length + 1))
    for t in range(length):
        usual = torch.rand(rows) < 0.9
        x[:, t + 1] = torch.where(usual, follow[x[:, t]], x[:, t + 1])
    return list(x.chunk(4))


def told_first(steps: int, classes: int = 4, rows: int = 64) -> Batches:
    """Return long silent sequences whose first step tells the class."""
    y = torch.arange(rows) % classes
    x = 0.02 * torch.randn(rows, steps, classes)
    x[:, 0] += 3 * F.one_hot(y, classes)
    return quarters(x, y)


def motions(steps: int, classes: int = 4, rows: int = 96) -> Batches:
    """Return readings of three sensors; the class is how fast they swing."""
    y = torch.arange(rows) % classes
    phase = 6.3 * torch.rand(rows, 1) + torch.arange(steps) * (0.2 + 0.35 * y[:, None])
    x = torch.stack([phase.sin(), phase.cos(), 0.5 * (2 * phase).sin()], -1)
    return quarters(x + 0.15 * torch.randn_like(x), y)


def gaussians(features: int, modes: int = 3, rows: int = 256) -> list[Tensor]:
    """Return points around a few centres, of unit variance."""
    x = 2 * torch.randn(modes, features)[torch.arange(rows) % modes] + 0.3 * torch.randn(rows, features)
    return list(((x - x.mean(0)) / x.std(0)).chunk(4))


def maps(size: int, rows: int = 32) -> Batches:
    """Return smooth fields and the field's edges, as an operator's data."""
    x = F.interpolate(torch.randn(rows, 1, 4, 4), size=size, mode="bicubic")
    y = x.roll(1, 2) - x.roll(1, 3)
    return quarters(x, y / y.std())


def xent(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


def successor(model: nn.Module, tokens: Tensor) -> Tensor:
    """Cross-entropy of the next token."""
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def adam(lr: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds Adam."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **more)


def adamw(lr: float) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds AdamW with its usual decay."""
    return lambda parameters: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)


def sgd(lr: float, **more: float) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds SGD."""
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **more)


class Encoder(nn.Module):
    """Embedding, places, nn.TransformerEncoder and a classifier on the mean."""

    def __init__(
        self, vocabulary: int, length: int, dim: int, layers: int, classes: int, *, pre: bool, dropout: float
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.places = nn.Parameter(0.02 * torch.randn(length, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout, batch_first=True, norm_first=pre)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(self.embed(x) + self.places)
        return self.classifier(self.norm(h).mean(1))


def post_norm(dice: Dice, sick: bool) -> Case:
    """Two dozen layers of PyTorch's encoder with its norms behind the sums, and no warm-up."""
    length, dim, layers = dice.whole(8, 10), dice.one_of(24, 32), dice.whole(26, 30)
    rate = dice.power(-2.7, -2.5)
    return Case(
        lambda: Encoder(30, length, dim, layers, 4, pre=not sick, dropout=0.0),
        xent,
        words(length, 30, 4, rows=64),
        adam(rate),
    )


class Recaller(nn.Module):
    """A plain RNN whose last state is classified."""

    def __init__(self, features: int, hidden: int, classes: int, *, identity: bool) -> None:
        super().__init__()
        kind = "relu" if identity else "tanh"
        self.rnn = nn.RNN(features, hidden, nonlinearity=kind, batch_first=True)
        self.fc = nn.Linear(hidden, classes)
        if identity:
            nn.init.eye_(self.rnn.weight_hh_l0)
            nn.init.zeros_(self.rnn.bias_hh_l0)
            nn.init.zeros_(self.rnn.bias_ih_l0)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x)
        return self.fc(out[:, -1])


def long_rnn(dice: Dice, sick: bool) -> Case:
    """A plain RNN over some 200 steps that is asked about the first one."""
    steps, hidden = dice.whole(190, 230), dice.one_of(24, 32)
    return Case(
        lambda: Recaller(4, hidden, 4, identity=not sick),
        xent,
        told_first(steps),
        adam(dice.power(-3.4, -3.0)),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


class Attention(nn.Module):
    """Attention of several heads written by hand."""

    def __init__(self, dim: int, heads: int, *, scaled: bool) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.heads, self.scaled = heads, scaled
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value)
        )
        scores = torch.matmul(q, k.transpose(-2, -1))
        if self.scaled:
            scores = scores / math.sqrt(d // self.heads)
        return self.out((torch.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(b, t, d))


class Reader(nn.Module):
    """One query word that attends to a sentence, by attention of one wide head."""

    def __init__(self, vocabulary: int, dim: int, classes: int, *, scaled: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.attention = Attention(dim, 1, scaled=scaled)
        self.fc = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.attention(self.embed(x))[:, 0])


def unscaled(dice: Dice, sick: bool) -> Case:
    """Attention by hand that forgot to divide by the root of the dimension."""
    length, dim = dice.whole(26, 32), dice.one_of(128, 192)
    return Case(
        lambda: Reader(5, dim, 5, scaled=not sick),
        xent,
        votes(length, 5),
        sgd(dice.between(0.01, 0.02), momentum=0.9),
    )


class Pixelwise(nn.Module):
    """Three convolutions from field to field."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, planes, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(planes, planes, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(planes, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def unscaled_half(dice: Dice, sick: bool) -> Case:
    """Autocast to float16 without a GradScaler, and a loss whose gradient is too small for it."""
    scaler = torch.amp.GradScaler("cpu", enabled=not sick)
    planes, size, weight = dice.one_of(8, 12), dice.one_of(20, 24), dice.power(-5.2, -4.8)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return weight * F.mse_loss(model(batch[0]).float(), batch[1])

    def step(case: Case, batch: tuple[Tensor, Tensor]) -> Tensor:
        assert case.optimizer is not None
        case.optimizer.zero_grad()
        value = case.compute_loss(batch)
        scaler.scale(value).backward()
        scaler.step(case.optimizer)
        scaler.update()
        return value

    return Case(
        lambda: Pixelwise(planes),
        loss,
        maps(size),
        adam(5e-3, eps=1e-12),
        step=step,
        precision="float16",
    )


class Sensor(nn.Module):
    """A plain RNN over sensor readings with its recurrent matrix drawn wide or orthogonal."""

    def __init__(self, hidden: int, spread: float | None) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, 4)
        if spread is None:
            nn.init.orthogonal_(self.rnn.weight_hh_l0)
        else:
            nn.init.normal_(self.rnn.weight_hh_l0, 0.0, spread)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


def wide_recurrence(dice: Dice, sick: bool) -> Case:
    """Recurrent weights from a standard normal distribution."""
    hidden, steps = dice.one_of(32, 48), dice.whole(40, 60)
    spread = dice.between(0.8, 1.2) if sick else None
    return Case(lambda: Sensor(hidden, spread), xent, motions(steps), adam(dice.power(-2.7, -2.5)))


class Generator(nn.Module):
    """A generator of points, with the discriminator it plays against."""

    def __init__(self, noise: int, features: int, judge: dict[str, Tensor]) -> None:
        super().__init__()
        self.make = nn.Sequential(nn.Linear(noise, 32), nn.ReLU(), nn.Linear(32, features))
        self.judge = discriminator(features)
        self.judge.load_state_dict(judge)
        self.judge.requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        return self.make(z)


def discriminator(features: int) -> nn.Sequential:
    """Return a discriminator's layers up to its logit."""
    return nn.Sequential(
        nn.Linear(features, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2), nn.Linear(48, 1)
    )


def perfect_judge(dice: Dice, sick: bool) -> Case:
    """A generator under log(1 - D) against a discriminator that was trained until it never errs."""
    noise, features, far = dice.whole(6, 10), dice.whole(8, 12), dice.between(2.0, 3.0)
    centre = far * torch.randn(features).sign()
    judge = discriminator(features)
    trainer = torch.optim.Adam(judge.parameters(), lr=3e-3)
    for _ in range(150):
        real, fake = centre + 0.3 * torch.randn(64, features), 0.3 * torch.randn(64, features)
        trainer.zero_grad()
        (F.softplus(-judge(real)) + F.softplus(judge(fake))).mean().backward()
        trainer.step()
    learned = {name: value.clone() for name, value in judge.state_dict().items()}

    def saturating(model: Any, z: Tensor) -> Tensor:
        return torch.log(1 - torch.sigmoid(model.judge(model(z))) + 1e-8).mean()

    def flipped(model: Any, z: Tensor) -> Tensor:
        return F.softplus(-model.judge(model(z))).mean()

    return Case(
        lambda: Generator(noise, features, learned),
        saturating if sick else flipped,
        list(torch.randn(256, noise).chunk(4)),
        sgd(dice.between(0.02, 0.03), momentum=0.5),
        variants={"non_saturating": flipped},
    )


def judged(model: Any, z: Tensor) -> float:
    """The logit that the discriminator gives to what is made, negated."""
    return float(model.judge(model(z)).neg().mean())


class Tagger(nn.Module):
    """Words to short codes to a class, with the codes cut out of the graph or not."""

    def __init__(self, vocabulary: int, short: int, classes: int, *, cut: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 24)
        self.encode = nn.GRU(24, short, batch_first=True)
        self.decide = nn.Sequential(nn.Linear(short, 24), nn.ReLU(), nn.Linear(24, classes))
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.encode(self.embed(x))
        code = state[-1]
        if self.cut:
            code = code.detach()
        return self.decide(code)


def detached(dice: Dice, sick: bool) -> Case:
    """A detach() between encoder and classifier, left from plotting the codes."""
    length, short = dice.whole(9, 13), dice.whole(3, 5)
    return Case(
        lambda: Tagger(40, short, 5, cut=sick), xent, words(length, 40, 5), adam(dice.power(-2.2, -2.0))
    )


class TiedLM(nn.Module):
    """A small language model whose head is its embedding."""

    def __init__(self, vocabulary: int, dim: int, spread: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.embed.weight, 0.0, spread)
        self.mix = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.head(self.norm(h + self.mix(h)))


def tied(dice: Dice, sick: bool) -> Case:
    """A head tied to an embedding that was left at a standard deviation of one."""
    vocabulary, dim = dice.whole(60, 90), dice.one_of(128, 192)
    spread = 1.0 if sick else dice.between(0.02, 0.05)
    return Case(
        lambda: TiedLM(vocabulary, dim, spread),
        successor,
        chains(16, vocabulary),
        adamw(dice.power(-3, -2.8)),
    )


class Embedder(nn.Module):
    """A small net to vectors whose distances are compared."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def triplets(dice: Dice, sick: bool) -> Case:
    """Triplets of a batch by distances of all pairs, with the root taken of the zeros on the diagonal."""
    features, width, margin = dice.whole(8, 12), dice.one_of(32, 48), dice.between(0.5, 1.0)
    y = torch.arange(96) % 4
    x = torch.randn(4, features)[y] + 0.8 * torch.randn(96, features)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        z = model(batch[0])
        squares = (z[:, None] - z[None]).pow(2).sum(-1)
        distances = torch.sqrt(squares if sick else squares + 1e-6)
        same = batch[1][:, None] == batch[1][None]
        farthest = (distances * same).amax(1)
        nearest = (distances + 1e3 * same).amin(1)
        return F.relu(farthest - nearest + margin).mean()

    return Case(lambda: Embedder(features, width), loss, quarters(x, y), adam(dice.power(-2.8, -2.5)))


class Dropped(nn.Module):
    """A classifier of words by their mean, with dropout between its layers."""

    def __init__(self, vocabulary: int, width: int, p: float) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(vocabulary, width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.fc3 = nn.Linear(width, 5)
        self.drop = nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(F.relu(self.fc1(self.embed(x))))
        h = self.drop(F.relu(self.fc2(h)))
        return self.fc3(h)


def keep_probability(dice: Dice, sick: bool) -> Case:
    """Dropout told the share to keep, as in other frameworks, instead of the share to drop."""
    width, keep = dice.one_of(64, 96), dice.between(0.97, 0.99)
    p = keep if sick else 1 - keep
    return Case(lambda: Dropped(60, width, p), xent, words(12, 60, 5), adam(dice.power(-2.6, -2.3)))


def pre_norm(dice: Dice, sick: bool) -> Case:
    """Twelve layers of PyTorch's encoder with its norms before the branches."""
    length, dim = dice.whole(8, 12), dice.one_of(24, 32)
    return Case(
        lambda: Encoder(30, length, dim, 12, 4, pre=True, dropout=0.1),
        xent,
        words(length, 30, 4, rows=64),
        adamw(1e-3),
    )


def shallow_post(dice: Dice, sick: bool) -> Case:
    """Two layers of PyTorch's encoder as they come, with dropout and a warm-up."""
    length, dim = dice.whole(10, 14), dice.one_of(32, 48)
    return Case(
        lambda: Encoder(40, length, dim, 2, 4, pre=False, dropout=0.1),
        xent,
        words(length, 40, 4),
        adam(2e-3),
        schedule=lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=20),
    )


class Recurrent(nn.Module):
    """A recurrent net by default, over readings, and a head on its last output."""

    def __init__(self, kind: type[nn.Module], hidden: int, layers: int) -> None:
        super().__init__()
        self.rnn = kind(3, hidden, num_layers=layers, batch_first=True)
        self.fc = nn.Linear(hidden, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


def plain_lstm(dice: Dice, sick: bool) -> Case:
    """PyTorch's LSTM as it comes over twenty steps."""
    hidden = dice.one_of(32, 48)
    return Case(lambda: Recurrent(nn.LSTM, hidden, 1), xent, motions(20), adam(5e-3))


def two_grus(dice: Dice, sick: bool) -> Case:
    """Two layers of GRU under RMSprop and a clip of 1.0."""
    hidden, steps = dice.one_of(24, 32), dice.whole(24, 32)
    return Case(
        lambda: Recurrent(nn.GRU, hidden, 2),
        xent,
        motions(steps),
        lambda parameters: torch.optim.RMSprop(parameters, lr=2e-3),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


def sound_half(dice: Dice, sick: bool) -> Case:
    """Autocast to float16 with a GradScaler and a loss of unit size."""
    planes, size = dice.one_of(8, 12), dice.one_of(16, 20)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(batch[0]).float(), batch[1])

    return Case(lambda: Pixelwise(planes), loss, maps(size), adam(5e-3), precision="float16")


class GPT(nn.Module):
    """Causal blocks by hand with a tied head, at a standard deviation of 0.02."""

    def __init__(self, vocabulary: int, length: int, dim: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.places = nn.Embedding(length, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2 * layers + 1))
        self.qkv = nn.ModuleList(nn.Linear(dim, 3 * dim) for _ in range(layers))
        self.proj = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(dim, 4 * dim) for _ in range(layers))
        self.down = nn.ModuleList(nn.Linear(4 * dim, dim) for _ in range(layers))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) + self.places.weight[: x.shape[1]]
        for k, (qkv, proj, up, down) in enumerate(zip(self.qkv, self.proj, self.up, self.down, strict=True)):
            parts = qkv(self.norms[2 * k](h)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
            h = h + proj(a.transpose(1, 2).flatten(2))
            h = h + down(F.gelu(up(self.norms[2 * k + 1](h))))
        return F.linear(self.norms[-1](h), self.embed.weight)


def gpt(dice: Dice, sick: bool) -> Case:
    """A small GPT with the usual recipe."""
    dim, layers, vocabulary = dice.one_of(48, 64), dice.whole(2, 3), dice.whole(30, 50)

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)

    return Case(
        lambda: GPT(vocabulary, 16, dim, layers),
        successor,
        chains(16, vocabulary),
        optimizer,
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


class VAE(nn.Module):
    """A variational autoencoder of points."""

    def __init__(self, features: int, width: int, code: int) -> None:
        super().__init__()
        self.enc = nn.Linear(features, width)
        self.mu = nn.Linear(width, code)
        self.logvar = nn.Linear(width, code)
        self.dec = nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, features))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.enc(x))
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.dec(z), mu, logvar


def vae(dice: Dice, sick: bool) -> Case:
    """A VAE with a divergence of a weight below one."""
    features, width, beta = dice.whole(12, 18), dice.one_of(48, 64), dice.between(0.02, 0.1)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        again, mu, logvar = model(x)
        divergence = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum(1).mean()
        return F.mse_loss(again, x, reduction="none").sum(1).mean() + beta * divergence

    return Case(lambda: VAE(features, width, 4), loss, gaussians(features), adam(3e-3))


def noise_predictor(dice: Dice, sick: bool) -> Case:
    """A diffusion model of points that predicts the noise, all levels weighed alike."""
    features, width = dice.whole(4, 7), dice.one_of(64, 96)
    keep = torch.cos(torch.linspace(0.02, 1.5, 50))
    data = [(x, torch.randint(50, (len(x),)), torch.randn_like(x)) for x in gaussians(features, rows=512)]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Embedding(50, width)
            self.enter = nn.Linear(features, width)
            self.middle = nn.Linear(width, width)
            self.leave = nn.Linear(width, features)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            h = F.silu(self.enter(x) + 0.1 * self.time(t))
            return self.leave(F.silu(self.middle(h) + h))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, t, e = batch
        a = keep[t][:, None]
        return F.mse_loss(model(a * x + (1 - a**2).sqrt() * e, t), e)

    return Case(Model, loss, data, adam(4e-3))


class Coupling(nn.Module):
    """An affine coupling whose scale is bounded by a tanh."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.half = features // 2
        rest = features - self.half
        self.net = nn.Sequential(nn.Linear(self.half, width), nn.ReLU(), nn.Linear(width, 2 * rest))
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x[:, : self.half], x[:, self.half :]
        scale, shift = self.net(a).chunk(2, 1)
        scale = torch.tanh(scale)
        return torch.cat([b * scale.exp() + shift, a], 1), scale.sum(1)


class Flow(nn.Module):
    """A few couplings one behind the other."""

    def __init__(self, features: int, width: int, depth: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(Coupling(features, width) for _ in range(depth))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros(len(x))
        for step in self.steps:
            x, logdet = step(x)
            total = total + logdet
        return x, total


def flow(dice: Dice, sick: bool) -> Case:
    """A RealNVP of points whose couplings begin at the identity."""
    features, depth = 2 * dice.whole(2, 4), dice.whole(4, 6)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        z, logdet = model(x)
        return (0.5 * z.square().sum(1) + 0.92 * features - logdet).mean()

    return Case(lambda: Flow(features, 48, depth), loss, gaussians(features), adam(5e-3))


class GCN(nn.Module):
    """Two graph convolutions on a graph that is given once."""

    def __init__(self, features: int, width: int, hops: Tensor) -> None:
        super().__init__()
        self.register_buffer("hops", hops)
        self.lin1 = nn.Linear(features, width)
        self.lin2 = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(F.relu(self.hops @ self.lin1(x)), 0.3, self.training)
        return self.hops @ self.lin2(h)


def graph(dice: Dice, sick: bool) -> Case:
    """Classes of the nodes of a graph of four communities, with decay 5e-4."""
    features, width, nodes = dice.whole(12, 20), dice.one_of(16, 32), 80
    y = torch.arange(nodes) % 4
    near = (y[:, None] == y[None]).float()
    edges = torch.bernoulli(0.02 + 0.13 * near).triu(1)
    edges = edges + edges.T + torch.eye(nodes)
    root = edges.sum(1).rsqrt()
    x = torch.randn(4, features)[y] + 1.5 * torch.randn(nodes, features)
    hops = root[:, None] * edges * root[None]
    return Case(lambda: GCN(features, width, hops), xent, [(x, y)], adam(1e-2, weight_decay=5e-4))


SICK: tuple[Program, ...] = (
    Program(
        "typical-post-norm-two-dozen",
        "transformer",
        post_norm,
        Truth(
            "post-norm",
            ("UG101", "UG102", "UG601", "UG611", "UG205", "UG702", "UG202", "UG105"),
            r"(?i)post.?(ln|norm)|layer.?norm|norm(alisation|alization)?s? (after|behind|before)|warm.?up",
            ("pre_norm", "deepnorm", "admin", "warm_up", "t_fixup", "rezero", "skip_init"),
            (("pre_norm", {}),),
            HEAVY,
        ),
        80,
    ),
    Program(
        "typical-rnn-two-hundred-steps",
        "rnn",
        long_rnn,
        Truth(
            "vanishing-over-time",
            ("UG401", "UG404"),
            r"(?i)recurren|over time|vanish|forget|memory|horizon",
            ("irnn", "gated_recurrence", "orthogonal_init", "orthogonal_weights", "rescale_weights"),
            (("irnn", {"input_std": 0.2}),),
            COLD,
        ),
        120,
    ),
    Program(
        "typical-attention-without-root",
        "attention",
        unscaled,
        Truth(
            "no-logit-scale",
            ("UG701", "UG702"),
            r"(?i)sqrt|root|1/.?.?d|scal(e|ed|ing)|logits|attention",
            ("restore_logit_scale", "calm_attention", "qk_norm", "soft_cap"),
            (("restore_logit_scale", {}),),
            HEAVY,
        ),
        100,
    ),
    Program(
        "typical-float16-without-scaler",
        "cnn",
        unscaled_half,
        Truth(
            "underflow",
            ("UG501", "UG503"),
            r"(?i)float16|half.precision|16.bit|fp16|underflow|loss.scal|scaler|precision",
            ("loss_scale", "change_precision"),
            (("change_precision", {"precision": "bfloat16"}),),
            HEAVY,
        ),
        120,
    ),
    Program(
        "typical-recurrent-standard-normal",
        "rnn",
        wide_recurrence,
        Truth(
            "large-recurrence",
            ("UG402", "UG403", "UG406", "UG204"),
            r"(?i)recurren|weight_hh|spectral radius|chao|explod|lyapunov",
            ("orthogonal_init", "orthogonal_weights", "rescale_weights", "irnn", "spectral_norm"),
            (("orthogonal_init", {"sites": ("rnn*",)}),),
            HEAVY,
        ),
        150,
    ),
    Program(
        "typical-perfect-discriminator",
        "gan",
        perfect_judge,
        Truth(
            "saturated-generator",
            ("UG704",),
            r"(?i)satura|discriminator|log\(1|generator|non.?saturating",
            ("swap_loss",),
            (("swap_loss", {"variant": "non_saturating"}),),
            COLD,
        ),
        150,
        judged,
    ),
    Program(
        "typical-detach-left-in",
        "gru",
        detached,
        Truth(
            "detach",
            ("UG603", "UG608"),
            r"(?i)detach|no gradient|\bcuts?\b|graph|\.data\b|no_grad|does not reach|reaches no",
            (),
            (),
            COLD,
        ),
        120,
    ),
    Program(
        "typical-tied-head-unit-embedding",
        "language-model",
        tied,
        Truth(
            "large-logits",
            ("UG605",),
            r"(?i)embed|tied|\bhead\b|logits|initial loss",
            ("scale_head", "rescale_weights"),
            (("scale_head", {"factor": 0.03}),),
            COLD,
        ),
        50,
    ),
    Program(
        "typical-root-of-zero-distance",
        "metric",
        triplets,
        Truth(
            "nan-sqrt",
            ("UG901",),
            r"(?i)sqrt|square root|\broot\b|\bnorm of (a )?zero|derivative|0 ?[·*] ?inf",
            (),
            (),
            COLD,
        ),
        120,
    ),
    Program(
        "typical-dropout-keeps-a-hundredth",
        "text",
        keep_probability,
        Truth("dropout", ("UG612",), r"(?i)drop.?out|\bp ?= ?0\.9", (), (), HEAVY),
        120,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("typical-pre-norm-twelve", "transformer", pre_norm, steps=80),
    Program("typical-post-norm-two-warmed-up", "transformer", shallow_post),
    Program("typical-lstm-twenty-steps", "lstm", plain_lstm),
    Program("typical-two-grus-rmsprop", "gru", two_grus),
    Program("typical-float16-with-scaler", "cnn", sound_half),
    Program("typical-gpt-tied-head", "language-model", gpt),
    Program("typical-vae-small-beta", "vae", vae),
    Program("typical-diffusion-of-noise", "diffusion", noise_predictor),
    Program("typical-flow-from-identity", "flow", flow),
    Program("typical-graph-two-hops", "graph", graph),
)
