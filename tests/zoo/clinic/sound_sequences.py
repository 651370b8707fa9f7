"""Healthy programs on sequences, sets, graphs, games."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.around import mlp
from zoo.clinic.attention import Gpt
from zoo.clinic.numbers import unscaled_step
from zoo.clinic.program import Program
from zoo.clinic.sequences import Tagger
from zoo.dice import Dice


class Forecaster(nn.Module):
    """An LSTM that speaks at every step."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, hidden, num_layers=2, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0])


def forecast(dice: Dice, sick: bool) -> Case:
    """The next value of sines."""
    hidden, steps = dice.whole(16, 32), dice.whole(16, 32)
    return Case(lambda: Forecaster(hidden), tasks.regress, tasks.forecast(steps), tasks.adam(1e-2))


def both_ways(dice: Dice, sick: bool) -> Case:
    """A bidirectional GRU over words, summed up by attention, with clipped gradients."""
    width = dice.one_of(16, 24)

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(12, width)
            self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
            self.score, self.fc = nn.Linear(2 * width, 1), nn.Linear(2 * width, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            states, _ = self.gru(self.embed(tokens))
            return self.fc((self.score(states).softmax(1) * states).sum(1))

    return Case(
        Reader,
        tasks.classify,
        tasks.majority(12),
        tasks.adam(5e-3),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


def dilated(dice: Dice, sick: bool) -> Case:
    """Causal convolutions with growing dilation."""
    channels = dice.whole(12, 20)

    class Tcn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(
                nn.Conv1d(channels if k else 1, channels, 3, dilation=2**k) for k in range(4)
            )
            self.fc = nn.Linear(channels, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x.transpose(1, 2)
            for k, conv in enumerate(self.convs):
                made = F.relu(conv(F.pad(x, (2 * 2**k, 0))))
                x = made if x.shape[1] == 1 else x + made
            return self.fc(x.mean(-1))

    return Case(Tcn, tasks.classify, tasks.waves(dice.whole(24, 40)), tasks.adam(5e-3))


def gpt(dice: Dice, sick: bool) -> Case:
    """A language model with warm-up, decay and a clip, as recipes have it."""
    data, size = tasks.letters(24, 16)
    width, depth = dice.one_of(32, 48), dice.whole(2, 4)

    def warm_up(optimizer: torch.optim.Optimizer) -> object:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20))

    return Case(
        lambda: Gpt(size, width, depth),
        tasks.next_letter,
        data,
        tasks.adamw(3e-3, weight_decay=0.1),
        schedule=warm_up,
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


def halves(dice: Dice, sick: bool) -> Case:
    """The same in bfloat16 autocast, with a step of the user's own."""
    data, size = tasks.letters(16, 16)
    width = dice.one_of(32, 48)
    model = Gpt(size, width, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return Case(model, tasks.next_letter, data, optimizer, step=unscaled_step, precision="bfloat16")


class Vit(nn.Module):
    """Patches, a class token, Pre-LN blocks."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, 10, width))
        layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.encoder(x)[:, 0])


def vit(dice: Dice, sick: bool) -> Case:
    """A small vision transformer."""
    width, depth = dice.one_of(24, 32), dice.whole(3, 5)
    return Case(lambda: Vit(width, depth), tasks.classify, tasks.stripes(12), tasks.adamw(2e-3))


def latents(dice: Dice, sick: bool) -> Case:
    """Queries that attend to a set by nn.MultiheadAttention."""
    width = dice.one_of(16, 32)

    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(12, width)
            self.queries = nn.Parameter(torch.randn(4, width))
            self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
            self.norm, self.fc = nn.LayerNorm(width), nn.Linear(4 * width, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embed(tokens)
            made, _ = self.attention(self.queries.expand(len(x), -1, -1), x, x, need_weights=False)
            return self.fc(self.norm(made).flatten(1))

    return Case(Pool, tasks.classify, tasks.majority(12), tasks.adam(5e-3))


def words(dice: Dice, sick: bool) -> Case:
    """Skip-grams with negative samples."""
    width = dice.whole(8, 24)

    class SkipGram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Embedding(30, width), nn.Embedding(30, width)
            nn.init.uniform_(self.inner.weight, -0.5 / width, 0.5 / width)
            nn.init.zeros_(self.outer.weight)

        def forward(self, pairs: Tensor) -> Tensor:
            return (self.inner(pairs[:, :1]) * self.outer(pairs[:, 1:])).sum(-1)

    def loss(model: nn.Module, pairs: Tensor) -> Tensor:
        scores = model(pairs)
        return -(F.logsigmoid(scores[:, 0]) + F.logsigmoid(-scores[:, 1:]).sum(1)).mean()

    data = []
    for _ in range(4):
        word = torch.randint(30, (64, 1))
        data.append(torch.cat([word, (word + 1) % 30, torch.randint(30, (64, 3))], 1))
    return Case(SkipGram, loss, data, tasks.adam(3e-2))


def factors(dice: Dice, sick: bool) -> Case:
    """Matrix factorisation with biases."""
    width = dice.whole(4, 8)

    class Factors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.user, self.item = nn.Embedding(40, width), nn.Embedding(40, width)
            self.bias = nn.Embedding(40, 1)
            for table in (self.user, self.item):
                nn.init.normal_(table.weight, std=0.1)

        def forward(self, pairs: Tensor) -> Tensor:
            user, item = pairs.unbind(1)
            return (self.user(user) * self.item(item)).sum(1) + self.bias(item)[:, 0]

    rates = torch.randn(40, 3) @ torch.randn(3, 40) / math.sqrt(3)
    pairs = torch.randint(40, (256, 2))
    return Case(Factors, tasks.regress, tasks.split(pairs, rates[pairs[:, 0], pairs[:, 1]]), tasks.adam(2e-2))


def contrast(dice: Dice, sick: bool) -> Case:
    """Two views of a sample, told from those of the others at a usual temperature."""
    width, temperature = dice.whole(24, 48), dice.between(0.2, 0.5)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        one, two = F.normalize(model(batch[0]), dim=1), F.normalize(model(batch[1]), dim=1)
        return F.cross_entropy(one @ two.T / temperature, torch.arange(len(one)))

    data = []
    for _ in range(4):
        sample = torch.randn(24, 12)
        data.append(torch.stack([sample + 0.3 * torch.randn(24, 12) for _ in range(2)]))
    return Case(lambda: mlp(12, width, 8), loss, data, tasks.adam(3e-3))


def sets(dice: Dice, sick: bool) -> Case:
    """Deep sets: a sum over points between two perceptrons."""
    width = dice.whole(16, 32)

    class DeepSet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.phi, self.rho = mlp(2, width, width), mlp(width, width, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.rho(self.phi(x).mean(1))

    points = torch.randn(128, 10, 2)
    return Case(
        DeepSet, tasks.regress, tasks.split(points, points.amax(1).sum(1, keepdim=True)), tasks.adam(1e-2)
    )


def graph(dice: Dice, sick: bool) -> Case:
    """Graph convolutions over a ring with chords."""
    width = dice.whole(12, 24)
    ring = torch.eye(24) + torch.eye(24).roll(1, 0) + torch.eye(24).roll(-1, 0) + torch.eye(24).roll(5, 0)

    class Gcn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, width), nn.Linear(width, 3)
            self.register_buffer("adjacency", ring / ring.sum(1, keepdim=True))

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.adjacency @ F.relu(self.one(self.adjacency @ x)))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    nodes = torch.randn(16, 24, 8)
    classes = (nodes @ torch.randn(8, 3)).argmax(-1)
    return Case(Gcn, loss, tasks.split(nodes, classes), tasks.adam(1e-2))


def values(dice: Dice, sick: bool) -> Case:
    """Q-values against those of an older copy, by the Huber loss."""
    width = dice.whole(24, 48)
    older = mlp(6, width, 3).requires_grad_(False)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        state, action, reward, later = batch
        goal = reward + 0.9 * older(later).amax(1)
        return F.smooth_l1_loss(model(state).gather(1, action[:, None])[:, 0], goal)

    data = []
    for _ in range(4):
        state = torch.randn(48, 6)
        data.append((state, torch.randint(3, (48,)), torch.tanh(state.sum(1)), torch.randn(48, 6)))
    return Case(lambda: mlp(6, width, 3), loss, data, tasks.adam(3e-3))


def aligned(dice: Dice, sick: bool) -> Case:
    """Connectionist temporal classification."""
    hidden = dice.whole(24, 32)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logs = model(batch[0]).log_softmax(-1).transpose(0, 1)
        rows = len(batch[0])
        return F.ctc_loss(logs, batch[1], torch.full((rows,), logs.shape[0]), torch.full((rows,), 3))

    class Speech(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.LSTM(6, hidden, batch_first=True), nn.Linear(hidden, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.rnn(x)[0])

    words = torch.randint(1, 6, (32, 3))
    sounds = F.one_hot(words, 6).float().repeat_interleave(4, 1) + 0.1 * torch.randn(32, 12, 6)
    return Case(Speech, loss, tasks.split(sounds, words), tasks.adam(1e-2))


def tagger(dice: Dice, sick: bool) -> Case:
    """A vanilla RNN on a short task, where it is enough."""
    hidden, steps = dice.whole(24, 40), dice.whole(6, 10)
    return Case(
        lambda: Tagger(nn.RNN(6, hidden, batch_first=True)),
        tasks.classify,
        tasks.first_mark(steps),
        tasks.adam(5e-3),
    )


HEALTHY = tuple(
    Program(name, family, make, steps=steps)
    for name, family, make, steps in (
        ("lstm-forecast", "recurrent", forecast, 100),
        ("gru-both-ways-clipped", "recurrent", both_ways, 100),
        ("causal-dilated-convolutions", "cnn", dilated, 100),
        ("gpt-warm-up-clip", "transformer", gpt, 80),
        ("gpt-bfloat16-own-step", "transformer", halves, 80),
        ("vision-transformer", "transformer", vit, 100),
        ("latents-cross-attention", "transformer", latents, 100),
        ("skip-grams-zero-output", "embedding", words, 120),
        ("matrix-factors", "embedding", factors, 150),
        ("contrastive-views", "mlp", contrast, 100),
        ("deep-sets", "mlp", sets, 120),
        ("graph-convolution", "mlp", graph, 100),
        ("q-values-older-copy", "mlp", values, 120),
        ("ctc-alignment", "recurrent", aligned, 120),
        ("rnn-short-task", "recurrent", tagger, 80),
    )
)
