"""Activations that are computed again: checkpoints that are asked for no gradient, and ones that are."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, classify, labelled, regress, seeded

# What needs a graph inside of the checkpoint.
GAPS = ("rms_gain", "sample_mixing")
Run = Callable[[nn.Module, Tensor], Tensor]


def reentrant(part: nn.Module, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad")
        return checkpoint(part, x, use_reentrant=True)  # pyright: ignore[reportReturnType]


def plain(part: nn.Module, x: Tensor) -> Tensor:
    return checkpoint(part, x, use_reentrant=False)  # pyright: ignore[reportReturnType]


def asked(part: nn.Module, x: Tensor) -> Tensor:
    """A re-entrant checkpoint whose input is made to require a gradient."""
    return reentrant(part, x if x.requires_grad else x.detach().requires_grad_())


class Residual(nn.Module):
    """A norm and two layers beside a skip path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class Thrifty(nn.Module):
    """A trunk under one checkpoint behind a stem that is not, and a head."""

    def __init__(self, stem: nn.Module, trunk: nn.Module, head: nn.Module, run: Run) -> None:
        super().__init__()
        self.stem, self.trunk, self.head, self.run = stem, trunk, head, run

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run(self.trunk, self.stem(x)))


class Blocks(nn.Module):
    """Blocks under a checkpoint each."""

    def __init__(self, blocks: nn.Module, run: Run) -> None:
        super().__init__()
        self.blocks, self.run = blocks, run

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks.children():
            x = self.run(block, x)
        return x


class Convolution(nn.Sequential):
    """A convolution with its norm."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__(nn.Conv2d(inp, out, 3, padding=1), nn.GroupNorm(4, out), nn.ReLU())


def mlp(run: Run, width: int = 16, depth: int = 3, stem: nn.Module | None = None) -> Case:
    """A residual network over columns, whose stem is trunk's unless one stands before it."""
    blocks = [Residual(width) for _ in range(depth)]
    trunk = nn.Sequential(nn.Linear(6, width), *blocks) if stem is None else nn.Sequential(*blocks)
    head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
    x = torch.randn(64, 6)
    return Case(Thrifty(stem or nn.Identity(), trunk, head, run), regress, [(x, torch.sin(2 * x[:, :1]))])


def pictures(run: Run, planes: int = 8, depth: int = 3) -> Case:
    """A convolutional network over pictures, all of it but the head under a checkpoint each."""
    body = nn.Sequential(Convolution(1, planes), *(Convolution(planes, planes) for _ in range(depth)))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(planes, 4))
    return Case(nn.Sequential(Blocks(body, run), head), classify, labelled(32, 1, 8, 8, classes=4))


def words(run: Run, width: int = 16, depth: int = 2, *, frozen: bool = True) -> Case:
    """A transformer over words under a checkpoint, behind a table that is frozen."""
    table = nn.Embedding(24, width).requires_grad_(not frozen)
    layers = [
        nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
        for _ in range(depth)
    ]
    head = nn.Sequential(nn.LayerNorm(width), nn.Flatten(), nn.Linear(8 * width, 4))
    x, y = torch.randint(24, (32, 8)), torch.randint(4, (32,))
    return Case(Thrifty(table, nn.Sequential(*layers), head, run), classify, [(x, y)])


class Watched(nn.Module):
    """A network beside a teacher that runs without a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(6, 1), nn.Linear(6, 1).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            told = self.teacher(x)
        return self.student(x) + 0.1 * told


def sick() -> list[Patient]:
    """Return trunks under a re-entrant checkpoint that is handed nothing which requires a gradient."""
    build: dict[str, tuple[str, Callable[[], Case]]] = {
        "data": ("mlp", lambda: mlp(reentrant)),
        "pictures": ("cnn", lambda: pictures(reentrant)),
        "behind-frozen-table": ("transformer", lambda: words(reentrant)),
        "behind-frozen-stem": (
            "mlp",
            lambda: mlp(reentrant, stem=nn.Linear(6, 16).requires_grad_(False)),
        ),
    }
    return [
        Patient(f"checkpoint-not-asked-{name}", family, seeded(make), ("UG603",), gaps=GAPS)
        for name, (family, make) in build.items()
    ]


def healthy() -> list[Patient]:
    """Return checkpoints that pass the gradient, and what runs without a graph on purpose."""
    build: dict[str, tuple[str, Callable[[], Case]]] = {
        "plain": ("mlp", lambda: mlp(plain)),
        "asked": ("mlp", lambda: mlp(asked)),
        "behind-stem": ("mlp", lambda: mlp(reentrant, stem=nn.Linear(6, 16))),
        "pictures-plain": ("cnn", lambda: pictures(plain)),
        "behind-table": ("transformer", lambda: words(reentrant, frozen=False)),
        "plain-behind-frozen-table": ("transformer", lambda: words(plain)),
    }
    found = [
        Patient(f"checkpoint-{name}", family, seeded(make), near=("UG603",), gaps=GAPS)
        for name, (family, make) in build.items()
    ]
    data = [(torch.randn(64, 6), torch.randn(64, 1))]
    teacher = seeded(lambda: Case(Watched(), regress, data))
    return [*found, Patient("teacher-without-a-graph", "mlp", teacher, near=("UG603",))]


def cut_off(dice: Dice) -> Case:
    """Return a trunk that gets no gradient from its checkpoint."""
    make = dice.one_of(mlp, pictures, words)
    return make(reentrant, dice.one_of(8, 16, 24), dice.whole(2, 4))


def passed_on(dice: Dice) -> Case:
    """Return one that gets it."""
    make = dice.one_of(mlp, pictures, words)
    return make(dice.one_of(plain, asked), dice.one_of(8, 16, 24), dice.whole(2, 4))


DRAWS = (
    Draw("checkpoint-not-asked", "mlp", cut_off, ("UG603",), gaps=GAPS),
    Draw("checkpoint-asked", "mlp", passed_on, near=("UG603",), gaps=GAPS),
)
