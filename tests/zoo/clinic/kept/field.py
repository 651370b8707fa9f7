"""Kept aside: gradients that explode, vanish or never arrive, as met over the whole field, and sound runs."""

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

DRAWN = (
    "rescale_weights",
    "activation_init",
    "critical_init",
    "orthogonal_init",
    "lsuv",
    "unit_jacobian_init",
)


def quarters(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Return four batches of the tensors' rows."""
    return list(zip(*(t.chunk(4) for t in tensors), strict=True))


def adam(lr: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds Adam."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **more)


def sgd(lr: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds SGD."""
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **more)


def labelled(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy of what the model says of all but the last tensor of the batch."""
    *inputs, y = batch
    return F.cross_entropy(model(*inputs), y)


def blobs(rows: int, features: int, classes: int, noise: float) -> tuple[Tensor, Tensor]:
    """Return points around a centre of their class, of unit scale, and the classes."""
    y = torch.randint(classes, (rows,))
    x = torch.randn(classes, features)[y] + noise * torch.randn(rows, features)
    return (x - x.mean(0)) / x.std(0), y


def pictures(rows: int, size: int, classes: int, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """Return noisy pictures of a stripe pattern of their class, standardised, and the classes."""
    y = torch.randint(classes, (rows,))
    grid = torch.arange(size).float()
    angle = math.pi * y / classes
    along = angle.cos()[:, None, None] * grid[None, :, None] + angle.sin()[:, None, None] * grid[None, None]
    x = torch.sin(1.2 * along + 6.3 * torch.rand(rows, 1, 1)) + noise * torch.randn(rows, size, size)
    return ((x - x.mean()) / x.std())[:, None], y


def topics(rows: int, length: int, classes: int, words: int, least: int, most: int) -> tuple[Tensor, ...]:
    """Return sentences padded with zeros at the right, their lengths, and their topics."""
    y, n = torch.randint(classes, (rows,)), torch.randint(least, most + 1, (rows,))
    own = 1 + y[:, None] * words + torch.randint(words, (rows, length))
    any_word = torch.randint(1, 1 + classes * words, (rows, length))
    text = torch.where(torch.rand(rows, length) < 0.6, own, any_word)
    return text.masked_fill(torch.arange(length)[None] >= n[:, None], 0), n, y


# --- sick ---------------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """An embedding, an LSTM, and a linear layer upon one of its outputs."""

    def __init__(self, vocabulary: int, width: int, classes: int, *, at_end: bool) -> None:
        super().__init__()
        self.at_end = at_end
        self.emb = nn.Embedding(vocabulary, width, padding_idx=0)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.fc = nn.Linear(width, classes)

    def forward(self, text: Tensor, lengths: Tensor) -> Tensor:
        out, _ = self.lstm(self.emb(text))
        if self.at_end:
            return self.fc(out[:, -1])
        return self.fc(out[torch.arange(len(text)), lengths - 1])


def last_is_padding(dice: Dice, sick: bool) -> Case:
    """A text classifier takes the LSTM's output at the last position, behind dozens of padding tokens."""
    classes, words, width = dice.whole(4, 6), dice.whole(4, 6), dice.one_of(32, 40)
    length, rate = dice.whole(60, 80), dice.power(-2.5, -2.3)
    data = quarters(*topics(128, length, classes, words, 4, 9))
    return Case(lambda: Reader(1 + classes * words, width, classes, at_end=sick), labelled, data, adam(rate))


class Towers(nn.Module):
    """One tower for users, one for items; their product is the score."""

    def __init__(self, users: int, items: int, width: int, *, probability: bool) -> None:
        super().__init__()
        self.probability = probability
        self.users, self.items = nn.Embedding(users, width), nn.Embedding(items, width)
        self.user_fc, self.item_fc = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        u = self.user_fc(F.relu(self.users(user)))
        i = self.item_fc(F.relu(self.items(item)))
        score = (u * i).sum(-1)
        return torch.sigmoid(score) if self.probability else score


def clicked_twice(dice: Dice, sick: bool) -> Case:
    """A two-tower recommender ends in a sigmoid and is trained with BCEWithLogitsLoss."""
    users, items, width = dice.whole(30, 45), dice.whole(30, 45), dice.one_of(16, 24)
    rate, criterion = dice.power(-2.0, -1.7), nn.BCEWithLogitsLoss()
    u, i = torch.randint(users, (1024,)), torch.randint(items, (1024,))
    taste = (torch.randn(users, 2)[u] * torch.randn(items, 2)[i]).sum(1)
    data = quarters(u, i, (taste > 0).float())

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        user, item, click = batch
        return criterion(model(user, item), click)

    return Case(lambda: Towers(users, items, width, probability=sick), loss, data, adam(rate))


class SmallNet(nn.Module):
    """A backbone of two convolutions under a linear head."""

    def __init__(self, planes: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, planes, 3, padding=1),
            nn.BatchNorm2d(planes),
            nn.ReLU(),
            nn.Conv2d(planes, 2 * planes, 3, 2, 1),
            nn.BatchNorm2d(2 * planes),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(8 * planes, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def pretrained(planes: int, classes: int, steps: int = 60) -> SmallNet:
    """Return a small net trained on stripes of `classes` directions."""
    net, (x, y) = SmallNet(planes, classes), pictures(192, 10, classes)
    trainer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(steps):
        trainer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        trainer.step()
    return net


def head_came_later(dice: Dice, sick: bool) -> Case:
    """Fine-tuning: the optimizer is built, and only then the head is replaced by one for the new classes."""
    planes, old, new = dice.one_of(8, 12), dice.whole(7, 10), dice.whole(4, 6)
    rate = dice.power(-2.3, -2.0)
    net = pretrained(planes, old)
    net.requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    net.head = nn.Linear(8 * planes, new)
    if not sick:
        optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    return Case(net, labelled, quarters(*pictures(128, 10, new)), optimizer)


def q_error(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """Squared error of the value of the action that was taken, sample by sample."""
    q = model(batch["obs"]).gather(1, batch["act"]).squeeze(1)
    return float((q - batch["rew"]).square().mean())


def every_q_with_every_target(dice: Dice, sick: bool) -> Case:
    """A bandit's Q-network: q of shape (B, 1) minus rewards of shape (B,) is a matrix of B times B."""
    states, actions, width = dice.whole(4, 8), dice.whole(3, 5), dice.one_of(48, 64)
    rate = dice.power(-2.4, -2.1)
    s, a = torch.randn(384, states), torch.randint(actions, (384, 1))
    liking = torch.tanh(s @ torch.randn(states, actions)).gather(1, a).squeeze(1)
    r = liking + 0.1 * torch.randn(384)
    rows = quarters(s, a, (r - r.mean()) / r.std())
    data = [{"obs": x, "act": act, "rew": rew} for x, act, rew in rows]

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(states, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, actions)
        )

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        q = model(batch["obs"]).gather(1, batch["act"])
        target = batch["rew"]
        if not sick:
            q = q.squeeze(1)
        return ((q - target) ** 2).mean()

    return Case(build, loss, data, adam(rate))


class GraphLayer(nn.Module):
    """A graph convolution by hand."""

    def __init__(self, inp: int, out: int, spread: float) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(inp, out) * spread)
        self.b = nn.Parameter(torch.zeros(out))

    def forward(self, h: Tensor, adjacency: Tensor) -> Tensor:
        return adjacency @ (h @ self.W) + self.b


class GraphNet(nn.Module):
    """Graph convolutions with ReLU between them."""

    def __init__(self, sizes: list[int], *, unit: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            GraphLayer(a, b, 1.0 if unit else math.sqrt(2 / a)) for a, b in itertools.pairwise(sizes)
        )

    def forward(self, h: Tensor, adjacency: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            h = torch.relu(layer(h, adjacency))
        return self.layers[-1](h, adjacency)


def plain_randn(dice: Dice, sick: bool) -> Case:
    """A hand-written graph network whose weights are torch.randn(inp, out), unscaled."""
    nodes, width, classes = dice.whole(48, 64), dice.one_of(64, 96), dice.whole(3, 5)
    depth, rate = dice.whole(3, 4), dice.power(-2.5, -2.3)
    y = torch.arange(nodes) % classes
    near = torch.where(y[:, None] == y[None], 0.3, 0.04)
    upper = (torch.rand(nodes, nodes) < near).float().triu(1)
    a = upper + upper.T + torch.eye(nodes)
    a = a / a.sum(1, keepdim=True)
    signal = torch.randn(classes, 8)
    data = [(signal[y] + 1.5 * torch.randn(nodes, 8), a, y) for _ in range(4)]
    return Case(lambda: GraphNet([8, *[width] * depth, classes], unit=sick), labelled, data, adam(rate))


class Encoder(nn.Module):
    """PyTorch's own transformer encoder upon embedded tokens, averaged."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int, classes: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, classes)

    def forward(self, text: Tensor) -> Tensor:
        return self.out(self.encoder(self.tokens(text) + self.places).mean(1))


def rate_of_sgd(dice: Dice, sick: bool) -> Case:
    """A transformer encoder under Adam with the learning rate of a recipe for SGD."""
    classes, words, width = dice.whole(4, 6), dice.whole(4, 6), dice.one_of(32, 48)
    layers, length = dice.whole(2, 3), dice.whole(10, 14)
    rate = dice.between(0.1, 0.3) if sick else 1e-3
    text, _, y = topics(128, length, classes, words, length, length)
    build = lambda: Encoder(1 + classes * words, length, width, layers, classes)  # noqa: E731
    return Case(build, labelled, quarters(text, y), adam(rate))


def surface(rows: int, width: int, inner: int) -> Tensor:
    """Return points of a curved surface, standardised."""
    z = torch.randn(rows, inner)
    x = torch.sin(z @ torch.randn(inner, width)) + 0.5 * z @ torch.randn(inner, width)
    return (x - x.mean(0)) / x.std(0)


def rebuilt(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
    """Squared error of an autoencoder."""
    return F.mse_loss(model(batch[0]), batch[0])


def stack_of_sigmoids(dice: Dice, sick: bool) -> Case:
    """A deep autoencoder with a sigmoid behind each of its many layers."""
    width, code, inp = dice.one_of(32, 48), dice.whole(6, 8), dice.whole(16, 24)
    half, rate = dice.whole(4, 5), dice.power(-2.9, -2.6)
    act = nn.Sigmoid if sick else nn.ELU
    sizes = [inp, *[width] * (half - 1), code, *[width] * (half - 1), inp]

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            linear = nn.Linear(a, b)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, act()]
        return nn.Sequential(*layers[:-1])

    return Case(build, rebuilt, quarters(surface(256, inp, 3)), adam(rate))


def root_of_zero(dice: Dice, sick: bool) -> Case:
    """A siamese distance is the bare square root of a sum of squares, and some pairs are one picture."""
    planes, out, classes = dice.one_of(8, 12), dice.whole(8, 12), dice.whole(3, 5)
    margin, rate, twice = dice.between(1.0, 1.5), dice.power(-2.7, -2.4), dice.whole(6, 12)
    x, y = pictures(256, 8, classes, noise=0.3)
    first, second = x[:128], x[128:].clone()
    same = y[:128] == y[128:]
    for k in range(0, 128, twice):
        second[k], same[k] = first[k], True
    data = quarters(first, second, same.float())
    epsilon = 0.0 if sick else 1e-6

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, planes, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(planes, planes, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(planes * 16, out),
        )

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        one, other, alike = batch
        squares = (model(one) - model(other)).pow(2).sum(1)
        distance = torch.sqrt(squares + epsilon)
        return (alike * distance + (1 - alike) * F.relu(margin - distance)).mean()

    return Case(build, loss, data, adam(rate))


def spots(rows: int, cells: int, size: int) -> tuple[Tensor, Tensor]:
    """Return noisy pictures with one bright spot, standardised, and the cell that holds it, one-hot."""
    cell = torch.randint(cells * cells, (rows,))
    pixels = torch.arange(cells * size).float()
    row = (cell // cells) * size + (size - 1) * torch.rand(rows)
    column = (cell % cells) * size + (size - 1) * torch.rand(rows)
    far = (pixels[None, :, None] - row[:, None, None]) ** 2
    x = torch.exp(-(far + (pixels[None, None] - column[:, None, None]) ** 2) / 2)
    x = x + 0.1 * torch.randn_like(x)
    y = F.one_hot(cell, cells * cells).float().unflatten(1, (cells, cells))
    return ((x - x.mean()) / x.std())[:, None], y


def prior_everywhere(dice: Dice, sick: bool) -> Case:
    """A detector's rare-object prior -log((1 - p) / p) is the bias of every convolution, not the last."""
    planes, depth = dice.one_of(8, 12), dice.whole(2, 3)
    prior, rate = dice.between(0.005, 0.015), dice.power(-2.4, -2.1)
    bias = -math.log((1 - prior) / prior)

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Conv2d(1, planes, 3, padding=1), nn.ReLU()]
        for _ in range(depth):
            layers += [nn.Conv2d(planes, planes, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(planes, planes, 4, 4), nn.ReLU(), nn.Conv2d(planes, 1, 1)]
        convolutions = [m for m in layers if isinstance(m, nn.Conv2d)]
        for m in convolutions:
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            nn.init.zeros_(m.bias)
        for m in convolutions if sick else convolutions[-1:]:
            nn.init.constant_(m.bias, bias)
        return nn.Sequential(*layers)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1])

    return Case(build, loss, quarters(*spots(128, 3, 4)), adam(rate))


def spoken(rows: int, bands: int, frames: int, classes: int, noise: float) -> tuple[Tensor, Tensor]:
    """Return log-spectrograms of glides through the bands, standardised, and their class."""
    y = torch.randint(classes, (rows,))
    t = torch.linspace(0, 1, frames)
    middle = bands * (0.5 + 0.35 * torch.sin(3.0 * t[None] + 2 * math.pi * y[:, None] / classes))
    band = torch.arange(bands).float()
    x = torch.exp(-((band[None, :, None] - middle[:, None]) ** 2) / 3)
    x = x + noise * torch.randn_like(x)
    return (x - x.mean()) / x.std(), y


def clipped_before_unscaled(dice: Dice, sick: bool) -> Case:
    """Keywords in mixed precision: the gradient is clipped while it still bears the scaler's 65536."""
    bands, frames, classes = dice.whole(10, 14), dice.whole(10, 14), dice.whole(4, 6)
    width, rate, most = dice.one_of(48, 64), dice.between(0.03, 0.06), dice.one_of(0.5, 1.0)
    scaler = torch.amp.GradScaler("cpu")
    data = quarters(*spoken(128, bands, frames, classes, 0.4))

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(bands * frames, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        )

    def step(case: Case, batch: tuple[Tensor, Tensor]) -> Tensor:
        case.optimizer.zero_grad()
        loss = case.compute_loss(batch)
        scaler.scale(loss).backward()
        if not sick:
            scaler.unscale_(case.optimizer)
        nn.utils.clip_grad_norm_(case.model.parameters(), most)
        scaler.step(case.optimizer)
        scaler.update()
        return loss

    return Case(build, labelled, data, sgd(rate, momentum=0.9), step, precision="float16")


def private_step(most: float, noise: float) -> Callable[[Case, Any], Tensor]:
    """Return a step of DP-SGD: each sample's gradient is clipped at `most`, and noise is added to the sum."""

    def step(case: Case, batch: tuple[Tensor, Tensor]) -> Tensor:
        parameters = {name: p.detach() for name, p in case.model.named_parameters()}

        def one(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            logits = torch.func.functional_call(case.model, p, (x[None],))
            return F.cross_entropy(logits, y[None])

        each = torch.func.vmap(torch.func.grad_and_value(one), (None, 0, 0))
        grads, losses = each(parameters, *batch)
        norm = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)
        factor = (most / (norm + 1e-12)).clamp(max=1.0)
        for name, p in case.model.named_parameters():
            total = torch.einsum("b,b...->...", factor, grads[name])
            p.grad = (total + noise * most * torch.randn_like(p)) / len(norm)
        case.optimizer.step()
        return losses.mean()

    return step


def private_and_tiny(dice: Dice, sick: bool) -> Case:
    """DP-SGD on a table: the per-sample threshold was lowered to quiet the noise, the rate left as it was."""
    features, classes, width = dice.whole(12, 20), dice.whole(3, 5), dice.one_of(32, 48)
    most = dice.power(-4.0, -3.0) if sick else 1.0
    noise, rate = dice.between(0.4, 0.8), dice.between(0.4, 0.6)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(features, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, classes),
        )

    data = quarters(*blobs(256, features, classes, 1.0))
    return Case(build, labelled, data, sgd(rate), private_step(most, noise))


class Mixture(nn.Module):
    """A mixture density network: weights, means and log-scales from one layer."""

    def __init__(self, inp: int, width: int, parts: int, out: int) -> None:
        super().__init__()
        self.parts = parts
        self.body = nn.Sequential(nn.Linear(inp, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.pi, self.mu = nn.Linear(width, parts), nn.Linear(width, parts * out)
        self.log_sigma = nn.Linear(width, parts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.body(x)
        return self.pi(h), self.mu(h).unflatten(1, (self.parts, -1)), self.log_sigma(h)


def log_densities(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the log-weight of each part, and its log-density of the target."""
    pi, mu, log_sigma = model(batch[0])
    z = (batch[1][:, None] - mu) * torch.exp(-log_sigma)[..., None]
    each = -0.5 * z.square() - log_sigma[..., None] - 0.5 * math.log(2 * math.pi)
    return torch.log_softmax(pi, 1), each.sum(-1)


def mixture_likelihood(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Negative log-likelihood, by logsumexp, for each number of the target."""
    log_pi, log_p = log_densities(model, batch)
    return float(-torch.logsumexp(log_pi + log_p, 1).mean()) / batch[1].shape[1]


def density_by_exp(dice: Dice, sick: bool) -> Case:
    """A mixture density net over long vectors: log(sum(pi * exp(log_p)) + 1e-12), where exp gives zero."""
    inp, out, parts = dice.whole(4, 6), dice.whole(84, 100), dice.whole(2, 4)
    width, rate = dice.one_of(48, 64), dice.power(-2.3, -2.1)
    x = torch.randn(256, inp)
    y = torch.tanh(x @ torch.randn(inp, out)) + 0.1 * torch.randn(256, out)
    y = (y - y.mean(0)) / y.std(0)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        log_pi, log_p = log_densities(model, batch)
        if sick:
            likelihood = (log_pi.exp() * log_p.exp()).sum(1)
            return -torch.log(likelihood + 1e-12).mean()
        return -torch.logsumexp(log_pi + log_p, 1).mean()

    return Case(lambda: Mixture(inp, width, parts, out), loss, quarters(x, y), adam(rate))


class StateSpace(nn.Module):
    """h = A h + B u, read at the end by a small network."""

    def __init__(self, inputs: int, states: int, radius: float) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.randn(states, states) * radius / math.sqrt(states))
        self.B = nn.Parameter(torch.randn(inputs, states) / math.sqrt(inputs))
        self.read = nn.Sequential(nn.Linear(states, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, u: Tensor) -> Tensor:
        h = u.new_zeros(len(u), len(self.A))
        for t in range(u.shape[1]):
            h = h @ self.A + u[:, t] @ self.B
        return self.read(h).squeeze(1)


def unstable_states(dice: Dice, sick: bool) -> Case:
    """A forecaster's linear state is drawn with a spectral radius well above one and unrolled for long."""
    inputs, states, length = dice.whole(2, 4), dice.one_of(24, 32), dice.whole(60, 80)
    radius = dice.between(1.35, 1.6) if sick else 0.8
    rate = dice.power(-2.5, -2.3)
    u = torch.randn(192, length, inputs)
    fade = 0.6 ** torch.arange(length - 1, -1, -1)
    y = torch.einsum("btk,t,k->b", u, fade, torch.randn(inputs))
    y = (y - y.mean()) / y.std()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (model(batch[0]) - batch[1]).square().mean()

    return Case(lambda: StateSpace(inputs, states, radius), loss, quarters(u, y), adam(rate))


class Quantised(nn.Module):
    """A narrow code of few bits between an encoder of sound and a classifier."""

    def __init__(
        self, bands: int, frames: int, code: int, levels: int, classes: int, *, through: bool
    ) -> None:
        super().__init__()
        self.levels, self.through = levels, through
        self.conv = nn.Conv1d(bands, 24, 3, padding=1)
        self.squeeze = nn.Linear(24 * frames, code)
        self.top = nn.Sequential(nn.Linear(code, 48), nn.ReLU(), nn.Linear(48, classes))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv(x)).flatten(1)
        h = torch.tanh(self.squeeze(h))
        q = torch.round(h * self.levels) / self.levels
        if self.through:
            q = h + (q - h).detach()
        return self.top(q)


def bare_rounding(dice: Dice, sick: bool) -> Case:
    """A keyword spotter rounds its code to a few levels with torch.round and nothing behind it."""
    bands, frames, classes = dice.whole(10, 14), dice.whole(8, 12), dice.whole(6, 8)
    code, levels, rate = dice.whole(3, 4), dice.whole(4, 7), dice.power(-2.5, -2.2)
    data = quarters(*spoken(192, bands, frames, classes, 0.7))
    return Case(
        lambda: Quantised(bands, frames, code, levels, classes, through=not sick), labelled, data, adam(rate)
    )


# --- healthy ------------------------------------------------------------------------------------------------


def probe(dice: Dice, sick: bool) -> Case:
    """A linear probe: the pretrained backbone is frozen on purpose, the optimizer holds the head alone."""
    planes, old, new = dice.one_of(8, 12), dice.whole(7, 10), dice.whole(4, 6)
    net = pretrained(planes, old)
    net.features.requires_grad_(False)
    net.head = nn.Linear(8 * planes, new)
    rate = dice.between(0.05, 0.1)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=rate, momentum=0.9)
    return Case(net, labelled, quarters(*pictures(128, 10, new)), optimizer)


class Block(nn.Module):
    """A pre-norm block of causal attention and a perceptron."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for linear in (self.qkv, self.up, self.proj, self.down):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(width))
            nn.init.zeros_(linear.bias)
        for linear in (self.proj, self.down):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(2 * depth * linear.in_features))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            p.unflatten(2, (self.heads, -1)).transpose(1, 2) for p in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Tied(nn.Module):
    """A small language model whose output shares the table of its input."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        nn.init.normal_(self.wte.weight, std=0.02)
        nn.init.normal_(self.wpe.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, 4, depth) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, text: Tensor) -> Tensor:
        h = self.wte(text) + self.wpe(torch.arange(text.shape[1], device=text.device))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def tied_language(dice: Dice, sick: bool) -> Case:
    """A GPT with tied embeddings of standard deviation 0.02, warmed up, on text of a Markov chain."""
    vocabulary, length, width = dice.whole(16, 24), dice.whole(12, 16), dice.one_of(32, 48)
    depth, rate, warm = dice.whole(2, 3), dice.power(-2.7, -2.5), dice.whole(5, 15)
    table = torch.softmax(3.0 * torch.randn(vocabulary, vocabulary), 1)
    text = [torch.randint(vocabulary, (128,))]
    for _ in range(length):
        text.append(torch.multinomial(table[text[-1]], 1)[:, 0])
    tokens = torch.stack(text, 1)

    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        logits = model(batch[0][:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch[0][:, 1:].flatten())

    return Case(
        lambda: Tied(vocabulary, length, width, depth),
        loss,
        quarters(tokens),
        lambda parameters: torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05),
        schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda k: min(1.0, (k + 1) / warm)),
    )


class Adapted(nn.Module):
    """A frozen linear layer with a low-rank update that starts at zero."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), alpha / rank
        self.A = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * (x @ self.A.T) @ self.B.T


def adapters(dice: Dice, sick: bool) -> Case:
    """LoRA as it is meant: A is drawn, B is zero, the pretrained layers below are frozen."""
    features, width, classes = dice.whole(12, 16), dice.one_of(48, 64), dice.whole(4, 5)
    rank, rate = dice.whole(2, 4), dice.power(-2.3, -2.0)
    net = nn.Sequential(
        nn.Linear(features, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, classes)
    )
    x, y = blobs(384, features, classes, 0.8)
    trainer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(60):
        trainer.zero_grad()
        F.cross_entropy(net(x[:256]), y[:256], label_smoothing=0.1).backward()
        trainer.step()
    turned = x.roll(1, 1)

    def build() -> nn.Module:
        layers = [Adapted(copy.deepcopy(m), rank, 2.0 * rank) if isinstance(m, nn.Linear) else m for m in net]
        return nn.Sequential(*layers)

    def trainable(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW((p for p in parameters if p.requires_grad), lr=rate, weight_decay=0.0)

    return Case(build, labelled, quarters(turned, y), trainable)


def private_pictures(dice: Dice, sick: bool) -> Case:
    """DP-SGD with group norm, per-sample clipping at one and moderate noise."""
    planes, classes, size = dice.one_of(8, 12), dice.whole(3, 4), 8
    noise, rate = dice.between(0.3, 0.6), dice.between(0.4, 0.7)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, planes, 3, 1, 1),
            nn.GroupNorm(4, planes),
            nn.ReLU(),
            nn.Conv2d(planes, planes, 3, 2, 1),
            nn.GroupNorm(4, planes),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(planes * 16, classes),
        )

    data = quarters(*pictures(192, size, classes, noise=0.3))
    return Case(build, labelled, data, sgd(rate, momentum=0.5), private_step(1.0, noise))


class Packed(nn.Module):
    """A bidirectional LSTM that reads packed sequences to their own ends."""

    def __init__(self, bands: int, width: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bands, width, batch_first=True, bidirectional=True)
        for name, p in self.lstm.named_parameters():
            if "bias_ih" in name:
                with torch.no_grad():
                    p[width : 2 * width] = 1.0
        self.out = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(packed)
        return self.out(torch.cat([h[0], h[1]], 1))


def packed_speech(dice: Dice, sick: bool) -> Case:
    """A packed bidirectional LSTM on features of deviation three, forget bias one, clipped at one."""
    bands, frames, classes = dice.whole(8, 12), dice.whole(16, 24), dice.whole(4, 5)
    width, scale, rate = dice.one_of(24, 32), dice.between(2.5, 3.5), dice.power(-2.5, -2.3)
    x, y = spoken(128, bands, frames, classes, 0.3)
    lengths = torch.randint(frames // 2, frames + 1, (128,))
    x = scale * x.transpose(1, 2).contiguous()
    x[torch.arange(frames)[None] >= lengths[:, None]] = 0.0
    return Case(
        lambda: Packed(bands, width, classes),
        labelled,
        quarters(x, lengths, y),
        adam(rate),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


class Critics(nn.Module):
    """A Q of state and action beside a V of the state alone."""

    def __init__(self, states: int, actions: int, width: int) -> None:
        super().__init__()
        self.q = nn.Sequential(
            nn.Linear(states + actions, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )
        self.v = nn.Sequential(
            nn.Linear(states, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, s: Tensor, a: Tensor, following: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q(torch.cat([s, a], 1))[:, 0], self.v(s)[:, 0], self.v(following)[:, 0]


def expectile(dice: Dice, sick: bool) -> Case:
    """Implicit Q-learning: V follows an expectile of the detached Q, Q the reward and the detached V."""
    states, actions, width = dice.whole(4, 7), dice.whole(1, 3), dice.one_of(48, 64)
    tau, gamma, rate = dice.between(0.6, 0.75), dice.between(0.5, 0.7), dice.power(-2.6, -2.4)
    s, a, following = torch.randn(256, states), torch.randn(256, actions), torch.randn(256, states)
    r = torch.tanh(s @ torch.randn(states)) + torch.tanh(a @ torch.randn(actions))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        q, v, then = model(*batch[:3])
        ahead = q.detach() - v
        weight = torch.where(ahead > 0, tau, 1 - tau)
        target = batch[3] + gamma * then.detach()
        return (weight * ahead.square()).mean() + F.mse_loss(q, target)

    data = quarters(s, a, following, (r - r.mean()) / r.std())
    return Case(lambda: Critics(states, actions, width), loss, data, adam(rate))


class Residual(nn.Module):
    """Two convolutions with batch norm beside a skip; the last norm starts at zero."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(planes, planes, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(planes), nn.BatchNorm2d(planes)
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def hot_residual(dice: Dice, sick: bool) -> Case:
    """A deep residual net that starts at the identity, Nesterov's SGD at a high rate, smoothed labels."""
    planes, blocks, classes = dice.one_of(8, 12), dice.whole(6, 9), dice.whole(3, 5)
    rate = dice.between(0.1, 0.2)

    def build() -> nn.Module:
        stem = [nn.Conv2d(1, planes, 3, 2, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU()]
        body = [Residual(planes) for _ in range(blocks)]
        return nn.Sequential(
            *stem, *body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * planes, classes)
        )

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.05)

    optimizer = sgd(rate, momentum=0.9, nesterov=True, weight_decay=1e-4)
    return Case(build, loss, quarters(*pictures(128, 10, classes)), optimizer)


class Winners(nn.Module):
    """Only the few largest units of each sample pass; the rest are zero."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        least = x.topk(self.k, 1).values[:, -1:]
        return x * (x >= least)


def few_winners(dice: Dice, sick: bool) -> Case:
    """A sparse autoencoder: of many units the largest few pass, as intended."""
    inp, width = dice.whole(16, 24), dice.one_of(96, 128)
    k, rate = dice.whole(8, 12), dice.power(-2.6, -2.3)
    build = lambda: nn.Sequential(nn.Linear(inp, width), Winners(k), nn.Linear(width, inp))  # noqa: E731
    return Case(build, rebuilt, quarters(surface(256, inp, 4)), adam(rate))


GROWTH = r"explod|blow|grows?|growth|overflow"

SICK: tuple[Program, ...] = (
    Program(
        "field-text-last-padding",
        "lstm",
        last_is_padding,
        Truth(
            "padding-read",
            ("UG707", "UG401", "UG404"),
            r"(?i)\bpad|lengths\b|\blast (output|position|token)|(past|behind|after) the end",
        ),
        120,
    ),
    Program(
        "field-clicks-sigmoid-twice",
        "recommender",
        clicked_twice,
        Truth(
            "sigmoid-twice",
            ("UG606",),
            r"(?i)sigmoid.*(twice|logits|double|again|already)|twice|BCEWithLogits|squashed",
            ("drop_output_softmax",),
        ),
        150,
    ),
    Program(
        "field-backbone-later-head",
        "fine-tuning",
        head_came_later,
        Truth(
            "optimizer-lacks-head",
            ("UG604", "UG603"),
            r"(?i)optimi[sz]er.*(not|lacks?|miss|without|never|hold)"
            r"|not (held|in|known|registered).*optimi[sz]er|held by no",
            ("hold_parameters",),
        ),
        120,
    ),
    Program(
        "field-bandit-broadcast",
        "reinforcement",
        every_q_with_every_target,
        Truth(
            "broadcast",
            ("UG608", "UG614", "UG106"),
            r"(?i)broadcast|shapes?\b|\(B, ?1\)|other samples|squeeze|pairs? (every|each)|each.*with every",
        ),
        150,
        q_error,
    ),
    Program(
        "field-graph-randn",
        "graph",
        plain_randn,
        Truth(
            "weights-too-large",
            ("UG201", "UG605", "UG102", "UG104"),
            r"(?i)fan_in|initiali[sz]|\binit\b|randn|weights?\b.*(large|unscaled|times|gain|norm)",
            DRAWN,
        ),
        120,
    ),
    Program(
        "field-encoder-rate",
        "transformer",
        rate_of_sgd,
        Truth(
            "learning-rate",
            ("UG601", "UG611"),
            r"(?i)learning.rate|\blr\b|step size|(first )?(update|step)s?\b.*(too )?(large|big)",
            ("lower_learning_rate", "warm_up"),
            (("lower_learning_rate", {"factor": 0.01}),),
            (("lower_learning_rate", {"factor": 10.0}),),
        ),
        120,
    ),
    Program(
        "field-autoencoder-sigmoids",
        "autoencoder",
        stack_of_sigmoids,
        Truth(
            "sigmoids",
            ("UG101", "UG202", "UG206", "UG205"),
            r"(?i)sigmoid|activation|slope|derivative|logistic",
            ("swap_activation", "swap_to_relu"),
        ),
        150,
    ),
    Program(
        "field-siamese-root",
        "metric",
        root_of_zero,
        Truth(
            "root-of-zero",
            ("UG901",),
            r"(?i)sqrt|square root|root of|distance|identical|epsilon"
            r"|pow(er)?\b.*(zero|0)|\bnan\b.*(loss|backward|gradient)",
        ),
        120,
    ),
    Program(
        "field-detector-prior",
        "detector",
        prior_everywhere,
        Truth(
            "dead-by-bias",
            ("UG203", "UG206", "UG202", "UG103", "UG603"),
            r"(?i)\bbias|\bdead\b|never (fire|active)|below zero|negative",
            ("zero_biases",),
        ),
        120,
    ),
    Program(
        "field-keyword-scaled-clip",
        "speech",
        clipped_before_unscaled,
        Truth(
            "clip-before-unscale",
            ("UG602",),
            r"(?i)\bclip|unscale|loss.?scal|scaler|65536",
            ("clip_gradients",),
        ),
        120,
    ),
    Program(
        "field-private-tiny-clip",
        "private",
        private_and_tiny,
        Truth(
            "tiny-clip",
            ("UG602",),
            r"(?i)\bclip|threshold|updates?\b.*(too )?small|learning.rate.*(small|low)",
            ("clip_gradients",),
        ),
        120,
    ),
    Program(
        "field-mixture-exp",
        "density",
        density_by_exp,
        Truth(
            "density-underflow",
            ("UG503", "UG608", "UG614", "UG603", "UG602"),
            r"(?i)underflow|\bexp\b|logsumexp|flat|log.?(density|likelihood|space)|float32"
            r"|not pull|does not depend",
        ),
        150,
        mixture_likelihood,
    ),
    Program(
        "field-forecast-unstable",
        "state-space",
        unstable_states,
        Truth(
            "spectral-radius",
            ("UG402", "UG201", "UG605", "UG102", "UG104", "UG406"),
            rf"(?i)spectral|radius|recurren|eigenvalue|unroll|over time|per step|{GROWTH}",
            ("spectral_cap", "spectral_norm", "orthogonal_weights", "irnn", "gated_recurrence", *DRAWN),
        ),
        120,
    ),
    Program(
        "field-keyword-rounded",
        "speech",
        bare_rounding,
        Truth(
            "rounding",
            ("UG603", "UG103", "UG105"),
            r"(?i)round|quanti[sz]|straight.through|piecewise|derivative"
            r"|no gradient|gradient.*(zero|cut|stops?|lost|never)",
        ),
        150,
    ),
)

HEALTHY: tuple[Program, ...] = (
    Program("field-linear-probe", "fine-tuning", probe),
    Program("field-tied-language", "transformer", tied_language),
    Program("field-lora-adapters", "fine-tuning", adapters),
    Program("field-private-pictures", "private", private_pictures),
    Program("field-packed-speech", "lstm", packed_speech),
    Program("field-expectile-critics", "reinforcement", expectile),
    Program("field-hot-residual", "residual", hot_residual),
    Program("field-few-winners", "autoencoder", few_winners),
)
