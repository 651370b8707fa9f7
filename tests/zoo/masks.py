"""Attention under masks: ones that hide the past by mistake, and ones that hide what they should."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, seeded

LENGTH, VOCAB = 10, 16
# What the last token says cannot depend on the others, and what it says is all that is read.
ALSO = ("UG205", "UG206", "UG603", "UG103", "UG101")
Shown = Callable[[int], Tensor]


def causal(n: int) -> Tensor:
    """Where a token may look: at itself and before."""
    return torch.ones(n, n).tril().bool()


def transposed(n: int) -> Tensor:
    """The same with the axes exchanged."""
    return causal(n).T


def alone(n: int) -> Tensor:
    """Each token at itself."""
    return torch.eye(n).bool()


def everything(n: int) -> Tensor:
    """Every token at every other."""
    return torch.ones(n, n).bool()


def window(n: int) -> Tensor:
    """The nearest tokens on both sides."""
    return torch.ones(n, n).triu(-2).tril(2).bool()


def prefix(n: int) -> Tensor:
    """A causal mask with a prefix that all tokens see."""
    shown = causal(n)
    shown[:, : n // 3] = True
    return shown


class ByHand(nn.Module):
    """Attention written out, with a fill for what is hidden."""

    def __init__(self, width: int, shown: Shown, fill: float = -math.inf) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.shown, self.fill = shown, fill

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = (q @ k.transpose(1, 2) / math.sqrt(x.shape[-1])).masked_fill(
            ~self.shown(x.shape[1]), self.fill
        )
        return self.out(scores.softmax(-1) @ v)


class Fused(nn.Module):
    """Attention by `scaled_dot_product_attention` with four heads."""

    def __init__(self, width: int, shown: Shown) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.shown = shown

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.shown(x.shape[1]))
        return self.out(mixed.transpose(1, 2).flatten(2))


class Standard(nn.Module):
    """`nn.MultiheadAttention`, which leaves out where its mask is True."""

    def __init__(self, width: int, shown: Shown) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.shown = shown

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, attn_mask=~self.shown(x.shape[1]), need_weights=False)[0]


class BothWays(nn.Module):
    """One attention that looks back and one that looks ahead."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.back, self.ahead = ByHand(width, causal), ByHand(width, transposed)

    def forward(self, x: Tensor) -> Tensor:
        return self.back(x) + self.ahead(x)


class Decoder(nn.Module):
    """A Pre-LN decoder over words that is read at every token."""

    def __init__(self, attend: Callable[[int], nn.Module], width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.embedding, self.place = nn.Embedding(VOCAB, width), nn.Parameter(0.1 * torch.randn(64, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.attends = nn.ModuleList(attend(width) for _ in range(depth))
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, VOCAB))

    def forward(self, text: Tensor) -> Tensor:
        x = self.embedding(text) + self.place[: text.shape[1]]
        for index, (attend, net) in enumerate(zip(self.attends, self.nets, strict=True)):
            x = x + attend(self.norms[2 * index](x))
            x = x + net(self.norms[2 * index + 1](x))
        return self.head(x)


class Stack(nn.Module):
    """A stack of `nn.TransformerEncoder` under a mask, read at every token."""

    def __init__(self, shown: Shown, width: int = 32) -> None:
        super().__init__()
        self.embedding, self.place = nn.Embedding(VOCAB, width), nn.Embedding(LENGTH, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCAB)
        self.shown = shown

    def forward(self, text: Tensor) -> Tensor:
        x = self.embedding(text) + self.place.weight
        return self.head(self.encoder(x, mask=~self.shown(text.shape[1])))


def echo(length: int = LENGTH, rows: int = 32) -> list[tuple[Tensor, Tensor]]:
    """Words, and at each place the word that came before."""
    words = torch.randint(VOCAB, (rows, length))
    return [(words, words.roll(1, 1))]


def said(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy at every token."""
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def case(attend: Callable[[int], nn.Module], width: int = 32, depth: int = 2, length: int = LENGTH) -> Case:
    """Return the training of a decoder."""
    return Case(Decoder(attend, width, depth), said, echo(length))


def sick() -> list[Patient]:
    """Return decoders that cannot see what came before."""
    build: dict[str, Callable[[int], nn.Module]] = {
        "by-hand": lambda width: ByHand(width, transposed),
        "by-hand-filled": lambda width: ByHand(width, transposed, -1e9),
        "fused": lambda width: Fused(width, transposed),
        "standard": lambda width: Standard(width, transposed),
        "alone": lambda width: Fused(width, alone),
    }
    stack = seeded(lambda: Case(Stack(transposed), said, echo()))
    return [
        Patient("past-hidden-stack", "transformer", stack, ("UG708",), ALSO),
        *(
            Patient(
                f"past-hidden-{name}", "transformer", seeded(lambda make=make: case(make)), ("UG708",), ALSO
            )
            for name, make in build.items()
        ),
    ]


def healthy() -> list[Patient]:
    """Return decoders and encoders whose masks are as they should be."""
    build: dict[str, Callable[[int], nn.Module]] = {
        "causal": lambda width: ByHand(width, causal),
        "causal-fused": lambda width: Fused(width, causal),
        "causal-standard": lambda width: Standard(width, causal),
        "everything": lambda width: Fused(width, everything),
        "window": lambda width: ByHand(width, window, -1e4),
        "prefix": lambda width: Standard(width, prefix),
        "both-ways": BothWays,
    }
    found = [
        Patient(f"past-shown-{name}", "transformer", seeded(lambda make=make: case(make)), near=("UG708",))
        for name, make in build.items()
    ]
    few = seeded(lambda: case(lambda width: Fused(width, transposed), length=3))
    stack = seeded(lambda: Case(Stack(causal), said, echo()))
    found.append(Patient("past-shown-stack", "transformer", stack, near=("UG708",)))
    return [*found, Patient("past-of-three-tokens", "transformer", few, near=("UG708",))]


def hidden(dice: Dice) -> Case:
    """Return a decoder that cannot see what came before."""
    attend = dice.one_of(ByHand, Fused, Standard)
    shown = dice.one_of(transposed, transposed, alone)
    return case(
        lambda width: attend(width, shown), dice.one_of(16, 32, 48), dice.whole(1, 3), dice.whole(4, 20)
    )


def shown(dice: Dice) -> Case:
    """Return one that can."""
    attend = dice.one_of(ByHand, Fused, Standard)
    mask = dice.one_of(causal, everything, window, prefix)
    return case(
        lambda width: attend(width, mask), dice.one_of(16, 32, 48), dice.whole(1, 3), dice.whole(4, 20)
    )


DRAWS = (
    Draw("past-hidden", "transformer", hidden, ("UG708",), ALSO),
    Draw("past-shown", "transformer", shown, near=("UG708",)),
)
