"""Kept aside: what people post on forums when their network does not train, and posts that were no fault."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice


def quarters(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Return the tensors' rows as four batches."""
    return list(zip(*(t.chunk(4) for t in tensors), strict=True))


def with_adam(lr: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds Adam over all parameters that want a gradient."""
    return lambda parameters: torch.optim.Adam([p for p in parameters if p.requires_grad], lr=lr, **more)


def with_sgd(lr: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds SGD."""
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **more)


def classify(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy of the model's logits."""
    *inputs, y = batch
    return nn.CrossEntropyLoss()(model(*inputs), y)


def share_wrong(model: nn.Module, batch: tuple[Tensor, ...]) -> float:
    """Share of the rows whose class is not the largest output."""
    *inputs, y = batch
    return float((model(*inputs).argmax(-1) != y).float().mean())


def bumps(rows: int, classes: int, side: int = 8) -> tuple[Tensor, Tensor]:
    """Return noisy grey pictures, around zero, that show one of a few random patterns, and which."""
    y = torch.randint(classes, (rows,))
    shown = torch.randn(classes, 1, side, side)[y]
    return shown + 0.7 * torch.randn(rows, 1, side, side), y


# --- sick ---------------------------------------------------------------------------------------------------


def raw_columns(dice: Dice, sick: bool) -> Case:
    """House prices from the columns as they stand in the file: years, square feet, metres from the sea."""
    columns, width = dice.whole(5, 7), dice.one_of(32, 48, 64)
    rate = dice.power(-3.0, -2.7)
    middle = torch.tensor([1975.0, 1600.0, 8200.0, 5.0, 2.1, 30000.0, 410.0])[:columns]
    spread = torch.tensor([25.0, 550.0, 3300.0, 1.6, 0.8, 12000.0, 120.0])[:columns]
    rows = middle + spread * torch.randn(256, columns)
    z = (rows - middle) / spread
    price = z @ torch.randn(columns, 1) + torch.sin(2 * z[:, :1]) + z[:, 1:2] * z[:, 3:4]
    price = (price - price.mean()) / price.std()

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return nn.MSELoss()(model(x), y)

    return Case(build, loss, quarters(rows if sick else z, price), with_adam(rate))


class SentenceCNN(nn.Module):
    """Embedding, one convolution over the words, the largest of each channel, classes."""

    def __init__(self, words: int, size: int, planes: int, classes: int, *, softmax: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        self.conv = nn.Conv1d(size, planes, kernel_size=3, padding=1)
        self.fc = nn.Linear(planes, classes)
        self.softmax = nn.Softmax(dim=1) if softmax else None

    def forward(self, tokens: Tensor) -> Tensor:
        h = F.relu(self.conv(self.embedding(tokens).transpose(1, 2))).amax(2)
        out = self.fc(h)
        return out if self.softmax is None else self.softmax(out)


def softmax_twice(dice: Dice, sick: bool) -> Case:
    """A sentence classifier that ends in nn.Softmax and is trained with nn.CrossEntropyLoss."""
    words, classes, length = dice.whole(70, 90), dice.whole(16, 20), dice.whole(8, 12)
    size, planes, rate = dice.one_of(16, 24), dice.one_of(32, 48), dice.between(0.04, 0.06)
    y = torch.randint(classes, (256,))
    tokens = torch.randint(3 * classes, words, (256, length))
    for _ in range(2):
        place = torch.randint(length, (256, 1))
        tokens.scatter_(1, place, (3 * y + torch.randint(3, (256,)))[:, None])

    def build() -> nn.Module:
        return SentenceCNN(words, size, planes, classes, softmax=sick)

    return Case(build, classify, quarters(tokens, y), with_sgd(rate, momentum=0.9))


class Plain(nn.Module):
    """Many 3x3 convolutions one after another and nothing else, as in the first half of a lecture."""

    def __init__(self, depth: int, planes: int, classes: int, *, kaiming: bool) -> None:
        super().__init__()
        sizes = [1] + [planes] * depth
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(sizes))
        self.fc = nn.Linear(planes * 4, classes)
        if kaiming:
            for conv in self.convs:
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))


def twenty_layers(dice: Dice, sick: bool) -> Case:
    """It works with two convolutions and not with twenty: no norm, no skip, PyTorch's default weights."""
    depth, planes, classes = dice.whole(20, 23), dice.one_of(12, 16), dice.whole(5, 6)
    rate = dice.power(-3.1, -2.8)
    data = quarters(*bumps(128, classes))
    return Case(lambda: Plain(depth, planes, classes, kaiming=not sick), classify, data, with_adam(rate))


class Reader(nn.Module):
    """An LSTM over word indices; the class is read off its last output."""

    def __init__(self, words: int, hidden: int, classes: int, *, at_the_end: bool) -> None:
        super().__init__()
        self.at_the_end = at_the_end
        self.embed = nn.Embedding(words, hidden, padding_idx=0)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.out = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.lstm(self.embed(tokens))
        if self.at_the_end:
            return self.out(states[:, -1])
        return self.out(states[torch.arange(len(tokens)), lengths - 1])


def reviews(rows: int, words: int, classes: int, least: int, most: int, padded: int) -> tuple[Tensor, ...]:
    """Return sentences filled up with zeros, their lengths, and the class that their first word tells."""
    lengths, y = torch.randint(least, most + 1, (rows,)), torch.randint(classes, (rows,))
    tokens = torch.randint(classes + 1, words, (rows, padded))
    tokens[:, 0] = y + 1
    tokens[torch.arange(padded)[None, :] >= lengths[:, None]] = 0
    return tokens, lengths, y


def padded(dice: Dice, sick: bool) -> Case:
    """Short sentences filled up with zeros to the longest one; the LSTM's output is read at index -1."""
    words, hidden, classes = dice.whole(30, 40), dice.one_of(24, 32), dice.whole(4, 6)
    to, rate = dice.whole(50, 70), dice.power(-2.2, -2.0)
    data = quarters(*reviews(128, words, classes, 3, 7, to))
    return Case(lambda: Reader(words, hidden, classes, at_the_end=sick), classify, data, with_adam(rate))


class Cells(nn.Module):
    """A GRU cell in a loop over the steps."""

    def __init__(self, size: int, hidden: int, classes: int, *, detach: bool) -> None:
        super().__init__()
        self.hidden, self.detach = hidden, detach
        self.cell = nn.GRUCell(size, hidden)
        self.decode = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.hidden)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h.detach() if self.detach else h)
        return self.decode(h)


def detached(dice: Dice, sick: bool) -> Case:
    """The hidden state is detached in every step, which cured 'backward through the graph a second time'."""
    hidden, classes, steps = dice.one_of(16, 24), dice.whole(5, 7), dice.whole(13, 16)
    rate = dice.power(-2.1, -1.9)
    y = torch.randint(classes, (768,))
    x = 0.5 * torch.randn(768, steps, classes)
    x[:, 0] += 3.0 * F.one_hot(y, classes)
    return Case(
        lambda: Cells(classes, hidden, classes, detach=sick), classify, quarters(x, y), with_adam(rate)
    )


class Adversaries(nn.Module):
    """A generator and its discriminator."""

    def __init__(self, latent: int, width: int, size: int) -> None:
        super().__init__()
        self.netG = nn.Sequential(nn.Linear(latent, width), nn.LeakyReLU(0.2), nn.Linear(width, size))
        self.netD = nn.Sequential(nn.Linear(size, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))


def off_target(model: Adversaries, batch: tuple[Tensor, Tensor]) -> float:
    """Energy distance between generated and real rows."""
    z, real = batch
    fake = model.netG(z)
    pairs = len(real) * (len(real) - 1)
    own = (torch.cdist(real, real).sum() + torch.cdist(fake, fake).sum()) / pairs
    return float(2 * torch.cdist(fake, real).mean() - own)


def same_fake(dice: Dice, sick: bool) -> Case:
    """The generator's step takes the fakes of the discriminator's step again, detached as they are."""
    latent, width, size = dice.whole(4, 8), dice.one_of(32, 48), dice.whole(6, 10)
    rate, away = dice.power(-2.5, -2.3), dice.between(1.5, 2.5)
    real = 0.5 * torch.randn(256, size) + away * torch.randn(1, size)
    bce = nn.BCEWithLogitsLoss()

    def fool(model: Adversaries, fake: Tensor) -> Tensor:
        judged = model.netD(fake)
        return bce(judged, torch.ones_like(judged))

    def loss(model: Adversaries, batch: tuple[Tensor, Tensor]) -> Tensor:
        fake = model.netG(batch[0])
        return fool(model, fake.detach() if sick else fake)

    def step(case: Case, batch: tuple[Tensor, Tensor]) -> Tensor:
        model, optimizer = case.model, case.optimizer
        z, x = batch
        # Discriminator.
        optimizer.zero_grad()
        fake = model.netG(z)
        kept = fake.detach()
        on_real, on_fake = model.netD(x), model.netD(kept)
        (bce(on_real, torch.ones_like(on_real)) + bce(on_fake, torch.zeros_like(on_fake))).backward()
        optimizer.step()
        # Generator.
        optimizer.zero_grad()
        loss_g = fool(model, kept if sick else fake)
        loss_g.backward()
        for p in model.netD.parameters():
            p.grad = None
        optimizer.step()
        return loss_g

    data = quarters(torch.randn(256, latent), real)
    return Case(
        lambda: Adversaries(latent, width, size), loss, data, with_adam(rate, betas=(0.5, 0.999)), step
    )


def distance_of_nothing(dice: Dice, sick: bool) -> Case:
    """A siamese net with the root of a squared distance; some pairs are one picture twice: 0 times inf."""
    size, width, out = dice.whole(10, 16), dice.one_of(32, 48), dice.whole(4, 8)
    rate, twice, margin = dice.power(-2.7, -2.3), dice.whole(2, 5), dice.between(1.0, 1.5)
    middle = torch.randn(6, size)
    kind, other = torch.randint(6, (256,)), torch.randint(6, (256,))
    other = torch.where(torch.rand(256) < 0.4, kind, other)
    left = middle[kind] + 0.5 * torch.randn(256, size)
    right = middle[other] + 0.5 * torch.randn(256, size)
    right[200 : 200 + twice], other[200 : 200 + twice] = left[200 : 200 + twice], kind[200 : 200 + twice]
    same = (kind == other).float()

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, out))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        a, b, y = batch
        squares = (model(a) - model(b)).pow(2).sum(dim=1)
        distance = torch.sqrt(squares if sick else squares + 1e-6)
        pull, push = y * distance.pow(2), (1 - y) * torch.clamp(margin - distance, min=0).pow(2)
        return (pull + push).mean()

    return Case(build, loss, quarters(left, right, same), with_adam(rate))


def half_adam(dice: Dice, sick: bool) -> Case:
    """model.half() and Adam with its own epsilon, 1e-8, which is zero in half precision: 0 / 0."""
    width, classes, rate = dice.one_of(32, 48, 64), dice.whole(4, 6), dice.power(-3.0, -2.7)
    side, frame = dice.whole(8, 10), dice.whole(1, 2)
    x, y = bumps(192, classes, side)
    edge = torch.zeros(side, side)
    edge[frame:-frame, frame:-frame] = 1.0
    x = (x * edge).flatten(1)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(side * side, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        ).half()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0].half()).float(), batch[1])

    return Case(build, loss, quarters(x, y), with_adam(rate, eps=1e-8 if sick else 1e-4))


class Encoder(nn.Module):
    """nn.TransformerEncoder as it comes, over words and places."""

    def __init__(self, words: int, length: int, size: int, depth: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, size), nn.Parameter(torch.randn(length, size))
        layer = nn.TransformerEncoderLayer(size, 4, 2 * size, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.to_words = nn.Linear(size, words)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.to_words(self.encoder(self.words(tokens) + self.places))


def word_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy over all places."""
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def no_warm_up(dice: Dice, sick: bool) -> Case:
    """A post-norm nn.TransformerEncoder that starts at its full learning rate."""
    words, length, size = dice.whole(8, 12), dice.whole(6, 8), 32
    depth, rate, rise = dice.whole(7, 8), dice.power(-1.85, -1.78), dice.whole(90, 110)
    tokens = torch.randint(words, (128, length))

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: min(1.0, (n + 1) / rise))

    return Case(
        lambda: Encoder(words, length, size, depth),
        word_loss,
        quarters(tokens, tokens.flip(1)),
        with_adam(rate),
        schedule=None if sick else schedule,
    )


class Attends(nn.Module):
    """One nn.MultiheadAttention on top of embedded measurements, a prediction at each of them."""

    def __init__(self, size: int, width: int, classes: int, *, batch_first: bool) -> None:
        super().__init__()
        self.inp = nn.Linear(size, width)
        self.attn = nn.MultiheadAttention(width, 4, batch_first=batch_first)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ff = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inp(x)
        q = self.norm1(h)
        h = h + self.attn(q, q, q, need_weights=False)[0]
        return self.out(h + self.ff(self.norm2(h)))


def batch_second(dice: Dice, sick: bool) -> Case:
    """nn.MultiheadAttention without batch_first gets (batch, time, features) and attends over the samples."""
    classes, length, width = dice.whole(4, 6), dice.whole(8, 12), dice.one_of(32, 48)
    rate = dice.power(-2.5, -2.3)
    y, place = torch.randint(classes, (128,)), torch.randint(length, (128,))
    x = 0.05 * torch.randn(128, length, classes + 1)
    x[torch.arange(128), place, :-1] += 2.0 * F.one_hot(y, classes)
    x[torch.arange(128), place, -1] += 2.0
    data = quarters(x, y[:, None].expand(-1, length).contiguous())

    def build() -> nn.Module:
        return Attends(classes + 1, width, classes, batch_first=not sick)

    return Case(build, word_loss, data, with_adam(rate))


def in_eval(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Cross-entropy with dropout off."""
    model.eval()
    shown = float(classify(model, batch))
    model.train()
    return shown


def keep_prob(dice: Dice, sick: bool) -> Case:
    """A net carried over from TensorFlow 1: nn.Dropout gets the share to keep."""
    planes, width, classes = dice.one_of(8, 12), dice.one_of(32, 48), dice.whole(4, 6)
    keep, rate = dice.between(0.92, 0.96), dice.power(-3.0, -2.8)
    p = keep if sick else 1 - keep

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, planes, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout2d(p),
            nn.Conv2d(planes, 2 * planes, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(p),
            nn.Linear(8 * planes, width),
            nn.ReLU(),
            nn.Dropout(p),
            nn.Linear(width, classes),
        )

    return Case(build, classify, quarters(*bumps(192, classes)), with_adam(rate))


class Machine(nn.Module):
    """A factorisation machine: a weight for each value of each field, and products of their vectors."""

    def __init__(self, fields: list[int], rank: int, *, listed: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.linear = nn.ModuleList(nn.Embedding(n, 1) for n in fields)
        vectors = [nn.Embedding(n, rank) for n in fields]
        for table in self.linear:
            nn.init.zeros_(table.weight)
        for table in vectors:
            nn.init.normal_(table.weight, std=0.3)
        self.vectors = vectors if listed else nn.ModuleList(vectors)

    def forward(self, x: Tensor) -> Tensor:
        v = torch.stack([table(x[:, k]) for k, table in enumerate(self.vectors)], 1)
        w = sum(table(x[:, k]) for k, table in enumerate(self.linear))
        pairs = 0.5 * (v.sum(1).square() - v.square().sum(1)).sum(1)
        return self.bias + w.squeeze(1) + pairs


def plain_list(dice: Dice, sick: bool) -> Case:
    """A factorisation machine whose embeddings stand in a Python list, unknown to model.parameters()."""
    fields = [dice.whole(12, 20) for _ in range(3)]
    rank, rate = dice.whole(6, 8), dice.power(-1.6, -1.4)
    x = torch.stack([torch.randint(n, (768,)) for n in fields], 1)
    a, b, c = (torch.randn(n, 2)[x[:, k]] for k, n in enumerate(fields))
    y = (a * b + b * c + a * c).sum(1)
    y = y / y.std() + 0.1 * torch.randn(768)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (model(batch[0]) - batch[1]).pow(2).mean()

    return Case(lambda: Machine(fields, rank, listed=sick), loss, quarters(x, y), with_adam(rate))


def pixel_error(model: nn.Module, batch: tuple[Tensor]) -> float:
    """Squared error of a pixel."""
    return float(F.mse_loss(model(batch[0]), batch[0]))


def summed(dice: Dice, sick: bool) -> Case:
    """An autoencoder with MSELoss(reduction='sum') under the learning rate of the mean: soon NaN."""
    size, code, width = dice.whole(24, 36), dice.whole(4, 6), dice.one_of(32, 48)
    rate, reduction = dice.between(0.2, 0.4), "sum" if sick else "mean"
    x = torch.tanh(torch.randn(192, 3) @ torch.randn(3, size))
    criterion = nn.MSELoss(reduction=reduction)

    def build() -> nn.Module:
        encoder = nn.Sequential(nn.Linear(size, width), nn.ELU(), nn.Linear(width, code))
        decoder = nn.Sequential(nn.Linear(code, width), nn.ELU(), nn.Linear(width, size))
        return nn.Sequential(encoder, decoder)

    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        return criterion(model(batch[0]), batch[0])

    return Case(build, loss, quarters(x), with_sgd(rate, momentum=0.9))


def value_error(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """Squared error of the values, row by row."""
    return float((model(batch["obs"]).squeeze(-1) - batch["returns"]).square().mean())


def every_pair(dice: Dice, sick: bool) -> Case:
    """A value network's (n, 1) against returns of (n,): the error of every pair, so it learns the mean."""
    states, width, rate = dice.whole(4, 8), dice.one_of(32, 48, 64), dice.power(-2.6, -2.3)
    obs = torch.randn(256, states)
    returns = torch.tanh(obs @ torch.randn(states)) + 0.5 * obs[:, 0] * obs[:, 1]
    returns = (returns - returns.mean()) / returns.std()

    def build() -> nn.Module:
        net = nn.Sequential(
            nn.Linear(states, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )
        for layer, gain in zip(net[::2], (math.sqrt(2), math.sqrt(2), 0.1), strict=True):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
        return net

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        values = model(batch["obs"])
        if not sick:
            values = values.squeeze(-1)
        return 0.5 * (batch["returns"] - values).pow(2).mean()

    data = [{"obs": a, "returns": b} for a, b in quarters(obs, returns)]
    return Case(build, loss, data, with_adam(rate))


# --- healthy ------------------------------------------------------------------------------------------------


def frozen_backbone(dice: Dice, sick: bool) -> Case:
    """A backbone that was trained on all classes, frozen and in eval mode; a new head learns two groups."""
    planes, classes, rate = dice.one_of(12, 16), dice.whole(6, 8), dice.power(-2.2, -1.8)
    x, y = bumps(256, classes)
    backbone = nn.Sequential(
        nn.Conv2d(1, planes, 3, stride=2, padding=1),
        nn.BatchNorm2d(planes),
        nn.ReLU(),
        nn.Conv2d(planes, planes, 3, stride=2, padding=1),
        nn.BatchNorm2d(planes),
        nn.ReLU(),
        nn.Flatten(),
    )
    whole = nn.Sequential(backbone, nn.Linear(4 * planes, classes))
    trainer = torch.optim.Adam(whole.parameters(), lr=5e-3)
    for _ in range(60):
        trainer.zero_grad()
        F.cross_entropy(whole(x), y).backward()
        trainer.step()
    learned = {name: value.clone() for name, value in backbone.state_dict().items()}

    class Transfer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(*(type(m)(*_arguments(m)) for m in backbone))
            self.backbone.load_state_dict(learned)
            for p in self.backbone.parameters():
                p.requires_grad = False
            self.head = nn.Linear(4 * planes, 2)
            self.train()

        def train(self, mode: bool = True) -> "Transfer":
            super().train(mode)
            self.backbone.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.backbone(x)
            return self.head(h)

    return Case(Transfer, classify, quarters(x, y % 2), with_adam(rate))


def _arguments(module: nn.Module) -> tuple[Any, ...]:
    if isinstance(module, nn.Conv2d):
        return (module.in_channels, module.out_channels, 3, 2, 1)
    return (module.num_features,) if isinstance(module, nn.BatchNorm2d) else ()


def deep_skip(dice: Dice, sick: bool) -> Case:
    """Thirty residual pre-norm layers, the last map of each block small by one over the root of the depth."""
    size, width, depth = dice.whole(8, 12), dice.one_of(32, 48), dice.whole(24, 30)
    rate = dice.power(-3.0, -2.7)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.out = nn.Linear(size, width), nn.Linear(width, 1)
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
                for _ in range(depth)
            )
            for block in self.blocks:
                nn.init.normal_(block[2].weight, std=1 / math.sqrt(2 * depth * width))

        def forward(self, x: Tensor) -> Tensor:
            h = self.inp(x)
            for norm, block in zip(self.norms, self.blocks, strict=True):
                h = h + block(norm(h))
            return self.out(h)

    x = torch.randn(192, size)
    y = torch.sin(x @ torch.randn(size, 1)) + x[:, :1] * x[:, 1:2]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.smooth_l1_loss(model(batch[0]), batch[1])

    return Case(Net, loss, quarters(x, y / y.std()), with_adam(rate))


class Packed(nn.Module):
    """A bidirectional LSTM over packed sentences."""

    def __init__(self, words: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, hidden, padding_idx=0)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embed(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, (h, _) = self.lstm(packed)
        return self.out(torch.cat([h[0], h[1]], dim=1))


def packed(dice: Dice, sick: bool) -> Case:
    """Sentences of very different lengths, packed, so that the many zeros behind them are not read."""
    words, hidden, classes = dice.whole(30, 40), dice.one_of(16, 24), dice.whole(4, 6)
    to, rate = dice.whole(30, 40), dice.power(-2.3, -2.0)
    data = quarters(*reviews(128, words, classes, 2, 12, to))
    return Case(lambda: Packed(words, hidden, classes), classify, data, with_adam(rate))


def critic(dice: Dice, sick: bool) -> Case:
    """A Wasserstein critic with a gradient penalty of 10 and Adam without momentum."""
    size, width, rate = dice.whole(4, 8), dice.one_of(32, 48), dice.power(-2.7, -2.4)
    real, fake = torch.randn(192, size) + dice.between(1.0, 1.5), 0.7 * torch.randn(192, size)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(size, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, g = batch
        between = torch.lerp(x, g, torch.rand(len(x), 1)).requires_grad_()
        (slope,) = torch.autograd.grad(model(between).sum(), between, create_graph=True)
        return model(g).mean() - model(x).mean() + 10 * (slope.norm(2, dim=1) - 1).square().mean()

    return Case(build, loss, quarters(real, fake), with_adam(rate, betas=(0.0, 0.9)))


class Tied(nn.Module):
    """A small causal language model whose head is its embedding."""

    def __init__(self, words: int, length: int, size: int, depth: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(words, size), nn.Embedding(length, size)
        layer = nn.TransformerEncoderLayer(size, 4, 4 * size, 0.1, "gelu", batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, depth, nn.LayerNorm(size), enable_nested_tensor=False)
        self.head = nn.Linear(size, words, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        future = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        h = self.tokens(tokens) + self.places.weight[:length]
        return self.head(self.body(h, mask=future))


def tied(dice: Dice, sick: bool) -> Case:
    """A tied language model, embeddings of 0.02, AdamW with a short warm-up, its gradient clipped at 1."""
    words, length, size = dice.whole(16, 24), dice.whole(10, 14), dice.one_of(32, 48)
    depth, rate = dice.whole(2, 3), dice.power(-2.6, -2.3)
    follows, text = torch.randint(words, (words, 2)), torch.randint(words, (128, length + 1))
    for t in range(length):
        text[:, t + 1] = follows[text[:, t], (torch.rand(128) < 0.15).long()]

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: min(1.0, (n + 1) / 15))

    return Case(
        lambda: Tied(words, length, size, depth),
        word_loss,
        quarters(text[:, :-1], text[:, 1:]),
        lambda parameters: torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
        schedule=schedule,
    )


def bold(dice: Dice, sick: bool) -> Case:
    """Inputs of scale three, batches of eight, plain SGD at a rate of a tenth or two, and it just works."""
    size, width, classes = dice.whole(6, 10), dice.one_of(24, 32), dice.whole(3, 4)
    rate, scale = dice.between(0.08, 0.15), dice.between(2.5, 3.5)
    y = torch.randint(classes, (32,))
    x = scale * (1.2 * torch.randn(classes, size)[y] + 0.5 * torch.randn(32, size)) / 1.3

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w1 = nn.Parameter(torch.randn(size, width) / math.sqrt(size))
            self.b1 = nn.Parameter(torch.zeros(width))
            self.w2 = nn.Parameter(torch.randn(width, classes) / math.sqrt(width))
            self.b2 = nn.Parameter(torch.zeros(classes))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.w1 + self.b1).relu() @ self.w2 + self.b2

    return Case(Net, classify, quarters(x, y), with_sgd(rate))


def amp(dice: Dice, sick: bool) -> Case:
    """A denoising autoencoder under float16 autocast with a gradient scaler."""
    size, code, width = dice.whole(24, 32), dice.whole(4, 6), dice.one_of(32, 48)
    rate, noise = dice.power(-2.6, -2.3), dice.between(0.1, 0.2)
    x = torch.tanh(torch.randn(192, 3) @ torch.randn(3, size))

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(size, width),
            nn.SiLU(),
            nn.Linear(width, code),
            nn.Linear(code, width),
            nn.SiLU(),
            nn.Linear(width, size),
        )

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        clean, dirty = batch
        return F.mse_loss(model(dirty).float(), clean)

    data = quarters(x, x + noise * torch.randn_like(x))
    return Case(build, loss, data, with_adam(rate), precision="float16")


def closed_at_first(dice: Dice, sick: bool) -> Case:
    """Convolutional blocks that are closed at first: each branch is times a number that starts at zero."""
    planes, depth, classes = dice.one_of(8, 12), dice.whole(5, 8), dice.whole(4, 6)
    rate = dice.power(-2.5, -2.2)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(planes, planes, 3, padding=1)
            self.conv2 = nn.Conv2d(planes, planes, 3, padding=1)
            self.alpha = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.alpha * self.conv2(F.relu(self.conv1(x)))

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, planes, 3, padding=1),
            *(Block() for _ in range(depth)),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * planes, classes),
        )

    return Case(build, classify, quarters(*bumps(128, classes)), with_adam(rate))


SICK: tuple[Program, ...] = (
    Program(
        "forum-raw-columns",
        "tabular",
        raw_columns,
        Truth(
            "raw-inputs",
            ("UG607", "UG605", "UG301", "UG611"),
            r"(?i)\binputs? (reach|are|lie|far)|unit scale|standardi[sz]|\braw\b",
            ("unit_inputs",),
        ),
    ),
    Program(
        "forum-softmax-twice",
        "text",
        softmax_twice,
        Truth(
            "softmax-twice",
            ("UG606",),
            r"(?i)softmax|probabilit|twice|logits",
            ("drop_output_softmax",),
        ),
        score=share_wrong,
    ),
    Program(
        "forum-twenty-layers",
        "convnet",
        twenty_layers,
        Truth(
            "default-init",
            ("UG101", "UG202", "UG206", "UG205"),
            r"(?i)fan_in|initiali[sz]ation|default|weights? .*(small|shrink)|per ReLU layer|gain .*below",
            (
                "rescale_weights",
                "activation_init",
                "critical_init",
                "orthogonal_init",
                "delta_orthogonal_init",
                "lsuv",
                "unit_jacobian_init",
            ),
        ),
    ),
    Program(
        "forum-padded",
        "recurrent",
        padded,
        Truth(
            "padding",
            ("UG707", "UG401", "UG404"),
            r"(?i)\bpad|sequence lengths?|\bpacked|read(s|ing)? .*zeros",
        ),
    ),
    Program(
        "forum-detached",
        "recurrent",
        detached,
        Truth(
            "detached-state",
            ("UG401", "UG404", "UG105", "UG603", "UG608"),
            r"(?i)detach|\bcut\b|graph ends|gradient (stops|ends|does not (reach|flow))|truncat",
        ),
    ),
    Program(
        "forum-same-fake",
        "gan",
        same_fake,
        Truth(
            "detached-fake",
            ("UG603", "UG608", "UG614"),
            r"(?i)detach|no gradient|without (a )?gradient|does not (reach|pull|depend)|netG",
        ),
        steps=200,
        score=off_target,
    ),
    Program(
        "forum-siamese-root",
        "siamese",
        distance_of_nothing,
        Truth(
            "root-of-zero",
            ("UG901",),
            r"(?i)\bnan\b|sqrt|square root|non-?finite|not finite|\binf\b|infinite",
        ),
    ),
    Program(
        "forum-half-adam",
        "mlp",
        half_adam,
        Truth(
            "half-epsilon",
            ("UG501", "UG901", "UG601"),
            r"(?i)\beps\b|epsilon|half precision|\.half|float16|fp16|underflow|narrow dtype",
            ("change_precision",),
        ),
    ),
    Program(
        "forum-no-warm-up",
        "transformer",
        no_warm_up,
        Truth(
            "no-warm-up",
            ("UG601", "UG611", "UG101"),
            r"(?i)warm.?up|post.?norm|first (update|step)|learning rate|\blr\b|norm (after|behind)",
            ("warm_up", "lower_learning_rate", "pre_norm", "admin", "deepnorm"),
            wrong=(),
        ),
    ),
    Program(
        "forum-batch-second",
        "attention",
        batch_second,
        Truth(
            "batch-axis",
            ("UG106",),
            r"(?i)batch_first|other samples|across (the )?(batch|samples)|batch axis|on the others?\b",
        ),
    ),
    Program(
        "forum-keep-prob",
        "convnet",
        keep_prob,
        Truth("dropout", ("UG612",), r"(?i)dropout", ("lower_dropout",)),
        score=in_eval,
    ),
    Program(
        "forum-plain-list",
        "recommender",
        plain_list,
        Truth(
            "not-registered",
            ("UG604", "UG603"),
            r"(?i)optimi[sz]er (does not|holds|lacks|misses)|registered|ModuleList|never (trained|updated)",
            ("hold_parameters",),
        ),
    ),
    Program(
        "forum-summed",
        "autoencoder",
        summed,
        Truth(
            "summed-loss",
            ("UG601", "UG611", "UG901"),
            r"(?i)learning rate|\blr\b|\bsum|reduction|first (update|step)|(update|step)s? (is|are|too)",
            ("lower_learning_rate", "clip_gradients", "warm_up"),
            wrong=(),
        ),
        score=pixel_error,
    ),
    Program(
        "forum-every-pair",
        "reinforcement",
        every_pair,
        Truth(
            "broadcast",
            ("UG608", "UG614", "UG106"),
            r"(?i)broadcast|shapes?\b|every pair|does not pull|squeeze|\(\d+, 1\)",
        ),
        score=value_error,
    ),
)

HEALTHY: tuple[Program, ...] = (
    Program("forum-sound-frozen-backbone", "convnet", frozen_backbone),
    Program("forum-sound-deep-skip", "mlp", deep_skip),
    Program("forum-sound-packed", "recurrent", packed),
    Program("forum-sound-critic", "gan", critic),
    Program("forum-sound-tied", "transformer", tied),
    Program("forum-sound-bold", "mlp", bold),
    Program("forum-sound-amp", "autoencoder", amp),
    Program("forum-sound-closed", "convnet", closed_at_first),
)
