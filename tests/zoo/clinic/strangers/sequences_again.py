"""Kept aside once: networks over time and tokens, sick by one fault each, and healthy ones."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.clinic.strangers.pieces_again import (
    AlibiDecoder,
    Attentive,
    Beats,
    CausalSelfAttention,
    Recogniser,
    TasNet,
    Translator,
    digits,
    sums,
    utterances,
)
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
DRAWN_AGAIN = (("rescale_weights", {"gain": 1.0}),)
COLD = (("lower_learning_rate", {"factor": 0.01}),)
MEMORY = ("rescale_weights", "orthogonal_init", "irnn", "orthogonal_weights", "gated_recurrence")
KEYS, LETTERS = 4, 14


def keyed(steps: int, rows: int = 64, endings: int = 1) -> tasks.Pairs:
    """Return strings that open with one of four keys, which is the class, and go on in the same words."""
    labels = torch.randint(KEYS, (rows,))
    strings = torch.randint(KEYS, LETTERS, (endings, steps)).repeat(rows // endings, 1)
    strings[:, 0] = labels
    return tasks.split(strings, labels)


class CharacterRNN(nn.Module):
    """Two linear maps of letter and hidden state, joined, as in the tutorial on names."""

    def __init__(self, n_hidden: int) -> None:
        super().__init__()
        self.n_hidden = n_hidden
        self.i2h = nn.Linear(LETTERS + n_hidden, n_hidden)
        self.i2o = nn.Linear(LETTERS + n_hidden, KEYS)
        self.logprobs = nn.LogSoftmax(dim=1)

    def forward(self, line: Tensor) -> Tensor:
        hidden = torch.zeros(line.size(0), self.n_hidden)
        output = torch.zeros(line.size(0), KEYS)
        for letter in F.one_hot(line, LETTERS).float().unbind(1):
            combined = torch.cat((letter, hidden), 1)
            output = self.logprobs(self.i2o(combined))
            hidden = torch.tanh(self.i2h(combined))
        return output


def names(dice: Dice, sick: bool) -> Case:
    """A character RNN by hand on strings of more than a hundred letters, of which the first one counts."""
    steps, hidden = (dice.whole(120, 150) if sick else 6), dice.whole(32, 48)

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.nll_loss(net(batch[0]), batch[1])

    return Case(lambda: CharacterRNN(hidden), loss, keyed(steps), tasks.adam(3e-3))


class Logbook(nn.Module):
    """An LSTM over tokens, read at the end."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(LETTERS, 8)
        self.lstm = nn.LSTM(8, width, batch_first=True)
        self.verdict = nn.Linear(width, KEYS)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (last, _) = self.lstm(self.emb(tokens))
        return self.verdict(last[-1])


def logbook(dice: Dice, sick: bool) -> Case:
    """An LSTM with the usual biases that must carry the first token over more than sixty steps."""
    steps, width = dice.whole(60, 75), dice.whole(40, 48)
    model = Logbook(width)
    if not sick:
        with torch.no_grad():
            for name, bias in model.lstm.named_parameters():
                if name.startswith("bias"):
                    bias[width : 2 * width] = math.log(steps) / 2
                    bias[:width] = -1.0
    return Case(
        model,
        tasks.classify,
        keyed(steps),
        torch.optim.Adam(model.parameters(), lr=4e-3),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


class Transcriber(nn.Module):
    """A two-layer LSTM that reads letters through an embedding, with a small head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(LETTERS, width)
        self.encoder = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.ln = nn.LayerNorm(width)
        self.head = nn.Linear(width, KEYS)

    def forward(self, idx: Tensor) -> Tensor:
        return self.head(self.ln(self.encoder(self.wte(idx))[0][:, -1]))


def by_suffix(dice: Dice, sick: bool) -> Case:
    """Parameter groups by the ends of names, which those of an LSTM do not have."""
    model = Transcriber(dice.whole(12, 16))
    decay, plain = [], []
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name.startswith("ln."):
            plain.append(parameter)
        elif name.endswith("weight"):
            decay.append(parameter)
        elif not sick:
            (decay if parameter.ndim == 2 else plain).append(parameter)
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    return Case(
        model, tasks.classify, keyed(dice.whole(10, 12), endings=64), torch.optim.AdamW(groups, lr=1e-2)
    )


def strictly_causal(dice: Dice, sick: bool) -> Case:
    """A causal mask that hides the diagonal too, so that the first token has nothing to look at."""
    data, size = tasks.letters(20, 16)
    width, layers = dice.one_of(24, 32), dice.whole(2, 3)

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.pos = nn.Embedding(size, width), nn.Embedding(20, width)
            self.ln = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers + 1))
            self.att = nn.ModuleList(CausalSelfAttention(width, 4, 20, sick=sick) for _ in range(layers))
            self.mlp = nn.ModuleList(
                nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
                for _ in range(layers)
            )
            self.lm_head = nn.Linear(width, size, bias=False)

        def forward(self, idx: Tensor) -> Tensor:
            x = self.tok(idx) + self.pos(torch.arange(idx.size(1)))
            for k, (attend, feed) in enumerate(zip(self.att, self.mlp, strict=True)):
                x = x + attend(self.ln[2 * k](x))
                x = x + feed(self.ln[2 * k + 1](x))
            return self.lm_head(self.ln[-1](x))

    return Case(Decoder, tasks.next_letter, data, tasks.adamw(3e-3))


def forced(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of an output of which the true beginning is shown."""
    source, target = batch
    logits = model(source, F.pad(target, (1, 0), value=1)[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def noam(dice: Dice, sick: bool) -> Case:
    """The schedule of the first transformer, a rate by itself, multiplied with a rate of 1e-3."""
    d_model, warmup = dice.one_of(24, 32), dice.whole(300, 400)
    base = 1e-3 if sick else 1.0

    def schedule(optimizer: torch.optim.Optimizer) -> object:
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda n: d_model**-0.5 * min((n + 1) ** -0.5, (n + 1) * warmup**-1.5)
        )

    return Case(
        lambda: Translator(d_model),
        forced,
        digits(6),
        lambda parameters: torch.optim.Adam(parameters, lr=base, betas=(0.9, 0.98), eps=1e-9),
        schedule=schedule,
    )


class Shop(nn.Module):
    """An LSTM cell over past days, a line on its last state."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.cell = nn.LSTMCell(1, hidden)
        self.line = nn.Linear(hidden, 1)

    def forward(self, days: Tensor) -> Tensor:
        h = c = days.new_zeros(days.size(0), self.hidden)
        for day in days.unbind(1):
            h, c = self.cell(day, (h, c))
        return self.line(h)


def relative(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Squared error over the variance of what is predicted."""
    with torch.no_grad():
        return float(F.mse_loss(model(batch[0]), batch[1]) / batch[1].var())


def sales(dice: Dice, sick: bool) -> Case:
    """A forecast of sales as they are counted, thousands a day, from inputs that were standardised."""
    hidden, mean, spread = dice.whole(24, 32), dice.between(3e3, 6e3), dice.between(700, 1200)
    data = [(x, mean + spread * y[:, -1] if sick else y[:, -1]) for x, y in tasks.forecast(14, 96)]
    return Case(lambda: Shop(hidden), tasks.regress, data, tasks.adam(1e-2))


def aligned(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The loss of connectionist temporal classification, blank 0."""
    spectra, spoken = batch
    made = model(spectra).transpose(0, 1)
    lengths = torch.full((len(spoken),), made.size(0))
    return F.ctc_loss(made, spoken, lengths, torch.full((len(spoken),), spoken.size(1)))


def too_few_frames(dice: Dice, sick: bool) -> Case:
    """A speech recogniser that strides until fewer frames are left than tokens were spoken."""
    width, frames = dice.whole(16, 24), dice.whole(48, 54)
    strides = (2, 2, 3) if sick else (2, 1, 1)
    return Case(lambda: Recogniser(width, strides), aligned, utterances(frames, 6), tasks.adam(5e-3))


class Seasons(nn.Module):
    """Convolutions over a univariate series that is normalised first."""

    def __init__(self, length: int, channels: int, *, sick: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(1 if sick else length)
        self.net = nn.Sequential(
            nn.Conv1d(1, channels, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(channels, channels, 5, padding=2, stride=2),
            nn.GELU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(channels, 4),
        )
        self.sick = sick

    def forward(self, series: Tensor) -> Tensor:
        if self.sick:
            return self.net(self.norm(series).transpose(1, 2))
        return self.net(self.norm(series.transpose(1, 2)))


def one_feature(dice: Dice, sick: bool) -> Case:
    """LayerNorm over the last dimension of a series, which holds one number, its own mean."""
    length, channels = dice.whole(24, 36), dice.whole(16, 24)
    return Case(
        lambda: Seasons(length, channels, sick=sick), tasks.classify, tasks.waves(length), tasks.adam(5e-3)
    )


def never_cleared(case: Case, batch: object) -> Tensor:
    """One step that adds its gradient to those of all steps before."""
    loss = case.compute_loss(batch)
    loss.backward()
    case.optimizer.step()
    return loss.detach()


def cleared(case: Case, batch: object) -> Tensor:
    """One step."""
    case.optimizer.zero_grad()
    return never_cleared(case, batch)


def piled_up(dice: Dice, sick: bool) -> Case:
    """A GRU classifier whose loop does not zero the gradients."""
    hidden, rate = dice.whole(24, 32), dice.between(0.01, 0.02)

    class Listener(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(1, hidden, batch_first=True)
            self.fc = nn.Linear(hidden, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.gru(x)[0].mean(1))

    return Case(
        Listener, tasks.classify, tasks.waves(20), tasks.adam(rate), step=never_cleared if sick else cleared
    )


def energy(dice: Dice, sick: bool) -> Case:
    """A global norm whose sum of squares over channels and samples leaves float16."""
    channels, length = dice.one_of(20, 24), dice.whole(900, 1100)
    data = [((x - x.mean()).transpose(1, 2) * 1.4, y) for x, y in tasks.waves(length, 16)]
    return Case(
        lambda: TasNet(channels, 3, half=sick), tasks.classify, data, tasks.adam(3e-3), precision="float16"
    )


def backwards(dice: Dice, sick: bool) -> Case:
    """Strings reversed by a GRU with additive attention, its gradients clipped at 1."""
    width = dice.one_of(24, 32)
    return Case(
        lambda: Attentive(width),
        forced,
        digits(6),
        tasks.adam(5e-3),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


def alibi(dice: Dice, sick: bool) -> Case:
    """A modern decoder: decay on matrices alone, warm-up and cosine, clip at 1."""
    data, size = tasks.letters(24, 16)
    model = AlibiDecoder(size, dice.one_of(32, 48), dice.whole(2, 3))
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]

    def warm_cosine(optimizer: torch.optim.Optimizer) -> object:
        def factor(n: int) -> float:
            if n < 15:
                return (n + 1) / 15
            return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (n - 15) / 400)))

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    return Case(
        model,
        tasks.next_letter,
        data,
        torch.optim.AdamW(groups, lr=5e-3, betas=(0.9, 0.95)),
        schedule=warm_cosine,
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


def beats(dice: Dice, sick: bool) -> Case:
    """Four steps of a series from twelve, by blocks on residuals, with a Huber loss."""
    units, blocks = dice.whole(24, 40), dice.whole(3, 5)
    series = [torch.cat([x, y[:, -1:]], 1)[..., 0] for x, y in tasks.forecast(15, 128)]
    data = [(x[:, :12], x[:, 12:]) for x in series]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.huber_loss(model(batch[0]), batch[1])

    return Case(lambda: Beats(12, units, blocks), loss, data, tasks.adam(2e-3))


class Bagged(nn.Module):
    """A packed LSTM over sequences of different lengths."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(13, width, padding_idx=0)
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.top = nn.Sequential(nn.Dropout(0.1), nn.Linear(2 * width, 4))

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens > 0).sum(1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.table(tokens), lengths, True, enforce_sorted=False)
        _, (h, _) = self.lstm(packed)
        return self.top(torch.cat([h[0], h[1]], -1))


def packed(dice: Dice, sick: bool) -> Case:
    """Padded sentences, packed, by AdamW."""
    width, data = dice.whole(16, 24), []
    for tokens, labels in tasks.majority(12):
        ends = torch.randint(6, 13, (len(tokens), 1))
        data.append(((tokens + 1) * (torch.arange(12) < ends), labels))
    return Case(lambda: Bagged(width), tasks.classify, data, tasks.adamw(5e-3))


def identity_rnn(dice: Dice, sick: bool) -> Case:
    """The adding problem by a ReLU RNN that starts as the identity, with RMSprop and a clip."""
    hidden, steps = dice.whole(32, 48), dice.whole(9, 12)

    class Adder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(2, hidden, nonlinearity="relu", batch_first=True)
            for name, parameter in self.rnn.named_parameters():
                if name.startswith("bias"):
                    nn.init.zeros_(parameter)
                else:
                    nn.init.eye_(parameter) if "hh" in name else nn.init.normal_(parameter, std=0.05)
            self.sum = nn.Linear(hidden, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.sum(self.rnn(x)[1][-1])

    return Case(
        Adder,
        tasks.regress,
        sums(steps),
        lambda parameters: torch.optim.RMSprop(parameters, lr=1e-3),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


class WordModel(nn.Module):
    """An LSTM language model whose output is tied to its input."""

    def __init__(self, ntoken: int, nhid: int) -> None:
        super().__init__()
        self.encoder = nn.Embedding(ntoken, nhid)
        self.rnn = nn.LSTM(nhid, nhid, batch_first=True)
        self.decoder = nn.Linear(nhid, ntoken)
        self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, idx: Tensor) -> Tensor:
        return self.decoder(self.rnn(self.encoder(idx))[0])


def word_model(dice: Dice, sick: bool) -> Case:
    """A tied language model by SGD at a rate of ten, which a clip at 0.25 holds, as the example has it."""
    data, size = tasks.letters(24, 32)
    nhid = dice.one_of(32, 48)
    return Case(
        lambda: WordModel(size, nhid),
        tasks.next_letter,
        data,
        tasks.sgd(10.0),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.25),
    )


def spoken(dice: Dice, sick: bool) -> Case:
    """Connectionist temporal classification with a one-cycle rate, frames enough."""
    width = dice.whole(20, 28)

    def one_cycle(optimizer: torch.optim.Optimizer) -> object:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=8e-3, total_steps=600, pct_start=0.1)

    return Case(
        lambda: Recogniser(width, (2,)), aligned, utterances(40, 5), tasks.adamw(8e-3), schedule=one_cycle
    )


SICK: tuple[Program, ...] = (
    Program(
        "tutorial-rnn-long-lines",
        "recurrent",
        names,
        Truth("vanilla-rnn", ("UG401", "UG404", "UG101"), r"recurren|^weights:|gate", MEMORY, (), HEAVY),
        60,
    ),
    Program(
        "lstm-first-token",
        "recurrent",
        logbook,
        Truth(
            "short-memory",
            ("UG401", "UG404"),
            r"gate|memory|length",
            ("open_gates", "chrono", "forget_bias"),
            (("open_gates", {"bias": 4.2}),),
            HEAVY,
        ),
        160,
    ),
    Program(
        "groups-by-suffix",
        "recurrent",
        by_suffix,
        Truth("not-held", ("UG604",), r"optimizer", ("hold_parameters",), (("hold_parameters", {}),), HEAVY),
        80,
    ),
    Program(
        "mask-with-the-diagonal",
        "transformer",
        strictly_causal,
        Truth("nan-mask", ("UG901",), r"softmax|mask|attention", (), (), COLD),
        80,
    ),
    Program(
        "noam-times-a-rate",
        "seq2seq",
        noam,
        Truth(
            "schedule",
            ("UG602",),
            r"schedule|warm|learning rate",
            (),
            (("lower_learning_rate", {"factor": 1e3}),),
            DRAWN_AGAIN,
        ),
        120,
    ),
    Program(
        "sales-in-thousands",
        "time-series",
        sales,
        Truth(
            "targets",
            ("UG601", "UG605", "UG609", "UG602"),
            r"target|label.*scale",
            ("unit_targets",),
            (),
            DRAWN_AGAIN,
        ),
        100,
        relative,
    ),
    Program(
        "ctc-fewer-frames-than-tokens",
        "speech",
        too_few_frames,
        Truth(
            "ctc-length",
            ("UG901",),
            r"ctc|shorter|too short|fewer|frames|zero_infinity|targets? .*length",
            (),
            (),
            COLD,
        ),
        80,
    ),
    Program(
        "layernorm-of-one-feature",
        "time-series",
        one_feature,
        Truth(
            "norm-erases",
            ("UG206", "UG202", "UG205", "UG603", "UG103", "UG105", "UG101"),
            r"^norm|LayerNorm|normalis(es|ation)|outputs? of norm",
            ("bypass_norm",),
            (("bypass_norm", {"sites": ("norm",)}),),
            HEAVY,
        ),
        100,
    ),
    Program(
        "gradients-never-cleared",
        "recurrent",
        piled_up,
        Truth(
            "no-zero-grad",
            ("UG601", "UG611"),
            r"zero_grad|accumul|clear|earlier (steps|batches)|left over|add(s|ed) up",
            (),
            (),
        ),
        120,
    ),
    Program(
        "global-norm-in-half",
        "speech",
        energy,
        Truth(
            "overflow",
            ("UG502", "UG901"),
            r"float16|overflow|range|65504",
            ("change_precision",),
            (("change_precision", {"precision": "bfloat16"}),),
            HEAVY,
        ),
        80,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("reversal-additive-attention", "seq2seq", backwards),
    Program("alibi-tied-decoder", "transformer", alibi),
    Program("beats-huber", "time-series", beats),
    Program("packed-sentences", "recurrent", packed),
    Program("identity-rnn-adds", "recurrent", identity_rnn, steps=300),
    Program("word-model-clipped", "recurrent", word_model),
    Program("ctc-one-cycle", "speech", spoken),
)
