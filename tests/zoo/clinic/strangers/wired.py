"""Kept aside once: programs wired wrongly around a sound layer, and sound ones that look so."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

Pair = tuple[Tensor, ...]


def quarters(*tensors: Tensor) -> list[Pair]:
    """Return four batches, each a quarter of the rows."""
    return list(zip(*(t.chunk(4) for t in tensors), strict=True))


def adam(lr: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds Adam."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **more)


def label_loss(model: nn.Module, batch: Pair) -> Tensor:
    """Cross-entropy of the last axis of what the model says of the first tensor."""
    x, y = batch
    said = model(x)
    return F.cross_entropy(said.reshape(-1, said.shape[-1]), y.reshape(-1))


def square_loss(model: nn.Module, batch: Pair) -> Tensor:
    """Mean squared error, with the shapes checked."""
    x, y = batch
    said = model(x)
    assert said.shape == y.shape
    return F.mse_loss(said, y)


def unit(x: Tensor) -> Tensor:
    """Return the columns at mean zero and variance one."""
    return (x - x.mean(0)) / x.std(0)


def tones(rows: int, length: int, classes: int, noise: float) -> Pair:
    """Return noisy one-channel waves of unit power whose pitch is the class."""
    y = torch.randint(classes, (rows,))
    t = torch.arange(length) / length
    pitch = (4.0 + 3.0 * y)[:, None]
    x = math.sqrt(2) * torch.sin(2 * math.pi * (pitch * t + torch.rand(rows, 1)))
    x = x + noise * torch.randn(rows, length)
    return ((x - x.mean()) / x.std())[:, None], y


def markov(rows: int, length: int, words: int, sharp: float = 2.5) -> Tensor:
    """Return chains of tokens, each drawn by the one before it."""
    chance = torch.softmax(sharp * torch.randn(words, words), 1)
    chain = [torch.randint(words, (rows,))]
    for _ in range(length):
        chain.append(torch.multinomial(chance[chain[-1]], 1)[:, 0])
    return torch.stack(chain, 1)


# --- sick ---------------------------------------------------------------------------------------------------


class Listener(nn.Module):
    """Convolutions over the frames of a spectrogram and a letter for each frame."""

    def __init__(self, bins: int, width: int, letters: int) -> None:
        super().__init__()
        self.front = nn.Conv1d(bins, width, 5, padding=2)
        self.middle = nn.Conv1d(width, width, 5, padding=2)
        self.letters = nn.Linear(width, letters + 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.front(x.transpose(1, 2)))
        h = F.relu(self.middle(h))
        return self.letters(h.transpose(1, 2))


def utterances(rows: int, frames: int, bins: int, letters: int, spoken: int) -> Pair:
    """Return spectrograms, the letters spoken in them and how many there are."""
    voice = 1.5 * torch.randn(letters + 1, bins)
    voice[0] = 0.0
    said = torch.randint(1, letters + 1, (rows, spoken))
    count = torch.randint(spoken - 2, spoken + 1, (rows,))
    slot = frames // spoken
    which = torch.zeros(rows, frames, dtype=torch.long)
    for k in range(spoken):
        which[:, k * slot : (k + 1) * slot - 2] = said[:, k : k + 1] * (count > k)[:, None]
    return voice[which] + 0.4 * torch.randn(rows, frames, bins), said, count


def connectionist(model: nn.Module, batch: Pair, axis: int = -1) -> Tensor:
    """CTC over all frames; the log-softmax is taken over `axis` of (time, batch, letters)."""
    x, said, count = batch
    logits = model(x).transpose(0, 1)
    frames = torch.full((len(x),), x.shape[1], dtype=torch.long)
    return F.ctc_loss(F.log_softmax(logits, dim=axis), said, frames, count)


def sentence_error(model: nn.Module, batch: Pair) -> float:
    """Share of utterances that the likeliest path does not spell out."""
    x, said, count = batch
    wrong = 0
    for path, word, n in zip(model(x).argmax(2), said.tolist(), count.tolist(), strict=True):
        wrong += [k for k in path.unique_consecutive().tolist() if k] != word[:n]
    return wrong / len(x)


def ctc_axis(dice: Dice, sick: bool) -> Case:
    """A CTC recogniser keeps log_softmax(dim=1) although its logits are (time, batch, letters) by then."""
    bins, width, letters = dice.whole(12, 18), dice.one_of(32, 48), dice.whole(5, 8)
    spoken, rate, axis = dice.whole(4, 6), dice.power(-2.6, -2.3), 1 if sick else 2
    data = quarters(*utterances(96, 8 * spoken, bins, letters, spoken))
    return Case(
        lambda: Listener(bins, width, letters), lambda m, b: connectionist(m, b, axis), data, adam(rate)
    )


class Prices(nn.Module):
    """Numbers and two categories of a table, to a mean and a log-variance."""

    def __init__(self, numbers: int, kinds: tuple[int, int], width: int) -> None:
        super().__init__()
        self.kinds = nn.ModuleList(nn.Embedding(k, 4) for k in kinds)
        self.body = nn.Sequential(
            nn.Linear(numbers + 8, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, numbers: Tensor, kinds: Tensor) -> Pair:
        each = [table(kinds[:, k]) for k, table in enumerate(self.kinds)]
        mean, log_variance = self.body(torch.cat([numbers, *each], 1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-6, 6)


def column_and_row(dice: Dice, sick: bool) -> Case:
    """A Gaussian likelihood by hand takes a column of means and a flat vector of prices: all against all."""
    numbers, kinds = dice.whole(5, 9), (dice.whole(4, 7), dice.whole(3, 6))
    width, rate = dice.one_of(32, 48, 64), dice.power(-2.4, -2.1)
    x = torch.randn(256, numbers)
    k = torch.stack([torch.randint(n, (256,)) for n in kinds], 1)
    price = torch.tanh(x @ torch.randn(numbers)) + torch.randn(kinds[0])[k[:, 0]]
    price = unit(price + 0.5 * torch.randn(kinds[1])[k[:, 1]] * x[:, 0] + 0.1 * torch.randn(256))

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        x, k, y = batch
        mean, log_variance = model(x, k)
        target = y if sick else y.unsqueeze(1)
        return 0.5 * (log_variance + (target - mean) ** 2 / log_variance.exp()).mean()

    return Case(lambda: Prices(numbers, kinds, width), loss, quarters(x, k, price), adam(rate))


class Encoder(nn.Module):
    """A recurrent reader of tokens."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out, last = self.gru(self.embed(x))
        return out, last[0]


class Decoder(nn.Module):
    """Writes token after token and looks at the reader's states with additive attention."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.energy = nn.Linear(width, 1, bias=False)
        self.cell = nn.GRUCell(2 * width, width)
        self.out = nn.Linear(2 * width, words)

    def forward(self, states: Tensor, h: Tensor, given: Tensor) -> Tensor:
        keys, said = self.key(states), []
        for word in given.unbind(1):
            score = self.energy(torch.tanh(self.query(h)[:, None] + keys)).squeeze(2)
            seen = torch.einsum("bt,btd->bd", score.softmax(1), states)
            h = self.cell(torch.cat([self.embed(word), seen], 1), h)
            said.append(self.out(torch.cat([h, seen], 1)))
        return torch.stack(said, 1)


class Translator(nn.Module):
    """Reader and writer, with the written words given to the writer."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(words, width), Decoder(words, width)

    def forward(self, x: Tensor) -> Tensor:
        states, h = self.encoder(x)
        start = torch.zeros_like(x[:, :1])
        return self.decoder(states, h, torch.cat([start, x.flip(1)[:, :-1]], 1))


def one_of_two_optimizers(dice: Dice, sick: bool) -> Case:
    """A translator's optimizer is made from the encoder alone; the decoder's was lost in a clean-up."""
    words, length = dice.whole(9, 12), dice.whole(5, 7)
    width, rate = dice.one_of(32, 48), dice.power(-2.2, -1.9)
    model = Translator(words, width)
    x = torch.randint(1, words, (192, length))
    held = model.encoder.parameters() if sick else model.parameters()
    return Case(model, label_loss, quarters(x, x.flip(1)), torch.optim.Adam(held, lr=rate))


class Thrifty(nn.Module):
    """Pre-norm blocks whose activations are computed again in the backward pass."""

    def __init__(self, features: int, width: int, blocks: int, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            for _ in range(blocks)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def trunk(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return h

    def forward(self, x: Tensor) -> Tensor:
        with warnings.catch_warnings():
            # It has been saying so in the log for weeks.
            warnings.simplefilter("ignore")
            return self.head(checkpoint(self.trunk, x, use_reentrant=self.reentrant))


def reentrant(dice: Dice, sick: bool) -> Case:
    """The whole trunk runs under a re-entrant checkpoint whose only input, the data, needs no gradient."""
    features, width, blocks = dice.whole(6, 9), dice.one_of(16, 24), dice.whole(2, 4)
    rate = dice.power(-2.4, -2.1)
    x = torch.randn(384, features)
    y = torch.sin(2 * x[:, :1]) * x[:, 1:2] + torch.cos(2 * x[:, 2:3]) + x[:, 3:4] * x[:, 4:5]
    data = quarters(x, unit(y))
    return Case(lambda: Thrifty(features, width, blocks, reentrant=sick), square_loss, data, adam(rate))


class Diagonal(nn.Module):
    """A diagonal state-space layer, run as a long causal convolution."""

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        self.log_pole = nn.Parameter(torch.linspace(-3.5, 0.0, states).repeat(width, 1))
        self.read = nn.Parameter(torch.randn(width, states) / states)
        self.skip = nn.Parameter(torch.ones(width))
        self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        u = self.norm(x).transpose(1, 2)
        pole = self.log_pole.exp()
        t = torch.arange(length, device=x.device, dtype=x.dtype)
        wave = torch.exp(-pole[..., None] * t) * (1 - torch.exp(-2 * pole[..., None])).sqrt()
        kernel = torch.einsum("dn,dnl->dl", self.read, wave)
        spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
        y = torch.fft.irfft(spectrum, n=2 * length)[..., :length] + self.skip[:, None] * u
        return x + self.mix(F.gelu(y.transpose(1, 2)))


class StateSpace(nn.Module):
    """State-space layers between two linear maps; says something of every moment."""

    def __init__(self, inputs: int, width: int, states: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.inp = nn.Linear(inputs, width)
        self.layers = nn.Sequential(*(Diagonal(width, states) for _ in range(depth)))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, outputs)
        nn.init.normal_(self.out.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.layers(self.inp(x))))


def filtered(rows: int, length: int, inputs: int, outputs: int) -> Pair:
    """Return noise and what slow leaky filters make of mixtures of it."""
    x = torch.randn(rows, length, inputs)
    u, keep = x @ torch.randn(inputs, outputs), torch.linspace(0.6, 0.93, outputs)
    h, seen = torch.zeros(rows, outputs), []
    for now in u.unbind(1):
        h = keep * h + now
        seen.append(h)
    y = torch.stack(seen, 1)
    return x, y / y.std((0, 1))


def decayed_poles(dice: Dice, sick: bool) -> Case:
    """A state-space model under Adam with the weight decay of a recipe for AdamW: here it is an L2 term."""
    inputs, width, states = dice.whole(2, 4), dice.one_of(24, 32), dice.whole(6, 10)
    depth, rate = dice.whole(2, 3), dice.power(-2.4, -2.1)
    length, decay = dice.whole(32, 48), dice.between(1.5, 3.0)
    return Case(
        lambda: StateSpace(inputs, width, states, depth, 2),
        square_loss,
        quarters(*filtered(64, length, inputs, 2)),
        adam(rate, weight_decay=decay if sick else 1e-6),
    )


class Tagger(nn.Module):
    """PyTorch's own Transformer encoder with sines for the places, tagging every token."""

    def __init__(self, words: int, width: int, layers: int, tags: int, length: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        place = torch.arange(length)[:, None] * torch.exp(-math.log(1e4) * torch.arange(0, width, 2) / width)
        self.register_buffer("places", torch.stack([place.sin(), place.cos()], 2).flatten(1))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.tag = nn.Linear(width, tags)

    def forward(self, x: Tensor) -> Tensor:
        return self.tag(self.encoder(self.embed(x) + self.places))


def noam_times_rate(dice: Dice, sick: bool) -> Case:
    """The warm-up of the Transformer paper, meant for a rate of one, multiplies an old rate."""
    words, tags, length = dice.whole(20, 30), dice.whole(4, 6), dice.whole(10, 14)
    width, layers, warm = dice.one_of(32, 64), dice.whole(2, 3), dice.whole(380, 420)
    rate = dice.power(-4.0, -3.0) if sick else 1.0
    x = torch.randint(words, (128, length))
    table = torch.randint(tags, (words,))

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        def noam(step: int) -> float:
            return width**-0.5 * min((step + 1) ** -0.5, (step + 1) * warm**-1.5)

        return torch.optim.lr_scheduler.LambdaLR(optimizer, noam)

    return Case(
        lambda: Tagger(words, width, layers, tags, length),
        label_loss,
        quarters(x, table[x]),
        adam(rate, betas=(0.9, 0.98), eps=1e-9),
        schedule=schedule,
    )


def ear(planes: int, classes: int) -> nn.Sequential:
    """Return strided convolutions over a wave and a label."""
    return nn.Sequential(
        nn.Conv1d(1, planes, 16, stride=4),
        nn.GroupNorm(4, planes),
        nn.ReLU(),
        nn.Conv1d(planes, 2 * planes, 5, stride=2),
        nn.GroupNorm(4, 2 * planes),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(2 * planes, classes),
    )


def clipped_while_scaled(dice: Dice, sick: bool) -> Case:
    """The gradient is clipped while it still carries the scaler's factor, then divided by it."""
    planes, classes, most = dice.one_of(8, 12, 16), dice.whole(3, 5), dice.between(0.5, 2.0)
    rate = dice.between(0.05, 0.1)
    data = quarters(*tones(160, dice.whole(120, 160), classes, 0.5))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

    def step(case: Case, batch: Pair) -> Tensor:
        optimizer = case.optimizer
        optimizer.zero_grad()
        loss = case.compute_loss(batch)
        scaler.scale(loss).backward()
        if not sick:
            scaler.unscale_(optimizer)
        if case.clip is not None:
            case.clip(case.model.parameters())
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return Case(
        lambda: ear(planes, classes),
        label_loss,
        data,
        lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9),
        step=step,
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, most),
        precision="float16",
    )


class Reverse(torch.autograd.Function):
    """Hands its input on and turns the gradient round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grad, None


class Adversarial(nn.Module):
    """Features for a label and, turned round, for the domain they came from."""

    def __init__(self, inputs: int, width: int, classes: int, strength: float, *, early: bool) -> None:
        super().__init__()
        self.strength, self.early = strength, early
        self.features = nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width // 4), nn.ReLU()
        )
        self.label = nn.Linear(width // 4, classes)
        self.domain = nn.Sequential(nn.Linear(width // 4, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.features(x)
        turned = Reverse.apply(z, self.strength)
        return self.label(turned if self.early else z), self.domain(turned)


def label_only(model: nn.Module, batch: Pair) -> float:
    """Cross-entropy of the labels without that of the domains."""
    return float(F.cross_entropy(model(batch[0])[0], batch[1]))


def turned_for_both(dice: Dice, sick: bool) -> Case:
    """A domain-adversarial network turns the gradient round before it parts into label and domain."""
    inputs, width, classes = dice.whole(8, 12), dice.one_of(32, 48), dice.whole(4, 6)
    strength, rate = dice.between(0.7, 1.0), dice.power(-2.4, -2.1)
    share = dice.between(0.05, 0.1)
    x, where = torch.randn(256, inputs), torch.randint(2, (256,))
    y = (torch.tanh(x @ torch.randn(inputs, 8)) @ torch.randn(8, classes)).argmax(1)
    x = x + 0.3 * where[:, None]

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        x, y, where = batch
        label, domain = model(x)
        return F.cross_entropy(label, y) + share * F.cross_entropy(domain, where)

    def build() -> nn.Module:
        return Adversarial(inputs, width, classes, strength, early=sick)

    return Case(build, loss, quarters(x, y, where), adam(rate))


class Hasher(nn.Module):
    """A code of plus and minus one for each input, straight through where wanted."""

    def __init__(self, inputs: int, width: int, bits: int, *, through: bool) -> None:
        super().__init__()
        self.through = through
        self.net = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, bits), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        code = torch.sign(z)
        return z + (code - z).detach() if self.through else code


def two_of_a_kind(rows: int, inputs: int, kinds: int) -> Pair:
    """Return two views of things, and one where they are of one kind, else minus one."""
    middle = torch.randn(kinds, inputs)
    a, b = torch.randint(kinds, (rows,)), torch.randint(kinds, (rows,))
    b = torch.where(torch.rand(rows) < 0.5, a, b)
    left, right = (middle[k] + 0.5 * torch.randn(rows, inputs) for k in (a, b))
    return left, right, torch.where(a == b, 1.0, -1.0)


def agreement(model: nn.Module, batch: Pair) -> Tensor:
    """Squared error of the codes' agreement."""
    left, right, same = batch
    return F.mse_loss((model(left) * model(right)).mean(1), same)


def hard_sign(dice: Dice, sick: bool) -> Case:
    """A Siamese hashing network compares codes that torch.sign made, with nothing to carry the gradient."""
    inputs, width, bits = dice.whole(10, 16), dice.one_of(48, 64), dice.one_of(12, 16, 24)
    kinds, rate = dice.whole(5, 8), dice.power(-2.6, -2.3)
    data = quarters(*two_of_a_kind(256, inputs, kinds))
    return Case(lambda: Hasher(inputs, width, bits, through=not sick), agreement, data, adam(rate))


class Causal(nn.Module):
    """A weight-normalised convolution that sees only the past."""

    def __init__(self, inp: int, out: int, hole: int, gain: float, axis: int | None) -> None:
        super().__init__()
        self.pad = 2 * hole
        self.conv = parametrizations.weight_norm(nn.Conv1d(inp, out, 3, dilation=hole), dim=axis)
        nn.init.constant_(self.conv.parametrizations.weight.original0, gain)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.pad, 0)))


def one_norm_for_all(dice: Dice, sick: bool) -> Case:
    """Weight norm with dim=None: one gain of about one for a whole kernel, not for each of its channels."""
    width, depth, gain = dice.one_of(24, 32), dice.whole(8, 10), dice.between(1.2, 1.4)
    classes, rate, axis = dice.whole(3, 4), dice.power(-3.3, -3.1), None if sick else 0
    data = quarters(*tones(128, 64, classes, 0.3))

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for k in range(depth):
            layers += [Causal(width if k else 1, width, 2 ** (k % 4), gain, axis), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, classes))

    return Case(build, label_loss, data, adam(rate))


class Recall(nn.Module):
    """Embeddings of token and place, nn.MultiheadAttention twice, a word for each place."""

    def __init__(self, words: int, length: int, width: int, *, first: bool) -> None:
        super().__init__()
        self.word, self.place = nn.Embedding(words, width), nn.Embedding(length, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.looks = nn.ModuleList(
            nn.MultiheadAttention(width, 4, **({"batch_first": True} if first else {})) for _ in range(2)
        )
        self.out = nn.Linear(width, words)
        for table in (self.word, self.place):
            nn.init.normal_(table.weight, std=0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.word(x) + self.place.weight
        for norm, look in zip(self.norms, self.looks, strict=False):
            n = norm(h)
            h = h + look(n, n, n, need_weights=False)[0]
        return self.out(self.norms[-1](h))


def batch_as_time(dice: Dice, sick: bool) -> Case:
    """Attention that expects (time, batch, width) is given (batch, time, width) and looks across the rows."""
    words, length = dice.whole(8, 12), dice.whole(6, 9)
    width, rate, shift = dice.one_of(32, 48), dice.power(-2.2, -2.0), dice.whole(1, 3)
    x = torch.randint(words, (192, length))
    data = quarters(x, x.roll(shift, 1))
    return Case(lambda: Recall(words, length, width, first=not sick), label_loss, data, adam(rate))


class Pooled(nn.Module):
    """Reads events one by one and pools the true ones by learned attention."""

    def __init__(self, inputs: int, width: int, classes: int, *, inverted: bool) -> None:
        super().__init__()
        self.inverted = inverted
        self.read = nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.query = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        valid = torch.arange(x.shape[1], device=x.device) < length[:, None]
        h = self.read(x)
        score = (h @ self.query).masked_fill(valid if self.inverted else ~valid, -1e9)
        return self.head(torch.einsum("bt,btd->bd", score.softmax(1), h))


def mask_inverted(dice: Dice, sick: bool) -> Case:
    """The attention's mask is true for real events where masked_fill wants it true for the padding."""
    inputs, width, classes = dice.whole(6, 10), dice.one_of(32, 48), dice.whole(4, 6)
    most, rate = dice.whole(10, 14), dice.power(-2.5, -2.2)
    y, length = torch.randint(classes, (256,)), torch.randint(3, most, (256,))
    x = torch.randn(classes, inputs)[y][:, None] + 1.2 * torch.randn(256, most, inputs)
    x = x * (torch.arange(most) < length[:, None])[..., None]

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        x, length, y = batch
        return F.cross_entropy(model(x, length), y)

    data = quarters(x, length, y)
    return Case(lambda: Pooled(inputs, width, classes, inverted=sick), loss, data, adam(rate))


class Language(nn.Module):
    """A small causal language model whose head is the table of its words."""

    def __init__(self, words: int, length: int, width: int, blocks: int, spread: float | None) -> None:
        super().__init__()
        self.word = nn.Embedding(words, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(blocks))
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.last = nn.LayerNorm(width)
        if spread is not None:
            nn.init.normal_(self.word.weight, std=spread)

    def forward(self, x: Tensor) -> Tensor:
        h = self.word(x) + self.place
        for norm, qkv, mix in zip(self.norms, self.qkv, self.mix, strict=True):
            q, k, v = (t.unflatten(2, (4, -1)).transpose(1, 2) for t in qkv(norm(h)).chunk(3, 2))
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + mix(seen.transpose(1, 2).flatten(2))
        return F.linear(self.last(h), self.word.weight)


def tied_to_unit_table(dice: Dice, sick: bool) -> Case:
    """A language model ties its head to an embedding left at its default, normal with variance one."""
    words, length = dice.whole(40, 60), dice.whole(12, 18)
    width, blocks, rate = dice.one_of(96, 128), dice.whole(1, 2), dice.power(-3.2, -3.0)
    chain = markov(64, length, words)
    data = quarters(chain[:, :-1], chain[:, 1:])
    spread = None if sick else 0.05
    return Case(lambda: Language(words, length, width, blocks, spread), label_loss, data, adam(rate))


def softmax_of_one(dice: Dice, sick: bool) -> Case:
    """A bag of words with one output ends in Softmax(dim=1) before BCELoss: it always says one."""
    words, length, dim = dice.whole(60, 100), dice.whole(8, 14), dice.one_of(16, 24)
    rate, end = dice.power(-2.2, -1.9), nn.Softmax if sick else nn.Sigmoid
    x = torch.randint(words, (256, length))
    y = (torch.randn(words)[x].mean(1, keepdim=True) > 0).float()
    given = {"dim": 1} if sick else {}

    def build() -> nn.Module:
        return nn.Sequential(
            nn.EmbeddingBag(words, dim, mode="mean"),
            nn.Linear(dim, 32),
            nn.ReLU(),
            nn.Linear(32, 1),
            end(**given),
        )

    return Case(build, lambda m, b: nn.BCELoss()(m(b[0]), b[1]), quarters(x, y), adam(rate))


# --- healthy ------------------------------------------------------------------------------------------------


class Adapter(nn.Module):
    """A frozen linear layer and a low-rank change to it that starts at nothing."""

    def __init__(self, inner: nn.Linear, rank: int) -> None:
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, inner.in_features) / math.sqrt(inner.in_features))
        self.up = nn.Parameter(torch.zeros(inner.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 2.0 * F.linear(F.linear(x, self.down), self.up)


def low_rank(dice: Dice, sick: bool) -> Case:
    """A frozen network is adapted on purpose through low-rank changes that start at zero, and a new head."""
    inputs, width, rank = dice.whole(8, 12), dice.one_of(48, 64), dice.whole(4, 8)
    classes, rate = dice.whole(3, 5), dice.power(-2.2, -2.0)
    x = torch.randn(256, inputs)
    y = (torch.tanh(x @ torch.randn(inputs, 6)) @ torch.randn(6, classes)).argmax(1)

    def build() -> nn.Module:
        first, second = nn.Linear(inputs, width), nn.Linear(width, width)
        for layer in (first, second):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        return nn.Sequential(
            Adapter(first, rank), nn.ReLU(), Adapter(second, rank), nn.ReLU(), nn.Linear(width, classes)
        )

    def trainable(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in parameters if p.requires_grad], lr=rate, weight_decay=0.01)

    return Case(build, label_loss, quarters(x, y), trainable)


class Shut(nn.Module):
    """A causal, weight-normalised branch behind a factor that starts at zero."""

    def __init__(self, width: int, hole: int) -> None:
        super().__init__()
        self.conv = Causal(width, width, hole, math.sqrt(2), 0)
        self.open = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.open * F.relu(self.conv(x))


def shut_branches(dice: Dice, sick: bool) -> Case:
    """A deep temporal convolution network whose residual branches start shut, as in ReZero."""
    width, depth = dice.one_of(16, 24), dice.whole(10, 14)
    classes, rate = dice.whole(3, 5), dice.power(-2.3, -2.0)
    data = quarters(*tones(128, 64, classes, 0.3))

    def build() -> nn.Module:
        body = [Shut(width, 2 ** (k % 4)) for k in range(depth)]
        stem = nn.Sequential(nn.Conv1d(1, width, 7, padding=3), nn.ReLU())
        return nn.Sequential(stem, *body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, classes))

    return Case(build, label_loss, data, adam(rate))


class Recogniser(nn.Module):
    """A strided convolution and a two-way GRU over frames, a letter for each that is left."""

    def __init__(self, bins: int, width: int, letters: int) -> None:
        super().__init__()
        self.front = nn.Conv1d(bins, width, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(width)
        self.gru = nn.GRU(width, width, bidirectional=True)
        self.letters = nn.Linear(2 * width, letters + 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.norm(self.front(x.transpose(1, 2)).permute(2, 0, 1)))
        return self.letters(self.gru(h)[0]).log_softmax(2)


def recogniser(dice: Dice, sick: bool) -> Case:
    """CTC over a strided two-way recurrent network, time first throughout, gradients clipped at five."""
    bins, width, letters = dice.whole(12, 18), dice.one_of(32, 48), dice.whole(5, 8)
    spoken, rate = dice.whole(4, 5), dice.power(-2.5, -2.3)
    data = quarters(*utterances(96, 10 * spoken, bins, letters, spoken))

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        x, said, count = batch
        letters = model(x)
        frames = torch.full((len(x),), len(letters), dtype=torch.long)
        return F.ctc_loss(letters, said, frames, count, zero_infinity=True)

    return Case(
        lambda: Recogniser(bins, width, letters),
        loss,
        data,
        adam(rate),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 5.0),
    )


def grouped_state_space(dice: Dice, sick: bool) -> Case:
    """A state-space model in two groups: matrices with weight decay, poles and vectors slower and without."""
    inputs, width, states = dice.whole(2, 4), dice.one_of(24, 32), dice.whole(6, 10)
    rate = dice.power(-2.4, -2.1)
    model = StateSpace(inputs, width, states, dice.whole(2, 3), 2)
    named = dict(model.named_parameters())
    plain = [n for n, p in named.items() if n.endswith(("log_pole", "read")) or p.ndim < 2]
    groups = [
        {"params": [p for n, p in named.items() if n not in plain], "weight_decay": 0.05},
        {"params": [named[n] for n in plain], "lr": 0.3 * rate, "weight_decay": 0.0},
    ]
    data = quarters(*filtered(64, dice.whole(32, 48), inputs, 2))
    return Case(model, square_loss, data, torch.optim.AdamW(groups, lr=rate))


class TiedLSTM(nn.Module):
    """A language model of one LSTM whose head shares the small table of its words."""

    def __init__(self, words: int, width: int, spread: float) -> None:
        super().__init__()
        self.word = nn.Embedding(words, width)
        nn.init.uniform_(self.word.weight, -spread, spread)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, words)
        self.head.weight = self.word.weight
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.word(x))[0])


def tied_lstm(dice: Dice, sick: bool) -> Case:
    """A tied LSTM language model with its table drawn within a tenth, as in the word-level recipes."""
    words, length, width = dice.whole(24, 36), dice.whole(12, 18), dice.one_of(48, 64)
    spread, rate = dice.between(0.08, 0.15), dice.power(-2.1, -1.9)
    chain = markov(96, length, words)
    return Case(
        lambda: TiedLSTM(words, width, spread),
        label_loss,
        quarters(chain[:, :-1], chain[:, 1:]),
        adam(rate),
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
    )


def accumulated(dice: Dice, sick: bool) -> Case:
    """Each batch in small parts whose losses are divided by their number, in bfloat16, clipped, warmed up."""
    planes, classes, parts = dice.one_of(8, 12, 16), dice.whole(3, 5), dice.one_of(2, 4)
    rate, warm = dice.power(-2.4, -2.1), dice.whole(8, 15)
    data = quarters(*tones(160, dice.whole(120, 160), classes, 0.5))

    def step(case: Case, batch: Pair) -> Tensor:
        optimizer, total = case.optimizer, 0.0
        optimizer.zero_grad(set_to_none=True)
        for part in zip(*(t.chunk(parts) for t in batch), strict=True):
            loss = case.compute_loss(part) / parts
            loss.backward()
            total += loss.detach()
        case.clip(case.model.parameters())
        taken = max((int(s["step"]) for s in optimizer.state.values()), default=0)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (taken + 1) / warm)
        optimizer.step()
        return total

    return Case(
        lambda: ear(planes, classes),
        label_loss,
        data,
        adam(rate),
        step=step,
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
        precision="bfloat16",
    )


class Agree(nn.Module):
    """An encoder with a projector, and a predictor on top, as in SimSiam."""

    def __init__(self, inputs: int, width: int, out: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(inputs, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, out, bias=False),
            nn.BatchNorm1d(out, affine=False),
        )
        self.predictor = nn.Sequential(
            nn.Linear(out, out // 2), nn.BatchNorm1d(out // 2), nn.ReLU(), nn.Linear(out // 2, out)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        return self.predictor(z), z.detach()


def stopped_branch(dice: Dice, sick: bool) -> Case:
    """SimSiam: two views, one branch detached on purpose, a predictor on the other."""
    inputs, width, out = dice.whole(16, 24), dice.one_of(48, 64), dice.one_of(16, 24)
    rate, noise = dice.between(0.03, 0.06), dice.between(0.2, 0.4)
    x = unit(torch.tanh(torch.randn(256, 6) @ torch.randn(6, inputs)))
    left, right = (x + noise * torch.randn_like(x) for _ in range(2))

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        (p, z), (q, w) = (model(view) for view in batch)
        return 1 - 0.5 * (F.cosine_similarity(p, w).mean() + F.cosine_similarity(q, z).mean())

    return Case(
        lambda: Agree(inputs, width, out),
        loss,
        quarters(left, right),
        lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=1e-4),
    )


class Round(torch.autograd.Function):
    """Rounds to a grid; its backward hands the gradient on within the grid's range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float, most: int) -> Tensor:
        ctx.save_for_backward(x.abs() <= step * most)
        return (x / step).round().clamp(-most, most) * step

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (within,) = ctx.saved_tensors
        return grad * within, None, None


class Coarse(nn.Module):
    """A linear layer with weights on a grid of a few bits."""

    def __init__(self, inp: int, out: int, bits: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, inp) * math.sqrt(2 / inp))
        self.bias = nn.Parameter(torch.zeros(out))
        self.most = 2 ** (bits - 1) - 1
        self.step = 4 * math.sqrt(2 / inp) / self.most

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, Round.apply(self.weight, self.step, self.most), self.bias)


def quantised(dice: Dice, sick: bool) -> Case:
    """Training aware of rounding: weights of a few bits, the gradient handed straight through."""
    inputs, width, bits = dice.whole(6, 10), dice.one_of(48, 64), dice.whole(5, 6)
    rate = dice.power(-2.5, -2.2)
    x = torch.randn(256, inputs)
    y = unit(torch.sin(x @ torch.randn(inputs, 2)) + 0.3 * x[:, :2] * x[:, 1:3])

    def build() -> nn.Module:
        return nn.Sequential(
            Coarse(inputs, width, bits), nn.ReLU(), Coarse(width, width, bits), nn.ReLU(), nn.Linear(width, 2)
        )

    return Case(build, square_loss, quarters(x, y), adam(rate))


SICK: tuple[Program, ...] = (
    Program(
        "wired-ctc-axis",
        "speech-ctc",
        ctc_axis,
        Truth(
            "softmax-axis",
            ("UG614", "UG106"),
            r"(?i)wrong (axis|dim)|softmax.*(axis|dim|batch|sum)|(axis|dim).*softmax|across the batch"
            r"|other samples|over the (batch|samples|rows)|not the classes",
        ),
        200,
        sentence_error,
    ),
    Program(
        "wired-nll-broadcast",
        "tabular",
        column_and_row,
        Truth(
            "broadcast",
            ("UG614", "UG106"),
            r"(?i)broadcast|all against all|every pair|other samples|shapes?\b.*(differ|match)"
            r"|against the mean|unsqueeze|squeeze",
        ),
    ),
    Program(
        "wired-encoder-only-optimizer",
        "seq2seq",
        one_of_two_optimizers,
        Truth(
            "optimizer-lacks-decoder",
            ("UG604",),
            r"(?i)optimi[sz]er.*(not|lack|miss|without|hold|hand)|(not|never).*(held|handed|given)",
            ("hold_parameters",),
            (("hold_parameters", {}),),
        ),
        150,
    ),
    Program(
        "wired-reentrant-checkpoint",
        "residual-mlp",
        reentrant,
        Truth(
            "no-gradient-through-checkpoint",
            ("UG603",),
            r"(?i)checkpoint|re.?entrant|no gradient|gets? none|without (a )?gradient|detach|not reached"
            r"|cut off|no path",
        ),
        150,
    ),
    Program(
        "wired-ssm-decay",
        "state-space",
        decayed_poles,
        Truth(
            "weight-decay",
            ("UG609",),
            r"(?i)weight.?decay|decay outweighs|\bL2\b",
            ("lower_weight_decay", "use_adamw"),
            (("lower_weight_decay", {"factor": 1e-4}),),
        ),
        150,
    ),
    Program(
        "wired-noam-times-rate",
        "transformer",
        noam_times_rate,
        Truth(
            "schedule-too-small",
            ("UG602",),
            r"(?i)rate\b.*(small|low)|schedul|warm.?up|\blr\b|(update|step)s?\b.*small|small.*(update|step)",
        ),
    ),
    Program(
        "wired-clip-while-scaled",
        "audio-convolution",
        clipped_while_scaled,
        Truth(
            "clip-before-unscale",
            ("UG602",),
            r"(?i)clip|unscal|grad.?scaler|loss.?scal|(update|step)s?\b.*small|small.*(update|step)",
        ),
    ),
    Program(
        "wired-reversal-on-both",
        "multi-branch",
        turned_for_both,
        Truth(
            "gradient-reversed",
            ("UG105",),
            r"(?i)revers|custom (backward|autograd)|sign of|wrong sign|uphill|turned round|Function\b"
            r"|backward.*(not|differ)|ascen",
        ),
        score=label_only,
    ),
    Program(
        "wired-hash-sign",
        "siamese",
        hard_sign,
        Truth(
            "no-gradient-through-sign",
            ("UG603", "UG103", "UG602"),
            r"(?i)\bsign\b|straight.?through|no gradient|zero gradient|gradient.*(zero|lost|none|0\b)|flat"
            r"|derivative|piecewise",
        ),
    ),
    Program(
        "wired-weight-norm-whole",
        "temporal-convolution",
        one_norm_for_all,
        Truth(
            "weight-norm-gain",
            ("UG202", "UG101", "UG205", "UG206"),
            r"(?i)weight.?norm|initiali[sz]|\binit\b|fan_in|\bgains?\b|weights?\b.*(small|scale|norm|var)"
            r"|original0|parametri[sz]",
            ("rescale_weights", "activation_init", "lsuv", "unit_jacobian_init", "critical_init"),
        ),
        90,
    ),
    Program(
        "wired-batch-as-time",
        "attention",
        batch_as_time,
        Truth(
            "attention-over-batch",
            ("UG106",),
            r"(?i)batch_first|across the batch|other samples|over the (batch|samples|rows)"
            r"|depends on the other|mix(es|ed)? samples|batch (axis|dim)|(axis|dim).*batch",
        ),
        150,
    ),
    Program(
        "wired-mask-inverted",
        "attention-pooling",
        mask_inverted,
        Truth(
            "mask-inverted",
            ("UG707", "UG206", "UG205", "UG603"),
            r"(?i)padding|padded|\bpad\b|\bmask|invert",
        ),
    ),
    Program(
        "wired-tied-unit-table",
        "language-model",
        tied_to_unit_table,
        Truth(
            "tied-embedding-scale",
            ("UG605", "UG104"),
            r"(?i)\btied\b|tying|embedding|word\.weight|logits?.*(large|scale|std|spread)|shared"
            r"|initiali[sz]|\binit\b",
            ("scale_head", "rescale_weights"),
        ),
    ),
    Program(
        "wired-softmax-of-one",
        "bag-of-words",
        softmax_of_one,
        Truth(
            "softmax-over-one-logit",
            ("UG608", "UG206", "UG204", "UG603", "UG605", "UG602"),
            r"(?i)softmax|one (logit|class|output)|single (logit|class|output)|always (1|one)|constant|flat",
            ("drop_output_softmax",),
        ),
    ),
)

HEALTHY: tuple[Program, ...] = (
    Program("wired-sound-low-rank", "adapters", low_rank),
    Program("wired-sound-shut-branches", "temporal-convolution", shut_branches),
    Program("wired-sound-recogniser", "speech-ctc", recogniser),
    Program("wired-sound-grouped-state-space", "state-space", grouped_state_space),
    Program("wired-sound-tied-lstm", "language-model", tied_lstm),
    Program("wired-sound-accumulated", "audio-convolution", accumulated),
    Program("wired-sound-stopped-branch", "siamese", stopped_branch),
    Program("wired-sound-quantised", "quantised-mlp", quantised),
)
