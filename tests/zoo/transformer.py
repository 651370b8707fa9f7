"""Transformers: LayerNorm before or after the branch, written by hand and from torch."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.mlp import trained
from zoo.patient import Patient, classify, seeded

TOKENS = 27
Norm = Callable[[int], nn.Module]


class Attention(nn.Module):
    """Causal or full attention; `scale` multiplies the scores, 1/sqrt(width of a head) where left out."""

    def __init__(self, width: int, heads: int, *, causal: bool, scale: float | None) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.scale = scale if scale is not None else (width // heads) ** -0.5
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = (batch, length, self.heads, width // self.heads)
        q, k, v = (part(x).reshape(split).transpose(1, 2) for part in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) * self.scale
        if self.causal:
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
        mixed = torch.softmax(scores, -1) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attention and a two-layer perceptron, LayerNorm first (Pre-LN) or last (Post-LN)."""

    def __init__(
        self, width: int, heads: int, *, first: bool, causal: bool, scale: float | None, norm: Norm
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, causal=causal, scale=scale)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm1, self.norm2 = norm(width), norm(width)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = x + self.attention(self.norm1(x))
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.mlp(x))


class Transformer(nn.Module):
    """Embeddings, blocks, a final LayerNorm, and scores of the next token."""

    def __init__(
        self,
        depth: int,
        width: int = 32,
        heads: int = 4,
        *,
        first: bool,
        causal: bool = True,
        scale: float | None = None,
        norm: Norm = nn.LayerNorm,
        xavier: bool = False,
    ) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(TOKENS, width), nn.Embedding(64, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, first=first, causal=causal, scale=scale, norm=norm) for _ in range(depth)
        )
        self.norm = norm(width)
        self.head = nn.Linear(width, TOKENS)
        if xavier:
            for module in self.blocks.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


class Encoder(nn.Module):
    """torch's own encoder between embeddings and a head on the mean of the tokens."""

    def __init__(self, depth: int, *, first: bool, width: int = 32) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True, norm_first=first)
        self.encoder = nn.TransformerEncoder(
            layer, depth, nn.LayerNorm(width) if first else None, enable_nested_tensor=False
        )
        for part in self.encoder.layers:
            for parameter in part.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)
        self.head = nn.Linear(width, TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.tokens(x)))


def next_token(model: nn.Module, batch: Tensor) -> Tensor:
    """Cross-entropy of each next token."""
    return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def case(model: nn.Module, *, length: int = 32, batch: int = 4) -> Case:
    """Return the prediction of tokens drawn with unequal chances."""
    chances = 1 / torch.arange(1.0, TOKENS + 1)
    tokens = torch.multinomial(chances.expand(batch, -1), length + 1, replacement=True)
    return Case(model, next_token, [tokens], lambda p: torch.optim.AdamW(p, 3e-4))


class Memory(nn.Module):
    """Learned queries read a set of points: cross-attention on inputs as they come."""

    def __init__(self, features: int = 16) -> None:
        super().__init__()
        self.questions = nn.Parameter(torch.randn(6, features))
        self.attention = nn.MultiheadAttention(features, 2, batch_first=True)
        self.head = nn.Linear(features, 4)

    def forward(self, x: Tensor) -> Tensor:
        questions = self.questions.expand(len(x), -1, -1)
        return self.head(self.attention(questions, x, x, need_weights=False)[0].mean(1))


def read(scale: float) -> Case:
    """Return the classification of sets of points of the given scale."""
    batch = (scale * torch.randn(8, 20, 16), torch.randint(4, (8,)))
    return Case(Memory(), classify, [batch])


def dead_units(model: nn.Module, alive: int = 6) -> nn.Module:
    """Push the biases in front of one block's ReLU far below zero, but for `alive` units."""
    bias = model.encoder.layers[1].linear1.bias  # type: ignore[union-attr, index]
    with torch.no_grad():
        bias[alive:].fill_(-30.0)  # type: ignore[index]
    return model


def loud(model: nn.Module, factor: float) -> nn.Module:
    """Multiply the query and key weights of every block."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "query.weight" in name or "key.weight" in name:
                parameter.mul_(factor)
            elif "in_proj_weight" in name:
                parameter[: 2 * parameter.shape[1]].mul_(factor)
    return model


def sick() -> list[Patient]:
    """Return the sick transformers."""
    logits = ("UG701", "UG702"), ("UG102", "UG605", "UG607")
    build: dict[str, tuple[Callable[[], Case], tuple[tuple[str, ...], tuple[str, ...]]]] = {
        "post-norm-24": (lambda: case(Transformer(24, first=False, xavier=True)), (("UG205",), ())),
        "post-norm-torch-24": (lambda: case(Encoder(24, first=False)), (("UG205",), ())),
        "loud-attention": (lambda: case(loud(Transformer(4, first=True), 12.0)), logits),
        "loud-attention-torch": (lambda: case(loud(Encoder(4, first=True), 20.0)), (("UG701",), ("UG102",))),
        "loud-inputs": (lambda: read(200.0), logits),
        "dead-branch-torch": (lambda: case(dead_units(Encoder(4, first=True), 0)), (("UG206",), ("UG603",))),
        "dead-units-torch": (lambda: case(dead_units(Encoder(4, first=True))), (("UG203",), ())),
        "unscaled-attention": (
            lambda: case(loud(Transformer(3, 64, 1, first=True, scale=1.0, norm=nn.RMSNorm), 4.0), length=48),
            logits,
        ),
    }
    return [
        Patient(f"transformer-{k}", "transformer", seeded(make), *codes) for k, (make, codes) in build.items()
    ]


def healthy() -> list[Patient]:
    """Return transformers that train."""
    build: dict[str, Callable[[], Case]] = {
        "pre-norm-12": lambda: case(Transformer(12, first=True)),
        "pre-norm-24-xavier": lambda: case(Transformer(24, first=True, xavier=True)),
        "pre-norm-full": lambda: case(Transformer(6, first=True, causal=False)),
        "pre-norm-torch-12": lambda: case(Encoder(12, first=True)),
        "reads-points": lambda: read(1.0),
        "pre-norm-4-trained": lambda: trained(case(Transformer(4, first=True))),
        "post-norm-3": lambda: case(Transformer(3, first=False)),
        "post-norm-torch-4": lambda: case(Encoder(4, first=False)),
    }
    return [Patient(f"transformer-{name}", "transformer", seeded(make)) for name, make in build.items()]
