"""Flows, which can be inverted by couplings, masks or reversible branches; and what only looks like one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.generative import flow
from zoo.mlp import trained
from zoo.patient import Patient, regress, seeded


class Additive(nn.Module):
    """A coupling that shifts one half by what a net makes of the other; the halves change places."""

    def __init__(self, features: int, width: int, spread: float) -> None:
        super().__init__()
        half = features // 2
        self.net = nn.Sequential(nn.Linear(half, width), nn.GELU(), nn.Linear(width, half))
        nn.init.normal_(self.net[0].weight, std=half**-0.5)  # type: ignore[arg-type]
        nn.init.normal_(self.net[2].weight, std=spread * width**-0.5)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        kept, moved = x.chunk(2, -1)
        return torch.cat([moved + self.net(kept), kept], -1)


class Reversible(nn.Module):
    """Two additive couplings of convolutions, as in a RevNet: no entry of its Jacobian need be zero."""

    def __init__(self, channels: int, spread: float) -> None:
        super().__init__()
        self.f, self.g = (self.branch(channels // 2, spread) for _ in range(2))

    @staticmethod
    def branch(channels: int, spread: float) -> nn.Module:
        first, last = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, channels, 3, padding=1)
        nn.init.kaiming_normal_(first.weight)
        nn.init.normal_(last.weight, std=spread * 72**-0.5)
        return nn.Sequential(first, nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        a = a + self.f(b)
        return torch.cat([a, b + self.g(a)], 1)


class Step(nn.Module):
    """An orthogonal map and an affine coupling whose scales have the mean 0: it keeps every volume."""

    def __init__(self, features: int, width: int, spread: float) -> None:
        super().__init__()
        self.mix = nn.Linear(features, features, bias=False)
        nn.init.orthogonal_(self.mix.weight)
        self.net = nn.Sequential(nn.Linear(features // 2, width), nn.ELU(), nn.Linear(width, features))
        nn.init.normal_(self.net[2].weight, std=spread * width**-0.5)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[2].bias)  # type: ignore[arg-type]

    def affine(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self.net(kept).chunk(2, -1)
        scale = scale / (1 + scale.abs())
        return (scale - scale.mean(-1, keepdim=True)).exp(), shift

    def forward(self, x: Tensor) -> Tensor:
        kept, moved = self.mix(x).chunk(2, -1)
        scale, shift = self.affine(kept)
        return torch.cat([kept, moved * scale + shift], -1)

    def inverse(self, y: Tensor) -> Tensor:
        kept, moved = y.chunk(2, -1)
        scale, shift = self.affine(kept)
        return torch.cat([kept, (moved - shift) / scale], -1) @ self.mix.weight


class Masked(nn.Module):
    """An autoregressive shift: every number is moved by what a masked layer makes of those before it."""

    def __init__(self, features: int, spread: float) -> None:
        super().__init__()
        self.layer = nn.Linear(features, features)
        nn.init.normal_(self.layer.weight, std=spread)
        self.act = nn.Softsign()
        self.register_buffer("mask", torch.ones(features, features).tril(-1))

    def forward(self, x: Tensor) -> Tensor:
        made = nn.functional.linear(x, self.layer.weight * self.mask, self.layer.bias)
        return (x + made * (1 + self.act(made).abs())).flip(-1)


class Shuffle(nn.Module):
    """Half of the features pass, the other half goes through a branch that cannot be inverted."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(features // 2, features // 2), nn.ReLU())
        nn.init.kaiming_normal_(self.branch[0].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        kept, moved = x.chunk(2, -1)
        return torch.cat([self.branch(moved), kept], -1)


class Triangular(nn.Module):
    """A flow without blocks: maps L U of bare parameters, with a scale, and its volume beside the result."""

    def __init__(self, size: int, spread: float, scale: float = 0.0, *, sign: float = 1.0) -> None:
        super().__init__()
        self.maps = nn.Parameter(spread * torch.randn(3, 2, size, size))
        self.log_scale = nn.Parameter(scale * torch.randn(size))
        self.sign = sign

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        eye = torch.eye(x.shape[1], dtype=x.dtype)
        for lower, upper in self.maps:
            x = x @ (eye + lower.tril(-1)) @ (eye + upper.triu(1))
        return x * self.log_scale.exp(), self.sign * self.log_scale.sum()


class Coupled(nn.Module):
    """Couplings whose nets are a list: what leaves one is not what enters the next."""

    def __init__(self, size: int, loud: float) -> None:
        super().__init__()
        half = size // 2
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(half, 24), nn.ReLU(), nn.Linear(24, half)) for _ in range(6)
        )
        for net in self.nets:
            nn.init.normal_(net[2].weight, std=loud)  # type: ignore[index, arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for net in self.nets:
            a, b = x.chunk(2, 1)
            x = torch.cat([b + net(a), a], 1)
        return x, x.new_zeros(len(x))


def stack(block: Callable[[], nn.Module], depth: int) -> nn.Module:
    """Return `depth` blocks in a row."""
    return nn.Sequential(*(block() for _ in range(depth)))


def energy(model: nn.Module, batch: Tensor) -> Tensor:
    """Return half the mean squared length of the output: the likelihood of a flow that keeps every volume."""
    return 0.5 * model(batch).flatten(1).square().sum(-1).mean()


def likelihood(model: nn.Module, x: Tensor) -> Tensor:
    """Return what a flow minimises that tells its volume."""
    made, volume = model(x)
    return (0.5 * made.square().sum(1) - volume).mean()


def case(block: Callable[[], nn.Module], depth: int, *shape: int) -> Case:
    """Return a flow of `depth` blocks on normal numbers of this shape."""
    return Case(stack(block, depth), energy, [torch.randn(shape)])


def thin_data() -> Case:
    """Return a flow that has learned data in a sheet of a twentieth of its width."""
    sheet = torch.randn(64, 3) @ torch.randn(3, 8) + 0.05 * torch.randn(64, 8)
    model = stack(lambda: Additive(8, 24, 0.3), 6)
    return trained(Case(model, energy, [sheet], lambda p: torch.optim.Adam(p, 3e-3)), 150)


def told(make: Callable[[], nn.Module], features: int) -> Case:
    """Return a flow that is seen as a whole on normal numbers."""
    return Case(make(), likelihood, [torch.randn(32, features)])


def sick() -> list[Patient]:
    """Return flows that stretch one direction and keep the volume."""
    build: dict[str, tuple[Callable[[], Case], tuple[str, ...]]] = {
        "additive-loud": (lambda: case(lambda: Additive(8, 24, 3.0), 10, 32, 8), ("UG102", "UG201")),
        "reversible-convolutions-loud": (
            lambda: case(lambda: Reversible(4, 3.0), 8, 8, 4, 3, 3),
            ("UG102", "UG201"),
        ),
        "affine-mixed-loud": (lambda: case(lambda: Step(12, 24, 4.0), 14, 32, 12), ("UG102", "UG201")),
        "autoregressive-loud": (lambda: case(lambda: Masked(8, 1.2), 8, 32, 8), ("UG102", "UG201", "UG204")),
        "triangular-told": (lambda: told(lambda: Triangular(10, 0.9), 10), ()),
        "couplings-told": (lambda: told(lambda: Coupled(8, 3.0), 8), ("UG102", "UG201")),
    }
    return [
        Patient(f"flow-{name}", "flows", seeded(make), ("UG703",), also)
        for name, (make, also) in build.items()
    ]


def healthy() -> list[Patient]:
    """Return flows that are calm, and models that are no flows."""
    build: dict[str, Callable[[], Case]] = {
        "additive-default-12": lambda: case(lambda: Additive(8, 24, 0.6), 12, 32, 8),
        "reversible-convolutions": lambda: case(lambda: Reversible(4, 0.1), 8, 8, 4, 3, 3),
        "affine-mixed-zero": lambda: case(lambda: Step(12, 24, 0.0), 12, 32, 12),
        "autoregressive": lambda: case(lambda: Masked(8, 0.1), 6, 32, 8),
        "additive-thin-data-trained": thin_data,
        "affine-volumes-change": lambda: Case(flow(8, spread=0.02, growth=0.1), energy, [torch.randn(32, 8)]),
        "orthogonal-no-flow": lambda: Case(
            stack(lambda: nn.utils.parametrizations.orthogonal(nn.Linear(12, 12)), 8),
            regress,
            [(torch.randn(32, 12), torch.randn(32, 12))],
        ),
        "half-kept-no-flow": lambda: Case(
            stack(lambda: Shuffle(16), 6), regress, [(torch.randn(32, 16), torch.randn(32, 16))]
        ),
    }
    return [Patient(f"flow-{name}", "flows", seeded(make)) for name, make in build.items()]
