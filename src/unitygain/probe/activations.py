"""Pointwise nonlinear operations: their slope φ'(x), and the steepest that it gets."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unitygain.stats import absmax

PRELU = "_prelu_kernel"
_aten = torch.ops.aten
_GRID = torch.cat([torch.linspace(-20, 20, 4001, dtype=torch.float64), torch.tensor([1e3, -1e3])])
_SAMPLE = 64
# The same kernel, vectorised or not, differs by a few roundings; bfloat16 has eight bits.
_RTOL = 2e-2
_PASSIVE = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
_Slope = Callable[..., Tensor]


def _band(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    inside = torch.ones_like(x)
    if low is not None:
        inside = inside * (x >= low)
    return inside if high is None else inside * (x <= high)


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return _aten.gelu_backward(torch.ones_like(x), x, approximate=approximate)


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    return _aten.elu_backward(torch.ones_like(x), alpha, scale, input_scale, False, x)


def _shrink(x: Tensor, width: float = 0.5) -> Tensor:
    return (x.abs() > width).to(x.dtype)


# By the name of the operation, without the underscore of its in-place form; arguments as of the operation.
SLOPES: dict[str, _Slope] = {
    "relu": lambda x: (x > 0).to(x.dtype),
    "leaky_relu": lambda x, slope=0.01: torch.where(x > 0, torch.ones_like(x), slope),
    "threshold": lambda x, threshold, value: (x > threshold).to(x.dtype),
    "gelu": _gelu,
    "silu": lambda x: _aten.silu_backward(torch.ones_like(x), x),
    "mish": lambda x: _aten.mish_backward(torch.ones_like(x), x),
    "elu": _elu,
    "celu": lambda x, alpha=1.0: _elu(x, alpha, 1, 1 / alpha),
    "tanh": lambda x: 1 - x.tanh().square(),
    "sigmoid": lambda x: x.sigmoid() * (-x).sigmoid(),
    "hardtanh": lambda x, low=-1, high=1: _band(x, low, high),
    "clamp": _band,
    "clamp_min": _band,
    "clamp_max": lambda x, high: _band(x, None, high),
    "hardswish": lambda x: _aten.hardswish_backward(torch.ones_like(x), x),
    "hardsigmoid": lambda x: _band(x, -3, 3) / 6,
    "softplus": lambda x, beta=1, threshold=20: torch.where(x * beta > threshold, 1.0, (x * beta).sigmoid()),
    "log_sigmoid_forward": lambda x: (-x).sigmoid(),
    "hardshrink": _shrink,
    "softshrink": _shrink,
    "sin": torch.cos,
    "erf": lambda x: torch.exp(-x.square()) * 1.1283791670955126,
    PRELU: lambda x, slope: torch.where(x > 0, torch.ones_like(x), slope.to(x.dtype)),
}
# What these are applied to is often no signal (positions, masks), so that they count on a graph alone.
AMBIGUOUS = frozenset({"sin", "erf", "clamp", "clamp_min", "clamp_max"})


@dataclass(frozen=True)
class Slope:
    """The slope of an activation at the entries of its input, its largest, and the operation's arguments."""

    values: Tensor
    steepest: float
    arguments: tuple[Any, ...] = ()


def slope(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Slope | None:
    """Return φ' at the input of the operation `name`, from its own arguments, or None if it has no such.

    Computed from the input in float32 at least, without a graph. Call it before an in-place operation.
    """
    derivative = SLOPES.get(name)
    x, *rest = args
    if derivative is None or (name != PRELU and any(isinstance(value, Tensor) for value in rest)):
        return None
    with torch.no_grad():
        values = derivative(_wide(x), *rest, **kwargs)
    if name == PRELU:
        return Slope(values, max(1.0, float(absmax(rest[0]))))
    arguments = tuple(rest), tuple(sorted(kwargs.items()))
    return Slope(values, _steepest(name, *arguments), arguments)


def module_slope(module: nn.Module, x: Tensor, y: Tensor) -> Slope | None:
    """Return φ' at `x` of a module that acts on each entry alone and is no straight line, else None.

    A few entries in another order and shape are run through the module: only an elementwise function
    makes the same of them. Then the slope is taken by autograd.

    Args:
        module: A module without parameters; its forward is called, its hooks are not.
        x: What entered it.
        y: What left it.
    """
    if isinstance(module, _PASSIVE) or x.shape != y.shape or x.numel() == 0 or _shares(x, y):
        return None
    stride = max(1, x.numel() // _SAMPLE)
    sample, made = (t.detach().reshape(-1)[::stride][:_SAMPLE].flip(0) for t in (x, y))
    devices = [x.device] if x.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            again = module.forward(sample.clone())
            if again.shape != made.shape or not torch.allclose(again, made, rtol=_RTOL, equal_nan=True):
                return None
            on_grid = _differentiate(module, _GRID.to(x))
            if torch.equal(on_grid, on_grid[:1].expand_as(on_grid)):
                return None
            return Slope(_differentiate(module, _wide(x)), float(absmax(on_grid)))
    except Exception:
        # The module takes no flat input, or writes into it: it is no elementwise function that can be asked.
        return None


def silenced(out: Tensor, slopes: Tensor) -> Tensor:
    """Return the output with 1 wherever the slope is not zero, so that what is left of its zeros is dead.

    tanh of 0 is 0 as well, and passes the gradient in full.

    Args:
        out: What left the activation.
        slopes: φ' at the same entries.

    Cost: one pass and a copy. No side effects.
    """
    return out.detach().masked_fill(slopes != 0, 1.0)


def _differentiate(module: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    out = module.forward(x)
    return torch.autograd.grad(out, x, torch.ones_like(out))[0]


def _wide(x: Tensor) -> Tensor:
    return x.detach() if x.dtype is torch.float64 else x.detach().float()


def _shares(x: Tensor, y: Tensor) -> bool:
    return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


@functools.cache
def _steepest(name: str, rest: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> float:
    # A band that lies outside the grid is one where the slope is 1.
    return float(absmax(SLOPES[name](_GRID, *rest, **dict(kwargs)))) or 1.0
