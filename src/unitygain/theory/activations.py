"""Activations as pairs of numpy functions: the value, its slope, and where the slope jumps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
REACH = 16.0
# Closed moments sum over pairs of kinks: above so many a quadrature is faster.
FEW_KINKS = 8


@dataclass(frozen=True)
class Activation:
    """An activation for the mean-field maps.

    Args:
        name: Its name.
        value: φ, vectorised over float64 arrays.
        slope: φ', likewise.
        kinks: Points at which the slope jumps; every quadrature is split there.
        rays: Slopes below and above zero of a φ that is linear on each side (ReLU 0, 1), else None.
        jumps: What the slope jumps by at each kink, for a φ that is linear between its kinks.
        width: Length around zero over which φ may bend; sets how fine a quadrature is there.
        exponential: (scale, alpha) of a φ that is scale·x above zero and scale·alpha·(exp(x) - 1) below.
    """

    name: str
    value: Function
    slope: Function
    kinks: tuple[float, ...] = ()
    rays: tuple[float, float] | None = None
    jumps: tuple[float, ...] = ()
    width: float = 1.0
    exponential: tuple[float, float] | None = None


def find_activation(
    phi: "str | Activation | Callable[[Any], Any]", kinks: Sequence[float] | None = None
) -> Activation:
    """Return the activation that `phi` names or is.

    Args:
        phi: A name (``"tanh"``), an `Activation`, or a function of a torch tensor, whose slope is taken
            by autograd in float64. The function is called on points between -16 and 16.
        kinks: Where the slope of a function jumps; located by bisection on [-16, 16] when left out.

    Raises:
        ValueError: If the name is unknown, or the function is not elementwise, not finite, or jumps.
        TypeError: If `phi` is none of the three.

    Example:
        >>> import torch
        >>> find_activation(torch.nn.functional.hardtanh).kinks
        (-1.0, 1.0)
    """
    if isinstance(phi, Activation):
        return phi
    if isinstance(phi, str):
        if phi not in ACTIVATIONS:
            raise ValueError(
                f"no activation is named {phi!r}; the names are {', '.join(sorted(ACTIVATIONS))}"
            )
        return ACTIVATIONS[phi]
    if not callable(phi):
        raise TypeError(
            f"phi is a {type(phi).__name__}; give a name, an Activation or a function of a tensor"
        )
    return _from_torch(phi, kinks)


def leaky_relu(slope: float = 0.01) -> Activation:
    """Return the leaky ReLU with the given slope below zero.

    Raises:
        ValueError: If the slope is not finite.
    """
    if not math.isfinite(slope):
        raise ValueError(f"the slope below zero is {slope!r}; give a finite number")
    return Activation(
        f"leaky_relu({slope:g})" if slope != 0.01 else "leaky_relu",
        lambda x: np.where(x > 0, x, slope * x),
        lambda x: np.where(x > 0, 1.0, slope),
        (0.0,),
        (slope, 1.0),
    )


def _from_torch(phi: Callable[[Any], Any], kinks: Sequence[float] | None) -> Activation:
    import torch

    name = getattr(phi, "__name__", type(phi).__name__)

    def value(x: Array) -> Array:
        with torch.no_grad():
            return phi(torch.from_numpy(np.array(x))).numpy()

    def slope(x: Array) -> Array:
        with torch.enable_grad():
            point = torch.from_numpy(np.array(x)).requires_grad_()
            return torch.autograd.grad(phi(point).sum(), point)[0].numpy()

    grid = np.linspace(-REACH, REACH, 4097) + 1e-4
    whole = _first_values(phi, name, grid)
    if whole.shape != grid.shape:
        raise ValueError(f"{name} is not elementwise: it turned {grid.size} numbers into {whole.size}")
    if not np.isfinite(whole).all():
        worst = float(grid[~np.isfinite(whole)][0])
        raise ValueError(
            f"{name} is not finite at x = {worst:.6g}; give an activation that is finite everywhere"
        )
    if not np.allclose(value(grid[:7]), whole[:7], rtol=1e-12, atol=0):
        raise ValueError(f"{name} is not elementwise: its value at a point depends on the other points")
    if steps := find_jumps(value, grid):
        raise ValueError(
            f"{name} jumps at x = {steps[0]:.6g}, where it has no slope; mean field does not hold there"
        )
    found = tuple(float(kink) for kink in kinks) if kinks is not None else find_jumps(slope, grid)
    rays, jumps = _find_rays(grid, whole), _find_steps(slope, grid, whole, found)
    return Activation(name, value, slope, found, rays, jumps, width=2.0**-6)


def _first_values(phi: Callable[[Any], Any], name: str, grid: Array) -> Array:
    import torch

    try:
        with torch.no_grad():
            values = phi(torch.from_numpy(grid))
    except RuntimeError as error:
        raise ValueError(
            f"{name} raised on float64: {error}; give a function that keeps the dtype of its input, "
            "such as module.double()"
        ) from error
    if values.dtype != torch.float64:
        raise ValueError(f"{name} turned float64 into {values.dtype}; it must keep the dtype of its input")
    return values.numpy()


def _find_rays(grid: Array, values: Array) -> tuple[float, float] | None:
    """The slopes of a function that is linear below and above zero, with zero at zero, else None."""
    below, above = float(values[0] / grid[0]), float(values[-1] / grid[-1])
    line = np.where(grid > 0, above, below) * grid
    return (below, above) if np.allclose(values, line, rtol=1e-14, atol=1e-300) else None


def _find_steps(slope: Function, grid: Array, values: Array, kinks: tuple[float, ...]) -> tuple[float, ...]:
    """What the slope jumps by at each kink of a function that is linear between its few kinks, else ()."""
    inside = all(-REACH < kink < REACH for kink in kinks) and list(kinks) == sorted(set(kinks))
    if not 0 < len(kinks) <= FEW_KINKS or not inside:
        return ()
    ends = np.concatenate([[grid[0]], kinks, [grid[-1]]])
    slopes = slope(0.5 * (ends[1:] + ends[:-1]))
    jumps = np.diff(slopes)
    line = values[0] + slopes[0] * (grid - grid[0]) + np.maximum(grid[:, None] - kinks, 0.0) @ jumps
    return tuple(jumps.tolist()) if np.allclose(values, line, rtol=1e-11, atol=1e-11) else ()


def find_jumps(f: Function, grid: Array) -> tuple[float, ...]:
    """Return the points of `grid`'s range at which f jumps, by bisection of every interval at once.

    A smooth rise shrinks with the interval, a jump stays: an interval whose change falls below half of
    what it was is dropped.
    """
    values = f(grid)
    scale = max(float(np.abs(values).max()), 1e-300)
    start = np.flatnonzero(np.abs(np.diff(values)) > 1e-4 * scale)
    low, high, change = grid[start], grid[start + 1], np.abs(np.diff(values))[start]
    for _ in range(48):
        if not len(low):
            return ()
        middle = 0.5 * (low + high)
        left, centre, right = np.split(f(np.concatenate([low, middle, high])), 3)
        first = np.abs(centre - left) >= np.abs(right - centre)
        low, high = np.where(first, low, middle), np.where(first, middle, high)
        keep = np.maximum(np.abs(centre - left), np.abs(right - centre)) > 0.5 * change
        low, high, change = low[keep], high[keep], change[keep]
    return tuple(0.0 if abs(x) < 1e-12 else round(float(x), 12) for x in 0.5 * (low + high))


def _gelu_slope(x: Array) -> Array:
    return special.ndtr(x) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _gelu_tanh_slope(x: Array) -> Array:
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner


def _silu_slope(x: Array) -> Array:
    s = special.expit(x)
    return s * (1 + x * (1 - s))


def _softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def _mish_slope(x: Array) -> Array:
    t = np.tanh(_softplus(x))
    return t + x * (1 - t * t) * special.expit(x)


def _elu(name: str, scale: float, alpha: float) -> Activation:
    height = scale * alpha

    def value(x: Array) -> Array:
        return scale * np.maximum(x, 0.0) + height * np.expm1(np.minimum(x, 0.0))

    def slope(x: Array) -> Array:
        return np.where(x > 0, scale, height * np.exp(np.minimum(x, 0.0)))

    return Activation(name, value, slope, (0.0,), exponential=(scale, alpha))


def _sigmoid_slope(x: Array) -> Array:
    s = special.expit(x)
    return s * (1 - s)


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation("linear", lambda x: x, np.ones_like, (), (1.0, 1.0)),
        Activation(
            "relu", lambda x: np.maximum(x, 0.0), lambda x: (x > 0).astype(np.float64), (0.0,), (0.0, 1.0)
        ),
        leaky_relu(),
        Activation("gelu", lambda x: x * special.ndtr(x), _gelu_slope),
        Activation("gelu_tanh", _gelu_tanh, _gelu_tanh_slope),
        Activation("silu", lambda x: x * special.expit(x), _silu_slope),
        Activation("mish", lambda x: x * np.tanh(_softplus(x)), _mish_slope),
        _elu("elu", 1.0, 1.0),
        _elu("selu", SELU_SCALE, SELU_ALPHA),
        Activation("tanh", np.tanh, lambda x: 1 - np.tanh(x) ** 2),
        Activation("erf", special.erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x)),
        Activation("sin", np.sin, np.cos),
        Activation(
            "hardtanh",
            lambda x: np.clip(x, -1, 1),
            lambda x: (np.abs(x) < 1).astype(np.float64),
            (-1.0, 1.0),
            jumps=(1.0, -1.0),
        ),
        Activation("sigmoid", special.expit, _sigmoid_slope),
        Activation("softplus", _softplus, special.expit),
    )
}
