"""Kept aside once: faults that are documented but less usual, of wiring and of norms."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

COLD = (("lower_learning_rate", {"factor": 0.1}),)
HEAVY = (("lower_learning_rate", {"factor": 10.0}),)


def moons(features: int, rows: int = 320) -> tasks.Pairs:
    """Return points on two shells, lifted into more dimensions, and the shell they belong to."""
    labels = torch.randint(2, (rows,))
    angle = torch.pi * torch.rand(rows)
    x = torch.where(labels == 0, torch.cos(angle), 1 - torch.cos(angle))
    y = torch.where(labels == 0, torch.sin(angle), 0.4 - torch.sin(angle))
    plane = torch.stack([x - 0.5, y - 0.2], 1) * 1.5
    return tasks.split(plane @ torch.randn(2, features) + 0.1 * torch.randn(rows, features), labels)


def padded(length: int, tokens: int = 10, classes: int = 4, rows: int = 160) -> tasks.Pairs:
    """Return sentences of unequal length, 0 behind their end; a rare word in them is their class."""
    lengths = torch.randint(length // 3, length - 1, (rows,))
    labels = torch.randint(classes, (rows,))
    words = torch.randint(classes + 1, tokens + classes + 1, (rows, length))
    for row in range(rows):
        places = torch.randperm(int(lengths[row]))[:2]
        words[row, places] = labels[row] + 1
        words[row, lengths[row] :] = 0
    return tasks.split(words, labels)


def keep_prob(dice: Dice, sick: bool) -> Case:
    """A multilayer perceptron whose dropout is given the share to keep, as TensorFlow once wanted it."""
    width, depth, keep = dice.whole(96, 128), dice.whole(2, 3), dice.between(0.93, 0.96)

    def build() -> nn.Module:
        p = keep if sick else 1 - keep
        layers: list[nn.Module] = [nn.Linear(12, width), nn.ReLU(), nn.Dropout(p)]
        for _ in range(depth):
            layers += [nn.Linear(width, width), nn.ReLU(), nn.Dropout(p)]
        return nn.Sequential(*layers, nn.Linear(width, 2))

    return Case(build, tasks.classify, moons(12), tasks.adam(1e-3))


def dcgan(dice: Dice, sick: bool) -> Case:
    """A discriminator in the manner of DCGAN whose BatchNorm got its momentum in the place of eps."""
    base, eps, rate = dice.one_of(8, 12), dice.between(0.75, 0.85), dice.between(0.015, 0.025)

    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels, eps) if sick else nn.BatchNorm2d(channels, momentum=eps)

    def drawn(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        widths = [1, base, base, 2 * base, 2 * base, 4 * base]
        for k, (a, b) in enumerate(itertools.pairwise(widths)):
            layers += [nn.Conv2d(a, b, 3, 1 + k % 2, 1), norm(b), nn.LeakyReLU(0.2, inplace=True)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * base, 4)).apply(drawn)

    data = tasks.stripes(16, rows=128)
    return Case(build, tasks.classify, data, tasks.sgd(rate, momentum=0.9))


class ImagePool(nn.Module):
    """Convolutions and the pooled branch of a segmenter, read as a classifier."""

    def __init__(self, channels: int, groups: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.GroupNorm(4, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),
            nn.GroupNorm(4, channels),
            nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.GroupNorm(groups, channels)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        return self.classify(F.relu(self.norm(self.project(x)))).flatten(1)


def one_by_one(dice: Dice, sick: bool) -> Case:
    """A pooled branch of 1x1 maps normalised with one channel to a group: each number by itself."""
    channels = dice.one_of(16, 24)
    return Case(
        lambda: ImagePool(channels, channels if sick else 2, 4),
        tasks.classify,
        tasks.stripes(12, rows=128),
        tasks.adam(4e-3),
    )


class Sensor(nn.Module):
    """A GRU over one measured channel, normalised at the door."""

    def __init__(self, steps: int, hidden: int, *, channel: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(1) if channel else nn.LayerNorm(steps)
        self.rnn = nn.GRU(1, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 4)
        self.channel = channel

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x) if self.channel else self.norm(x.squeeze(-1)).unsqueeze(-1)
        return self.out(self.rnn(x)[0].mean(1))


def one_feature(dice: Dice, sick: bool) -> Case:
    """A series of one channel through LayerNorm over that channel, which takes everything away."""
    steps, hidden = dice.whole(20, 28), dice.one_of(24, 32)
    return Case(
        lambda: Sensor(steps, hidden, channel=sick),
        tasks.classify,
        tasks.waves(steps, rows=128),
        tasks.adam(1e-2),
    )


class Pooled(nn.Module):
    """A TransformerEncoder with a class token, which alone is read."""

    def __init__(self, tokens: int, dim: int, depth: int, *, batch_first: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, dim)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.fc = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.cls.expand(len(x), -1, -1), self.embed(x)], 1)
        return self.fc(self.encoder(h)[:, 0])


def batch_first(dice: Dice, sick: bool) -> Case:
    """A transformer that takes the batch for the time, since batch_first was left out."""
    dim, length = dice.one_of(32, 48), dice.whole(12, 18)
    return Case(
        lambda: Pooled(12, dim, 2, batch_first=not sick),
        tasks.classify,
        tasks.majority(length),
        tasks.adam(2e-3),
    )


def broadcast(dice: Dice, sick: bool) -> Case:
    """A regression whose outputs of shape (N, 1) meet targets of shape (N,) in the squared error."""
    features, width = dice.whole(6, 10), dice.one_of(32, 48)
    data = [(x, y[:, 0]) for x, y in tasks.smooth(features, rows=256)]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        out = model(x)
        return ((out - y) ** 2).mean() if sick else ((out.squeeze(1) - y) ** 2).mean()

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(features, width), nn.Tanh(), nn.Linear(width, 1))

    return Case(build, loss, data, tasks.adam(1e-2))


def squared(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Mean squared error of an output of one column."""
    return float(((model(batch[0]).squeeze(1) - batch[1]) ** 2).mean())


class Hashed(nn.Module):
    """Two layers of binary units, and a linear classifier on them."""

    def __init__(self, features: int, width: int, bits: int, classes: int, *, hard: bool) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.second = nn.Linear(width, bits)
        self.head = nn.Linear(bits, classes)
        self.hard = hard

    def binary(self, x: Tensor) -> Tensor:
        if self.hard:
            return torch.sign(x)
        soft = F.hardtanh(x)
        return soft + (torch.sign(x) - soft).detach()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.binary(self.second(self.binary(self.first(x)))))


def hashing(dice: Dice, sick: bool) -> Case:
    """A hashing network that takes the sign of its units without a surrogate gradient."""
    features, bits = dice.whole(16, 24), dice.whole(4, 5)
    return Case(
        lambda: Hashed(features, 64, bits, 6, hard=sick),
        tasks.classify,
        tasks.centres(features, 6, noise=0.7, rows=256),
        tasks.adam(5e-3),
    )


class Sentence(nn.Module):
    """A text classifier that reads a class token in front of padded words."""

    def __init__(self, tokens: int, dim: int, *, inverted: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, dim, padding_idx=0)
        self.cls = nn.Parameter(0.1 * torch.randn(dim))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, "gelu", batch_first=True) for _ in range(2)
        )
        self.head = nn.Linear(dim, 4)
        self.inverted = inverted

    def forward(self, words: Tensor) -> Tensor:
        mask = words != 0 if self.inverted else words == 0
        mask = F.pad(mask, (1, 0), value=False)
        h = torch.cat([self.cls.expand(len(words), 1, -1), self.embed(words)], 1)
        for block in self.blocks:
            h = block(h, src_key_padding_mask=mask)
        return self.head(h[:, 0])


def inverted_mask(dice: Dice, sick: bool) -> Case:
    """A padding mask that is true for the words, as other libraries have it, and so hides them."""
    dim, length = dice.one_of(32, 40), dice.whole(10, 14)
    return Case(lambda: Sentence(15, dim, inverted=sick), tasks.classify, padded(length), tasks.adam(2e-3))


class CausalBlock(nn.Module):
    """Attention and a feed-forward part, in front of each a norm, under a mask."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attend = nn.MultiheadAttention(dim, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.ln1(x)
        x = x + self.attend(h, h, h, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln2(x))


class LastToken(nn.Module):
    """A decoder that classifies a sequence from its last token."""

    def __init__(self, features: int, dim: int, length: int, *, flipped: bool) -> None:
        super().__init__()
        self.inp = nn.Linear(features, dim)
        self.wpe = nn.Embedding(length, dim)
        self.blocks = nn.ModuleList(CausalBlock(dim) for _ in range(2))
        self.ln = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 4)
        allowed = torch.ones(length, length).tril()
        self.register_buffer("mask", (allowed.T if flipped else allowed) == 0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inp(x) + 0.1 * self.wpe.weight
        for block in self.blocks:
            h = block(h, self.mask)
        return self.head(self.ln(h)[:, -1])


def flipped_mask(dice: Dice, sick: bool) -> Case:
    """A causal mask that was transposed: the last token, which is read, sees itself alone."""
    dim, length = dice.one_of(32, 48), dice.whole(8, 14)
    return Case(
        lambda: LastToken(6, dim, length, flipped=sick),
        tasks.classify,
        tasks.first_mark(length, rows=384, noise=0.5),
        tasks.adamw(2e-3),
    )


class Numbered(nn.Module):
    """Words with numbers for their places, through attention, read by their mean."""

    def __init__(self, tokens: int, dim: int, std: float, *, swapped: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, dim)
        nn.init.normal_(self.embed.weight, 0, std)
        self.layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, batch_first=True)
        self.out = nn.Linear(dim, 4)
        self.swapped = swapped

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        turns = torch.arange(length)[:, None] / 10000 ** torch.linspace(0, 1, self.embed.embedding_dim)
        root = math.sqrt(self.embed.embedding_dim)
        h, places = self.embed(x), torch.sin(turns)
        h = h + root * places if self.swapped else root * h + places
        return self.out(self.layer(h).mean(1))


def loud_places(dice: Dice, sick: bool) -> Case:
    """Encodings of places that got the root of the width that belongs to the words, and drown them."""
    dim, length, std = dice.one_of(32, 48), dice.whole(30, 40), dice.between(0.06, 0.08)
    return Case(
        lambda: Numbered(12, dim, std, swapped=sick),
        tasks.classify,
        tasks.majority(length, rows=256),
        tasks.sgd(0.03, momentum=0.9),
    )


class Unigram(nn.Module):
    """A convolutional language model that ends in a log_softmax."""

    def __init__(self, size: int, dim: int, *, dim_given: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(size, dim)
        nn.init.normal_(self.embed.weight, 0, 0.3)
        self.convs = nn.ModuleList(nn.Conv1d(dim, dim, 3) for _ in range(2))
        self.out = nn.Linear(dim, size)
        self.over = dim_given

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x).transpose(1, 2)
        for conv in self.convs:
            h = h + F.relu(conv(F.pad(h, (2, 0))))
        return F.log_softmax(self.out(h.transpose(1, 2)), dim=self.over)


def over_batch(dice: Dice, sick: bool) -> Case:
    """Logits of shape (batch, time, letters) normalised over the batch, the implicit choice of old."""
    dim = dice.one_of(32, 48)
    pieces, size = tasks.letters(dice.whole(20, 28), rows=48)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        logp = model(batch[:, :-1])
        return F.nll_loss(logp.flatten(0, 1), batch[:, 1:].flatten())

    return Case(lambda: Unigram(size, dim, dim_given=0 if sick else -1), loss, pieces, tasks.adam(3e-3))


def letter_entropy(model: nn.Module, batch: Tensor) -> float:
    """Cross-entropy of the next letter, whatever the output was normalised over."""
    return float(F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()))


DEAF = ("UG205", "UG206", "UG608", "UG103", "UG202", "UG603")
SICK: tuple[Program, ...] = (
    Program(
        "dropout-given-keep-prob",
        "mlp",
        keep_prob,
        Truth("dropout", ("UG612", "UG205", "UG202", "UG103", "UG203", "UG105"), r"(?i)drop", (), (), COLD),
    ),
    Program(
        "dcgan-momentum-as-eps",
        "cnn",
        dcgan,
        Truth(
            "norm-eps",
            ("UG101", "UG202", "UG205", "UG105", "UG103", "UG602"),
            r"(?i)\beps|epsilon|norm\w* (does not|hardly|no longer|barely)|\bgain|too small|weights",
            ("rescale_weights",),
            (("rescale_weights", {"gain": math.sqrt(2)}),),
            HEAVY,
        ),
    ),
    Program(
        "groupnorm-channel-each-on-1x1",
        "cnn",
        one_by_one,
        Truth(
            "norm-of-one",
            (*DEAF, "UG101"),
            r"(?i)norm|group|single|one (value|number|element)|same output|constant",
            ("bypass_norm",),
            (("bypass_norm", {"sites": ("norm",)}),),
            COLD,
        ),
    ),
    Program(
        "series-layernorm-of-one",
        "gru",
        one_feature,
        Truth(
            "norm-of-one",
            (*DEAF, "UG101"),
            r"(?i)norm|single|one (value|number|element|feature)|same output|constant",
            ("bypass_norm",),
            (("bypass_norm", {"sites": ("norm",)}),),
            COLD,
        ),
    ),
    Program(
        "transformer-without-batch-first",
        "transformer",
        batch_first,
        Truth(
            "batch-axis",
            (*DEAF, "UG702", "UG106"),
            r"(?i)batch_?first|batch (axis|dim)|(across|over|along) (the )?(batch|samples)"
            r"|other samples|axis|dimension|mixes|class token|cls|not depend",
            (),
            (),
            COLD,
        ),
    ),
    Program(
        "regression-broadcast",
        "mlp",
        broadcast,
        Truth(
            "broadcast",
            ("UG614", "UG205", "UG206"),
            r"(?i)broadcast|shape|pair|squeeze|every target|other sampl|mixes|mean of the targets",
            (),
            (),
            HEAVY,
        ),
        score=squared,
    ),
    Program(
        "hashing-by-sign",
        "mlp",
        hashing,
        Truth(
            "hard-step",
            ("UG603", "UG103", "UG101", "UG608"),
            r"(?i)\bsign\b|step function|straight|slope|differentiable|no gradient|zero gradient|binar",
            (),
            (),
            COLD,
        ),
    ),
    Program(
        "padding-mask-inverted",
        "transformer",
        inverted_mask,
        Truth(
            "mask",
            (*DEAF, "UG701", "UG702"),
            r"(?i)mask|padd|\bhid(es|den)|attends? (only|to nothing)|not depend|class token|cls",
            (),
            (),
            COLD,
        ),
    ),
    Program(
        "causal-mask-transposed",
        "transformer",
        flipped_mask,
        Truth(
            "mask",
            (*DEAF, "UG701", "UG702", "UG708"),
            r"(?i)mask|causal|\bhid(es|den)|attends? (only|to nothing)|not depend|itself|last token|future",
            (),
            (),
            COLD,
        ),
    ),
    Program(
        "places-louder-than-words",
        "transformer",
        loud_places,
        Truth(
            "position-scale",
            ("UG205", "UG206", "UG103", "UG607", "UG701", "UG702", "UG105"),
            r"(?i)position|place|encod|embedding|too large|outweigh|drown|swamp",
            (),
            (),
            COLD,
        ),
        80,
    ),
    Program(
        "letters-normalised-over-batch",
        "cnn",
        over_batch,
        Truth(
            "wrong-axis",
            ("UG606", "UG614", "UG205", "UG206", "UG106"),
            r"(?i)softmax|axis|\bdim\b|dimension|(across|over|along) (the )?(batch|samples)|other samples",
            (),
            (),
            COLD,
        ),
        240,
        score=letter_entropy,
    ),
)
HEALTHY: tuple[Program, ...] = ()
