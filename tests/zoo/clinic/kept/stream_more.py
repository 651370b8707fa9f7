"""More sequences and attention, sick or healthy: loud recurrences, shut gates, wrong axes and masks."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

FASTER = (("lower_learning_rate", {"factor": 10.0}),)


class Labelled(NamedTuple):
    """A batch of inputs with their labels."""

    x: Tensor
    y: Tensor


def in_four(x: Tensor, y: Tensor) -> list[Labelled]:
    """Return four labelled batches."""
    return [Labelled(a, b) for a, b in zip(x.chunk(4), y.chunk(4), strict=True)]


def nll(model: nn.Module, batch: Labelled) -> Tensor:
    """Negative log-likelihood of the labels; over every step where there is one label per step."""
    log_p = F.log_softmax(model(batch.x), dim=-1)
    return -log_p.gather(-1, batch.y.unsqueeze(-1)).mean()


def train_step(case: Case, batch: Labelled) -> Tensor:
    """Take one step as a training loop does that is written by hand."""
    case.optimizer.zero_grad(set_to_none=True)
    loss = case.compute_loss(batch)
    loss.backward()
    if case.clip is not None:
        case.clip(case.model.parameters())
    case.optimizer.step()
    return loss.detach()


def drifting(rows: int, steps: int) -> tuple[Tensor, Tensor]:
    """Return noise of two channels, and whether the first one drifts up."""
    x = torch.randn(rows, steps, 2)
    drift = 0.35 * (2 * torch.randint(2, (rows, 1)) - 1)
    x[..., 0] += drift
    return x, (drift[:, 0] > 0).long()


def flagged(rows: int, length: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return random one-hot items of which one has a flag, and that one's class."""
    items = torch.randint(classes, (rows, length))
    where = torch.randint(length, (rows,))
    x = torch.cat([F.one_hot(items, classes).float(), torch.zeros(rows, length, 1)], 2)
    x[torch.arange(rows), where, classes] = 2.0
    return x, items[torch.arange(rows), where]


# --- sick ---------------------------------------------------------------------------------------------------


class Counter(nn.Module):
    """A ReLU cell that is unrolled by hand."""

    def __init__(self, hidden: int, spread: float) -> None:
        super().__init__()
        self.cell = nn.RNNCell(2, hidden, nonlinearity="relu")
        self.out = nn.Linear(hidden, 2)
        nn.init.zeros_(self.cell.bias_ih)
        nn.init.zeros_(self.cell.bias_hh)
        nn.init.normal_(self.cell.weight_ih, std=0.05)
        if spread:
            nn.init.normal_(self.cell.weight_hh, std=spread / math.sqrt(hidden))
        else:
            nn.init.eye_(self.cell.weight_hh)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return self.out(h)


def counter(dice: Dice, sick: bool) -> Case:
    """A ReLU RNN whose recurrent matrix is drawn too wide, so that its state explodes."""
    hidden, steps, rate = dice.one_of(32, 48), dice.whole(45, 60), dice.power(-3.1, -2.9)
    spread = dice.between(1.9, 2.2) if sick else 0.0
    data = in_four(*drifting(192, steps))

    def clip(parameters: Iterator[nn.Parameter]) -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)

    return Case(
        lambda: Counter(hidden, spread), nll, data, lambda p: torch.optim.Adam(p, rate), train_step, clip=clip
    )


def stuck(dice: Dice, sick: bool) -> Case:
    """A GRU whose update gates start so far at keeping that nothing is ever written."""
    hidden, steps, classes = dice.one_of(24, 32), dice.whole(16, 24), dice.whole(3, 4)
    bias, rate = dice.between(11.0, 13.0) if sick else 1.0, dice.power(-2.6, -2.4)

    def build() -> nn.ModuleList:
        gru, out = nn.GRU(3, hidden, batch_first=True), nn.Linear(hidden, classes)
        for b in (gru.bias_ih_l0, gru.bias_hh_l0):
            nn.init.zeros_(b)
        nn.init.constant_(gru.bias_ih_l0.data[hidden : 2 * hidden], bias)
        return nn.ModuleList([gru, out])

    def loss(model: nn.ModuleList, batch: Labelled) -> Tensor:
        gru, out = model
        return F.cross_entropy(out(gru(batch.x)[1].squeeze(0)), batch.y)

    y = torch.randint(classes, (192,))
    x = torch.randn(classes, 1, 3)[y] + 0.5 * torch.randn(192, steps, 3)
    return Case(build, loss, in_four(x, y), lambda p: torch.optim.Adam(p, lr=rate))


class Truncated(nn.Module):
    """An LSTM cell under a loop that may let go of the state's past."""

    def __init__(self, inputs: int, hidden: int, classes: int, *, let_go: bool) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(inputs, hidden), nn.Linear(hidden, classes)
        self.let_go = let_go

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), self.cell.hidden_size, dtype=x.dtype, device=x.device)
        c = torch.zeros_like(h)
        for t in range(x.size(1)):
            if self.let_go:
                h, c = h.detach(), c.detach()
            h, c = self.cell(x[:, t], (h, c))
        return self.head(h)


def truncated(dice: Dice, sick: bool) -> Case:
    """The state is detached at every step, where it should be only between sequences."""
    hidden, steps, classes = dice.one_of(32, 40), dice.whole(10, 14), dice.whole(4, 6)
    rate = dice.power(-2.1, -1.9)
    items = torch.randint(classes, (512, steps))
    x = F.one_hot(items, classes).float()
    # The first item is the one to remember, and looks like all others but for its flag.
    x = torch.cat([x, torch.zeros(512, steps, 1)], 2)
    x[:, 0, -1] = 1.0
    return Case(
        lambda: Truncated(classes + 1, hidden, classes, let_go=sick),
        nll,
        in_four(x, items[:, 0]),
        lambda p: torch.optim.AdamW(p, rate, weight_decay=1e-4),
    )


class Trend(nn.Module):
    """A default recurrent module with a linear head on its last output."""

    def __init__(self, hidden: int, **how: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, hidden, num_layers=1, **how)
        self.fc = nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        out, (_, _) = self.lstm(x)
        return self.fc(out[:, -1, :])


def trend(dice: Dice, sick: bool) -> Case:
    """Batches come first and the LSTM was not told so: it runs along the batch."""
    hidden, steps, rate = dice.one_of(16, 24), dice.whole(28, 40), dice.power(-2.5, -2.3)
    how = {} if sick else {"batch_first": True}
    data = in_four(*drifting(512, steps))
    return Case(lambda: Trend(hidden, **how), nll, data, lambda p: torch.optim.Adam(p, rate), train_step)


class Average(nn.Module):
    """Self-attention with a norm behind it, as a layer of its own."""

    def __init__(self, width: int, *, skip: bool) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.skip = nn.LayerNorm(width), skip

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        mixed = self.proj(F.scaled_dot_product_attention(q, k, v))
        return self.norm(x + mixed) if self.skip else self.norm(mixed)


def average(dice: Dice, sick: bool) -> Case:
    """Attention layers follow each other without a skip, and all tokens become alike."""
    classes, depth, width = dice.whole(4, 6), dice.whole(6, 8), dice.one_of(32, 48)
    rate = dice.power(-2.9, -2.7)
    tokens = torch.randint(2 * classes, (160, 10))

    def build() -> nn.Sequential:
        layers: list[nn.Module] = [nn.Embedding(2 * classes, width)]
        layers += [Average(width, skip=not sick) for _ in range(depth)]
        return nn.Sequential(*layers, nn.Linear(width, classes))

    return Case(build, nll, in_four(tokens, tokens % classes), lambda p: torch.optim.Adam(p, rate))


class Pool(nn.Module):
    """Additive attention over the items: a score each, a softmax, a weighted sum."""

    def __init__(self, inputs: int, width: int, classes: int, axis: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        self.classify = nn.Linear(width, classes)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        weights = F.softmax(self.score(h), dim=self.axis)
        return self.classify((weights * h).sum(1))


def pool(dice: Dice, sick: bool) -> Case:
    """The softmax of attention pooling runs over the last axis, which has one entry, and not over items."""
    classes, length, width = dice.whole(4, 6), dice.whole(20, 30), dice.one_of(32, 48)
    axis, rate = -1 if sick else 1, dice.power(-2.0, -1.8)
    data = in_four(*flagged(512, length, classes))
    return Case(
        lambda: Pool(classes + 1, width, classes, axis), nll, data, lambda p: torch.optim.Adam(p, rate)
    )


class Heads(nn.Module):
    """Multi-head causal attention by hand, with the mask as a buffer."""

    def __init__(self, width: int, heads: int, length: int, *, flipped: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        ones = torch.ones(length, length)
        hidden = ones.tril(-1) if flipped else ones.triu(1)
        self.register_buffer("hidden", hidden.bool(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        att = (q @ k.transpose(-2, -1)) / math.sqrt(q.size(-1))
        att = att.masked_fill(self.hidden[:t, :t], float("-inf")).softmax(-1)
        return self.out((att @ v).transpose(1, 2).reshape(b, t, c))


class Delayed(nn.Module):
    """Two Pre-LN blocks of it over tokens and learned positions."""

    def __init__(self, vocabulary: int, width: int, length: int, *, flipped: bool) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(length, width))
        self.attn = nn.ModuleList(Heads(width, 2, length, flipped=flipped) for _ in range(2))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
            for _ in range(2)
        )
        self.ln = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.lm_head = nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tok(ids) + self.pos[: ids.shape[1]]
        for i, (attn, mlp) in enumerate(zip(self.attn, self.mlp, strict=True)):
            x = x + attn(self.ln[2 * i](x))
            x = x + mlp(self.ln[2 * i + 1](x))
        return self.lm_head(self.ln[4](x))


def delayed(dice: Dice, sick: bool) -> Case:
    """The causal mask is the wrong triangle: each step sees what comes and not what was."""
    vocabulary, width, length = dice.whole(8, 12), dice.one_of(24, 32), dice.whole(12, 16)
    delay, rate = dice.whole(1, 3), dice.power(-2.4, -2.2)
    ids = torch.randint(vocabulary, (512, length))
    echo = ids.roll(delay, 1)
    echo[:, :delay] = 0
    return Case(
        lambda: Delayed(vocabulary, width, length, flipped=sick),
        nll,
        in_four(ids, echo),
        lambda p: torch.optim.Adam(p, lr=rate, betas=(0.9, 0.98)),
    )


class TiedLm(nn.Module):
    """One causal block between an embedding and its transpose."""

    def __init__(self, vocabulary: int, width: int, std: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embed.weight, std=std)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.decoder = nn.Linear(width, vocabulary, bias=False)
        self.decoder.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.decoder(x + self.gru(x)[0])


def tied(dice: Dice, sick: bool) -> Case:
    """The head shares an embedding that torch drew with a standard deviation of one."""
    vocabulary, width, rate = dice.whole(40, 60), dice.one_of(128, 160), dice.power(-3.1, -2.9)
    std = 1.0 if sick else 0.05
    follow, ids = torch.randperm(vocabulary), [torch.randint(vocabulary, (96,))]
    for _ in range(10):
        other = torch.randint(vocabulary, (96,))
        ids.append(torch.where(torch.rand(96) < 0.1, other, follow[ids[-1]]))
    text = torch.stack(ids, 1)
    return Case(
        lambda: TiedLm(vocabulary, width, std),
        nll,
        in_four(text[:, :-1], text[:, 1:]),
        lambda p: torch.optim.Adam(p, rate),
    )


# --- healthy ------------------------------------------------------------------------------------------------


def irnn(dice: Dice, sick: bool) -> Case:
    """A ReLU RNN from the identity over sixty steps, on inputs of scale three."""
    hidden, steps, rate = dice.one_of(32, 48), dice.whole(45, 60), dice.power(-3.2, -3.0)

    class Irnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(2, hidden, nonlinearity="relu", batch_first=True)
            self.read = nn.Linear(hidden, 2)
            nn.init.eye_(self.rnn.weight_hh_l0)
            nn.init.normal_(self.rnn.weight_ih_l0, std=0.02)
            nn.init.zeros_(self.rnn.bias_hh_l0)
            nn.init.zeros_(self.rnn.bias_ih_l0)

        def forward(self, x: Tensor) -> Tensor:
            return self.read(self.rnn(x)[0][:, -1])

    x, y = drifting(192, steps)
    return Case(
        Irnn,
        nll,
        in_four(3.0 * x, y),
        lambda p: torch.optim.Adam(p, rate),
        clip=lambda p: nn.utils.clip_grad_norm_(p, 1.0),
    )


def shallow_post(dice: Dice, sick: bool) -> Case:
    """Three layers of Post-LN with a warm-up, on a small batch."""
    classes, width, rate = dice.whole(3, 4), dice.one_of(24, 32), dice.power(-2.6, -2.4)
    warm = dice.whole(15, 25)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp = nn.Linear(classes + 1, width)
            layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
            self.out = nn.Linear(width, classes)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.layers(self.inp(x)).mean(1))

    return Case(
        Encoder,
        nll,
        in_four(*flagged(64, 8, classes)),
        lambda p: torch.optim.Adam(p, rate, betas=(0.9, 0.98)),
        schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda s: min(1.0, (s + 1) / warm)),
    )


def packed(dice: Dice, sick: bool) -> Case:
    """A bidirectional GRU over packed sequences whose lengths differ much, with dropout before the head."""
    classes, width, most = dice.whole(3, 5), dice.one_of(24, 32), dice.whole(20, 30)
    rate = dice.power(-2.3, -2.1)

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(2 * classes + 1, width, padding_idx=0)
            self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
            self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(2 * width, classes))

        def forward(self, tokens: Tensor) -> Tensor:
            lengths = (tokens != 0).sum(1).cpu()
            rows = nn.utils.rnn.pack_padded_sequence(
                self.embed(tokens), lengths, batch_first=True, enforce_sorted=False
            )
            _, last = self.gru(rows)
            return self.head(torch.cat([last[0], last[1]], 1))

    y, lengths = torch.randint(classes, (192,)), torch.randint(4, most + 1, (192,))
    tokens = torch.randint(1, classes + 1, (192, most))
    where = (torch.rand(192) * lengths).long()
    tokens[torch.arange(192), where] = classes + 1 + y
    tokens = torch.where(torch.arange(most) < lengths[:, None], tokens, 0)
    return Case(Packed, nll, in_four(tokens, y), lambda p: torch.optim.AdamW(p, rate))


def normed_queries(dice: Dice, sick: bool) -> Case:
    """Causal attention of normalised queries and keys with a learned temperature and rotated positions."""
    vocabulary, width, length = dice.whole(8, 10), dice.one_of(32, 48), dice.whole(12, 16)
    rate = dice.power(-2.2, -2.0)
    angle = torch.arange(length)[:, None] * 10.0 ** -torch.linspace(0, 2, width // 2)
    cos, sin = angle.cos(), angle.sin()

    def rotate(x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        c, s = cos[: x.shape[1]].to(x), sin[: x.shape[1]].to(x)
        return torch.cat([a * c - b * s, a * s + b * c], -1)

    class Cosine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.temperature = nn.Parameter(torch.tensor(math.log(8.0)))
            self.ffn = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width)
            )

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(x)
            q, k = F.normalize(rotate(self.query(h)), dim=-1), F.normalize(rotate(self.key(h)), dim=-1)
            v = self.value(h)
            q = q * self.temperature.exp()
            x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
            return x + self.ffn(x)

    ids = torch.randint(vocabulary, (256, length))
    before = ids.roll(1, 1)
    before[:, 0] = 0
    return Case(
        lambda: nn.Sequential(
            nn.Embedding(vocabulary, width), Cosine(), Cosine(), nn.Linear(width, vocabulary)
        ),
        nll,
        in_four(ids, (ids + before) % vocabulary),
        lambda p: torch.optim.Adam(p, rate),
    )


SICK: tuple[Program, ...] = (
    Program(
        "stream-counter-loud",
        "rnn",
        counter,
        Truth(
            "recurrence-too-large",
            ("UG402", "UG403", "UG406", "UG201", "UG102", "UG605", "UG611", "UG301"),
            r"(?i)recurren|weight_hh|over time|per step|each step|radius|explod|initiali[sz]",
            (
                "irnn",
                "orthogonal_weights",
                "orthogonal_init",
                "spectral_cap",
                "rescale_weights",
                "spectral_norm",
            ),
            (("irnn", {}),),
        ),
    ),
    Program(
        "stream-stuck-update",
        "gru",
        stuck,
        Truth(
            "update-gate-shut",
            ("UG405", "UG204", "UG206", "UG202", "UG103", "UG205"),
            r"(?i)\bgates?\b|update bias|bias.*(keep|update)",
            ("forget_bias", "open_gates", "chrono", "zero_biases"),
            (("forget_bias", {"bias": 1.0}),),
            FASTER,
        ),
    ),
    Program(
        "stream-state-detached",
        "lstm",
        truncated,
        Truth(
            "detached-state",
            ("UG401", "UG404", "UG105", "UG103", "UG608"),
            r"(?i)detach|\bcut\b|graph|(gradient|pull).*(not reach|never|stops|no earlier)|last step",
            (),
            (),
            FASTER,
        ),
    ),
    Program(
        "stream-trend-batch-first",
        "lstm",
        trend,
        Truth(
            "batch-first",
            ("UG106", "UG404"),
            r"(?i)batch_first|across the batch|other samples|along the batch|batch (axis|dimension)|"
            r"depends? on the other",
            (),
            (),
            FASTER,
        ),
    ),
    Program(
        "stream-average-no-skip",
        "transformer",
        average,
        Truth(
            "rank-collapse",
            ("UG205", "UG101", "UG702", "UG206"),
            r"(?i)skip|residual|shortcut|\brank\b|alike|collaps|averag",
            ("add_residual", "gated_skip", "concat_skip", "sum_skip"),
            (("add_residual", {}),),
            FASTER,
        ),
    ),
    Program(
        "stream-pool-axis",
        "attention-pooling",
        pool,
        Truth(
            "softmax-axis",
            ("UG709", "UG603"),
            r"(?i)\baxis|\bdim(ension)?\b|softmax over|over one (entry|number)|single (entry|number|element)",
            (),
            (),
            FASTER,
        ),
    ),
    Program(
        "stream-delay-triangle",
        "transformer",
        delayed,
        Truth(
            "flipped-causal-mask",
            ("UG708",),
            r"(?i)mask|past|future|causal|triang|tril|triu",
            (),
            (),
            FASTER,
        ),
    ),
    Program(
        "stream-tied-unit",
        "gru",
        tied,
        Truth(
            "tied-embedding-scale",
            ("UG605", "UG611", "UG607", "UG601"),
            r"(?i)embedding|\bhead\b|logits|\btied\b|output layer|starts? (far )?above|decoder",
            ("scale_head",),
            (("scale_head", {"factor": 0.05, "site": "decoder"}),),
        ),
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("stream-irnn-scale-three", "rnn", irnn),
    Program("stream-postnorm-shallow", "transformer", shallow_post),
    Program("stream-gru-packed", "gru", packed),
    Program("stream-cosine-rotary", "transformer", normed_queries),
)
