"""Attention whose softmax runs over the keys, or over something else by mistake or on purpose."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo import sound
from zoo.dice import Dice, Draw
from zoo.masks import LENGTH, Decoder, causal, echo, said
from zoo.patient import Patient, classify, seeded

Attend = Callable[[int], nn.Module]
ROWS = 24


class ByHand(nn.Module):
    """Attention of one head written out, under a causal mask if asked."""

    def __init__(self, width: int, dim: int, *, masked: bool = False) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dim, self.masked = dim, masked

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = q @ k.transpose(1, 2) / math.sqrt(x.shape[-1])
        if self.masked:
            scores = scores.masked_fill(~causal(x.shape[1]), -1e9)
        return self.out(scores.softmax(self.dim) @ v)


class Heads(nn.Module):
    """Four heads by einsum, with dropout on the weights."""

    def __init__(self, width: int, dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.dim, self.drop = dim, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (4, -1)) for part in (self.q, self.k, self.v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        return self.out(torch.einsum("bhqk,bkhd->bqhd", self.drop(scores.softmax(self.dim)), v).flatten(2))


class KeysFirst(nn.Module):
    """Scores with the keys in rows, over which the softmax runs, and values that are channels first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.k(x) @ self.q(x).mT / x.shape[-1] ** 0.5).softmax(1)
        return (self.v(x).mT @ weights).mT


class Slots(nn.Module):
    """As many slots as tokens, which compete for these and then take a weighted mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.q(x) @ self.k(x).mT / x.shape[-1] ** 0.5).softmax(1) + 1e-8
        return weights / weights.sum(-1, keepdim=True) @ self.v(x)


class Efficient(nn.Module):
    """A softmax of the queries over their numbers and of the keys over the tokens, and two products."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.q(x).softmax(-1) @ (self.k(x).softmax(1).mT @ self.v(x))


class SoftExperts(nn.Module):
    """A soft mixture: slots take a mean of the tokens, tokens a mean of what the slots make of it."""

    def __init__(self, width: int, slots: int = LENGTH) -> None:
        super().__init__()
        self.slots, self.net = nn.Parameter(torch.randn(slots, width)), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        scores = F.normalize(x, dim=-1) @ F.normalize(self.slots, dim=-1).mT
        made = self.net(scores.softmax(1).mT @ x)
        return scores.softmax(2) @ made


class Painted(nn.Module):
    """Convolutions with attention between all places, as in SAGAN."""

    def __init__(self, *, turned: bool, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.q, self.k, self.v = nn.Conv2d(width, 8, 1), nn.Conv2d(width, 8, 1), nn.Conv2d(width, width, 1)
        self.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 4))
        self.turned = turned

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = (part(x).flatten(2) for part in (self.q, self.k, self.v))
        weights = torch.bmm(q.permute(0, 2, 1), k).softmax(-1)
        mixed = torch.bmm(v, weights.permute(0, 2, 1) if self.turned else weights)
        return self.head(x + mixed.view_as(x))


class Pooled(nn.Module):
    """Nodes that are put into as many clusters as there are nodes, and read there."""

    def __init__(self, nodes: int = 8, width: int = 16) -> None:
        super().__init__()
        self.inner, self.choose = nn.Linear(sound.FEATURES, width), nn.Linear(width, nodes)
        self.head = nn.Linear(width, sound.CLASSES)
        self.links: Tensor
        self.register_buffer("links", torch.rand(nodes, nodes))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.links @ self.inner(x) / len(self.links))
        clusters = (self.links @ self.choose(h)).softmax(-1)
        return self.head((clusters.mT @ h).mean(1))


def words(attend: Attend, width: int = 32, depth: int = 2, length: int = LENGTH) -> Case:
    """Return the training of a decoder."""
    return Case(Decoder(attend, width, depth), said, echo(length))


def pictures(*, turned: bool) -> Case:
    """Return the training of convolutions with attention."""
    return Case(Painted(turned=turned), classify, [(torch.randn(ROWS, 1, 8, 8), torch.randint(4, (ROWS,)))])


def nodes() -> Case:
    """Return the training of pooled nodes."""
    batch = (torch.randn(ROWS, 8, sound.FEATURES), torch.randint(sound.CLASSES, (ROWS,)))
    return Case(Pooled(), classify, [batch])


def sick() -> list[Patient]:
    """Return attention that is no mean of the values."""
    build: dict[str, Callable[[], Case]] = {
        "over-queries": lambda: words(lambda width: ByHand(width, 1)),
        "over-queries-masked": lambda: words(lambda width: ByHand(width, -2, masked=True)),
        "over-queries-of-heads": lambda: words(lambda width: Heads(width, -2)),
        "over-heads": lambda: words(lambda width: Heads(width, 1)),
        "map-not-turned": lambda: pictures(turned=False),
    }
    return [
        Patient(f"attention-{name}", "transformer", seeded(make), ("UG709",)) for name, make in build.items()
    ]


def healthy() -> list[Patient]:
    """Return attention over the keys, and softmaxes over something else that are meant."""
    build: dict[str, Callable[[], Case]] = {
        "over-keys": lambda: words(lambda width: ByHand(width, -1, masked=True)),
        "over-keys-of-heads": lambda: words(lambda width: Heads(width, 3)),
        "keys-first": lambda: words(KeysFirst),
        "slots": lambda: words(Slots),
        "efficient": lambda: words(Efficient),
        "soft-experts": lambda: words(SoftExperts),
        "map-turned": lambda: pictures(turned=True),
        "clusters": nodes,
    }
    return [
        Patient(f"attention-{name}", "transformer", seeded(make), near=("UG709",))
        for name, make in build.items()
    ]


def drawn(*dims: int) -> Callable[[Dice], Case]:
    """Return what builds attention whose softmax runs over one of these dimensions, from the last."""

    def make(dice: Dice) -> Case:
        dim, width = dice.one_of(*dims), dice.one_of(16, 32, 48)
        attend = dice.one_of(ByHand, Heads) if dim > -3 else Heads
        return words(lambda size: attend(size, dim), width, dice.whole(1, 3), dice.whole(5, 16))

    return make


DRAWS = (
    Draw("attention-over-queries", "transformer", drawn(-2, -2, -3), ("UG709",)),
    Draw("attention-over-keys", "transformer", drawn(-1), near=("UG709",)),
)
