"""Trunks of every family in float64, with the naive Jacobians of their blocks by torch.func.jacrev."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from unitygain._case import Case
from unitygain.probe.observe import observe
from unitygain.probe.record import Record


class Trunk(nn.Module):
    """Calls its blocks one after the other; what leaves the last one is the output."""

    def __init__(self, blocks: list[nn.Module], calls: int = 1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.calls = calls

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            for _ in range(self.calls):
                x = block(x)
        return x


class Layer(nn.Module):
    """A recurrent layer that hands on its outputs."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


class Attention(nn.Module):
    """Self-attention with a skip path and layer normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.attention(x, x, x, need_weights=False)[0])


class Residual(nn.Module):
    """A branch beside a skip path."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(9, 9), nn.GELU(), nn.Linear(9, 9))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Once(torch.autograd.Function):
    """A cube whose backward pass cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class Detached(torch.autograd.Function):
    """A cube whose backward pass is there twice, but detached: J·v is silently without it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * grad.detach()


class Plain:
    """The same cube by torch's own rules."""

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        return x**3


class Cube(nn.Module):
    """A cube beside a skip path."""

    def __init__(self, rule: Any, width: int = 9) -> None:
        super().__init__()
        self.rule = rule
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.rule.apply(self.linear(x))


def _encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


def _normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 7), nn.BatchNorm1d(7), nn.ReLU())


FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(9, 9), nn.Tanh()), (3, 9), 1),
    "cnn": (lambda: nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()), (2, 2, 4, 4), 1),
    "rnn": (lambda: Layer(nn.RNN), (2, 3, 4), 1),
    "lstm": (lambda: Layer(nn.LSTM), (2, 3, 4), 1),
    "attention": (Attention, (2, 3, 8), 1),
    "encoder": (_encoder, (2, 3, 8), 1),
    "residual": (Residual, (3, 9), 1),
    "batch norm": (_normalised, (5, 7), 1),
    "multi-call": (lambda: nn.Sequential(nn.Linear(9, 9), nn.Tanh()), (3, 9), 3),
}


def square(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def family(name: str) -> tuple[Case, Record]:
    """Return a case of one family, and its record."""
    make, shape, calls = FAMILIES[name]
    torch.manual_seed(11)
    model = Trunk([make() for _ in range(1 if calls > 1 else 3)], calls).double()
    return recorded(model, torch.randn(*shape, dtype=torch.float64))


def recorded(model: nn.Module, x: Tensor, **facts: float) -> tuple[Case, Record]:
    """Return the case of a model and one batch, and its record under seed 0."""
    case = Case(model, loss=square, data=[x])
    return case, observe(case, [], **({"seed": 0, "probes": 8} | facts))


def naive_jacobians(case: Case) -> list[Tensor]:
    """Return the Jacobian of every block call as a matrix, by reverse mode outside of the library."""
    model, x = case.model, case.batches[0]
    assert isinstance(model, Trunk)
    found = []
    for block in model.blocks:
        for _ in range(model.calls):
            found.append(naive_jacobian(block, x))
            x = block(x).detach()
    return found


def naive_jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    coupled = isinstance(function, nn.Module) and any(
        isinstance(part, nn.BatchNorm1d) for part in function.modules()
    )
    if coupled:
        # Batch normalisation writes its statistics in place, which functorch refuses.
        full = torch.autograd.functional.jacobian(function, x)
    else:
        with sdpa_kernel(SDPBackend.MATH):
            full = torch.func.jacrev(function)(x)
    assert isinstance(full, Tensor)
    return full.detach().reshape(-1, x.numel())
