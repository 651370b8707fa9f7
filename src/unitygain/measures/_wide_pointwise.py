"""What is done entry by entry to signals and gradients of a wide random network, by name in ATen."""

import math
from functools import cache
from typing import Any

import torch

from unitygain.measures._wide import Chart, Edge, Made, NotPredicted, Rule
from unitygain.probe.activations import SLOPES
from unitygain.probe.tape import Fixed, Operation, Read
from unitygain.theory.activations import ACTIVATIONS, Activation, find_activation
from unitygain.theory.signal import CONSTANT, Bent, Signal, Weights, add_signals, bend, multiply_signals

# Functions that need not be finite everywhere: they are asked only where the signal lies.
PARTIAL = ("exp", "rsqrt", "sqrt", "reciprocal", "abs", "pow", "cos", "log1p", "square", "log")
# A fixed tensor with a mean square above this is a mask, which is read where the softmax is.
MASK = 1e7


def per_unit(chart: Chart, read: Read) -> float:
    """Return the variance of a mean over all entries, of which rows that are alike count as one."""
    signal = chart.signal(read)
    shape = (1, *read.shape)
    width = shape[2] if len(shape) >= 5 else shape[-1]
    alike = (signal.shared - signal.mean**2) / signal.variance if signal.variance > 0 else 1.0
    return max(min(1.0, alike), width / math.prod(shape)) / width


def wander(chart: Chart, read: Read, elasticity: float) -> float:
    """Return the scatter that comes of a mean square being one draw, unless it was measured."""
    drawn = chart.root(read)[0] != 0
    return 2 * elasticity**2 * per_unit(chart, read) if drawn else 0.0


def times(chart: Chart, read: Read, factor: Signal) -> Made:
    """Return a signal times independent numbers; of noise of its own in every row, `shared` is less."""
    value = chart.values[read.value]
    made = value.scaled(factor) if isinstance(value, Weights) else multiply_signals(value, factor)
    number = factor.square == factor.mean**2
    return Made(made, (Edge(read, factor.square, factor.mean**2, keeps=True),), pointwise=number)


def _multiply(chart: Chart, operation: Operation) -> Made:
    one, other = operation.args[:2]
    divides = operation.name == "div"
    if isinstance(one, Read) and isinstance(other, Read):
        if divides:
            raise NotPredicted("one signal is divided by another")
        return _multiply_two(chart, one, other)
    read, factor = (one, other) if isinstance(one, Read) else (other, one)
    if not isinstance(factor, Fixed):
        number = 1 / float(factor) if divides else float(factor)
        return times(chart, read, Signal(number**2, number**2, number))
    if divides:
        raise NotPredicted("division by a tensor")
    size = math.prod(factor.shape)
    # As many numbers as entries are noise, such as a dropout mask; fewer are a scale that rows share.
    noise = size == math.prod(operation.shape) and size > 1
    return times(chart, read, Signal(factor.square, factor.mean**2 if noise else factor.square, factor.mean))


def _multiply_two(chart: Chart, one: Read, other: Read) -> Made:
    if chart.root(one) == chart.root(other):
        raise NotPredicted("a signal is multiplied by a function of itself")
    first, second = chart.signal(one), chart.signal(other)
    edges = (
        Edge(one, second.square, scatter=_of_rows(chart, one, second)),
        Edge(other, first.square, scatter=_of_rows(chart, other, first)),
    )
    return Made(multiply_signals(first, second), edges)


def _of_rows(chart: Chart, read: Read, factor: Signal) -> float:
    """One number per row that was made of the row's own features, as the root of their mean square."""
    return wander(chart, read, -1.0) if factor.variance <= CONSTANT * factor.square else 0.0


def _sum(chart: Chart, operation: Operation) -> Made:
    one, other = operation.args[:2]
    factor = float(operation.kwargs.get("alpha", 1)) * (-1 if operation.name == "sub" else 1)
    if isinstance(one, Read) and isinstance(other, Read):
        if chart.root(one) == chart.root(other):
            raise NotPredicted("a signal is added to a function of itself, entry by entry")
        scaled = multiply_signals(chart.signal(other), Signal(factor**2, factor**2, factor))
        edges = (Edge(one, 1.0, keeps=True), Edge(other, factor**2, keeps=True))
        return Made(add_signals(chart.signal(one), scaled), edges)
    read, fixed = (one, other) if isinstance(one, Read) else (other, one)
    value = chart.signal(read)
    if isinstance(fixed, Fixed):
        square, mean = fixed.square, factor * fixed.mean
    else:
        square, mean = (factor * fixed) ** 2, factor * fixed
    if square < MASK:
        value = add_signals(value, Signal(square, square, mean))
    return Made(value, (Edge(read, 1.0, 1.0, keeps=True),), pointwise=True)


def _negate(chart: Chart, operation: Operation) -> Made:
    return times(chart, operation.args[0], Signal(1.0, 1.0, -1.0))


def _dropout(chart: Chart, operation: Operation) -> Made:
    read, share, train = operation.args[:3]
    keep = 1 - share if train else 1.0
    return times(chart, read, Signal(1 / keep, 1.0, 1.0))


def _masked(chart: Chart, operation: Operation) -> Made:
    read, _, value = operation.args[:3]
    if isinstance(value, (int, float)) and value**2 > MASK:
        return Made(chart.values[read.value], (Edge(read, 1.0, 1.0, keeps=True),), pointwise=True)
    raise NotPredicted(f"entries are overwritten with {value}")


def _same(chart: Chart, operation: Operation) -> Made:
    """A copy, or a cast to another dtype."""
    read = operation.args[0]
    if math.prod(read.shape) != math.prod(operation.shape):
        raise NotPredicted("a part is taken")
    return Made(chart.values[read.value], (Edge(read, 1.0, 1.0, keeps=True),), pointwise=True)


def _activation(chart: Chart, operation: Operation) -> Made:
    read, *rest = operation.args
    if not isinstance(read, Read) or any(isinstance(value, (Read, Fixed)) for value in rest):
        raise NotPredicted("its parameters are tensors")
    phi = activation(operation.name, tuple(rest), tuple(sorted(operation.kwargs.items())))
    return _bent(chart, read, bend(phi, chart.signal(read)))


def _prelu(chart: Chart, operation: Operation) -> Made:
    read, slopes = operation.args
    if not isinstance(slopes, Fixed) or abs(slopes.square - slopes.mean**2) > 1e-6:
        raise NotPredicted("its slopes differ")
    phi = activation("leaky_relu", (round(slopes.mean, 6),), ())
    return _bent(chart, read, bend(phi, chart.signal(read)))


def _bent(chart: Chart, read: Read, bent: Bent) -> Made:
    """Over a finite number of units the mean of φ'² differs from its expectation."""
    scatter = bent.scatter * per_unit(chart, read) + wander(chart, read, bent.elasticity)
    return Made(bent.signal, (Edge(read, bent.slope, scatter=scatter),), pointwise=True)


@cache
def activation(name: str, rest: tuple[Any, ...], keywords: tuple[tuple[str, Any], ...]) -> Activation:
    """Return the activation that an operation of ATen with these arguments is."""
    plain = {(): name, (("approximate", "none"),): name, (("approximate", "tanh"),): f"{name}_tanh"}
    if not rest and plain.get(keywords) in ACTIVATIONS:
        return ACTIVATIONS[plain[keywords]]
    function = getattr(torch.ops.aten, name)

    def phi(x: Any) -> Any:
        out = function(x, *rest, **dict(keywords))
        return out[0] if isinstance(out, tuple) else out

    if name in PARTIAL:
        return Activation(name, *_asked(phi))
    phi.__name__ = name
    return find_activation(phi)


def _asked(phi: Any) -> tuple[Any, Any]:
    def value(x: Any) -> Any:
        return phi(torch.from_numpy(x)).numpy()

    def slope(x: Any) -> Any:
        with torch.enable_grad():
            point = torch.from_numpy(x).requires_grad_()
            made = phi(point)
            return torch.autograd.grad(made, point, torch.ones_like(made))[0].numpy()

    return value, slope


POINTWISE: dict[str, Rule] = {
    **dict.fromkeys((*SLOPES, *PARTIAL), _activation),
    "_prelu_kernel": _prelu,
    **dict.fromkeys(("mul", "div"), _multiply),
    **dict.fromkeys(("add", "sub"), _sum),
    "neg": _negate,
    "native_dropout": _dropout,
    "masked_fill": _masked,
    **dict.fromkeys(("clone", "_to_copy", "_unsafe_view", "contiguous"), _same),
}
