"""Sequences and attention, sick or healthy: memories, gates, masks, padding, depth and scale."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

LOUDER = (("lower_learning_rate", {"factor": 10.0}),)
QUIETER = (("lower_learning_rate", {"factor": 0.1}),)
Pairs = list[tuple[Tensor, ...]]


def quarters(*tensors: Tensor) -> Pairs:
    """Return four batches of rows."""
    return list(zip(*(t.chunk(4) for t in tensors), strict=True))


def with_adam(rate: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return a builder of Adam."""
    return lambda parameters: torch.optim.Adam(parameters, rate, **more)


def cross_entropy(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy of what the model says of all but the last tensor of the batch."""
    *inputs, y = batch
    return F.cross_entropy(model(*inputs), y)


def mean_square(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Squared error of what the model says of all but the last tensor of the batch."""
    *inputs, y = batch
    return (model(*inputs) - y).pow(2).mean()


def clip_one(parameters: Iterable[nn.Parameter]) -> None:
    """Clip the norm of the gradient at one."""
    nn.utils.clip_grad_norm_(parameters, 1.0)


def said_first(rows: int, steps: int, classes: int, noise: float) -> tuple[Tensor, Tensor]:
    """Return series whose first step names a class, with noise in one more channel ever after."""
    y = torch.randint(classes, (rows,))
    x = torch.zeros(rows, steps, classes + 1)
    x[:, 0, :classes] = F.one_hot(y, classes).float()
    x[:, :, classes] = noise * torch.randn(rows, steps)
    return x, y


def marked(rows: int, length: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return tokens of which one is from the upper half of the alphabet, and which one it is."""
    y = torch.randint(classes, (rows,))
    tokens = torch.randint(classes, (rows, length))
    tokens[torch.arange(rows), torch.randint(1, length, (rows,))] = classes + y
    return tokens, y


# --- sick ---------------------------------------------------------------------------------------------------


class Gist(nn.Module):
    """A plain tanh RNN whose last state is read."""

    def __init__(self, inputs: int, hidden: int, classes: int, *, identity: bool) -> None:
        super().__init__()
        self.rnn = nn.RNN(inputs, hidden, batch_first=True)
        self.read = nn.Linear(hidden, classes)
        if identity:
            nn.init.eye_(self.rnn.weight_hh_l0)
            nn.init.normal_(self.rnn.weight_ih_l0, std=0.2)
            nn.init.zeros_(self.rnn.bias_ih_l0)
            nn.init.zeros_(self.rnn.bias_hh_l0)

    def forward(self, x: Tensor) -> Tensor:
        _, last = self.rnn(x)
        return self.read(last[0])


def gist(dice: Dice, sick: bool) -> Case:
    """A default tanh RNN must remember its first step for more than a hundred steps."""
    steps, classes, hidden = dice.whole(110, 160), dice.whole(3, 5), dice.one_of(40, 48, 64)
    rate = dice.power(-3.2, -3.0)
    data = quarters(*said_first(192, steps, classes, dice.between(0.02, 0.06)))
    return Case(
        lambda: Gist(classes + 1, hidden, classes, identity=not sick),
        cross_entropy,
        data,
        with_adam(rate),
        clip=clip_one,
    )


def ledger(dice: Dice, sick: bool) -> Case:
    """An LSTM whose forget gates start shut, since the bias was given the wrong sign."""
    steps, classes, hidden = dice.whole(36, 50), dice.whole(3, 5), dice.one_of(32, 40, 48)
    bias, rate = dice.between(4.0, 5.0), dice.power(-2.05, -1.9)
    vocabulary = classes + 2

    def build() -> nn.ModuleDict:
        net = nn.ModuleDict({
            "embed": nn.Embedding(vocabulary, 16),
            "memory": nn.LSTM(16, hidden, batch_first=True),
            "out": nn.Linear(hidden, classes),
        })
        with torch.no_grad():
            for name, b in net["memory"].named_parameters():
                if "bias" in name:
                    b.zero_()
                    if "_hh" in name:
                        b[hidden : 2 * hidden] = -bias if sick else bias
        return net

    def loss(model: nn.ModuleDict, batch: tuple[Tensor, Tensor]) -> Tensor:
        out, _ = model["memory"](model["embed"](batch[0]))
        return F.cross_entropy(model["out"](out[:, -1]), batch[1])

    y = torch.randint(classes, (384,))
    tokens = torch.cat([y[:, None], torch.randint(classes, vocabulary, (384, steps - 1))], 1)
    return Case(build, loss, quarters(tokens, y), with_adam(rate))


class LastRow(nn.Module):
    """A GRU over padded tokens."""

    def __init__(self, vocabulary: int, width: int, classes: int, *, at_end: bool) -> None:
        super().__init__()
        self.at_end = at_end
        self.embedding = nn.Embedding(vocabulary, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.fc = nn.Linear(width, classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        out, _ = self.gru(self.embedding(tokens))
        if self.at_end:
            return self.fc(out[:, -1, :])
        rows = torch.arange(len(tokens), device=tokens.device)
        return self.fc(out[rows, lengths - 1])


def last_row(dice: Dice, sick: bool) -> Case:
    """Short sentences are padded to a long common length, and the GRU's output at the last pad is read."""
    classes, length, width = dice.whole(3, 5), dice.whole(110, 130), dice.one_of(24, 32)
    rate = dice.power(-2.6, -2.4)
    tokens, y = marked(192, 8, classes)
    lengths = torch.randint(5, 9, (192,))
    tokens = torch.where(torch.arange(8) < lengths[:, None], tokens + 1, 0)
    tokens[:, 1] = classes + 1 + y
    tokens = F.pad(tokens, (0, length - 8))
    model = LastRow(2 * classes + 1, width, classes, at_end=sick)
    return Case(lambda: copy.deepcopy(model), cross_entropy, quarters(tokens, lengths, y), with_adam(rate))


class Leaky(nn.Module):
    """A diagonal linear recurrence with a multilayer perceptron on its last state."""

    def __init__(self, inputs: int, states: int, low: float, high: float) -> None:
        super().__init__()
        self.decay = nn.Parameter(low + (high - low) * torch.rand(states))
        self.drive = nn.Parameter(torch.randn(states, inputs) / math.sqrt(inputs * 10))
        self.head = nn.Sequential(nn.Linear(states, 32), nn.GELU(), nn.Linear(32, 1))

    def forward(self, u: Tensor) -> Tensor:
        h = u.new_zeros(len(u), len(self.decay))
        for drive in (u @ self.drive.T).unbind(1):
            h = self.decay * h + drive
        return self.head(h).squeeze(1)


def leaky(dice: Dice, sick: bool) -> Case:
    """A linear state-space layer whose decays start above one."""
    steps, inputs, states = dice.whole(110, 150), dice.whole(2, 3), dice.one_of(24, 32)
    low, high = (1.04, 1.04 + dice.between(0.03, 0.05)) if sick else (0.8, 0.98)
    rate, memory = dice.power(-2.6, -2.4), dice.between(0.9, 0.95)
    u = torch.randn(256, steps, inputs)
    weights = memory ** torch.arange(steps - 1, -1, -1)
    y = (u.sum(2) * weights).sum(1)
    data = quarters(u, (y - y.mean()) / y.std())
    model = Leaky(inputs, states, low, high)
    slow = [{"params": [model.decay], "lr": 1e-4}, {"params": [model.drive, *model.head.parameters()]}]
    return Case(model, mean_square, data, torch.optim.AdamW(slow, lr=rate, weight_decay=0.0), clip=clip_one)


class Reader(nn.Module):
    """Tokens through torch's encoder, the mean read."""

    def __init__(self, vocabulary: int, width: int, layers: int, classes: int, *, first: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=first
        )
        norm = nn.LayerNorm(width) if first else None
        self.encoder = nn.TransformerEncoder(layer, layers, norm=norm, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.tokens(x)).mean(1))


def tower(dice: Dice, sick: bool) -> Case:
    """Torch's encoder in its default order, norm after the sum, far deeper than that order trains."""
    layers, classes, rate = dice.whole(20, 24), dice.whole(3, 4), dice.power(-2.5, -2.4)
    data = quarters(*marked(96, 8, classes))
    return Case(
        lambda: Reader(2 * classes, 24, layers, classes, first=not sick), cross_entropy, data, with_adam(rate)
    )


class Retrieval(nn.Module):
    """One question asks a set of facts through a single wide head."""

    def __init__(self, inputs: int, width: int, classes: int, *, divide: bool) -> None:
        super().__init__()
        self.divide = math.sqrt(width) if divide else 1.0
        self.enter = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width))
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.leave = nn.Linear(width, classes)
        for layer in (self.q, self.k, self.v):
            nn.init.normal_(layer.weight, std=2.0 * width**-0.5)

    def forward(self, facts: Tensor) -> Tensor:
        x = self.enter(facts)
        scores = torch.einsum("bid,bjd->bij", self.q(x), self.k(x)) / self.divide
        found = torch.einsum("bij,bjd->bid", scores.softmax(-1), self.v(x))
        return self.leave(found[:, 0])


def retrieval(dice: Dice, sick: bool) -> Case:
    """Attention of one wide head without the division by the root of its width."""
    classes, length, width = dice.whole(4, 5), dice.whole(20, 24), dice.one_of(224, 256)
    rate = dice.between(0.06, 0.08)
    y = torch.randint(classes, (160,))
    facts = torch.cat([torch.randn(160, length, classes + 4), torch.zeros(160, length, 1)], 2)
    rows, where = torch.arange(160), torch.randint(1, length, (160,))
    facts[rows, where, :classes] = 2.0 * F.one_hot(y, classes).float()
    facts[rows, where, -1] = 3.0
    return Case(
        lambda: Retrieval(classes + 5, width, classes, divide=not sick),
        cross_entropy,
        quarters(facts, y),
        lambda p: torch.optim.SGD(p, rate),
    )


class Ask(nn.Module):
    """A first token asks all others through two layers that are told which of them are padding."""

    def __init__(self, vocabulary: int, width: int, classes: int, *, inverted: bool) -> None:
        super().__init__()
        self.inverted = inverted
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        valid = tokens != 0
        mask = valid if self.inverted else ~valid
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, src_key_padding_mask=mask)
        return self.head(self.norm(x[:, 0]))


def ask(dice: Dice, sick: bool) -> Case:
    """The key padding mask says which tokens are real, where torch wants those to leave out."""
    classes, length, width = dice.whole(3, 5), dice.whole(16, 22), dice.one_of(24, 32)
    rate = dice.power(-2.7, -2.5)
    tokens, y = marked(192, 7, classes)
    tokens, lengths = tokens + 2, torch.randint(7, 11, (192,))
    filler = torch.randint(2, 2 + classes, (192, length - 7))
    tokens = torch.cat([torch.ones(192, 1, dtype=torch.long), tokens, filler], 1)
    tokens = torch.where(torch.arange(length + 1) <= lengths[:, None], tokens, 0)
    return Case(
        lambda: Ask(2 * classes + 2, width, classes, inverted=sick),
        cross_entropy,
        quarters(tokens, y),
        with_adam(rate),
    )


class Bare(nn.Module):
    """A residual block of attention and a wide layer, without a norm."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(width, 2, bias=False, batch_first=True)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.kaiming_normal_(self.up.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.down.weight, nonlinearity="relu")
        with torch.no_grad():
            self.mix.out_proj.weight.mul_(scale)
            self.down.weight.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x, x, x, need_weights=False)[0]
        return x + self.down(F.relu(self.up(x)))


def bare(dice: Dice, sick: bool) -> Case:
    """A residual stream without norms, to which a dozen blocks and more add branches of full size."""
    classes, depth, width = dice.whole(3, 4), dice.whole(12, 15), dice.one_of(24, 32)
    rate = dice.between(0.002, 0.004)
    scale = 1.0 if sick else 1 / math.sqrt(2 * depth)

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(2 * classes, width)
            self.blocks = nn.Sequential(*(Bare(width, scale) for _ in range(depth)))
            self.head = nn.Linear(width, classes)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.blocks(self.embed(tokens)).mean(1))

    data = quarters(*marked(128, 7, classes))
    return Case(Stack, cross_entropy, data, lambda p: torch.optim.SGD(p, rate, momentum=0.9))


# --- healthy ------------------------------------------------------------------------------------------------


def open_lstm(dice: Dice, sick: bool) -> Case:
    """Two LSTM layers over forty steps, forget bias one, clipped, at a high learning rate."""
    classes, steps, hidden = dice.whole(3, 5), dice.whole(25, 40), dice.one_of(32, 48)
    rate = dice.power(-2.1, -1.9)

    class Listener(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(2, hidden, 2, batch_first=True)
            self.out = nn.Linear(hidden, classes)
            for name, b in self.lstm.named_parameters():
                if name.startswith("bias_ih"):
                    nn.init.constant_(b[hidden : 2 * hidden].data, 1.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.lstm(x)[0][:, -1])

    y = torch.randint(classes, (192,))
    t = torch.arange(steps) * 0.25
    phase = 2 * math.pi * torch.rand(192, 1)
    waves = torch.stack([torch.sin((1 + y[:, None]) * t + phase), torch.cos((1 + y[:, None]) * t + phase)], 2)
    data = quarters(waves + 0.2 * torch.randn_like(waves), y)
    return Case(Listener, cross_entropy, data, with_adam(rate), clip=clip_one)


def closed_gates(dice: Dice, sick: bool) -> Case:
    """A deep encoder whose branches start at zero on purpose, each behind a gain of its own."""
    classes, depth, width = dice.whole(3, 4), dice.whole(8, 12), dice.one_of(24, 32)
    rate = dice.power(-2.4, -2.2)

    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
            self.wide = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            self.gain = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.gain[0] * self.attention(x, x, x, need_weights=False)[0]
            return x + self.gain[1] * self.wide(x)

    def build() -> nn.Sequential:
        blocks = [Zero() for _ in range(depth)]
        return nn.Sequential(nn.Embedding(2 * classes, width), *blocks, nn.Linear(width, classes))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]).mean(1), batch[1])

    return Case(build, loss, quarters(*marked(160, 8, classes)), with_adam(rate))


def slow_decays(dice: Dice, sick: bool) -> Case:
    """A linear recurrence of decays from a half to almost one, its drive normalised by them."""
    steps, states, rate = dice.whole(80, 120), dice.one_of(24, 32), dice.power(-2.3, -2.1)

    class Lru(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            decay = torch.linspace(0.5, 0.99, states)
            self.logit = nn.Parameter(torch.log(decay / (1 - decay)))
            self.drive = nn.Linear(1, states, bias=False)
            self.mlp = nn.Sequential(nn.Linear(states, 48), nn.SiLU(), nn.Linear(48, 1))

        def forward(self, u: Tensor) -> Tensor:
            decay = torch.sigmoid(self.logit)
            drive = (1 - decay.square()).sqrt() * self.drive(u)
            h = torch.zeros_like(drive[:, 0])
            for step in range(u.shape[1]):
                h = decay * h + drive[:, step]
            return self.mlp(h)[:, 0]

    u = torch.randn(256, steps, 1)
    y = (u[..., 0] * 0.9 ** torch.arange(steps - 1, -1, -1)).sum(1)
    return Case(Lru, mean_square, quarters(u, y / y.std()), with_adam(rate))


def small_tied(dice: Dice, sick: bool) -> Case:
    """A small causal language model whose head shares the small embeddings, warmed up and then cooled."""
    vocabulary, width, rate = dice.whole(24, 32), dice.one_of(32, 48), dice.power(-2.4, -2.2)
    length = dice.whole(12, 16)

    class Lm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
            for table in (self.wte, self.wpe):
                nn.init.normal_(table.weight, std=0.02)
            self.block = nn.TransformerEncoderLayer(
                width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)
            self.head.weight = self.wte.weight

        def forward(self, tokens: Tensor) -> Tensor:
            t = tokens.shape[1]
            x = self.wte(tokens) + self.wpe.weight[:t]
            mask = nn.Transformer.generate_square_subsequent_mask(t, device=x.device, dtype=x.dtype)
            return self.head(self.norm(self.block(x, src_mask=mask, is_causal=True)))

    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        (tokens,) = batch
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    after = torch.randperm(vocabulary)
    text = [torch.randint(vocabulary, (96,))]
    for _ in range(length):
        stray = torch.rand(96) < 0.1
        text.append(torch.where(stray, torch.randint(vocabulary, (96,)), after[text[-1]]))

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda s: min((s + 1) / 10, 0.5 * (1 + math.cos(math.pi * min(s / 200, 1))))
        )

    return Case(Lm, loss, quarters(torch.stack(text, 1)), with_adam(rate), schedule=schedule)


SICK: tuple[Program, ...] = (
    Program(
        "stream-gist-default",
        "rnn",
        gist,
        Truth(
            "vanishing-over-time",
            ("UG401", "UG404"),
            r"(?i)recurren|\bW_?hh|weight_hh|over time|memory|forget|per step|each step|radius|vanish",
            ("irnn", "orthogonal_weights", "gated_recurrence", "rescale_weights", "critical_init"),
            (("irnn", {}),),
            LOUDER,
        ),
    ),
    Program(
        "stream-ledger-forget",
        "lstm",
        ledger,
        Truth(
            "forget-bias",
            ("UG401", "UG404", "UG405"),
            r"(?i)forget|\bgates?\b.*(shut|clos|bias)|keeping gate",
            ("forget_bias", "open_gates", "chrono"),
            (("forget_bias", {"bias": 4.0}),),
            LOUDER,
        ),
    ),
    Program(
        "stream-last-pad",
        "gru",
        last_row,
        Truth(
            "padding-read",
            ("UG707", "UG401", "UG404"),
            r"(?i)\bpad|length|last (step|position|output)",
            (),
            (),
            LOUDER,
        ),
    ),
    Program(
        "stream-decays-above-one",
        "state-space",
        leaky,
        Truth(
            "recurrence-above-one",
            ("UG402", "UG201", "UG102", "UG605", "UG301", "UG406"),
            r"(?i)recurren|decay|over time|per step|each step|eigenvalue|radius|explod|\bstate\b.*grow",
            ("spectral_cap",),
        ),
    ),
    Program(
        "stream-tower-postnorm",
        "transformer",
        tower,
        Truth(
            "post-norm",
            ("UG101", "UG102", "UG205", "UG611", "UG601", "UG702"),
            r"(?i)post.?(ln|norm|layer)|norm.*(after|on|behind) the sum|"
            r"normali[sz]\w* the (sum|stream|skip)|norm_first",
            ("pre_norm", "deepnorm", "admin", "bypass_norm", "t_fixup"),
            (("pre_norm", {}),),
            LOUDER,
        ),
    ),
    Program(
        "stream-retrieval-unscaled",
        "attention",
        retrieval,
        Truth(
            "no-root-d",
            ("UG701", "UG204"),
            r"(?i)sqrt\(d|root|logits?|1/sqrt|scale of attention|softmax.*(satur|one key)",
            ("restore_logit_scale", "calm_attention", "qk_norm", "sigma_reparam", "soft_cap"),
            (("restore_logit_scale", {}),),
            (("rescale_weights", {"sites": ["leave"], "gain": 2.0}),),
        ),
    ),
    Program(
        "stream-ask-inverted",
        "transformer",
        ask,
        Truth(
            "inverted-padding-mask",
            ("UG707", "UG708", "UG206", "UG702"),
            r"(?i)mask|\bpad",
            (),
            (),
            LOUDER,
        ),
    ),
    Program(
        "stream-bare-branches",
        "transformer",
        bare,
        Truth(
            "unscaled-branches",
            ("UG201", "UG102", "UG605", "UG611", "UG701", "UG601"),
            r"(?i)branch|residual|stream|skip|no norm|without (a )?norm|grows? .*depth|per block",
            (
                "gpt2_residual_scale",
                "layer_scale",
                "rezero",
                "skip_init",
                "scale_branch",
                "fixup",
                "t_fixup",
                "insert_norm",
            ),
            (("gpt2_residual_scale", {}),),
        ),
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("stream-lstm-clipped", "lstm", open_lstm),
    Program("stream-gains-from-zero", "transformer", closed_gates),
    Program("stream-decays-below-one", "state-space", slow_decays),
    Program("stream-lm-tied-small", "transformer", small_tied),
)
