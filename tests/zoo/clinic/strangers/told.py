"""Kept aside once: faults of networks that read sequences, recurrent or by attention, and healthy ones."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

Pair = tuple[Tensor, Tensor]
HOT = (("lower_learning_rate", {"factor": 10.0}),)


# Data.


def four(*columns: Tensor) -> list[tuple[Tensor, ...]]:
    """Cut the columns into four batches."""
    return list(zip(*(column.chunk(4) for column in columns), strict=True))


def delayed(classes: int, length: int, rows: int = 96, features: int = 6, noise: float = 0.05) -> list[Pair]:
    """A pattern at the first step, faint noise afterwards; the label is the pattern's number."""
    labels = torch.arange(rows) % classes
    x = noise * torch.randn(rows, length, features)
    x[:, 0] += 1.5 * F.normalize(torch.randn(classes, features), dim=1)[labels] * math.sqrt(features) / 2
    return four(x, labels)


def first_word(classes: int, length: int, vocab: int, rows: int = 256) -> list[Pair]:
    """Token sequences whose first token is the label and whose others are words without a meaning."""
    labels = torch.randint(classes, (rows,))
    x = torch.randint(classes, vocab, (rows, length))
    x[:, 0] = labels
    return four(x, labels)


def reviews(vocab: int, classes: int, length: int, rows: int = 128) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Padded texts (0 is padding, 1 begins) in which words of the class occur; with lengths and labels."""
    labels = torch.randint(classes, (rows,))
    share = (vocab - 2) // (2 * classes)
    text = torch.randint(2 + classes * share, vocab, (rows, length))
    telling = 2 + labels[:, None] * share + torch.randint(share, (rows, length))
    text = torch.where(torch.rand(rows, length) < 0.35, telling, text)
    sizes = torch.randint(length // 2, length - 1, (rows,))
    text[torch.arange(length)[None] >= sizes[:, None]] = 0
    text[:, 0] = 1
    return four(text, sizes, labels)


def prose(vocab: int, length: int, rows: int = 64) -> list[Tensor]:
    """Text of a Markov chain in which three words may follow each word, one of them mostly."""
    follow = torch.stack([torch.randperm(vocab)[:3] for _ in range(vocab)])
    words = [torch.randint(vocab, (rows,))]
    odds = torch.tensor([0.8, 0.15, 0.05])
    for _ in range(length):
        pick = torch.multinomial(odds, rows, replacement=True)
        words.append(follow[words[-1], pick])
    return list(torch.stack(words, 1).chunk(4))


def waves(length: int, rows: int = 64) -> list[Pair]:
    """Two sines with noise, and their next values."""
    t = torch.arange(length + 1.0)[None]
    phase, speed = 6.3 * torch.rand(2, rows, 1), 0.15 + 0.5 * torch.rand(2, rows, 1)
    y = torch.sin(phase[0] + speed[0] * t) + 0.6 * torch.sin(phase[1] + speed[1] * t)
    y = (y + 0.05 * torch.randn_like(y))[..., None]
    return four(y[:, :-1], y[:, 1:])


def classify(model: nn.Module, batch: Pair) -> Tensor:
    """Cross-entropy of one label to each row."""
    x, y = batch
    return F.cross_entropy(model(x), y)


def next_word(model: nn.Module, words: Tensor) -> Tensor:
    """Cross-entropy of each next word."""
    logits = model(words[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), words[:, 1:].flatten())


def adam(rate: float) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds Adam."""
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def sinusoid(length: int, width: int) -> Tensor:
    """The table of sines and cosines of the first transformer."""
    angle = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)


def causal(length: int) -> Tensor:
    """True where a position must not look."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


# Sick programs.


def elman_default(dice: Dice, sick: bool) -> Case:
    """A plain nn.RNN as it comes, asked for what stood more than a hundred steps before."""
    hidden, length, classes = dice.one_of(40, 48, 56), dice.whole(140, 170), dice.whole(5, 7)
    rate = dice.power(-3.1, -2.9)

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(6, hidden, batch_first=True)
            self.fc = nn.Linear(hidden, classes)
            if not sick:
                nn.init.orthogonal_(self.rnn.weight_hh_l0)
                nn.init.zeros_(self.rnn.bias_hh_l0)
                nn.init.zeros_(self.rnn.bias_ih_l0)

        def forward(self, x: Tensor) -> Tensor:
            _, h = self.rnn(x)
            return self.fc(h[-1])

    return Case(Tagger, classify, delayed(classes, length), adam(rate))


class HandCell(nn.Module):
    """A recurrent cell written by hand, and a readout of its last state."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.inp = nn.Linear(features, hidden)
        self.rec = nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.hidden)
        for x_t in x.unbind(1):
            h = torch.tanh(self.inp(x_t) + self.rec(h))
        return self.out(h)


def cell_randn(dice: Dice, sick: bool) -> Case:
    """A hand-written recurrent cell whose hidden matrix is drawn from a normal of unit variance."""
    hidden, length, classes = dice.one_of(32, 40, 48), dice.whole(40, 60), dice.whole(4, 6)
    std = dice.between(0.6, 1.0)

    def build() -> nn.Module:
        net = HandCell(6, hidden, classes)
        if sick:
            net.rec.weight.data = torch.randn(hidden, hidden) * std
        else:
            nn.init.orthogonal_(net.rec.weight)
        nn.init.zeros_(net.inp.bias)
        return net

    return Case(build, classify, delayed(classes, length), adam(dice.power(-2.8, -2.6)))


def forget_closed(dice: Dice, sick: bool) -> Case:
    """An LSTM whose forget biases got the wrong sign, asked for the first word of a text."""
    width, length, classes = dice.one_of(32, 40), dice.whole(26, 34), dice.whole(8, 10)
    bias = dice.between(4.0, 5.5)

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(classes + 3, 16)
            self.lstm = nn.LSTM(16, width, batch_first=True)
            self.head = nn.Linear(width, classes)
            for name, p in self.lstm.named_parameters():
                if "bias" in name:
                    nn.init.zeros_(p)
            with torch.no_grad():
                self.lstm.bias_ih_l0[width : 2 * width].fill_(-bias if sick else bias)

        def forward(self, words: Tensor) -> Tensor:
            out, _ = self.lstm(self.embed(words))
            return self.head(out[:, -1])

    return Case(Reader, classify, first_word(classes, length, classes + 3), adam(dice.power(-2.5, -2.3)))


def handed_over(dice: Dice, sick: bool) -> Case:
    """A translator without attention whose encoder's state is detached before the decoder gets it."""
    letters, length, width = dice.whole(5, 7), dice.whole(9, 12), dice.one_of(48, 64)

    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.src_embed, self.tgt_embed = nn.Embedding(letters, 12), nn.Embedding(letters + 1, 12)
            self.encoder = nn.GRU(12, width, batch_first=True)
            self.decoder = nn.GRU(12, width, batch_first=True)
            self.generator = nn.Linear(width, letters)

        def forward(self, source: Tensor, target: Tensor) -> Tensor:
            _, hidden = self.encoder(self.src_embed(source))
            if sick:
                hidden = hidden.detach()
            given = F.pad(target[:, :-1], (1, 0), value=letters)
            out, _ = self.decoder(self.tgt_embed(given), hidden)
            return self.generator(out)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(batch["source"], batch["target"])
        return F.cross_entropy(logits.flatten(0, 1), batch["target"].flatten())

    source = torch.randint(letters, (512, length))
    data = [{"source": rows, "target": rows[:, :3]} for rows in source.chunk(4)]
    return Case(Translator, loss, data, adam(dice.power(-2.1, -2.0)))


class SelfAttention(nn.Module):
    """Multi-head self-attention with a mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        att = q @ k.transpose(-2, -1) / math.sqrt(c // self.heads)
        if mask is not None:
            att = att.masked_fill(mask, -1e9)
        return self.proj((att.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))


class Layer(nn.Module):
    """Attention and a feed-forward net; the norm before or after each of them."""

    def __init__(self, width: int, heads: int, *, post: bool) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.post = post
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.post:
            x = self.norm1(x + self.attn(x, mask))
            return self.norm2(x + self.mlp(x))
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


def post_norm_deep(dice: Dice, sick: bool) -> Case:
    """Two dozen Post-LN blocks, trained at the full rate from the first step on."""
    width, depth, vocab = 32, dice.whole(24, 26), dice.whole(16, 20)
    rate = dice.power(-2.7, -2.5)

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok = nn.Embedding(vocab, width)
            self.layers = nn.ModuleList(Layer(width, 2, post=sick) for _ in range(depth))
            self.norm = nn.Identity() if sick else nn.LayerNorm(width)
            self.head = nn.Linear(width, vocab)
            self.register_buffer("pe", sinusoid(8, width))
            self.register_buffer("mask", causal(8))

        def forward(self, words: Tensor) -> Tensor:
            x = self.tok(words) + self.pe
            for layer in self.layers:
                x = layer(x, self.mask)
            return self.head(self.norm(x))

    return Case(Deep, next_word, prose(vocab, 8, 48), adam(rate))


def lookups(keys: int, slots: int, rows: int = 640) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Tables of keys and values, a key that is asked for, and its value."""
    key = torch.stack([torch.randperm(keys)[:slots] for _ in range(rows)])
    value = torch.randint(4, (rows, slots))
    place = torch.randint(slots, (rows,))
    every = torch.arange(rows)
    return four(key[every, place], key, value, value[every, place])


def dot_unscaled(dice: Dice, sick: bool) -> Case:
    """Cross-attention from a question to a table, by dot products of wide vectors that nobody scaled."""
    width, keys = dice.one_of(256, 288, 320), dice.whole(7, 9)

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key, self.value = nn.Embedding(keys, width), nn.Embedding(4, width)
            self.wq, self.wk = (nn.Linear(width, width, bias=False) for _ in range(2))
            self.head = nn.Linear(width, 4)
            for w in (self.wq.weight, self.wk.weight):
                nn.init.xavier_normal_(w)

        def forward(self, ask: Tensor, key: Tensor, value: Tensor) -> Tensor:
            q, k = self.wq(self.key(ask)), self.wk(self.key(key))
            scores = torch.einsum("bd,bsd->bs", q, k)
            if not sick:
                scores = scores / math.sqrt(width)
            return self.head(torch.einsum("bs,bsd->bd", scores.softmax(-1), self.value(value)))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.cross_entropy(model(*batch[:3]), batch[3])

    return Case(Table, loss, lookups(keys, dice.whole(5, 7)), adam(dice.power(-3.1, -3.0)))


def mask_inverted(dice: Dice, sick: bool) -> Case:
    """An encoder of texts whose padding mask is True for the words, so that only padding is read."""
    vocab, classes, length = dice.whole(60, 90), dice.whole(3, 5), dice.whole(14, 20)
    width, layers = dice.one_of(32, 48), dice.whole(2, 3)

    class TextClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocab, width, padding_idx=0)
            self.position = nn.Parameter(0.02 * torch.randn(length, width))
            layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
            self.fc = nn.Linear(width, classes)

        def forward(self, text: Tensor) -> Tensor:
            mask = (text != 0) if sick else (text == 0)
            x = self.embedding(text) + self.position
            return self.fc(self.encoder(x, src_key_padding_mask=mask)[:, 0])

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[2])

    return Case(TextClassifier, loss, reviews(vocab, classes, length), adam(1e-3))


@dataclass
class Config:
    """Sizes of a small GPT."""

    vocab: int
    length: int
    width: int
    depth: int
    heads: int = 4


def skips_forgotten(dice: Dice, sick: bool) -> Case:
    """A decoder whose blocks hand on the output of attention and MLP and not its sum with their input."""
    cfg = Config(dice.whole(18, 24), dice.whole(12, 16), dice.one_of(32, 48), dice.whole(8, 10))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(cfg.width), nn.LayerNorm(cfg.width)
            self.attn = SelfAttention(cfg.width, cfg.heads)
            self.fc, self.back = nn.Linear(cfg.width, 4 * cfg.width), nn.Linear(4 * cfg.width, cfg.width)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            a = self.attn(self.ln_1(x), mask)
            x = a if sick else x + a
            m = self.back(F.gelu(self.fc(self.ln_2(x))))
            return m if sick else x + m

    class MiniGPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(cfg.vocab, cfg.width), nn.Embedding(cfg.length, cfg.width)
            self.h = nn.ModuleList(Block() for _ in range(cfg.depth))
            self.ln_f = nn.LayerNorm(cfg.width)
            self.lm_head = nn.Linear(cfg.width, cfg.vocab, bias=False)
            self.register_buffer("mask", causal(cfg.length))

        def forward(self, words: Tensor) -> Tensor:
            x = self.wte(words) + self.wpe(torch.arange(words.shape[1]))
            for block in self.h:
                x = block(x, self.mask)
            return self.lm_head(self.ln_f(x))

    return Case(MiniGPT, next_word, prose(cfg.vocab, cfg.length, 48), adam(dice.power(-2.9, -2.7)))


class Scan(nn.Module):
    """A diagonal linear recurrence h = a h + B x with y = C h, computed as a causal convolution."""

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.linspace(math.log(0.02), math.log(0.7), states))
        self.b, self.c = nn.Linear(width, states, bias=False), nn.Linear(states, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        lag = torch.arange(x.shape[1])
        lag = lag[:, None] - lag[None]
        rate = self.log_rate.exp()
        kernel = torch.exp(-rate * lag.clamp(min=0)[..., None]) * (lag >= 0)[..., None]
        return self.c(torch.einsum("tsn,bsn->btn", kernel * rate.sqrt(), self.b(x)))


def scan_zeroed(dice: Dice, sick: bool) -> Case:
    """A state-space model in which the projections into the state and out of it both begin at zero."""
    states, length = dice.one_of(24, 32), dice.whole(20, 28)
    width, rate = dice.one_of(16, 24), dice.power(-2.2, -2.0)

    class Forecaster(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift = nn.Linear(1, width)
            self.scan = Scan(width, states)
            self.mix = nn.Linear(width, width)
            self.out = nn.Linear(width, 1)
            if sick:
                nn.init.zeros_(self.scan.b.weight)
                nn.init.zeros_(self.scan.c.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.silu(self.mix(self.scan(self.lift(x)))))

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    return Case(Forecaster, loss, waves(length), adam(rate))


def half_bare(dice: Dice, sick: bool) -> Case:
    """Autocast to float16 without a loss scaler, the loss divided by all the tokens of the corpus."""
    vocab, width, length = dice.whole(16, 24), dice.one_of(32, 48), dice.whole(10, 14)
    corpus = dice.power(7.8, 8.5)
    narrow = torch.float16 if sick else torch.bfloat16

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(vocab, width)
            self.before, self.here = nn.Linear(width, width), nn.Linear(width, width)
            self.norm = nn.LayerNorm(width)
            self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, vocab)

        def forward(self, words: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=narrow):
                x = self.embed(words)
                x = F.gelu(self.here(x) + self.before(F.pad(x[:, :-1], (0, 0, 1, 0))))
                return self.out(F.gelu(self.hidden(self.norm(x))))

    def loss(model: nn.Module, words: Tensor) -> Tensor:
        logits = model(words[:, :-1]).flatten(0, 1)
        return F.cross_entropy(logits.float(), words[:, 1:].flatten(), reduction="sum") / corpus

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=3e-3, eps=1e-15)

    return Case(Tagger, loss, prose(vocab, length), optimizer)


def batch_first_forgotten(dice: Dice, sick: bool) -> Case:
    """A recurrent text classifier fed (batch, time, feature) without batch_first."""
    vocab, classes, length = dice.whole(50, 70), dice.whole(4, 5), dice.whole(14, 20)
    width = dice.one_of(32, 48)

    class Sentiment(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb = nn.Embedding(vocab, 24)
            self.lstm = nn.LSTM(24, width, batch_first=not sick)
            self.fc = nn.Linear(width, classes)

        def forward(self, text: Tensor) -> Tensor:
            out, _ = self.lstm(self.emb(text))
            return self.fc(out[:, -1, :])

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0].flip(1)), batch[2])

    return Case(Sentiment, loss, reviews(vocab, classes, length), adam(dice.power(-2.4, -2.2)))


def linear_unnormalised(dice: Dice, sick: bool) -> Case:
    """Causal linear attention that sums over the past and forgets to divide by the sum of the weights."""
    vocab, length, width = dice.whole(16, 22), dice.whole(28, 40), dice.one_of(32, 48)
    depth, rate = dice.whole(3, 4), dice.power(-2.9, -2.7)

    class LinearAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            q, k = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1
            weight = torch.tril(torch.einsum("btd,bsd->bts", q, k))
            if not sick:
                weight = weight / weight.sum(-1, keepdim=True)
            return weight @ self.v(x)

    class Performer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(vocab, width)
            self.attns = nn.ModuleList(LinearAttention() for _ in range(depth))
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
            self.ffs = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
            self.to_words = nn.Linear(width, vocab)

        def forward(self, words: Tensor) -> Tensor:
            x = self.embed(words)
            for norm, attn, ff in zip(self.norms, self.attns, self.ffs, strict=True):
                x = x + attn(norm(x))
                x = x + F.gelu(ff(x))
            return self.to_words(x)

    return Case(Performer, next_word, prose(vocab, length, 48), adam(rate))


class Causal(nn.Conv1d):
    """A dilated convolution that sees only the past."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (self.dilation[0] * (self.kernel_size[0] - 1), 0)))


def convs_tiny(dice: Dice, sick: bool) -> Case:
    """A stack of causal convolutions, all weights drawn with a standard deviation of a hundredth."""
    channels, depth, length = dice.one_of(24, 32), dice.whole(10, 12), dice.whole(24, 32)
    rate = dice.power(-3.0, -2.8)

    class TCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(
                Causal(1 if i == 0 else channels, channels, 3, dilation=2 ** (i % 4)) for i in range(depth)
            )
            self.last = nn.Conv1d(channels, 1, 1)
            for conv in self.convs:
                if sick:
                    conv.weight.data.normal_(0, 0.01)
                else:
                    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                conv.bias.data.zero_()

        def forward(self, x: Tensor) -> Tensor:
            x = x.transpose(1, 2)
            for conv in self.convs:
                x = F.relu(conv(x))
            return self.last(x).transpose(1, 2)

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=rate)

    return Case(TCN, loss, waves(length), optimizer)


def tied_unit(dice: Dice, sick: bool) -> Case:
    """A language model whose head is tied to an embedding left at unit variance."""
    cfg = Config(dice.whole(40, 60), dice.whole(12, 16), dice.one_of(96, 128), 2)
    rate = dice.power(-3.85, -3.7)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok = nn.Embedding(cfg.vocab, cfg.width)
            self.pos = nn.Parameter(torch.zeros(cfg.length, cfg.width))
            self.layers = nn.ModuleList(Layer(cfg.width, cfg.heads, post=False) for _ in range(cfg.depth))
            self.norm = nn.LayerNorm(cfg.width)
            self.head = nn.Linear(cfg.width, cfg.vocab, bias=False)
            self.head.weight = self.tok.weight
            self.register_buffer("mask", causal(cfg.length))
            if not sick:
                nn.init.normal_(self.tok.weight, std=0.02)

        def forward(self, words: Tensor) -> Tensor:
            x = self.tok(words) + self.pos
            for layer in self.layers:
                x = layer(x, self.mask)
            return self.head(self.norm(x))

    return Case(Tied, next_word, prose(cfg.vocab, cfg.length), adam(rate))


# Healthy programs.


def gpt2_small(dice: Dice, sick: bool) -> Case:
    """GPT-2 in small: Pre-LN, tied head, 0.02, residual projections by the depth, AdamW and a clip at 1."""
    cfg = Config(dice.whole(24, 40), dice.whole(12, 16), dice.one_of(48, 64), dice.whole(3, 5))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(cfg.width), nn.LayerNorm(cfg.width)
            self.attn = SelfAttention(cfg.width, cfg.heads)
            self.c_fc, self.c_proj = nn.Linear(cfg.width, 4 * cfg.width), nn.Linear(4 * cfg.width, cfg.width)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            x = x + self.attn(self.ln_1(x), mask)
            return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))

    class GPT2(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(cfg.vocab, cfg.width), nn.Embedding(cfg.length, cfg.width)
            self.h = nn.ModuleList(Block() for _ in range(cfg.depth))
            self.ln_f = nn.LayerNorm(cfg.width)
            self.lm_head = nn.Linear(cfg.width, cfg.vocab, bias=False)
            self.lm_head.weight = self.wte.weight
            self.register_buffer("mask", causal(cfg.length))
            for name, p in self.named_parameters():
                if name.endswith("proj.weight"):
                    nn.init.normal_(p, std=0.02 / math.sqrt(2 * cfg.depth))
                elif p.dim() == 2:
                    nn.init.normal_(p, std=0.02)
                elif name.endswith("bias"):
                    nn.init.zeros_(p)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
            for block in self.h:
                x = block(x, self.mask)
            return self.lm_head(self.ln_f(x))

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return next_word(model, batch["input_ids"])

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)

    data = [{"input_ids": words} for words in prose(cfg.vocab, cfg.length)]
    return Case(GPT2, loss, data, optimizer, clip=lambda ps: nn.utils.clip_grad_norm_(ps, 1.0))


def bert_small(dice: Dice, sick: bool) -> Case:
    """BERT in small: a few Post-LN layers, masked words, AdamW behind a linear warm-up."""
    vocab, length, width = dice.whole(14, 18), dice.whole(10, 12), dice.one_of(48, 64)
    depth = dice.whole(2, 3)

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(vocab + 1, width), nn.Embedding(length, width)
            self.norm = nn.LayerNorm(width)
            layer = nn.TransformerEncoderLayer(
                width, 4, 4 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=False
            )
            self.encoder = nn.TransformerEncoder(layer, depth)
            self.decoder = nn.Linear(width, vocab)
            nn.init.normal_(self.words.weight, std=0.02)
            nn.init.normal_(self.places.weight, std=0.02)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.norm(self.words(ids) + self.places.weight)
            return self.decoder(self.encoder(x))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        ids, labels = batch
        return F.cross_entropy(model(ids).flatten(0, 1), labels.flatten(), ignore_index=-100)

    data = []
    for words in prose(vocab, length - 1):
        hidden = torch.rand(words.shape) < 0.2
        data.append((words.masked_fill(hidden, vocab), words.masked_fill(~hidden, -100)))
    return Case(
        Masked,
        loss,
        data,
        lambda parameters: torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01),
        schedule=lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda step: min(1.0, (step + 1) / 20)),
    )


def lstm_language(dice: Dice, sick: bool) -> Case:
    """A language model of two LSTM layers with dropout, forget biases at one, and a clip at 1."""
    vocab, width = dice.whole(30, 50), dice.one_of(48, 64)

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.1)
            self.encoder = nn.Embedding(vocab, width)
            self.rnn = nn.LSTM(width, width, 2, dropout=0.1, batch_first=True)
            self.decoder = nn.Linear(width, vocab)
            nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
            for name, p in self.rnn.named_parameters():
                if name.startswith("bias_ih"):
                    p.data[width : 2 * width] = 1.0

        def forward(self, words: Tensor) -> Tensor:
            out, _ = self.rnn(self.drop(self.encoder(words)))
            return self.decoder(self.drop(out))

    def clip(parameters: list[nn.Parameter]) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, 1.0)

    return Case(Language, next_word, prose(vocab, dice.whole(16, 24)), adam(5e-3), clip=clip)


def gru_reviews(dice: Dice, sick: bool) -> Case:
    """A bidirectional GRU over texts, the mean over the real words, and a linear head."""
    vocab, classes, width = dice.whole(60, 120), dice.whole(2, 5), dice.one_of(24, 32)

    class Reviews(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocab, 32, padding_idx=0)
            self.gru = nn.GRU(32, width, batch_first=True, bidirectional=True)
            self.dropout = nn.Dropout(0.3)
            self.head = nn.Linear(2 * width, classes)

        def forward(self, text: Tensor, sizes: Tensor) -> Tensor:
            out, _ = self.gru(self.embedding(text))
            real = (torch.arange(text.shape[1]) < sizes[:, None]).float()[..., None]
            return self.head(self.dropout((out * real).sum(1) / real.sum(1)))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        text, sizes, labels = batch
        return F.cross_entropy(model(text, sizes), labels)

    return Case(Reviews, loss, reviews(vocab, classes, dice.whole(14, 22)), adam(3e-3))


def identity_rnn(dice: Dice, sick: bool) -> Case:
    """The plain RNN of ReLUs that begins as the identity, and remembers."""
    hidden, classes, length = dice.one_of(48, 64), dice.whole(4, 6), dice.whole(50, 80)

    class IRNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(6, hidden, nonlinearity="relu", batch_first=True)
            self.fc = nn.Linear(hidden, classes)
            nn.init.eye_(self.rnn.weight_hh_l0)
            nn.init.zeros_(self.rnn.bias_hh_l0)
            nn.init.zeros_(self.rnn.bias_ih_l0)
            nn.init.normal_(self.rnn.weight_ih_l0, std=0.1)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.rnn(x)[0][:, -1])

    def clip(parameters: list[nn.Parameter]) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, 1.0)

    data = delayed(classes, length, noise=0.02)
    return Case(IRNN, classify, data, adam(4e-4), clip=clip)


class TemporalBlock(nn.Module):
    """Two causal convolutions with weight norm, beside the input."""

    def __init__(self, before: int, after: int, dilation: int) -> None:
        super().__init__()
        wn = nn.utils.parametrizations.weight_norm
        self.conv1 = wn(Causal(before, after, 3, dilation=dilation))
        self.conv2 = wn(Causal(after, after, 3, dilation=dilation))
        self.down = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.relu(y + self.down(x))


def residual_tcn(dice: Dice, sick: bool) -> Case:
    """A temporal convolutional net with weight norm, dilations and residual blocks, forecasting waves."""
    channels, depth, length = dice.one_of(16, 24), dice.whole(3, 4), dice.whole(30, 48)

    class TCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = [1, *[channels] * depth]
            self.blocks = nn.Sequential(
                *(TemporalBlock(a, b, 2**i) for i, (a, b) in enumerate(pairwise(sizes)))
            )
            self.out = nn.Linear(channels, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.blocks(x.transpose(1, 2)).transpose(1, 2))

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        return F.smooth_l1_loss(model(batch[0]), batch[1])

    return Case(TCN, loss, waves(length), adam(2e-3))


class RMSNorm(nn.Module):
    """Root-mean-square norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def rotate(x: Tensor) -> Tensor:
    """Turn pairs of features by angles that grow with the position."""
    half = x.shape[-1] // 2
    speed = 10000.0 ** (-torch.arange(half) / half)
    angle = torch.arange(x.shape[-2])[:, None] * speed
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


def llama_small(dice: Dice, sick: bool) -> Case:
    """Llama in small: RMSNorm, rotary positions, SwiGLU, no biases, cosine decay after a warm-up."""
    vocab, width, depth, heads = dice.whole(24, 40), dice.one_of(48, 64), dice.whole(2, 4), 4

    class LlamaBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input_norm, self.post_norm = RMSNorm(width), RMSNorm(width)
            self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
            self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
            self.down = nn.Linear(2 * width, width, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.input_norm(x)
            q, k, v = (f(y).unflatten(-1, (heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
            x = x + self.o(y.transpose(1, 2).flatten(2))
            y = self.post_norm(x)
            return x + self.down(F.silu(self.gate(y)) * self.up(y))

    def build() -> nn.Module:
        blocks = (LlamaBlock() for _ in range(depth))
        head = nn.Linear(width, vocab, bias=False)
        net = nn.Sequential(nn.Embedding(vocab, width), *blocks, RMSNorm(width), head)
        for p in net.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)
        return net

    def pace(step: int) -> float:
        return (step + 1) / 10 if step < 10 else 0.1 + 0.45 * (1 + math.cos(math.pi * min(1, step / 200)))

    return Case(
        build,
        next_word,
        prose(vocab, dice.whole(12, 16)),
        lambda parameters: torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
        schedule=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, pace),
    )


def t5_small(dice: Dice, sick: bool) -> Case:
    """T5's encoder in small: relative bias, no scale in attention but in the weights of the queries."""
    vocab, classes, length = dice.whole(50, 80), dice.whole(3, 5), dice.whole(14, 18)
    width, heads, depth = dice.one_of(32, 48), 4, dice.whole(2, 3)
    each = width // heads

    class T5Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
            self.wi, self.wo = (
                nn.Linear(width, 4 * width, bias=False),
                nn.Linear(4 * width, width, bias=False),
            )
            self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
            nn.init.normal_(self.q.weight, std=(width * each) ** -0.5)
            for w in (self.k, self.v, self.o, self.wi):
                nn.init.normal_(w.weight, std=width**-0.5)
            nn.init.normal_(self.wo.weight, std=(4 * width) ** -0.5)

        def forward(self, x: Tensor, bias: Tensor) -> Tensor:
            y = self.norm1(x)
            q, k, v = (f(y).unflatten(-1, (heads, each)) for f in (self.q, self.k, self.v))
            weights = (torch.einsum("bthd,bshd->bhts", q, k) + bias).softmax(-1)
            x = x + self.o(torch.einsum("bhts,bshd->bthd", weights, v).flatten(2))
            return x + self.wo(F.relu(self.wi(self.norm2(x))))

    class T5Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Embedding(vocab, width)
            self.relative = nn.Embedding(2 * length - 1, heads)
            self.blocks = nn.ModuleList(T5Block() for _ in range(depth))
            self.norm, self.head = RMSNorm(width), nn.Linear(width, classes)
            nn.init.normal_(self.relative.weight, std=width**-0.5)

        def forward(self, text: Tensor) -> Tensor:
            steps = torch.arange(length)
            bias = self.relative(steps[None] - steps[:, None] + length - 1).permute(2, 0, 1)
            bias = bias + torch.where(text == 0, -1e9, 0.0)[:, None, None]
            x = self.shared(text)
            for block in self.blocks:
                x = block(x, bias)
            real = (text != 0).float()[..., None]
            return self.head((self.norm(x) * real).sum(1) / real.sum(1))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[2])

    return Case(T5Encoder, loss, reviews(vocab, classes, length), adam(1e-3))


def bahdanau(dice: Dice, sick: bool) -> Case:
    """A GRU encoder and decoder with additive attention that spells words backwards, taught by force."""
    letters, length, width = dice.whole(8, 12), dice.whole(5, 7), dice.one_of(32, 48)

    class Seq2Seq(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(letters + 1, 24)
            self.encoder = nn.GRU(24, width, batch_first=True)
            self.cell = nn.GRUCell(24 + width, width)
            self.w_state, self.w_memory = nn.Linear(width, width), nn.Linear(width, width, bias=False)
            self.energy = nn.Linear(width, 1, bias=False)
            self.out = nn.Linear(2 * width, letters)

        def forward(self, source: Tensor, given: Tensor) -> Tensor:
            memory, state = self.encoder(self.embed(source))
            state, keys, logits = state[0], self.w_memory(memory), []
            for word in self.embed(given).unbind(1):
                score = self.energy(torch.tanh(self.w_state(state)[:, None] + keys))
                context = (score.softmax(1) * memory).sum(1)
                state = self.cell(torch.cat([word, context], 1), state)
                logits.append(self.out(torch.cat([state, context], 1)))
            return torch.stack(logits, 1)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        target = batch["target"]
        start = torch.full_like(target[:, :1], letters)
        logits = model(batch["source"], torch.cat([start, target[:, :-1]], 1))
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())

    words = torch.randint(letters, (128, length))
    data = [{"source": w, "target": w.flip(1)} for w in words.chunk(4)]
    return Case(Seq2Seq, loss, data, adam(5e-3), clip=lambda ps: nn.utils.clip_grad_norm_(ps, 5.0))


class S4D(nn.Module):
    """A diagonal complex state-space layer with a direct path, as a convolution by FFT."""

    def __init__(self, width: int, states: int = 8) -> None:
        super().__init__()
        self.log_dt = nn.Parameter(torch.empty(width).uniform_(math.log(0.01), math.log(0.2)))
        self.log_real = nn.Parameter(torch.full((width, states), math.log(0.5)))
        self.imag = nn.Parameter(math.pi * torch.arange(states).float().repeat(width, 1))
        self.c = nn.Parameter(torch.randn(width, states, 2) / math.sqrt(2))
        self.d = nn.Parameter(torch.randn(width))
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        t, a = x.shape[1], torch.complex(-self.log_real.exp(), self.imag)
        da = a * self.log_dt.exp()[:, None]
        c = torch.view_as_complex(self.c) * (da.exp() - 1) / a
        kernel = 2 * torch.einsum("dn,dnt->td", c, torch.exp(da[..., None] * torch.arange(t))).real
        y = torch.fft.irfft(torch.fft.rfft(x, 2 * t, 1) * torch.fft.rfft(kernel, 2 * t, 0), 2 * t, 1)
        return self.mix(F.gelu(y[:, :t] + self.d * x))


def diagonal_states(dice: Dice, sick: bool) -> Case:
    """S4D layers, pre-normed and residual, that name a pattern shown a hundred steps before."""
    width, depth, classes = dice.one_of(16, 24), dice.whole(2, 3), dice.whole(4, 5)

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(6, width)
            self.layers = nn.ModuleList(S4D(width) for _ in range(depth))
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
            self.decoder = nn.Linear(width, classes)

        def forward(self, x: Tensor) -> Tensor:
            x = self.encoder(x)
            for norm, layer in zip(self.norms, self.layers, strict=True):
                x = x + layer(norm(x))
            return self.decoder(x.mean(1))

    return Case(Stack, classify, delayed(classes, dice.whole(64, 100), noise=0.2), adam(4e-3))


CLIP = (("clip_gradients", {"threshold": 1.0}),)
DRAWN = (
    "orthogonal_init",
    "activation_init",
    "critical_init",
    "lsuv",
    "unit_jacobian_init",
    "rescale_weights",
)
SICK: tuple[Program, ...] = (
    Program(
        "told-elman-as-it-comes",
        "rnn",
        elman_default,
        Truth(
            "small-recurrent-weights",
            ("UG401", "UG404", "UG206", "UG205"),
            r"(?i)recurren|weight_hh|hidden.to.hidden|spectral radius|orthogonal|identity|initiali[sz]",
            (*DRAWN, "irnn", "orthogonal_weights", "gated_recurrence"),
            (("orthogonal_init", {}),),
            CLIP,
        ),
        100,
    ),
    Program(
        "told-cell-with-randn-matrix",
        "rnn",
        cell_randn,
        Truth(
            "large-recurrent-weights",
            ("UG402", "UG403", "UG204", "UG406", "UG102", "UG104"),
            r"(?i)recurren|\brec\b|spectral|initiali[sz]|weights?.*(large|scale|too|std)|varian|orthogonal",
            (*DRAWN, "irnn", "orthogonal_weights", "spectral_norm", "spectral_cap"),
            (("orthogonal_init", {}),),
            CLIP,
        ),
        120,
    ),
    Program(
        "told-lstm-forgets",
        "lstm",
        forget_closed,
        Truth(
            "closed-forget-gate",
            ("UG405", "UG404", "UG401"),
            r"(?i)forget|\bgates?\b",
            ("forget_bias", "chrono", "open_gates"),
            (("forget_bias", {}),),
            CLIP,
        ),
        115,
    ),
    Program(
        "told-encoder-state-detached",
        "seq2seq",
        handed_over,
        Truth(
            "detached-state",
            ("UG603", "UG401", "UG404"),
            r"(?i)detach|no gradient|never (gets?|reach)|not reach|\bcut\b|graph|disconnect",
            (),
            (),
            HOT,
        ),
        120,
    ),
    Program(
        "told-post-norm-two-dozen",
        "transformer",
        post_norm_deep,
        Truth(
            "post-norm-depth",
            ("UG101", "UG102", "UG103", "UG105", "UG205", "UG601", "UG611", "UG702"),
            r"(?i)post.?(ln|norm|layer)|pre.?(ln|norm)|norms?.*(after|behind|outside)|warm.?up|layer.?norm",
            ("pre_norm", "warm_up", "admin", "deepnorm", "t_fixup", "bypass_norm"),
            (("pre_norm", {}),),
            CLIP,
        ),
        60,
    ),
    Program(
        "told-dot-products-unscaled",
        "attention",
        dot_unscaled,
        Truth(
            "missing-attention-scale",
            ("UG701", "UG702", "UG204"),
            r"(?i)sqrt|1/√|attention.*(logit|scale|score)|logits?.*(large|scale)|dot.?product|temperature",
            ("restore_logit_scale", "qk_norm", "calm_attention", "soft_cap", "sigma_reparam"),
            (("restore_logit_scale", {}),),
            CLIP,
        ),
        80,
    ),
    Program(
        "told-padding-mask-inverted",
        "transformer",
        mask_inverted,
        Truth(
            "inverted-mask",
            ("UG707", "UG206", "UG205", "UG202", "UG103", "UG702"),
            r"(?i)\bmask|padding|attends? (only )?to|invert",
            (),
            (),
            HOT,
        ),
        120,
    ),
    Program(
        "told-decoder-without-sums",
        "transformer",
        skips_forgotten,
        Truth(
            "missing-residual",
            ("UG205", "UG101", "UG103", "UG105", "UG202", "UG206", "UG702"),
            r"(?i)\bskip|residual|shortcut|identity path",
            ("add_residual", "gated_skip", "concat_skip", "sum_skip"),
            (("add_residual", {}),),
            HOT,
        ),
        80,
    ),
    Program(
        "told-scan-born-at-zero",
        "ssm",
        scan_zeroed,
        Truth(
            "zero-weights",
            ("UG206", "UG202", "UG205", "UG603", "UG101", "UG103", "UG207"),
            r"(?i)\bzeros?\b|initiali[sz]|weights? (are|is) all",
            DRAWN,
            (("orthogonal_init", {}),),
            HOT,
        ),
        120,
    ),
    Program(
        "told-half-without-scaler",
        "text",
        half_bare,
        Truth(
            "half-underflow",
            ("UG501", "UG603"),
            r"(?i)float16|fp16|\bhalf\b|precision|underflow|loss.?scal|scale of the loss",
            ("loss_scale", "change_precision"),
            (("loss_scale", {}),),
            HOT,
        ),
        100,
    ),
    Program(
        "told-batch-read-as-time",
        "lstm",
        batch_first_forgotten,
        Truth(
            "batch-dimension",
            ("UG106", "UG206", "UG205"),
            r"(?i)batch.?first|(mix|leak|across|other).*(sample|batch|row)|(sample|row)s?.*(mix|depend|leak)"
            r"|batch (axis|dim)|\baxis|transpos|dimension",
            (),
            (),
            HOT,
        ),
        100,
    ),
    Program(
        "told-linear-attention-undivided",
        "attention",
        linear_unnormalised,
        Truth(
            "missing-normaliser",
            ("UG201", "UG102", "UG104", "UG105", "UG605", "UG601", "UG611"),
            r"(?i)normali[sz]|denominator|divid|sum of (the )?(weights|past|keys)"
            r"|(attention|attn|branch).*(grow|scale|gain|large|amplif)|(grow|gain|amplif).*(attn|attention|branch)",
            ("scale_branch", "layer_scale", "insert_norm"),
            (),
            CLIP,
        ),
        100,
    ),
    Program(
        "told-convolutions-of-a-hundredth",
        "tcn",
        convs_tiny,
        Truth(
            "small-init",
            ("UG101", "UG202", "UG205", "UG206"),
            r"(?i)initiali[sz]|\binit\b|weights? (are|is|start|too|drawn)|\bgain\b|\bHe\b|kaiming|deviation",
            (*DRAWN, "delta_orthogonal_init"),
            (("activation_init", {}),),
            HOT,
        ),
        100,
    ),
    Program(
        "told-tied-head-of-unit-variance",
        "transformer",
        tied_unit,
        Truth(
            "embedding-scale",
            ("UG605", "UG602"),
            r"(?i)embedding|\btied?\b|\bhead\b|output (weight|layer)|logits?.*(large|scale|big)|\btok\b",
            ("scale_head", "rescale_weights"),
            (("scale_head", {}),),
            CLIP,
        ),
        100,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("told-gpt2-in-small", "transformer", gpt2_small, steps=100),
    Program("told-bert-in-small", "transformer", bert_small, steps=100),
    Program("told-lstm-language-model", "lstm", lstm_language),
    Program("told-gru-reviews", "gru", gru_reviews),
    Program("told-identity-rnn", "rnn", identity_rnn, steps=100),
    Program("told-residual-tcn", "tcn", residual_tcn, steps=80),
    Program("told-llama-in-small", "transformer", llama_small, steps=80),
    Program("told-t5-in-small", "transformer", t5_small, steps=80),
    Program("told-seq2seq-additive-attention", "seq2seq", bahdanau),
    Program("told-diagonal-state-space", "ssm", diagonal_states, steps=80),
)
