"""What is done entry by entry to signals and gradients of a wide random network, by name in ATen."""

import dataclasses
import math
from functools import cache
from typing import Any

import torch

from unitygain.measures._wide import Chart, Edge, Made, NotPredicted, Rule, Steps
from unitygain.probe.activations import SLOPES
from unitygain.probe.segment import Fixed, Operation, Read
from unitygain.theory.activations import ACTIVATIONS, Activation, find_activation
from unitygain.theory.signal import CONSTANT, Bent, Signal, Weights, add_signals, bend, multiply_signals

# Functions that need not be finite everywhere: they are asked only where the signal lies.
PARTIAL = ("exp", "rsqrt", "sqrt", "reciprocal", "abs", "pow", "cos", "log1p", "square", "log")
# A fixed tensor with a mean square above this is a mask, which is read where the softmax is.
MASK = 1e7
UNKNOWN = Signal(math.nan, math.nan, math.nan)


def per_unit(chart: Chart, read: Read) -> float:
    """Return the variance of a mean over all entries, of which rows that are alike count as one."""
    signal, width = chart.signal(read), width_of(read)
    alike = (signal.shared - signal.mean**2) / signal.variance if signal.variance > 0 else 1.0
    return max(min(1.0, alike), width / math.prod(read.shape)) / width


def width_of(read: Read) -> int:
    """Return the number of features: those of channels, where it is an image."""
    shape = (1, *read.shape)
    return shape[2] if len(shape) >= 5 else shape[-1]


def wander(chart: Chart, read: Read, elasticity: float) -> float:
    """Return the scatter that comes of a mean square being one draw, unless it was measured."""
    drawn = chart.root(read)[0] != 0
    return 2 * elasticity**2 * per_unit(chart, read) if drawn else 0.0


def times(chart: Chart, read: Read, factor: Signal) -> Made:
    """Return a signal times independent numbers; of noise of its own in every row, `shared` is less."""
    value = chart.values[read.value]
    made = value.scaled(factor) if isinstance(value, Weights) else multiply_signals(value, factor)
    number = factor.square == factor.mean**2
    then = chart.then(read, ("scale", factor.mean)) if number else None
    return Made(made, (Edge(read, factor.square, factor.mean**2, keeps=True),), pointwise=number, then=then)


def _multiply(chart: Chart, operation: Operation) -> Made:
    one, other = operation.args[:2]
    divides = operation.name == "div"
    if isinstance(one, Read) and isinstance(other, Read):
        if divides and chart.root(one) == chart.root(other):
            return _of_itself(chart, ("div",), one, other)
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
        return _of_itself(chart, ("mul",), one, other)
    first, second = chart.signal(one), chart.signal(other)
    edges = (
        Edge(one, second.square, scatter=_of_rows(chart, one, second)),
        Edge(other, first.square, scatter=_of_rows(chart, other, first)),
    )
    made = multiply_signals(first, second)
    if any(one.variance <= CONSTANT * one.square for one in (first, second)):
        # Rows that are divided by their own length are equally long.
        made = dataclasses.replace(made, spread=0.0)
    return Made(made, edges)


def _of_rows(chart: Chart, read: Read, factor: Signal) -> float:
    """One number per row that was made of the row's own features, as the root of their mean square."""
    return wander(chart, read, -1.0) if factor.variance <= CONSTANT * factor.square else 0.0


def _sum(chart: Chart, operation: Operation) -> Made:
    one, other = operation.args[:2]
    factor = float(operation.kwargs.get("alpha", 1)) * (-1 if operation.name == "sub" else 1)
    if isinstance(one, Read) and isinstance(other, Read):
        if chart.root(one) == chart.root(other):
            return _of_itself(chart, ("add", factor), one, other)
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
    number = None if isinstance(fixed, Fixed) else factor * fixed
    if read is other:
        # A number less a signal turns its sign, which squares do not see.
        number = None if operation.name == "sub" else number
    then = None if number is None else chart.then(read, ("shift", number))
    return Made(value, (Edge(read, 1.0, 1.0, keeps=True),), pointwise=True, then=then)


def _turned(chart: Chart, operation: Operation) -> Made:
    """A number less a signal."""
    read, number = operation.args[:2]
    if isinstance(number, (Read, Fixed)) or operation.kwargs or len(operation.args) > 2:
        raise NotPredicted("its parameters are tensors")
    back = times(chart, read, Signal(1.0, 1.0, -1.0))
    assert isinstance(back.value, Signal)
    value = add_signals(back.value, Signal(number**2, number**2, number))
    then = None if back.then is None else ("shift", back.then, number)
    return dataclasses.replace(back, value=value, then=then)


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
    call = (operation.name, tuple(rest), tuple(sorted(operation.kwargs.items())))
    before, then = chart.then(read), chart.then(read, ("call", *call))
    if before is not None and then is not None and not _is_straight(before):
        return _from_root(chart, read, then)
    try:
        made = _bent(chart, read, bend(activation(*call), chart.signal(read)))
    except ValueError:
        if operation.name not in PARTIAL or then is None:
            raise
        # A step of what is written out, such as the exponential of a softplus, may have no moments.
        made = Made(UNKNOWN, (Edge(read, math.nan),), pointwise=True)
    return dataclasses.replace(made, then=then)


def _of_itself(chart: Chart, step: Steps, one: Read, other: Read) -> Made:
    """Two functions of one value, entry by entry, such as x·sigmoid(x): one function of it."""
    first, second = chart.then(one), chart.then(other)
    if first is None or second is None or one.shape != other.shape:
        raise NotPredicted("a signal meets a function of itself, and which is not known")
    return _from_root(chart, one, (step[0], first, second, *step[1:]))


def _from_root(chart: Chart, read: Read, then: Steps) -> Made:
    """What is done to a value step by step is one activation, though a step's result is no Gaussian."""
    number, offset = chart.root(read)
    root = Read(number, read.shape, offset)
    return dataclasses.replace(_bent(chart, root, bend(composed(then), chart.signal(root))), then=then)


def _is_straight(steps: Steps) -> bool:
    """Whether a formula is a line, so that a Gaussian stays one."""
    return steps[0] == "itself" or (steps[0] in {"scale", "shift"} and _is_straight(steps[1]))


@cache
def composed(steps: Steps) -> Activation:
    """Return the activation that a formula is (see `Chart.then`)."""

    def written_out(x: Any) -> Any:
        return _evaluate(steps, x)

    return find_activation(written_out)


def _evaluate(steps: Steps, x: Any) -> Any:
    name, *rest = steps
    if name == "itself":
        return x
    inner, *step = rest
    value = _evaluate(inner, x)
    if name == "add":
        return value + step[1] * _evaluate(step[0], x)
    if name in {"mul", "div"}:
        other = _evaluate(step[0], x)
        return value * other if name == "mul" else value / other
    if name == "call":
        out = getattr(torch.ops.aten, step[0])(value, *step[1], **dict(step[2]))
        return out[0] if isinstance(out, tuple) else out
    return value * step[0] if name == "scale" else value + step[0]


def _prelu(chart: Chart, operation: Operation) -> Made:
    read, slopes = operation.args
    if not isinstance(slopes, Fixed) or abs(slopes.square - slopes.mean**2) > 1e-6:
        raise NotPredicted("its slopes differ")
    phi = activation("leaky_relu", (round(slopes.mean, 6),), ())
    return _bent(chart, read, bend(phi, chart.signal(read)))


def _bent(chart: Chart, read: Read, bent: Bent) -> Made:
    """Over a finite number of units the mean of φ'² differs from its expectation, and so do row lengths."""
    scatter = bent.scatter * per_unit(chart, read) + wander(chart, read, bent.elasticity)
    entering = chart.signal(read)
    apart = entering.apart / entering.variance if entering.variance > 0 else 0.0
    spread = bent.signal.spread + bent.peaked * min(1.0, apart) / width_of(read)
    leaving = dataclasses.replace(bent.signal, spread=spread)
    return Made(leaving, (Edge(read, bent.slope, scatter=scatter),), pointwise=True)


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
    "rsub": _turned,
    "native_dropout": _dropout,
    "masked_fill": _masked,
    **dict.fromkeys(("clone", "_to_copy", "_unsafe_view", "contiguous"), _same),
}
