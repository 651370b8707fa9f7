"""What maps, norms, attention and means do to signals and gradients of a wide random network, by name."""

import dataclasses
import math

from unitygain.measures._wide import Chart, Edge, Made, NotPredicted, Rule, fixed_signal
from unitygain.measures._wide_pointwise import POINTWISE, wander
from unitygain.probe.segment import Fixed, Operation, Read
from unitygain.theory.convolution import boundary_share, boundary_share_of_mean
from unitygain.theory.signal import Signal, Weights, attend, mix_linearly, mix_tokens, standardise

LEAST_DIRECTIONS = 4.0
# Mean square of the values that attention reads over that of all: a causal mask gives up to 1.5, as the first
# tokens are larger, a mask that hides small padding 1 to 3, and one that shows padding alone 0.001.
READ_ALIKE = 4.0
ONE, ZERO = Signal(1.0, 1.0, 1.0), Signal(0.0, 0.0)


def _linear(chart: Chart, operation: Operation) -> Made:
    """A signal times a weight, which may be held transposed."""
    bias, one, other = operation.args[:3] if operation.name == "addmm" else (None, *operation.args[:2])
    if isinstance(one, Read) and isinstance(other, Read):
        return _product(chart, operation, one, other)
    read, weight = (one, other) if isinstance(one, Read) else (other, one)
    if not isinstance(read, Read) or not isinstance(weight, Fixed) or isinstance(bias, Read):
        raise NotPredicted("the signal enters as the bias")
    connections = math.prod(operation.shape) * weight.shape[-2 if isinstance(one, Read) else -1]
    return _connect(chart, operation, read, weight, connections, bias)


def _convolution(chart: Chart, operation: Operation) -> Made:
    read, weight, bias, stride, padding, dilation, transposed, _, groups = operation.args[:9]
    if not isinstance(weight, Fixed) or not isinstance(read, Read):
        raise NotPredicted("its kernel is made by the model")
    kernel = weight.shape[2:]
    inside, outside = read.shape[2:], operation.shape[2:]
    # A transposed convolution is the transpose of the one from its output to its input.
    large, small = (outside, inside) if transposed else (inside, outside)
    share = boundary_share(large, kernel, padding, stride, dilation)
    common = boundary_share_of_mean(large, kernel, padding, stride, dilation) / share
    visits = operation.shape[0] * math.prod(small) * math.prod(kernel)
    connections = visits * share * operation.shape[1] * read.shape[1] / groups
    made = _connect(chart, operation, read, weight, connections, bias, 1.0 if transposed else common)
    value = made.value
    assert isinstance(value, Signal)
    # Each output sums over as many rows as the kernel has taps.
    value = dataclasses.replace(value, spread=value.spread / math.prod(kernel))
    return dataclasses.replace(made, value=value, taps=math.prod(kernel))


def _connect(
    chart: Chart,
    operation: Operation,
    read: Read,
    weight: Fixed,
    connections: float,
    bias: Fixed | None,
    common: float = 1.0,
) -> Made:
    """Any sum over independent weights, of so many products.

    `common` is what padding leaves of the part that rows share, over what it leaves of the whole.
    """
    energy = connections * weight.square
    signal = chart.signal(read)
    entering = Signal(signal.square, signal.shared * common, signal.mean, signal.spread)
    value = mix_linearly(entering, energy / math.prod(operation.shape), fixed_signal(bias))
    return Made(value, (Edge(read, energy / math.prod(read.shape)),), drawn=True)


def _product(chart: Chart, operation: Operation, one: Read, other: Read) -> Made:
    """The product of two signals, such as the logits of attention; or of attention weights and values."""
    rows, inner, columns = one.shape[-2], one.shape[-1], other.shape[-1]
    weights = chart.values[one.value]
    second = chart.signal(other)
    if isinstance(weights, Weights):
        second = _attended(second, operation)
        back = Edge(one, columns * second.square, made=columns * second.shared, mixes=True)
        return Made(
            mix_tokens(weights, second), (back, Edge(other, rows * weights.squares / inner, mixes=True))
        )
    first = chart.signal(one)
    # What the keys share moves every logit of a query alike.
    value = Signal(inner * first.square * second.square, inner * first.square * second.shared)
    edges = (
        Edge(one, columns * second.square, centred=columns * second.apart),
        Edge(other, rows * first.square, centred=rows * first.square),
    )
    return Made(value, edges)


def _attended(values: Signal, operation: Operation) -> Signal:
    """Return the values at the size of those that are read, where a mask makes it far from that of all."""
    read = operation.facts[0] if operation.facts else 1.0
    if not math.isfinite(read) or 1 / READ_ALIKE < read < READ_ALIKE:
        return values
    return dataclasses.replace(
        values, square=values.square * read, shared=values.shared * read, mean=values.mean * math.sqrt(read)
    )


def _softmax(chart: Chart, operation: Operation) -> Made:
    read = operation.args[0]
    keys, inverse = operation.facts
    weights = attend(chart.signal(read), 1 / inverse)
    gain = weights.squares * (1 - weights.squares) / operation.shape[operation.args[1]]
    return Made(Weights(keys, weights.squares), (Edge(read, gain, softmax=True),))


@dataclasses.dataclass(frozen=True)
class _Norm:
    """A normalisation: what it divides by, squared, what it takes away, and what that does on the way back.

    Args:
        variance: What is divided by, squared.
        centre: Mean square of what is subtracted.
        lost: Share of a white gradient that it takes away.
        excess: E 1/v over 1/E v, where the variance v differs from channel to channel.
        mixes: Whether it sums over rows.
        evens: Whether every row is divided by its own length.
    """

    variance: float
    centre: float
    lost: float
    excess: float = 1.0
    mixes: bool = False
    evens: bool = False

    def make(self, chart: Chart, read: Read, scale: Fixed | None, shift: Fixed | None) -> Made:
        factor, offset = fixed_signal(scale) or ONE, fixed_signal(shift) or ZERO
        value = standardise(chart.signal(read), self.variance, factor, offset, self.centre, self.evens)
        gain = factor.square * self.excess / self.variance
        scatter = wander(chart, read, -1.0)
        return Made(value, (Edge(read, gain, scatter=scatter, lost=min(1.0, self.lost), mixes=self.mixes),))


def _layer_norm(chart: Chart, operation: Operation) -> Made:
    read, shape, scale, shift, eps = operation.args[:5]
    signal = chart.signal(read)
    # The mean of one over a row's own variance: that of rows of different length, and of chi-squares.
    made = chart.made[read.value]
    drawn = 2 / math.prod(shape) if made is not None and made.drawn else 0.0
    excess = _uneven(chart, signal, eps) + drawn
    norm = _Norm(signal.variance + eps, signal.mean**2, 2 / math.prod(shape), excess, evens=True)
    return norm.make(chart, read, scale, shift)


def _uneven(chart: Chart, signal: Signal, eps: float) -> float:
    """E 1/v over 1/E v of rows whose variances v differ as the rows that enter the block do.

    What is added to them, or made of them, in the block is taken to be as large in every row: it leaves each
    a share of how far it was from the mean. A spread that is larger than the one that entered, or whose rows
    are not known, is counted to second order.
    """
    entering = chart.values[0]
    if not isinstance(entering, Signal) or not entering.spread > 0 or not chart.lengths:
        return 1 + signal.spread
    share = min(1.0, math.sqrt(signal.spread / entering.spread))
    rows = [signal.variance * (1 + share * (length - 1)) + eps for length in chart.lengths]
    mean = math.fsum((signal.variance + eps) / row for row in rows) / len(rows)
    return mean * (1 + signal.spread) / (1 + share**2 * entering.spread)


def _batch_norm(chart: Chart, operation: Operation) -> Made:
    read, scale, shift = operation.args[:3]
    signal, eps = chart.signal(read), operation.args[7]
    if not operation.args[5]:
        centre, inverse = operation.facts
        return _Norm(1 / inverse, min(centre, signal.square), 0.0).make(chart, read, scale, shift)
    made = chart.made[read.value]
    directions = chart.directions * (made.taps if made is not None else 1)
    if directions <= LEAST_DIRECTIONS:
        raise NotPredicted(f"the rows differ in {directions:.2g} directions, too few for a mean variance")
    # The variance of a channel is that of a chi-square over so many directions.
    excess = 1 / (1 - 2 / directions)
    rows = math.prod(read.shape) // read.shape[1]
    variance = signal.apart * (1 - 1 / rows) + eps
    return _Norm(variance, signal.shared, 2 / rows, excess, True).make(chart, read, scale, shift)


def _group_norm(chart: Chart, operation: Operation) -> Made:
    read, scale, shift, _, channels, positions, groups, eps = operation.args[:8]
    signal = chart.signal(read)
    # What the positions of a channel share goes with the mean of its group, by one over the channels in it.
    centre = signal.mean**2 + max(0.0, signal.shared - signal.mean**2) * groups / channels
    norm = _Norm(signal.square - centre + eps, centre, 2 * groups / (positions * channels))
    return norm.make(chart, read, scale, shift)


def _concatenate(chart: Chart, operation: Operation) -> Made:
    """Side by side: what leaves has the moments of all parts, and each gets its own part of the gradient."""
    parts = [part for part in operation.args[0] if math.prod(part.shape)]
    dim = operation.args[1] if len(operation.args) > 1 else 0
    order = len(operation.shape)
    total = math.prod(operation.shape)
    shares = [math.prod(part.shape) / total for part in parts]
    signals = [chart.signal(part) if isinstance(part, Read) else fixed_part(part) for part in parts]
    square, shared, mean, squares = (
        math.fsum(share * value for share, value in zip(shares, column, strict=True))
        for column in zip(
            *((s.square, s.shared, s.mean, s.spread * s.square**2) for s in signals), strict=True
        )
    )
    if dim % order != (order - 1 if order <= 3 else 1):
        # Rows side by side: two of different parts have their means in common.
        shared = math.fsum(
            a * b * (s.shared if s is t else s.mean * t.mean)
            for a, s in zip(shares, signals, strict=True)
            for b, t in zip(shares, signals, strict=True)
        )
    value = Signal(square, shared, mean, squares / square**2 if square else 0.0)
    edges = tuple(Edge(part, 1.0, 1.0) for part in parts if isinstance(part, Read))
    return Made(value, edges)


def fixed_part(part: Fixed) -> Signal:
    """Moments of a tensor beside a signal, of which nothing says what its rows share."""
    return Signal(part.square, part.mean**2, part.mean)


def _mean(chart: Chart, operation: Operation) -> Made:
    """The mean over features is one number per row; that over rows leaves what they share."""
    read = operation.args[0]
    signal = chart.signal(read)
    order = len(read.shape)
    taken = math.prod(read.shape) / math.prod(operation.shape)
    given = operation.args[1] if len(operation.args) > 1 else None
    dims = [given] if isinstance(given, int) else list(given or range(order))
    over_features = [dim % order for dim in dims] == [order - 1] and order <= 3
    if over_features:
        value = Signal(signal.mean**2, signal.mean**2, signal.mean)
    else:
        value = Signal(signal.shared + signal.apart / taken, signal.shared, signal.mean)
    return Made(value, (Edge(read, 1 / taken**2, pools=not over_features),))


def _pool(chart: Chart, operation: Operation) -> Made:
    """Each output of a maximum passes its gradient to one input; its size is not followed."""
    read = operation.args[0]
    unknown = Signal(math.nan, math.nan, math.nan)
    return Made(unknown, (Edge(read, math.prod(operation.shape) / math.prod(read.shape)),))


RULES: dict[str, Rule] = {
    **POINTWISE,
    **dict.fromkeys(("mm", "addmm", "bmm"), _linear),
    "convolution": _convolution,
    **dict.fromkeys(("_softmax", "_safe_softmax"), _softmax),
    "native_layer_norm": _layer_norm,
    **dict.fromkeys(("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"), _batch_norm),
    "native_group_norm": _group_norm,
    "mean": _mean,
    "cat": _concatenate,
    "max_pool2d_with_indices": _pool,
}
