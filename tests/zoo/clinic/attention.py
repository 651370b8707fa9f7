"""Transformers that do not train."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
POST = ("UG101", "UG102", "UG201", "UG205", "UG103", "UG104")


class Encoded(nn.Module):
    """nn.TransformerEncoder between an embedding and a head on the mean."""

    def __init__(self, width: int, depth: int, *, first: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, width)
        self.position = nn.Parameter(0.1 * torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=first)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.decoder = nn.Linear(width, 4)
        for parameter in self.encoder.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position[: tokens.shape[1]]
        return self.decoder(self.norm(self.encoder(x)).mean(1))


def post(dice: Dice, sick: bool) -> Case:
    """Post-LN with torch's own encoder, deep, at Adam's usual rate and no warm-up."""
    depth, width = dice.whole(24, 28), dice.one_of(16, 24)

    def build() -> nn.Module:
        return Encoded(width, depth, first=not sick)

    return Case(build, tasks.classify, tasks.majority(8, rows=32), tasks.adam(3e-3))


class Attention(nn.Module):
    """Attention as one writes it oneself."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = scale
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.normal_(layer.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.query(x) @ self.key(x).transpose(-2, -1) * self.scale, dim=-1)
        return self.out(weights @ self.value(x))


class BertLayer(nn.Module):
    """A block that adds and then normalises."""

    def __init__(self, width: int, *, post: bool, share: float = 1.0) -> None:
        super().__init__()
        self.attention = Attention(width, width**-0.5)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.intermediate, self.output = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.post = post
        nn.init.kaiming_normal_(self.intermediate.weight)
        nn.init.normal_(self.output.weight, std=width**-0.5)
        for layer in (self.attention.out, self.output):
            layer.weight.data.mul_(share)

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            x = self.norm1(x + self.attention(x))
            return self.norm2(x + self.output(F.gelu(self.intermediate(x))))
        x = x + self.attention(self.norm1(x))
        return x + self.output(F.gelu(self.intermediate(self.norm2(x))))


class Bert(nn.Module):
    """Such blocks over embedded tokens."""

    def __init__(self, width: int, depth: int, *, post: bool) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(12, width)
        share = 1.0 if post else (2 * depth) ** -0.5
        self.layers = nn.ModuleList([BertLayer(width, post=post, share=share) for _ in range(depth)])
        self.pooler, self.classifier = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embeddings(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.classifier(self.pooler(x).mean(1))


def bert(dice: Dice, sick: bool) -> Case:
    """Post-LN written by hand, two dozen blocks and more."""
    depth, width = dice.whole(26, 32), dice.one_of(24, 32)
    model = Bert(width, depth, post=sick)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return Case(model, tasks.classify, tasks.majority(8, rows=32), optimizer)


class Counter(nn.Module):
    """Layers of attention alone around a residual stream: the answer is a mean over many tokens."""

    def __init__(self, width: int, depth: int, scale: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, width)
        self.attend = nn.ModuleList([Attention(width, scale) for _ in range(depth)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(depth)])
        self.head = nn.Linear(width, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for attend, norm in zip(self.attend, self.norms, strict=True):
            x = x + attend(norm(x))
        return self.head(x[:, 0])


def unscaled(dice: Dice, sick: bool) -> Case:
    """Dot products of long vectors without the division by the root of their length."""
    width = dice.one_of(256, 320)
    model = Counter(width, 2, 1.0 if sick else width**-0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return Case(model, tasks.classify, tasks.majority(32, rows=96), optimizer)


def wrong_way(dice: Dice, sick: bool) -> Case:
    """The root of the length multiplied, where it should divide."""
    width = dice.one_of(48, 64, 96)

    def build() -> nn.Module:
        return Counter(width, 2, math.sqrt(width) if sick else 1 / math.sqrt(width))

    return Case(build, tasks.classify, tasks.majority(24, rows=64), tasks.sgd(0.02, momentum=0.9))


def rooted(case: Case) -> float:
    """Return what brings the logits of a Counter back to unit size."""
    attention: Attention = case.model.attend[0]  # type: ignore[index, union-attr, assignment]
    return attention.query.in_features**-0.5 / attention.scale


class Gpt(nn.Module):
    """A small causal language model, Pre-LN."""

    def __init__(self, size: int, width: int, depth: int, spread: float = 0.02) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(size, width), nn.Embedding(64, width)
        self.h = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, size, bias=False)
        self.lm_head.weight = self.wte.weight
        nn.init.normal_(self.wte.weight, std=spread)
        nn.init.normal_(self.wpe.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.wte(tokens) + self.wpe(torch.arange(length))
        mask = torch.full((length, length), -torch.inf).triu(1)
        for block in self.h:
            x = block(x, src_mask=mask, is_causal=True)
        return self.lm_head(self.ln_f(x))


def tied(dice: Dice, sick: bool) -> Case:
    """An embedding of nn.Embedding's own size, tied to the head."""
    width = dice.one_of(96, 128)
    data, size = tasks.letters(24)
    model = Gpt(size, width, 2, 1.0 if sick else 0.02)
    return Case(model, tasks.next_letter, data, torch.optim.AdamW(model.parameters(), lr=3e-4))


SICK = (
    Program(
        "postln-torch-encoder",
        "transformer",
        post,
        Truth("post-ln", POST, r"norm", ("pre_norm",), (("pre_norm", {}),), HEAVY),
        80,
    ),
    Program(
        "postln-bert-by-hand",
        "transformer",
        bert,
        Truth("post-ln", POST, r"norm", ("pre_norm",), (("pre_norm", {}),), HEAVY),
        80,
    ),
    Program(
        "attention-without-root",
        "transformer",
        unscaled,
        Truth(
            "attention-scale",
            ("UG701",),
            r"scale|sqrt|query|1/",
            ("restore_logit_scale", "calm_attention"),
            (("restore_logit_scale", {}),),
            (("clip_gradients", {"threshold": 1.0}),),
        ),
        15,
    ),
    Program(
        "attention-root-wrong-way",
        "transformer",
        wrong_way,
        Truth(
            "attention-scale",
            ("UG701",),
            r"scale|sqrt|query|1/",
            ("restore_logit_scale", "calm_attention"),
            (("restore_logit_scale", {}), ("clip_gradients", {"threshold": 1.0})),
            (("clip_gradients", {"threshold": 1.0}),),
        ),
        100,
    ),
    Program(
        "gpt-tied-to-unit-embedding",
        "transformer",
        tied,
        Truth(
            "head",
            ("UG605",),
            r"^head:|embedding",
            ("scale_head",),
            (("scale_head", {"factor": 0.02}),),
        ),
        100,
    ),
)
