"""A block's operations read as those of a wide random network: its gains, forward and backward.

Forward every value is a `Signal`. Backward each operation multiplies the mean square of the gradient; where
several operations read one value, their parts add as squares, since the weights between are independent.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from unitygain.probe.segment import Fixed, Operation, Read, Segment
from unitygain.theory.signal import Signal, Weights

Value = Signal | Weights
# A formula in one unknown: ("itself",), ("scale", formula, number), ("mul", formula, formula), ...
Steps = tuple[Any, ...]


class NotPredicted(ValueError):
    """An operation, or what enters it, is nothing that the theory of wide random networks covers.

    Args:
        reason: Why.
        where: The operation and the module that ran it; empty where it is the block as a whole.
    """

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason = reason


@dataclass(frozen=True)
class Gradient:
    """The gradient at a value.

    Args:
        square: Mean square of an entry.
        shared: Of it, what all keys of one query have in common; softmax takes that away.
        scatter: Variance of `square` over random networks of this width, relative.
        centred: Whether it sums to zero over the keys.
        projected: Share of it that a normalisation has rid of the directions that another would take.
        pooled: Whether a mean over rows made it, so that rows have it in common.
    """

    square: float
    shared: float = 0.0
    scatter: float = 0.0
    centred: bool = False
    projected: float = 0.0
    pooled: bool = False


@dataclass(frozen=True)
class Edge:
    """How the gradient of a result reaches one of the values that it was made of.

    Args:
        source: What was read.
        gain: By which the mean square is multiplied, per entry.
        common: By which the shared part is multiplied.
        made: Shared part per unit of mean square that the operation itself makes.
        scatter: Relative variance that it adds.
        softmax: Whether it is that of a softmax.
        centred: The gain for a gradient that sums to zero over the keys, where it differs.
        lost: Share that a normalisation takes from a gradient that has met none yet.
        keeps: Whether directions that are gone stay gone, as on a skip path.
        pools: Whether it is that of a mean over rows.
        mixes: Whether it sums over rows, whose gradients must then be independent.
    """

    source: Read
    gain: float
    common: float = 0.0
    made: float = 0.0
    scatter: float = 0.0
    softmax: bool = False
    centred: float | None = None
    lost: float = 0.0
    keeps: bool = False
    pools: bool = False
    mixes: bool = False

    def pull(self, gradient: Gradient) -> Gradient:
        """Return the gradient that the source gets per entry."""
        if self.mixes and gradient.pooled:
            raise NotPredicted("a mean over rows follows what mixes them, so that their gradients are alike")
        scatter, pooled = gradient.scatter + self.scatter, self.pools or gradient.pooled
        if self.softmax:
            return Gradient(
                self.gain * (gradient.square - gradient.shared), 0.0, scatter, True, pooled=pooled
            )
        if self.centred is not None:
            gain = self.centred if gradient.centred else self.gain
            return Gradient(gain * gradient.square, 0.0, scatter, pooled=pooled)
        shared = self.common * gradient.shared + self.made * gradient.square
        square = self.gain * gradient.square * (1 - self.lost * (1 - gradient.projected))
        projected = 1.0 if self.lost else gradient.projected if self.keeps else 0.0
        return Gradient(square, shared, scatter, gradient.centred, projected, pooled)


@dataclass(frozen=True)
class Made:
    """What an operation makes, and the ways back.

    Args:
        value: What leaves it.
        edges: One for each value that it read.
        pointwise: Whether its entries are functions of those that it read, one by one.
        taps: Positions that an output of a convolution sees.
        drawn: Whether it is a sum over weights, whose rows have the lengths of chi-squares.
        then: What is done to the value that its entries are functions of, as a formula; None if not known.
    """

    value: Value
    edges: tuple[Edge, ...]
    pointwise: bool = False
    taps: int = 1
    drawn: bool = False
    then: Steps | None = None


@dataclass
class Chart:
    """The values of one block, as far as they are known.

    Args:
        values: By number: 0 is what enters.
        sizes: Entries of each.
        made: How each was made; None for what enters.
        roots: The value, and the part of it, that each is a function of entry by entry.
        directions: Participation of the directions in which the rows of what enters differ.
        lengths: Mean squares of the rows of what enters, over their mean; empty where they are not known.
    """

    values: list[Value]
    sizes: list[int]
    made: list[Made | None] = field(default_factory=list)
    roots: list[tuple[int, int]] = field(default_factory=list)
    directions: float = math.inf
    lengths: tuple[float, ...] = ()

    def signal(self, read: Read) -> Signal:
        """Return what is known of a tensor; attention weights are no signal."""
        value = self.values[read.value]
        if isinstance(value, Weights):
            raise NotPredicted("attention weights are read by more than the values")
        return value

    def root(self, read: Read) -> tuple[int, int]:
        """Return what the entries of a tensor are functions of, one by one."""
        number, offset = self.roots[read.value]
        return (number, offset + read.offset) if number == read.value else (number, offset)

    def then(self, read: Read, step: Steps | None = None) -> Steps | None:
        """Return what a tensor is of its root as a formula, with one more step; None where that is not known.

        It is not where only a part of a tensor is read.
        """
        made = self.made[read.value]
        begins = self.roots[read.value][0] == read.value
        before = ("itself",) if begins else None if made is None else made.then
        whole = begins or math.prod(read.shape) == self.sizes[read.value]
        if before is None or not whole:
            return None
        return before if step is None else (step[0], before, *step[1:])


Rule = Callable[[Chart, Operation], Made]


@dataclass(frozen=True)
class BlockGain:
    """Gains of a block as plain ratios.

    Args:
        backward: ‖J‖_F/√rows.
        forward: Mean square out over mean square in, its root; NaN where only the way back is known.
        scatter: Standard deviation of the logarithm of `backward` over networks of this width.
        skips: Whether two signals are added somewhere in it.
    """

    backward: float
    forward: float
    scatter: float
    skips: bool = False


def read_block(segment: Segment, rules: dict[str, Rule]) -> BlockGain:
    """Return what the theory of wide networks expects of a block.

    Args:
        segment: Its operations.
        rules: What each operation does, by name.

    Raises:
        NotPredicted: With the operation and the reason, where it is not covered.
    """
    return pass_block(segment, Signal(*segment.entering, segment.spread), rules)[0]


def pass_block(segment: Segment, entering: Signal, rules: dict[str, Rule]) -> tuple[BlockGain, Value]:
    """Return what theory expects of a block that this signal enters, and what leaves it.

    Raises:
        NotPredicted: With the operation and the reason, where it is not covered.
    """
    if segment.gap or segment.exit is None:
        raise NotPredicted(segment.gap or "what leaves it is not known")
    if not all(map(math.isfinite, dataclasses.astuple(entering))) or entering.square <= 0:
        raise NotPredicted(f"what enters it has a mean square of {entering.square:.3g}")
    chart = Chart([entering], [math.prod(segment.shape)], [None], [(0, 0)], segment.directions)
    chart.lengths = segment.lengths
    for operation in segment.operations:
        _follow(chart, operation, rules)
    exit_ = segment.exit
    gradient = _backward(chart, exit_)
    leaving = chart.values[exit_.value]
    forward = leaving.square / entering.square if isinstance(leaving, Signal) else math.nan
    backward = gradient.square * chart.sizes[0] / math.prod(exit_.shape)
    if not math.isfinite(backward):
        raise NotPredicted("the expected gain is not finite")
    skips = any(one.name == "add" and _adds_signals(one) for one in segment.operations)
    scatter = 0.5 * math.sqrt(gradient.scatter)
    return BlockGain(math.sqrt(backward), math.sqrt(forward), scatter, skips), leaving


def _adds_signals(operation: Operation) -> bool:
    return all(isinstance(value, Read) for value in operation.args[:2])


def _follow(chart: Chart, operation: Operation, rules: dict[str, Rule]) -> None:
    where = f"{operation.name} in {operation.module or 'the model'}"
    rule = rules.get(operation.name)
    if rule is None:
        raise NotPredicted("no rule for it", where)
    try:
        made = rule(chart, operation)
    except ValueError as error:
        raise NotPredicted(str(error), where) from error
    number = len(chart.values)
    chart.values.append(made.value)
    chart.sizes.append(math.prod(operation.shape))
    chart.made.append(made)
    chart.roots.append(chart.root(made.edges[0].source) if made.pointwise else (number, 0))


def _backward(chart: Chart, exit_: Read) -> Gradient:
    """The gradient at what enters, for one of mean square 1 at what leaves."""
    found: list[Gradient | None] = [None] * len(chart.values)
    share = math.prod(exit_.shape) / chart.sizes[exit_.value]
    found[exit_.value] = Gradient(share)
    for number in range(exit_.value, 0, -1):
        gradient, made = found[number], chart.made[number]
        if gradient is None or made is None:
            continue
        for edge in made.edges:
            got = edge.pull(gradient)
            source = edge.source.value
            # A part of a tensor, or one that was repeated, has another number of entries than the whole.
            part = math.prod(edge.source.shape) / chart.sizes[source]
            found[source] = _add(found[source], got, part)
    start = found[0]
    if start is None:
        raise NotPredicted("no operation leads from what leaves it to what enters it")
    return start


def _add(have: Gradient | None, more: Gradient, part: float) -> Gradient:
    square, shared = more.square * part, more.shared * part
    if have is None:
        return Gradient(square, shared, more.scatter, more.centred, more.projected, more.pooled)
    total = have.square + square
    if total == 0:
        return have
    scatter = (have.scatter * have.square**2 + more.scatter * square**2) / total**2
    projected = (have.projected * have.square + more.projected * square) / total
    pooled = have.pooled or more.pooled
    return Gradient(total, have.shared + shared, scatter, projected=projected, pooled=pooled)


def fixed_signal(value: Fixed | None) -> Signal | None:
    """Return the moments of a tensor that depends on nothing."""
    return None if value is None else Signal(value.square, value.square, value.mean)
