"""Kept aside: training loops, losses, optimizers and number formats, sick or healthy (second half)."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HOT = (("lower_learning_rate", {"factor": 10.0}),)
COLD = (("lower_learning_rate", {"factor": 0.1}),)


def in_four(*columns: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(c.chunk(4) for c in columns), strict=True))


def groups(rows: int, features: int, classes: int, noise: float) -> tuple[Tensor, Tensor]:
    y = torch.randint(classes, (rows,))
    return torch.randn(classes, features)[y] + noise * torch.randn(rows, features), y


def wrong_class(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    return float((model(batch[0]).argmax(1) != batch[1]).float().mean())


# --- sick ---------------------------------------------------------------------------------------------------


class Dilated(nn.Module):
    """Dilated gated convolutions that say a class for every position, classes in the second place."""

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.a = nn.Conv1d(features, 2 * width, 3, padding=1)
        self.b = nn.Conv1d(width, 2 * width, 3, padding=2, dilation=2)
        self.head = nn.Conv1d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.glu(self.a(x), dim=1)
        return self.head(h + F.glu(self.b(h), dim=1))


def view_for_transpose(dice: Dice, sick: bool) -> Case:
    """Logits of (batch, class, time) are brought to rows by a view, where a transpose was needed first."""
    features, width, classes = dice.whole(5, 8), dice.one_of(24, 32), dice.whole(4, 7)
    rate, length = dice.power(-2.3, -2.0), dice.whole(17, 23)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        logits = model(x)
        rows = logits.reshape(-1, classes) if sick else logits.transpose(1, 2).reshape(-1, classes)
        return F.cross_entropy(rows, y.reshape(-1))

    y = torch.randint(classes, (128, length))
    x = torch.randn(classes, features)[y] + 0.4 * torch.randn(128, length, features)
    data = in_four(x.transpose(1, 2), y)
    return Case(lambda: Dilated(features, width, classes), loss, data, lambda p: torch.optim.Adam(p, lr=rate))


def likelihood(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    return float(F.cross_entropy(model(batch[0]), batch[1]))


class Forecast(nn.Module):
    """An LSTM that says the next value, as a column."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, hidden, batch_first=True)
        self.linear = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.lstm(x)[0][:, -1])


def column_minus_row(dice: Dice, sick: bool) -> Case:
    """A column of predictions minus a row of targets: every prediction meets every target."""
    hidden, length, rate = dice.one_of(16, 24, 32), dice.whole(10, 16), dice.power(-2.1, -1.8)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        pred = model(x) if sick else model(x).squeeze(-1)
        return ((pred - y) ** 2).mean()

    phase = 2 * math.pi * torch.rand(128, 1)
    t = torch.arange(length + 1) * dice.between(0.4, 0.6)
    wave = math.sqrt(2) * torch.sin(t + phase)
    data = in_four(wave[:, :-1, None], wave[:, -1])
    return Case(lambda: Forecast(hidden), loss, data, lambda p: torch.optim.Adam(p, lr=rate))


def true_square(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    return float((model(batch[0]).flatten() - batch[1]).square().mean())


class Tables(nn.Module):
    """Users and items as rows of two tables, and their scaled product."""

    def __init__(self, users: int, items: int, rank: int) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, rank), nn.Embedding(items, rank)
        self.gain = nn.Parameter(torch.ones(rank))

    def forward(self, u: Tensor, i: Tensor) -> Tensor:
        return (self.users(u) * self.items(i) * self.gain).sum(-1) / math.sqrt(self.gain.numel())


def pure_bfloat16(dice: Dice, sick: bool) -> Case:
    """The whole model is cast to bfloat16 and stepped there; a step is less than its last bit."""
    users, items, rank = dice.whole(24, 32), dice.whole(20, 28), dice.whole(12, 16)
    rate = dice.between(1.1e-3, 1.5e-3)
    model = Tables(users, items, rank)
    for table in (model.users, model.items):
        nn.init.uniform_(table.weight, 0.7, 1.3)
        with torch.no_grad():
            table.weight.mul_(torch.randn_like(table.weight).sign())
    if sick:
        model = model.to(torch.bfloat16)

    def loss(net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        u, i, y = batch
        return F.mse_loss(net(u, i).float(), y)

    u, i = torch.randint(users, (1024,)), torch.randint(items, (1024,))
    y = (torch.randn(users, 3)[u] * torch.randn(items, 3)[i]).sum(1) / math.sqrt(3)
    return Case(model, loss, in_four(u, i, y), torch.optim.Adam(model.parameters(), lr=rate))


class Rate(nn.Module):
    """The expected count of each bin, kept positive by a ReLU."""

    def __init__(self, planes: int, *, soft: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(2, planes, 3, padding=1), nn.ELU(), nn.Conv1d(planes, planes, 3, padding=1), nn.ELU()
        )
        self.out = nn.Conv1d(planes, 1, 1)
        self.positive = nn.Softplus() if soft else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.positive(self.out(self.net(x))).squeeze(1)


def log_of_relu(dice: Dice, sick: bool) -> Case:
    """A Poisson likelihood by hand, with the logarithm of a rate that a ReLU sets to zero."""
    planes, bins, rate = dice.one_of(12, 16), dice.whole(16, 24), dice.power(-2.4, -2.1)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, counts = batch
        lam = model(x)
        return (lam - counts * torch.log(lam) + torch.lgamma(counts + 1)).mean()

    x = torch.randn(96, 2, bins)
    counts = torch.poisson(F.softplus(3.0 * x[:, 0] + 2.0 * x[:, 1].roll(1, -1)))
    data = in_four(x, counts)
    return Case(lambda: Rate(planes, soft=not sick), loss, data, lambda p: torch.optim.Adam(p, lr=rate))


class Mixer(nn.Module):
    """Mixing over positions and over channels in turn, with layer norms."""

    def __init__(self, length: int, dim: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.over_time = nn.ModuleList(nn.Linear(length, length) for _ in range(blocks))
        self.over_dims = nn.ModuleList(nn.Linear(dim, dim) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2 * blocks))
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        for n, (time, dims) in enumerate(zip(self.over_time, self.over_dims, strict=True)):
            x = x + F.gelu(time(self.norms[2 * n](x).transpose(1, 2)).transpose(1, 2))
            x = x + F.gelu(dims(self.norms[2 * n + 1](x)))
        return self.head(x.mean(1))


def summed_micro_batches(dice: Dice, sick: bool) -> Case:
    """Gradients of many micro-batches are added and never divided by their number."""
    length, dim, blocks, classes = dice.whole(6, 10), dice.one_of(16, 24), dice.whole(2, 3), dice.whole(3, 5)
    parts, rate = dice.one_of(32, 48), dice.between(0.15, 0.25)

    def step(case: Case, batch: tuple[Tensor, Tensor]) -> Tensor:
        case.optimizer.zero_grad()
        seen = []
        for x, y in zip(*(c.tensor_split(parts) for c in batch), strict=True):
            value = case.compute_loss((x, y))
            (value if sick else value / parts).backward()
            seen.append(value.detach())
        if case.clip is not None:
            case.clip(case.model.parameters())
        case.optimizer.step()
        return torch.stack(seen).mean()

    x, y = groups(4 * 96, dim, classes, 0.4)
    return Case(
        lambda: Mixer(length, dim, blocks, classes),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        in_four(x[:, None] + 0.8 * torch.randn(len(x), length, dim), y),
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.8),
        step=step,
    )


def eps_of_one(dice: Dice, sick: bool) -> Case:
    """Adam with the eps of an old recipe, near one, where gradients are thousandths."""
    features, width, depth = dice.whole(8, 12), dice.one_of(48, 64), dice.whole(2, 3)
    rate, eps = dice.power(-3.0, -2.7), dice.one_of(0.3, 1.0) if sick else 1e-8
    layers: list[nn.Module] = [nn.Linear(features, width), nn.Mish()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.Mish()]
    model = nn.Sequential(*layers, nn.Linear(width, features))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, eps=eps)
    z = torch.randn(256, 3)
    x = torch.tanh(z @ torch.randn(3, features))
    x = (x - x.mean(0)) / x.std(0)

    def loss(net: nn.Module, batch: tuple[Tensor]) -> Tensor:
        return F.smooth_l1_loss(net(batch[0]), batch[0])

    return Case(model, loss, in_four(x), optimizer)


class Attend(nn.Module):
    """One block of attention by hand over a set, with a class token."""

    def __init__(self, features: int, dim: int, classes: int) -> None:
        super().__init__()
        self.inp = nn.Linear(features, dim)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.ln1, self.ln2, self.ln3 = (nn.LayerNorm(dim) for _ in range(3))
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.token.expand(len(x), -1, -1), self.inp(x)], 1)
        q, k, v = self.qkv(self.ln1(h)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        h = h + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = h + self.down(F.gelu(self.up(self.ln2(h))))
        return self.head(self.ln3(h[:, 0]))


class Plain(nn.Module):
    """A deep plain network whose layers are linear, batch norm, ReLU."""

    def __init__(self, features: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        sizes = [features] + depth * [width]
        self.linears = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = F.relu(norm(linear(x)))
        return self.head(x)


def eval_before_training(dice: Dice, sick: bool) -> Case:
    """The model is put to eval() for a first validation and never back to train()."""
    features, width = dice.whole(8, 12), dice.one_of(32, 48)
    depth, classes, rate = dice.whole(9, 12), dice.whole(4, 6), dice.between(0.03, 0.06)
    net = Plain(features, width, depth, classes)
    net.train(not sick)
    return Case(
        net,
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        in_four(*groups(256, features, classes, 0.5)),
        torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9),
    )


class Recurrent(nn.Module):
    """A vanilla RNN by hand, with an orthogonal recurrence."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.w = nn.Parameter(nn.init.orthogonal_(torch.empty(hidden, hidden)))
        self.u = nn.Parameter(torch.randn(features, hidden) / math.sqrt(features))
        self.c = nn.Parameter(torch.zeros(hidden))
        self.read = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.hidden)
        for now in x.unbind(1):
            h = torch.tanh(h @ self.w + now @ self.u + self.c)
        return self.read(h)


def clip_at_a_thousandth(dice: Dice, sick: bool) -> Case:
    """The gradient norm of a recurrent network is clipped far below what it is on every step."""
    features, hidden, classes = dice.whole(4, 7), dice.one_of(24, 32), dice.whole(3, 5)
    most, rate = dice.power(-3.3, -2.7) if sick else 1.0, dice.between(0.05, 0.1)
    x, y = groups(192, features, classes, 0.3)
    return Case(
        lambda: Recurrent(features, hidden, classes),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        in_four(x[:, None] + 0.5 * torch.randn(192, 8, features), y),
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9),
        clip=lambda p: nn.utils.clip_grad_norm_(p, max_norm=most),
    )


# --- healthy ------------------------------------------------------------------------------------------------


def decayed_and_warmed(dice: Dice, _: bool) -> Case:
    """AdamW with a decay of a tenth and more, behind a short warm-up from a twentieth of the rate."""
    features, dim, classes = dice.whole(6, 10), dice.one_of(24, 32), dice.whole(4, 6)
    rate, decay, warm = dice.power(-2.4, -2.1), dice.between(0.1, 0.3), dice.whole(10, 20)

    def course(step: int) -> float:
        return min((step + 1) / warm, 1.0) * (0.55 + 0.45 * math.cos(math.pi * min(step / 160, 1.0)))

    x, y = groups(192, features, classes, 0.3)
    return Case(
        lambda: Attend(features, dim, classes),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        in_four(x[:, None] + torch.randn(192, 6, features), y),
        lambda p: torch.optim.AdamW(p, lr=rate, weight_decay=decay, betas=(0.9, 0.95)),
        schedule=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, course),
    )


def clipped_bfloat16(dice: Dice, _: bool) -> Case:
    """An LSTM under autocast to bfloat16, whose clip takes part in most steps and leaves them long enough."""
    hidden, length, rate = dice.one_of(24, 32), dice.whole(10, 14), dice.between(0.2, 0.4)
    wave = math.sqrt(2) * torch.sin(torch.arange(length + 1) * 0.5 + 2 * math.pi * torch.rand(128, 1))
    return Case(
        lambda: Forecast(hidden),
        lambda model, batch: F.mse_loss(model(batch[0]).float().squeeze(1), batch[1]),
        in_four(wave[:, :-1, None], wave[:, -1]),
        lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 0.25),
        precision="bfloat16",
    )


def rare_and_weighted(dice: Dice, _: bool) -> Case:
    """One positive in fifteen, with its weight in the loss and its share in the bias of the head."""
    features, width, rate = dice.whole(8, 12), dice.one_of(32, 48), dice.power(-2.3, -2.0)
    share, weight = 1 / 15, dice.between(2.0, 4.0)

    def build() -> nn.Module:
        net = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        head = nn.Linear(width, 1)
        nn.init.constant_(head.bias, math.log(share * weight / (1 - share)))
        return nn.Sequential(net, head, nn.Flatten(0))

    y = (torch.arange(480) % 15 == 0).float()
    x = torch.randn(480, features) + y[:, None] * 1.5 * torch.randn(features)
    return Case(
        build,
        lambda model, batch: F.binary_cross_entropy_with_logits(
            model(batch[0]), batch[1], pos_weight=torch.tensor(weight, device=batch[1].device)
        ),
        in_four(x, y),
        lambda p: torch.optim.Adam(p, lr=rate),
    )


def two_rates(dice: Dice, _: bool) -> Case:
    """RMSprop with two groups, the tables ten times as fast; ratings on a scale of three; a Huber loss."""
    users, items, rank = dice.whole(24, 32), dice.whole(20, 28), dice.whole(6, 10)
    rate, spread = dice.power(-2.8, -2.5), dice.between(2.0, 3.0)
    model = Tables(users, items, rank)
    tables = [*model.users.parameters(), *model.items.parameters()]
    optimizer = torch.optim.RMSprop(
        [{"params": tables, "lr": 10 * rate}, {"params": [model.gain]}], lr=rate, eps=1e-6
    )
    u, i = torch.randint(users, (1024,)), torch.randint(items, (1024,))
    stars = spread * (torch.randn(users, 2)[u] * torch.randn(items, 2)[i]).sum(1) / math.sqrt(2)

    def loss(net: nn.Module, batch: tuple[Any, ...]) -> Tensor:
        return F.huber_loss(net(batch[0], batch[1]), batch[2], delta=2.0)

    return Case(model, loss, in_four(u, i, stars), optimizer)


SICK: tuple[Program, ...] = (
    Program(
        "loop-view-for-transpose",
        "convolution",
        view_for_transpose,
        Truth(
            "wrong-axis",
            ("UG608",),
            r"(?i)wrong (axis|dim)|\baxis\b|\bdim\b|transpos|permut|reshape|\bview|does not pull",
        ),
        150,
        likelihood,
    ),
    Program(
        "loop-column-minus-row",
        "lstm",
        column_minus_row,
        Truth(
            "broadcast",
            ("UG608",),
            r"(?i)broadcast|shape|every target|each other's|does not pull|squeeze|pairs? every",
        ),
        120,
        true_square,
    ),
    Program(
        "loop-pure-bfloat16",
        "recommender",
        pure_bfloat16,
        Truth(
            "bf16-rounding",
            ("UG602",),
            r"(?i)bfloat16|bf16|round|precision|lost|updates?.*(small|below|vanish)|last bit",
            (),
            (),
            COLD,
        ),
        300,
    ),
    Program(
        "loop-log-of-relu",
        "convolution",
        log_of_relu,
        Truth("log-of-zero", ("UG901",), r"(?i)\bnan\b|\binf\b|infinite|not finite|non-?finite|log|zero"),
    ),
    Program(
        "loop-summed-micro-batches",
        "mixer",
        summed_micro_batches,
        Truth(
            "accumulation-undivided",
            ("UG601", "UG611"),
            r"(?i)accumul|micro.?batch|divid|adds? up|summed|learning rate|(step|update).*(long|large)",
            ("lower_learning_rate", "clip_gradients"),
            (("lower_learning_rate", {"factor": 0.03}),),
            HOT,
        ),
        60,
    ),
    Program(
        "loop-eps-of-one",
        "autoencoder",
        eps_of_one,
        Truth(
            "adam-eps",
            ("UG602",),
            r"(?i)\beps\b|epsilon|updates?.*(small|tiny|below|short)|step.*(small|tiny|short)|learning rate",
            ("lower_learning_rate",),
            (),
            COLD,
        ),
    ),
    Program(
        "loop-eval-before-training",
        "mlp",
        eval_before_training,
        Truth(
            "eval-mode",
            ("UG613", "UG202", "UG101"),
            r"(?i)\beval|running (stat|mean|var)|batch.?norm|never gathered|train(ing)?(\(\)| mode)",
            (),
            (),
            HOT,
        ),
    ),
    Program(
        "loop-clip-thousandth",
        "rnn",
        clip_at_a_thousandth,
        Truth(
            "tight-clip",
            ("UG602",),
            r"(?i)\bclip|threshold|updates?.*(small|tiny|below|short)|step.*(small|tiny|short)|learning rate",
            ("clip_gradients", "lower_learning_rate"),
            (("clip_gradients", {"threshold": 1.0}),),
            COLD,
        ),
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("loop-decayed-and-warmed", "transformer", decayed_and_warmed),
    Program("loop-clipped-bfloat16", "lstm", clipped_bfloat16),
    Program("loop-rare-and-weighted", "mlp", rare_and_weighted),
    Program("loop-two-rates", "recommender", two_rates),
)
