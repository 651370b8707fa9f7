"""Loops over time and layers of attention, sick and healthy."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HOT = (("lower_learning_rate", {"factor": 10.0}),)


def tags(length: int, tokens: int = 15, kinds: int = 5, rows: int = 32) -> tasks.Pairs:
    """Return sentences whose words each have a kind of their own."""
    words = torch.randint(tokens, (rows, length))
    return tasks.split(words, torch.randint(kinds, (tokens,))[words])


def tag_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of every word's kind."""
    return F.cross_entropy(model(batch[0]).transpose(1, 2), batch[1])


class RmsNorm(nn.Module):
    """Division by the root mean square, with a learned scale."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.g * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Mixer(nn.Module):
    """Self-attention and a perceptron of torch's parts, the norms before the branches or behind the sums."""

    def __init__(self, dim: int, depth: int, *, behind: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, 4, batch_first=True)
        self.ffn = nn.Sequential(nn.Linear(dim, 3 * dim), nn.SiLU(), nn.Linear(3 * dim, dim))
        self.n1, self.n2 = RmsNorm(dim), RmsNorm(dim)
        self.behind = behind
        if not behind:
            for end in (self.attn.out_proj, self.ffn[2]):
                end.weight.data.div_(math.sqrt(2 * depth))  # type: ignore[operator, union-attr]

    def forward(self, x: Tensor) -> Tensor:
        if self.behind:
            x = self.n1(x + self.attn(x, x, x, need_weights=False)[0])
            return self.n2(x + self.ffn(x))
        y = self.n1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.ffn(self.n2(x))


class WordTagger(nn.Module):
    """A stack of mixers that speaks about every word."""

    def __init__(self, dim: int, depth: int, *, behind: bool, kinds: int = 5) -> None:
        super().__init__()
        self.emb, self.pos = nn.Embedding(15, dim), nn.Parameter(torch.randn(32, dim) * 0.5)
        self.blocks = nn.Sequential(*(Mixer(dim, depth, behind=behind) for _ in range(depth)))
        self.to_kinds = nn.Sequential(RmsNorm(dim), nn.Linear(dim, kinds))

    def forward(self, words: Tensor) -> Tensor:
        return self.to_kinds(self.blocks(self.emb(words) + self.pos[: words.shape[1]]))


def behind_sums(dice: Dice, sick: bool) -> Case:
    """A deep tagger that normalises behind every sum."""
    dim, depth = dice.one_of(16, 24), dice.whole(26, 30)
    data = tags(dice.whole(8, 10))
    return Case(lambda: WordTagger(dim, depth, behind=sick), tag_loss, data, tasks.adam(3e-3))


class Heads(nn.Module):
    """Fused queries, keys and values, several heads, einsum."""

    def __init__(self, dim: int, heads: int, scale: float) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.heads, self.scale = heads, scale
        nn.init.normal_(self.qkv.weight, std=dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).unbind(2)
        dots = torch.einsum("bihd,bjhd->bhij", q, k) * self.scale
        mixed = torch.einsum("bhij,bjhd->bihd", dots.softmax(dim=-1), v)
        return self.proj(mixed.reshape(b, n, c))


class Averager(nn.Module):
    """A number about a set: linear map, one round of attention per layer, mean over a learned asker."""

    def __init__(self, dim: int, heads: int, layers: int, scale: float) -> None:
        super().__init__()
        self.lift = nn.Linear(6, dim)
        self.asker = nn.Parameter(torch.randn(1, 1, dim))
        self.rounds = nn.ModuleList(Heads(dim, heads, scale) for _ in range(layers))
        self.lns = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.answer = nn.Linear(dim, 1)
        nn.init.normal_(self.answer.weight, std=0.1 * dim**-0.5)

    def forward(self, points: Tensor) -> Tensor:
        x = torch.cat([self.asker.expand(len(points), -1, -1), self.lift(points)], 1)
        for ln, attend in zip(self.lns, self.rounds, strict=True):
            x = x + attend(ln(x))
        return self.answer(x[:, 0])


def set_means(size: int, rows: int = 128) -> tasks.Pairs:
    """Return sets of points and a projection of their means, of unit size."""
    points = torch.randn(rows, size, 6)
    y = points.mean(1) @ torch.randn(6, 1)
    return tasks.split(points, y / y.std())


def bare_products(dice: Dice, sick: bool) -> Case:
    """Several wide heads whose products nobody divides."""
    heads, each = 2, dice.one_of(128, 160)
    model = Averager(heads * each, heads, 1, 1.0 if sick else each**-0.5)
    data = set_means(dice.whole(32, 40), rows=96)
    return Case(model, tasks.regress, data, torch.optim.Adam(model.parameters(), lr=3e-4))


def said_once(steps: int, size: int = 3, rows: int = 96, noise: float = 0.1) -> tasks.Pairs:
    """Return noise with signs and a flag in the first step; the signs are to be given back at the end."""
    word = torch.randint(2, (rows, size)).float() * 2 - 1
    sequence = noise * torch.randn(rows, steps, size + 1)
    sequence[:, 0, :size] += 2 * word
    sequence[:, 0, size] += 2.0
    return tasks.split(sequence, word)


class CellReader(nn.Module):
    """nn.LSTMCell in a loop; the forget gate's bias is set by hand."""

    def __init__(self, units: int, bias: float) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(4, units), nn.Linear(units, 3)
        with torch.no_grad():
            for vector in (self.cell.bias_ih, self.cell.bias_hh):
                _, forget, _, _ = vector.chunk(4)
                forget.fill_(bias)

    def forward(self, sequence: Tensor) -> Tensor:
        state = None
        for t in range(sequence.shape[1]):
            state = self.cell(sequence[:, t], state)
        assert state is not None
        return self.out(state[0])


def wrong_sign(dice: Dice, sick: bool) -> Case:
    """The forget gate's bias with the wrong sign, in both of torch's bias vectors."""
    units, bias, steps = dice.whole(24, 40), dice.between(1.8, 2.6), dice.whole(18, 24)
    model = CellReader(units, -bias if sick else bias / 2)
    data = said_once(steps, noise=0.3)
    return Case(model, tasks.regress, data, torch.optim.Adam(model.parameters(), lr=3e-3))


class Stepper(nn.Module):
    """A GRU cell whose state is detached at every step: what was meant for the ends of chunks."""

    def __init__(self, units: int, *, cut: bool) -> None:
        super().__init__()
        self.gru, self.speak, self.cut = nn.GRUCell(4, units), nn.Linear(units, 3), cut

    def forward(self, sequence: Tensor) -> Tensor:
        h = torch.zeros(sequence.shape[0], self.gru.hidden_size)
        for t in range(sequence.shape[1]):
            if self.cut:
                h = h.detach()
            h = self.gru(sequence[:, t], h)
        return self.speak(h)


def cut_in_time(dice: Dice, sick: bool) -> Case:
    """No gradient comes to an earlier step."""
    units, steps = dice.whole(24, 40), dice.whole(12, 16)
    data = said_once(steps, noise=0.4)
    return Case(lambda: Stepper(units, cut=sick), tasks.regress, data, tasks.adam(5e-3))


class Multilabel(nn.Module):
    """A bidirectional LSTM that ticks labels at every step."""

    def __init__(self, units: int, labels: int) -> None:
        super().__init__()
        self.birnn = nn.LSTM(5, units, batch_first=True, bidirectional=True)
        self.ticks = nn.Linear(2 * units, labels)

    def forward(self, x: Tensor) -> Tensor:
        return self.ticks(self.birnn(x)[0])


def ticked(length: int, labels: int, rows: int = 96) -> tasks.Pairs:
    """Return smooth walks and which projections of them are positive at each step."""
    walks = F.avg_pool1d(torch.randn(rows, 5, length + 4), 5, 1).transpose(1, 2) * 2
    return tasks.split(walks, (walks @ torch.randn(5, labels) > 0).float())


def ticks_summed(dice: Dice, sick: bool) -> Case:
    """Binary cross-entropies added up over rows, steps and labels, at a rate for their mean."""
    units, labels, length = dice.whole(16, 24), dice.whole(10, 16), dice.whole(16, 24)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        how = "sum" if sick else "mean"
        return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1], reduction=how)

    return Case(lambda: Multilabel(units, labels), loss, ticked(length, labels), tasks.sgd(0.5, momentum=0.9))


def mean_ticks(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Mean binary cross-entropy of a label."""
    return float(F.binary_cross_entropy_with_logits(model(batch[0]), batch[1]))


class Fading(nn.Module):
    """A diagonal linear recurrence between two maps: every channel keeps a learned share of itself."""

    def __init__(self, inputs: int, channels: int, low: float, high: float) -> None:
        super().__init__()
        self.into, self.mix = nn.Linear(inputs, channels), nn.Linear(channels, channels)
        share = torch.empty(channels).uniform_(low, high)
        self.share_logit = nn.Parameter(torch.logit(share))

    def forward(self, x: Tensor) -> Tensor:
        keep = torch.sigmoid(self.share_logit)
        drive = self.into(x) * (1 - keep.square()).sqrt()
        state, states = torch.zeros_like(drive[:, 0]), []
        for t in range(x.shape[1]):
            state = keep * state + drive[:, t]
            states.append(state)
        return F.gelu(self.mix(torch.stack(states, dim=1)))


class FadingStack(nn.Module):
    """Two such layers, and a head on the last step."""

    def __init__(self, channels: int, low: float, high: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(Fading(4, channels, low, high), Fading(channels, channels, low, high))
        self.final = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.final(self.layers(x)[:, -1])


def fading(dice: Dice, sick: bool) -> Case:
    """Shares that start where a few steps leave nothing of the state."""
    channels, steps = dice.whole(24, 32), dice.whole(24, 32)
    low, high = (0.02, dice.between(0.1, 0.25)) if sick else (0.85, 0.98)
    data = said_once(steps, noise=0.1)
    return Case(lambda: FadingStack(channels, low, high), tasks.regress, data, tasks.adam(3e-3))


class Hidden(nn.Module):
    """A hidden Markov model; gives the logarithm of a sequence's probability."""

    def __init__(self, states: int, symbols: int, *, plain: bool) -> None:
        super().__init__()
        self.move = nn.Parameter(0.5 * torch.randn(states, states) + 2 * torch.eye(states))
        self.show = nn.Parameter(0.5 * torch.randn(states, symbols))
        self.begin = nn.Parameter(torch.zeros(states))
        self.plain = plain

    def forward(self, seen: Tensor) -> Tensor:
        move, show = self.move.log_softmax(1), self.show.log_softmax(1).T
        alpha = self.begin.log_softmax(0) + show[seen[:, 0]]
        if self.plain:
            alpha, move, show = alpha.exp(), move.exp(), show.exp()
            for t in range(1, seen.shape[1]):
                alpha = (alpha @ move) * show[seen[:, t]]
            return alpha.sum(1).log()
        for t in range(1, seen.shape[1]):
            alpha = torch.logsumexp(alpha[:, :, None] + move, dim=1) + show[seen[:, t]]
        return alpha.logsumexp(1)


def markov(dice: Dice, sick: bool) -> Case:
    """The forward algorithm with probabilities themselves, over a long sequence."""
    symbols, steps, states = dice.whole(14, 18), dice.whole(60, 80), 3
    place = (torch.randint(3, (48, 1)) + torch.arange(steps) // 9) % 3
    seen = (place * (symbols // 3) + torch.randint(symbols // 3, (48, steps))) % symbols
    model = Hidden(states, symbols, plain=sick)

    def loss(net: nn.Module, batch: Tensor) -> Tensor:
        return -net(batch).mean() / batch.shape[1]

    return Case(model, loss, list(seen.chunk(4)), torch.optim.Adam(model.parameters(), lr=0.1))


class Stamps(nn.Module):
    """Two layers of a GRU and the mean of its states."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.enc = nn.GRU(1, units, num_layers=2, batch_first=True)
        self.cls = nn.Linear(units, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.cls(self.enc(x)[0].mean(dim=1))


def scheduled(dice: Dice, sick: bool) -> Case:
    """A schedule for epochs that is stepped after every batch."""
    units, gamma = dice.whole(24, 40), dice.between(0.3, 0.5)

    def each_step(optimizer: torch.optim.Optimizer) -> object:
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1 if sick else 100, gamma=gamma)

    data = tasks.waves(dice.whole(18, 26))
    return Case(lambda: Stamps(units), tasks.classify, data, tasks.adamw(1e-2), schedule=each_step)


class Sentences(nn.Module):
    """Embedded words, one layer of torch's encoder, the mean of the words on a sphere."""

    def __init__(self, dim: int, layers: int = 1) -> None:
        super().__init__()
        self.words = nn.Embedding(40, dim)
        layer = nn.TransformerEncoderLayer(
            dim, 2, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.enc = nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.map = nn.Linear(dim, dim)

    def forward(self, words: Tensor) -> Tensor:
        return F.normalize(self.map(self.enc(self.words(words)).mean(1)), dim=-1)


def unshifted(dice: Dice, sick: bool) -> Case:
    """Similarities over a low temperature, exponentiated as they are."""
    dim, cold = dice.one_of(16, 24), dice.between(0.008, 0.0105)

    def loss(model: nn.Module, pair: Tensor) -> Tensor:
        one, other = model(pair[0]), model(pair[1])
        close = one @ other.T / cold
        if sick:
            close = close.exp()
            return -(close.diagonal() / close.sum(dim=1)).log().mean()
        return -(close.diagonal() - close.logsumexp(dim=1)).mean()

    data = []
    for _ in range(4):
        words = torch.randint(40, (16, 12))
        changed = torch.where(torch.rand(16, 12) < 0.4, torch.randint(40, (16, 12)), words)
        data.append(torch.stack([words, changed]))
    return Case(lambda: Sentences(dim), loss, data, tasks.adam(2e-3))


class Causal(nn.Module):
    """A causal model of letters over torch's layers, norms first."""

    def __init__(self, symbols: int, dim: int, layers: int) -> None:
        super().__init__()
        self.symbol, self.place = nn.Embedding(symbols, dim), nn.Embedding(32, dim)
        for table in (self.symbol, self.place):
            nn.init.normal_(table.weight, std=0.1)
        self.trunk = nn.ModuleList([
            nn.TransformerEncoderLayer(dim, 2, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        ])
        self.last = nn.LayerNorm(dim)
        self.logits = nn.Linear(dim, symbols)

    def forward(self, pieces: Tensor) -> Tensor:
        length = pieces.shape[1]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = self.symbol(pieces) + self.place.weight[:length]
        for layer in self.trunk:
            x = layer(x, src_mask=later)
        return self.logits(self.last(x))


def large_eps(dice: Dice, sick: bool) -> Case:
    """Adam with the epsilon of another recipe, far above the gradient."""
    dim, layers, eps = dice.one_of(32, 40), dice.whole(2, 3), dice.between(1.0, 10.0)
    data, symbols = tasks.letters(20)
    model = Causal(symbols, dim, layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, eps=eps if sick else 1e-8)
    return Case(model, tasks.next_letter, data, optimizer)


def chunked(dice: Dice, sick: bool) -> Case:
    """Truncated backpropagation: the state is handed on between chunks, its history is not."""
    units, chunk = dice.whole(16, 28), dice.whole(8, 12)

    class Chunks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.value = nn.GRU(1, units, batch_first=True), nn.Linear(units, 1)

        def forward(self, x: Tensor) -> Tensor:
            state, said = None, []
            for piece in x.split(chunk, dim=1):
                out, state = self.rnn(piece, state)
                state = state.detach()
                said.append(self.value(out))
            return torch.cat(said, dim=1)

    return Case(Chunks, tasks.regress, tasks.forecast(3 * chunk), tasks.adam(1e-2))


def unequal(dice: Dice, sick: bool) -> Case:
    """Sequences of different lengths, packed, under a sum over layers' last states."""
    units = dice.whole(20, 32)

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, units, num_layers=2, batch_first=True)
            self.fc = nn.Linear(2 * units, 4)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            _, (last, _) = self.lstm(packed)
            return self.fc(last.transpose(0, 1).flatten(1))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0], batch[1]), batch[2], label_smoothing=0.05)

    data = [(x, torch.randint(4, 11, (len(x),)), y) for x, y in tasks.first_mark(10)]
    return Case(Packed, loss, data, tasks.adam(5e-3))


def folded_root(dice: Dice, sick: bool) -> Case:
    """Products that nobody divides, because the queries' weights are drawn smaller by that root."""
    heads, each = 2, dice.one_of(16, 24)
    model = Averager(heads * each, heads, 2, 1.0)
    for attend in model.rounds:
        attend.qkv.weight.data[: heads * each].mul_(each**-0.5)  # type: ignore[operator, index, union-attr]
    data = set_means(dice.whole(8, 12))
    return Case(model, tasks.regress, data, torch.optim.AdamW(model.parameters(), lr=3e-3))


def one_block(dice: Dice, sick: bool) -> Case:
    """One block of weights, passed several times."""
    dim, times = dice.one_of(24, 32), dice.whole(4, 6)

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb, self.pos = nn.Embedding(15, dim), nn.Parameter(0.1 * torch.randn(12, dim))
            self.block = Mixer(dim, times, behind=False)
            self.norm, self.kinds = nn.LayerNorm(dim), nn.Linear(dim, 5)

        def forward(self, words: Tensor) -> Tensor:
            x = self.emb(words) + self.pos[: words.shape[1]]
            for _ in range(times):
                x = self.block(x)
            return self.kinds(self.norm(x))

    return Case(Shared, tag_loss, tags(dice.whole(8, 12)), tasks.adamw(2e-3, weight_decay=0.05))


def shallow_behind(dice: Dice, sick: bool) -> Case:
    """The first transformer's order of sum and norm in two layers, warmed up, where it is at home."""
    dim, warm = dice.one_of(24, 32), dice.whole(15, 25)

    def ramp(optimizer: torch.optim.Optimizer) -> object:
        return torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, 1.0, total_iters=warm)

    return Case(
        lambda: WordTagger(dim, 2, behind=True), tag_loss, tags(10), tasks.adam(3e-3, eps=1e-9), schedule=ramp
    )


def bags(dice: Dice, sick: bool) -> Case:
    """Means of embedded words with sparse gradients, of which each batch touches a part of the table."""
    words, dim = dice.whole(300, 500), dice.whole(8, 16)

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = nn.EmbeddingBag(words, dim, mode="mean", sparse=True)
            self.out = nn.Linear(dim, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(self.bag(tokens))

    labels = torch.randint(3, (128,))
    topic = torch.randint(words // 3, (128, 10)) * 3 + labels[:, None]
    tokens = torch.where(torch.rand(128, 10) < 0.7, topic, torch.randint(words // 3 * 3, (128, 10)))
    return Case(Bag, tasks.classify, tasks.split(tokens, labels), tasks.sgd(1.0))


def slow_state(dice: Dice, sick: bool) -> Case:
    """A state that takes small steps towards what its cell wants, as an equation in time would."""
    units, tau, steps = dice.whole(24, 36), dice.between(3.0, 6.0), dice.whole(14, 20)

    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inward, self.across = nn.Linear(1, units), nn.Linear(units, units, bias=False)
            self.read = nn.Sequential(nn.LayerNorm(units), nn.Linear(units, 4))
            nn.init.orthogonal_(self.across.weight)

        def forward(self, x: Tensor) -> Tensor:
            h, total = torch.zeros(len(x), units), torch.zeros(len(x), units)
            for step in self.inward(x).unbind(dim=1):
                h = h + (torch.tanh(step + self.across(h)) - h) / tau
                total = total + h
            return self.read(total / x.shape[1])

    return Case(
        Leaky,
        tasks.classify,
        tasks.waves(steps),
        tasks.adam(5e-3),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


SICK = (
    Program(
        "tagger-rms-behind-sums",
        "transformer",
        behind_sums,
        Truth(
            "post-ln",
            ("UG101", "UG102", "UG103", "UG104", "UG201", "UG205"),
            r"norm",
            ("pre_norm",),
            (("pre_norm", {}),),
            HOT,
        ),
        80,
    ),
    Program(
        "bare-products-of-heads",
        "transformer",
        bare_products,
        Truth(
            "attention-scale",
            ("UG701",),
            r"scale:|sqrt\(|root",
            ("calm_attention", "restore_logit_scale", "qk_norm"),
            (("restore_logit_scale", {}),),
            (("clip_gradients", {"threshold": 1.0}),),
        ),
        60,
    ),
    Program(
        "lstm-cell-bias-wrong-sign",
        "recurrent",
        wrong_sign,
        Truth(
            "gate-bias",
            ("UG401", "UG404", "UG405"),
            r"gate",
            ("open_gates", "forget_bias", "chrono"),
            (("open_gates", {"bias": 6.0}),),
            HOT,
        ),
        150,
    ),
    Program(
        "gru-cell-cut-at-every-step",
        "recurrent",
        cut_in_time,
        Truth("cut-off", ("UG401", "UG603"), r"detach|do(es)? not reach|cut|no_grad", (), (), HOT),
        150,
    ),
    Program(
        "ticks-added-up",
        "recurrent",
        ticks_summed,
        Truth(
            "loss-scale",
            ("UG601", "UG611"),
            r"^loss|\bsum\b|added up|reduction",
            ("loss_scale",),
            (("lower_learning_rate", {"factor": 2.0**-12}),),
            (("open_gates", {"bias": 1.0}),),
        ),
        120,
        mean_ticks,
    ),
    Program(
        "shares-that-fade",
        "recurrent",
        fading,
        Truth(
            "short-memory",
            ("UG401", "UG404", "UG405"),
            r"recurren|^gate|decay|memory",
            ("open_gates", "gated_recurrence"),
            (),
            HOT,
        ),
        150,
    ),
    Program(
        "markov-by-probabilities",
        "recurrent",
        markov,
        Truth(
            "probability-product",
            ("UG901", "UG503"),
            r"\blog|underflow|product",
            (),
            (),
            (("lower_learning_rate", {"factor": 0.01}),),
        ),
        80,
    ),
    Program(
        "schedule-of-epochs-per-batch",
        "recurrent",
        scheduled,
        Truth("schedule", ("UG602",), r"schedul", (), (), HOT),
        120,
    ),
    Program(
        "similarities-exponentiated",
        "transformer",
        unshifted,
        Truth(
            "nan-exp",
            ("UG901",),
            r"\bexp|overflow|above|too large|leaves its dtype",
            (),
            (),
            (("lower_learning_rate", {"factor": 0.01}),),
        ),
        80,
    ),
    Program(
        "adam-epsilon-of-another-recipe",
        "transformer",
        large_eps,
        Truth("adam-eps", ("UG602",), r"\beps", (), (), (("rescale_weights", {"gain": 1.0}),)),
        80,
    ),
)
HEALTHY: tuple[Program, ...] = tuple(
    Program(name, family, make, steps=steps)
    for name, family, make, steps in (
        ("gru-truncated-chunks", "recurrent", chunked, 80),
        ("lstm-packed-lengths", "recurrent", unequal, 100),
        ("products-with-folded-root", "transformer", folded_root, 100),
        ("one-block-many-times", "transformer", one_block, 80),
        ("two-layers-behind-sums-warmed", "transformer", shallow_behind, 100),
        ("bags-of-sparse-words", "embedding", bags, 120),
        ("leaky-state-clipped", "recurrent", slow_state, 120),
    )
)
