"""Kept aside once: sound programs with settings that look odd at first sight."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program
from zoo.clinic.strangers.apart import bags, corners, opening_note, pairs_of_bumps, yields
from zoo.dice import Dice

Batch = tuple[Tensor, Tensor]


def standard_corners(size: int = 10, rows: int = 96) -> tasks.Pairs:
    """Return the pictures of corners with mean 0 and unit spread."""
    images = corners(size, rows)
    every = torch.cat([image for image, _ in images])
    return [((image - every.mean()) / every.std(), label) for image, label in images]


class ConvNorm(nn.Sequential):
    """A convolution, BatchNorm and ReLU."""

    def __init__(self, before: int, behind: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, behind, 3, stride, 1, bias=False), nn.BatchNorm2d(behind), nn.ReLU(inplace=True)
        )


def warmed(dice: Dice, sick: bool) -> Case:
    """A normed convolutional network at a large rate, to which it is warmed up over tens of steps."""
    width, rate = dice.one_of(8, 12), dice.between(0.3, 0.5)

    def build() -> nn.Module:
        return nn.Sequential(
            ConvNorm(1, width),
            ConvNorm(width, 2 * width, 2),
            ConvNorm(2 * width, 2 * width),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, 4),
        )

    def course(step: int) -> float:
        return min(1.0, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * min(step, 400) / 400))

    optimizer = tasks.sgd(rate, momentum=0.9, nesterov=True, weight_decay=1e-4)
    return Case(
        build,
        tasks.classify,
        standard_corners(),
        optimizer,
        schedule=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, course),
    )


class SmallNormed(nn.Module):
    """Layers drawn at a deviation of 0.02 with LayerNorm behind each, as in many code bases."""

    def __init__(self, features: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [features] + [width] * depth
        self.maps = nn.ModuleList(nn.Linear(sizes[i], width) for i in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.head = nn.Linear(width, 4)
        self.apply(self.draw)

    @staticmethod
    def draw(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.maps, self.norms, strict=True):
            x = F.gelu(norm(layer(x)))
        return self.head(x)


def small_but_normed(dice: Dice, sick: bool) -> Case:
    """A perceptron of small weights, each layer normalised behind its map."""
    features, width, depth = dice.whole(12, 18), dice.one_of(48, 64), dice.whole(5, 7)
    return Case(
        lambda: SmallNormed(features, width, depth),
        tasks.classify,
        pairs_of_bumps(features),
        tasks.adamw(2e-3, weight_decay=0.05),
    )


class CaitBlock(nn.Module):
    """Attention and a perceptron before each a norm, behind each a scale per channel that starts small."""

    def __init__(self, dim: int, heads: int, start: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.gamma1 = nn.Parameter(torch.full((dim,), start))
        self.gamma2 = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.gamma1 * self.attn(y, y, y, need_weights=False)[0]
        return x + self.gamma2 * self.mlp(self.norm2(x))


class Cait(nn.Module):
    """Patches, places, blocks with LayerScale, and the mean over the patches."""

    def __init__(self, dim: int, depth: int, start: float) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, dim, 2, 2)
        self.places = nn.Parameter(0.02 * torch.randn(1, 25, dim))
        self.blocks = nn.Sequential(*(CaitBlock(dim, 4, start) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(x)).mean(1))


def layer_scaled(dice: Dice, sick: bool) -> Case:
    """A vision transformer whose branches are scaled by 1e-4 at the start."""
    dim, depth, start = dice.one_of(32, 48), dice.whole(3, 4), dice.one_of(1e-4, 1e-5)
    return Case(
        lambda: Cait(dim, depth, start),
        tasks.classify,
        standard_corners(),
        tasks.adamw(3e-3, weight_decay=0.05),
    )


class ZeroBlock(nn.Module):
    """A residual branch of two maps, the last of which starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.kaiming_normal_(self.inner.weight, nonlinearity="relu")
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(F.relu(self.inner(x)))


def zero_heads(dice: Dice, sick: bool) -> Case:
    """A residual regression whose branches and head all start at zero."""
    features, width, depth = dice.whole(8, 12), dice.one_of(48, 64), dice.whole(4, 8)

    def build() -> nn.Module:
        head = nn.Linear(width, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return nn.Sequential(nn.Linear(features, width), *(ZeroBlock(width) for _ in range(depth)), head)

    return Case(build, tasks.regress, yields(features), tasks.adam(3e-3))


class Adapted(nn.Module):
    """A trained network that no longer trains, a small adapter beside each layer, and a new head."""

    def __init__(self, trained: nn.ModuleList, width: int, rank: int) -> None:
        super().__init__()
        self.trained = trained.requires_grad_(False)
        self.down = nn.ModuleList(nn.Linear(layer.in_features, rank, bias=False) for layer in trained)
        self.up = nn.ModuleList(nn.Linear(rank, width, bias=False) for _ in trained)
        for up in self.up:
            nn.init.zeros_(up.weight)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer, down, up in zip(self.trained, self.down, self.up, strict=True):
            x = F.relu(layer(x) + up(down(x)))
        return self.head(x)


def adapted(dice: Dice, sick: bool) -> Case:
    """Low-rank adapters, zero at the start, beside layers that were trained on another task and frozen."""
    features, width, rank = dice.whole(12, 16), dice.one_of(48, 64), dice.whole(2, 4)
    layers = nn.ModuleList([nn.Linear(features, width), nn.Linear(width, width)])
    first = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), nn.Linear(width, 4))
    optimizer = torch.optim.Adam(first.parameters(), lr=3e-3)
    for _ in range(15):
        for points, labels in pairs_of_bumps(features):
            optimizer.zero_grad()
            F.cross_entropy(first(points), labels).backward()
            optimizer.step()
    model = Adapted(layers, width, rank)
    learning = [p for p in model.parameters() if p.requires_grad]
    return Case(model, tasks.classify, pairs_of_bumps(features), torch.optim.AdamW(learning, lr=1e-2))


class Tied(nn.Module):
    """A causal transformer of letters whose head is its embedding."""

    def __init__(self, alphabet: int, dim: int, depth: int, length: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(alphabet, dim)
        self.places = nn.Embedding(length, dim)
        nn.init.normal_(self.letters.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(dim, 4, 4 * dim, 0.1, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, alphabet, bias=False)
        self.head.weight = self.letters.weight

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        hidden = self.letters(x) + self.places(torch.arange(length))
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        return self.head(self.norm(self.blocks(hidden, mask=mask)))


def tied(dice: Dice, sick: bool) -> Case:
    """A small language model with tied weights of deviation 0.02, dropout and a clip."""
    dim, depth, length = dice.one_of(32, 48), 2, dice.whole(20, 28)
    pieces, alphabet = tasks.letters(length)
    return Case(
        lambda: Tied(alphabet, dim, depth, length),
        tasks.next_letter,
        pieces,
        tasks.adamw(4e-3, betas=(0.9, 0.95), weight_decay=0.1),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


def smoothed(dice: Dice, sick: bool) -> Case:
    """A perceptron with half of its units dropped and labels smoothed."""
    features, width, share = dice.whole(12, 18), dice.one_of(96, 128), dice.between(0.05, 0.15)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=share)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(features, width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(width, 4),
        )

    return Case(build, loss, pairs_of_bumps(features), tasks.adam(3e-3))


class Deep(nn.Module):
    """Sixteen Pre-LN blocks of torch over a bag of vectors, and their mean."""

    def __init__(self, features: int, dim: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Linear(features, dim)
        layer = nn.TransformerEncoderLayer(dim, 2, 2 * dim, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
        self.read = nn.Linear(dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.blocks(self.enter(x)).mean(1))


def deep_pre_norm(dice: Dice, sick: bool) -> Case:
    """A transformer of sixteen blocks that normalises first, without a warm-up."""
    features, dim = dice.whole(4, 6), dice.one_of(16, 24)
    return Case(
        lambda: Deep(features, dim, 16), tasks.regress, bags(8, features, 64), tasks.adam(1e-3), batches=4
    )


class Grouped(nn.Module):
    """A residual block of two convolutions with GroupNorm before each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(2, width), nn.GroupNorm(2, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(y)))


def deep_residual(dice: Dice, sick: bool) -> Case:
    """A ResNet of over thirty convolutions with GroupNorm, in bfloat16."""
    width, depth = dice.one_of(8, 12), dice.whole(15, 18)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            *(Grouped(width) for _ in range(depth)),
            nn.GroupNorm(1, width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(25 * width, 4),
        )

    return Case(
        build,
        tasks.classify,
        standard_corners(rows=64),
        tasks.sgd(0.02, momentum=0.9, weight_decay=5e-4),
        precision="bfloat16",
    )


class Unrolled(nn.Module):
    """An RNN of torch with an orthogonal recurrent matrix, read at the last step."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, features)
        nn.init.orthogonal_(self.rnn.weight_hh_l0)
        nn.init.normal_(self.rnn.weight_ih_l0, std=0.3)
        nn.init.zeros_(self.rnn.bias_ih_l0)
        nn.init.zeros_(self.rnn.bias_hh_l0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def orthogonal_recurrence(dice: Dice, sick: bool) -> Case:
    """A plain RNN over a hundred steps that starts orthogonal and keeps its first input."""
    hidden, steps = dice.one_of(48, 64), dice.whole(95, 105)
    return Case(
        lambda: Unrolled(4, hidden),
        tasks.classify,
        opening_note(steps, rows=64),
        tasks.adam(1e-3),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


class Follower(nn.Module):
    """A GRU that says the next value at every step."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(1, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(x)[0])


def long_forecast(dice: Dice, sick: bool) -> Case:
    """A GRU over sixty steps of waves, by an error that counts only the values that were measured."""
    hidden, steps, there = dice.one_of(24, 32), dice.whole(58, 64), dice.between(0.2, 0.4)
    data = [(x, y, (torch.rand_like(y) < there).float()) for x, y in tasks.forecast(steps, 48)]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        series, target, measured = batch
        return ((model(series) - target).square() * measured).sum() / measured.sum()

    return Case(lambda: Follower(hidden), loss, data, tasks.adam(5e-3))


class Tastes(nn.Module):
    """Factors of users and items, sparse, small at the start, with a bias for each."""

    def __init__(self, users: int, items: int, dim: int) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, dim, sparse=True), nn.Embedding(items, dim, sparse=True)
        self.user_bias = nn.Embedding(users, 1, sparse=True)
        self.item_bias = nn.Embedding(items, 1, sparse=True)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1)
        for table in (self.user_bias, self.item_bias):
            nn.init.zeros_(table.weight)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        taste = (self.user(users) * self.item(items)).sum(-1)
        return taste + self.user_bias(users)[:, 0] + self.item_bias(items)[:, 0]


def recommended(dice: Dice, sick: bool) -> Case:
    """Factors of ratings in sparse tables, by plain descent at a rate of tens; a row is seldom drawn."""
    users, items, dim = dice.whole(300, 500), dice.whole(150, 250), dice.one_of(8, 12)
    rate = dice.between(15, 25)
    rows = 1600
    who, what = torch.randint(users, (rows,)), torch.randint(items, (rows,))
    rating = torch.randn(users)[who] + torch.randn(items)[what] + 0.2 * torch.randn(rows)
    data = list(zip(who.chunk(4), what.chunk(4), rating.chunk(4), strict=True))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(batch[0], batch[1]), batch[2])

    return Case(
        lambda: Tastes(users, items, dim),
        loss,
        data,
        tasks.sgd(rate),
    )


class Binary(nn.Linear):
    """A map whose weights are signs at one scale; the gradient passes them as if they were not rounded."""

    def forward(self, x: Tensor) -> Tensor:
        signs = self.weight.sign() * self.weight.abs().mean().detach()
        return F.linear(x, self.weight + (signs - self.weight).detach(), self.bias)


def straight_through(dice: Dice, sick: bool) -> Case:
    """A network of binary weights behind BatchNorm, trained straight through the rounding."""
    features, width = dice.whole(12, 18), dice.one_of(64, 96)

    def build() -> nn.Module:
        return nn.Sequential(
            Binary(features, width),
            nn.BatchNorm1d(width),
            nn.Hardtanh(),
            Binary(width, width),
            nn.BatchNorm1d(width),
            nn.Hardtanh(),
            nn.Linear(width, 4),
        )

    return Case(build, tasks.classify, pairs_of_bumps(features), tasks.adam(3e-3))


class Gaps(nn.Module):
    """A two-way GRU that fills gaps in a row of tokens."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens + 1, dim)
        self.gru = nn.GRU(dim, dim, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * dim, tokens)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(self.embed(x))[0])


def gaps(dice: Dice, sick: bool) -> Case:
    """Gaps in counted rows, one token in seven; the gradient of halves of a batch is added up in a step."""
    tokens, dim, length = dice.whole(10, 14), dice.one_of(32, 48), dice.whole(12, 16)
    rows, missing = 128, tokens
    whole = (
        torch.randint(tokens, (rows, 1)) + torch.arange(length) * torch.randint(1, 3, (rows, 1))
    ) % tokens
    hidden = torch.rand(rows, length) < 0.15
    hidden[:, length // 2] = True
    data = tasks.split(torch.where(hidden, missing, whole), torch.where(hidden, whole, -100))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten(), ignore_index=-100)

    def step(case: Case, batch: Batch) -> Tensor:
        case.optimizer.zero_grad()
        total = torch.zeros(())
        for half in zip(batch[0].chunk(2), batch[1].chunk(2), strict=True):
            part = case.compute_loss(half) / 2
            part.backward()
            total += part.detach()
        case.optimizer.step()
        return total

    return Case(lambda: Gaps(tokens, dim), loss, data, tasks.adam(5e-3), step=step)


def hinged(dice: Dice, sick: bool) -> Case:
    """Triplets by a hinge that is soon zero for most of them."""
    features, width, margin = dice.whole(12, 16), dice.one_of(48, 64), dice.between(0.3, 0.5)
    data = []
    for points, labels in pairs_of_bumps(features):
        same = torch.stack([points[labels == k][0] for k in labels])
        other = torch.stack([points[labels != k][int(torch.randint(9, ()))] for k in labels])
        data.append((points, same, other))

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, 16))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        anchor, same, other = (F.normalize(model(part), dim=-1) for part in batch)
        near, far = (anchor - same).square().sum(-1), (anchor - other).square().sum(-1)
        return F.relu(near - far + margin).mean()

    return Case(build, loss, data, lambda parameters: torch.optim.Adagrad(parameters, lr=0.03))


class Towers(nn.Module):
    """Two encoders onto a sphere and the logarithm of the inverse temperature, learned."""

    def __init__(self, left: int, right: int, dim: int) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(left, 64), nn.GELU(), nn.Linear(64, dim))
        self.right = nn.Sequential(nn.Linear(right, 64), nn.GELU(), nn.Linear(64, dim))
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = F.normalize(self.left(left), dim=-1), F.normalize(self.right(right), dim=-1)
        return self.scale.exp().clamp(max=100.0) * a @ b.T


def paired(dice: Dice, sick: bool) -> Case:
    """Pairs of views told from all others of the batch, at a temperature of 0.07."""
    left, right, dim = dice.whole(10, 14), dice.whole(16, 20), dice.one_of(16, 24)
    hidden = torch.randn(192, 6)
    views = [torch.tanh(hidden @ torch.randn(6, n) / 2) + 0.1 * torch.randn(192, n) for n in (left, right)]

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(*batch)
        itself = torch.arange(len(logits))
        return (F.cross_entropy(logits, itself) + F.cross_entropy(logits.T, itself)) / 2

    data = tasks.split(*views)
    return Case(lambda: Towers(left, right, dim), loss, data, tasks.adamw(2e-3, weight_decay=0.1))


class ActorCritic(nn.Module):
    """A body with tanh, orthogonal, a policy that starts all but even, and a value."""

    def __init__(self, features: int, width: int, actions: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(features, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.policy, self.value = nn.Linear(width, actions), nn.Linear(width, 1)
        gains = ((self.body[0], math.sqrt(2)), (self.body[2], math.sqrt(2)), (self.policy, 0.01))
        for layer, gain in (*gains, (self.value, 1.0)):
            nn.init.orthogonal_(layer.weight, gain)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        body = self.body(x)
        return self.policy(body), self.value(body)[:, 0]


def clipped_policy(dice: Dice, sick: bool) -> Case:
    """A clipped policy on a memory of even actions, with a value, a bonus for entropy and a clip of 0.5."""
    features, width, actions = dice.whole(6, 10), dice.one_of(48, 64), dice.whole(3, 5)
    seen = torch.randn(256, features)
    done = torch.randint(actions, (256,))
    best = (seen @ torch.randn(features, actions)).argmax(-1)
    gained = (done == best).float() + 0.5 * seen[:, 0]
    advantage = (done == best).float() - 1 / actions
    data = list(zip(seen.chunk(4), done.chunk(4), gained.chunk(4), advantage.chunk(4), strict=True))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        states, took, returns, better = batch
        logits, value = model(states)
        logp = logits.log_softmax(-1)
        ratio = (logp.gather(1, took[:, None])[:, 0] + math.log(actions)).exp()
        better = (better - better.mean()) / better.std()
        policy = -torch.min(ratio * better, ratio.clamp(0.8, 1.2) * better).mean()
        entropy = -(logp.exp() * logp).sum(-1).mean()
        return policy + 0.5 * F.mse_loss(value, returns) - 0.01 * entropy

    return Case(
        lambda: ActorCritic(features, width, actions),
        loss,
        data,
        tasks.adam(1e-3, eps=1e-5),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.5),
    )


class BetaVAE(nn.Module):
    """A variational autoencoder of pictures."""

    def __init__(self, pixels: int, width: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(width, code), nn.Linear(width, code)
        self.decoder = nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, pixels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encoder(x)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(code), mean, log_variance


def beta_vae(dice: Dice, sick: bool) -> Case:
    """Squares in corners, rebuilt through a code that is held a few times as close to its prior."""
    width, code, beta = dice.one_of(64, 96), dice.whole(4, 8), dice.between(2, 3)
    data = [((images > 0.5).float(), labels) for images, labels in corners()]

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits, mean, log_variance = model(batch[0])
        target = batch[0].flatten(1)
        rebuilt = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
        prior = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return (rebuilt + beta * prior).mean()

    return Case(lambda: BetaVAE(100, width, code), loss, data, tasks.adam(3e-3))


class Coupling(nn.Module):
    """An affine coupling that starts as the identity."""

    def __init__(self, features: int, width: int, *, turned: bool) -> None:
        super().__init__()
        self.half, self.turned = features // 2, turned
        self.net = nn.Sequential(nn.Linear(self.half, width), nn.ReLU(), nn.Linear(width, 2 * self.half))
        nn.init.zeros_(self.net[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[2].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, -1)
        if self.turned:
            a, b = b, a
        shift, raw = self.net(a).chunk(2, -1)
        scale = torch.tanh(raw)
        b = b * scale.exp() + shift
        return torch.cat((b, a) if self.turned else (a, b), -1), scale.sum(-1)


class Flow(nn.Module):
    """Couplings one behind the other; what comes out and by how much volume was stretched."""

    def __init__(self, features: int, width: int, depth: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(Coupling(features, width, turned=bool(k % 2)) for k in range(depth))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        stretched = x.new_zeros(len(x))
        for step in self.steps:
            x, more = step(x)
            stretched = stretched + more
        return x, stretched


def flow(dice: Dice, sick: bool) -> Case:
    """A flow of couplings that starts as the identity, on points along a bent curve."""
    width, depth, noise = dice.one_of(32, 48), dice.one_of(6, 8), dice.between(0.1, 0.2)
    along = torch.randn(256, 2)
    points = torch.cat([along, along.square() - 1 + noise * torch.randn(256, 2)], -1)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        z, stretched = model(batch)
        return (0.5 * z.square().sum(-1) + 2 * math.log(2 * math.pi) - stretched).mean()

    return Case(lambda: Flow(4, width, depth), loss, list(points.chunk(4)), tasks.adam(3e-3))


class Denoiser(nn.Module):
    """A perceptron that is told the time of the noise by sines."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.time = nn.Linear(2, width), nn.Linear(16, width)
        self.mid1, self.mid2, self.out = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t[:, None] * 2.0 ** torch.arange(8)
        time = self.time(torch.cat([angle.sin(), angle.cos()], -1))
        h = F.silu(self.enter(x) + time)
        h = h + F.silu(self.mid1(h) + time)
        h = h + F.silu(self.mid2(h))
        return self.out(h)


def diffusion(dice: Dice, sick: bool) -> Case:
    """Points on a ring and the noise in them, by the cosine schedule."""
    width, radius = dice.one_of(64, 96), dice.between(0.8, 1.3)
    angle = 2 * math.pi * torch.rand(1024)
    ring = radius * torch.stack([angle.cos(), angle.sin()], -1)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        t = 0.001 + 0.998 * torch.rand(len(batch))
        noise = torch.randn_like(batch)
        kept, added = (t * math.pi / 2).cos()[:, None], (t * math.pi / 2).sin()[:, None]
        return F.mse_loss(model(kept * batch + added * noise, t), noise)

    return Case(lambda: Denoiser(width), loss, list(ring.chunk(4)), tasks.adam(2e-3))


class Game(nn.Module):
    """A generator and a discriminator of points."""

    def __init__(self, noise: int, width: int) -> None:
        super().__init__()
        self.noise = noise
        self.generator = nn.Sequential(
            nn.Linear(noise, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )
        self.critic = nn.Sequential(
            nn.Linear(2, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )

    def forward(self, rows: int) -> Tensor:
        return self.generator(torch.randn(rows, self.noise))


def far_off(model: Any, batch: Tensor) -> float:
    """Distance of mean and spread of what is generated from those of the points."""
    made = model(1024).detach()
    return float((made.mean(0) - batch.mean(0)).norm() + (made.std(0) - batch.std(0)).norm())


def penalised_game(dice: Dice, sick: bool) -> Case:
    """A game on a cloud of points, its critic held by R1, both in one step."""
    noise, width, weight = dice.whole(4, 8), dice.one_of(48, 64), dice.between(0.5, 1.5)
    cloud = torch.randn(512, 2) @ torch.tensor([[0.7, 0.3], [0.0, 0.4]]) + torch.tensor([2.0, -1.5])

    def loss(model: Any, batch: Tensor) -> Tensor:
        made = model(len(batch))
        with torch.enable_grad():
            real = batch.detach().requires_grad_()
            judged = model.critic(real)
            (slope,) = torch.autograd.grad(judged.sum(), real, create_graph=True)
        critic = F.softplus(-judged).mean() + F.softplus(model.critic(made.detach())).mean()
        fixed = {name: parameter.detach() for name, parameter in model.critic.named_parameters()}
        fooled = F.softplus(-torch.func.functional_call(model.critic, fixed, (made,))).mean()
        return critic + weight / 2 * slope.square().sum(1).mean() + fooled

    optimizer = tasks.adam(2e-3, betas=(0.0, 0.99))
    return Case(lambda: Game(noise, width), loss, list(cloud.chunk(4)), optimizer)


class Lion(torch.optim.Optimizer):
    """Steps by the sign of a mean of gradients, with decay."""

    def __init__(self, params: Iterable[Tensor], lr: float, decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": decay, "betas": (0.9, 0.99)})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * (first * mean + (1 - first) * p.grad).sign())
                mean.lerp_(p.grad, 1 - second)


class MixerBlock(nn.Module):
    """Maps over places and over channels, each beside the identity."""

    def __init__(self, places: int, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.across = nn.Sequential(nn.Linear(places, places), nn.GELU(), nn.Linear(places, places))
        self.within = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.within(self.norm2(x))


class PatchMixer(nn.Module):
    """Patches, mixers and the mean over places."""

    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, dim, 2, 2)
        self.blocks = nn.Sequential(*(MixerBlock(25, dim) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.patch(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


def lion(dice: Dice, sick: bool) -> Case:
    """A mixer of patches by steps of signs alone, at a tenth of Adam's rate and with more decay."""
    dim, depth, rate = dice.one_of(24, 32), dice.whole(2, 4), dice.between(3e-4, 6e-4)
    return Case(
        lambda: PatchMixer(dim, depth),
        tasks.classify,
        standard_corners(),
        lambda parameters: Lion(parameters, rate, 0.5),
    )


class GraphNet(nn.Module):
    """Graph convolutions over an adjacency that is given with the batch."""

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, width), nn.Linear(width, classes)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, near: Tensor) -> Tensor:
        return near @ self.second(self.drop(F.relu(near @ self.first(x))))


def graph(dice: Dice, sick: bool) -> Case:
    """Two graph convolutions with self loops and dropout; a few nodes of a graph are labelled."""
    features, width, nodes = dice.whole(16, 24), dice.one_of(16, 32), dice.whole(60, 80)
    middle = torch.randn(3, features)
    data = []
    for _ in range(4):
        labels = torch.randint(3, (nodes,))
        alike = labels[:, None] == labels
        edges = (torch.rand(nodes, nodes) < torch.where(alike, 0.15, 0.02)).float().triu(1)
        edges = edges + edges.T + torch.eye(nodes)
        degree = edges.sum(1).rsqrt()
        x = middle[labels] + 1.5 * torch.randn(nodes, features)
        x = (x > 1).float()
        data.append((x, degree[:, None] * edges * degree, labels, torch.rand(nodes) < 0.3))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        x, near, labels, known = batch
        return F.cross_entropy(model(x, near)[known], labels[known])

    return Case(lambda: GraphNet(features, width, 3), loss, data, tasks.adam(1e-2, weight_decay=5e-4))


class Values(nn.Module):
    """Values of actions, and the older copy of them that targets are made with."""

    def __init__(self, features: int, width: int, actions: int) -> None:
        super().__init__()
        self.online = nn.Sequential(
            nn.Linear(features, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, actions),
        )
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.online(x)


def temporal_difference(dice: Dice, sick: bool) -> Case:
    """Deep Q-learning on a memory by RMSprop and Huber's loss, with a target network that is not trained."""
    features, width, actions = dice.whole(6, 8), dice.one_of(48, 64), dice.whole(3, 4)
    states, taken = torch.randn(256, features), torch.randint(actions, (256,))
    after = 0.9 * states + 0.3 * torch.randn(256, features)
    reward = 2 * torch.tanh(states @ torch.randn(features, actions)).gather(1, taken[:, None])[:, 0]
    data = list(zip(states.chunk(4), taken.chunk(4), reward.chunk(4), after.chunk(4), strict=True))
    discount = dice.between(0.8, 0.95)

    def loss(model: Any, batch: tuple[Tensor, ...]) -> Tensor:
        now, action, paid, later = batch
        with torch.no_grad():
            aim = paid + discount * model.target(later).amax(-1)
        return F.smooth_l1_loss(model(now).gather(1, action[:, None])[:, 0], aim)

    return Case(
        lambda: Values(features, width, actions),
        loss,
        data,
        lambda parameters: torch.optim.RMSprop(
            [p for p in parameters if p.requires_grad], lr=1e-3, alpha=0.95, eps=0.01, centered=True
        ),
    )


SICK: tuple[Program, ...] = ()
HEALTHY: tuple[Program, ...] = (
    Program("apart-warmed-to-large-rate", "cnn", warmed),
    Program("apart-small-weights-normed", "mlp", small_but_normed),
    Program("apart-layer-scale", "vision-transformer", layer_scaled),
    Program("apart-zero-branches-and-head", "residual", zero_heads),
    Program("apart-adapters-on-frozen", "mlp", adapted),
    Program("apart-tied-letters", "transformer", tied),
    Program("apart-dropout-and-smoothing", "mlp", smoothed),
    Program("apart-sixteen-pre-norm", "transformer", deep_pre_norm),
    Program("apart-deep-residual-bfloat16", "residual", deep_residual),
    Program("apart-orthogonal-hundred-steps", "rnn", orthogonal_recurrence),
    Program("apart-forecast-sixty-steps", "rnn", long_forecast),
    Program("apart-ratings-sparse", "embedding", recommended),
    Program("apart-binary-straight-through", "quantised", straight_through),
    Program("apart-gaps-accumulated", "rnn", gaps),
    Program("apart-triplets-at-zero", "metric", hinged),
    Program("apart-pairs-temperature", "contrastive", paired),
    Program("apart-policy-small-head", "rl", clipped_policy),
    Program("apart-beta-code", "vae", beta_vae, None, 240),
    Program("apart-flow-from-identity", "flow", flow),
    Program("apart-ring-diffusion", "diffusion", diffusion),
    Program("apart-penalised-game", "gan", penalised_game, None, 400, far_off),
    Program("apart-lion-mixer", "mixer", lion),
    Program("apart-graph-self-loops", "graph", graph),
    Program("apart-values-frozen-target", "rl", temporal_difference, None, 200),
)
