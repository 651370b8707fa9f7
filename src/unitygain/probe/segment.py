"""A block as the operations that it is made of, with what is fixed reduced to its moments."""

import math
from dataclasses import dataclass, field
from typing import Any

from unitygain._types import Site


@dataclass(frozen=True)
class Fixed:
    """A tensor that does not depend on what enters the block: a weight, a mask, noise.

    Args:
        square: Mean square of an entry.
        mean: Mean of the entries.
        shape: Its shape.
    """

    square: float
    mean: float
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Read:
    """A tensor that depends on what enters the block.

    Args:
        value: Which one: 0 is what enters, k is the result of the k-th operation.
        shape: The shape in which it is read.
        offset: Where in its memory it begins, which tells the parts of one tensor apart.
    """

    value: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Operation:
    """One operation, named as in ATen, with every tensor among its arguments as a Read or Fixed.

    Args:
        name: Its name, without the underscore of an in-place form.
        module: Path of the module that was running.
        args: Positional arguments.
        kwargs: Keyword arguments.
        shape: Shape of the result.
        facts: For a softmax, the mean number of keys that are not masked, and the mean of one over it; for
            a batch normalisation by running statistics, moments of what they are.
    """

    name: str
    module: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    facts: tuple[float, ...] = ()


@dataclass
class Segment:
    """A block from what enters it to what enters the next.

    Args:
        site: The block.
        entering: Mean square of what enters, mean product of two rows, mean.
        shape: Its shape.
        operations: What ran, in order.
        exit: What leaves; None where that is not known.
        gap: Why it cannot be followed, or empty.
        directions: Participation of the directions in which the rows of what enters differ, for a block
            with batch normalisation.
        spread: Relative variance of the mean squares of the rows that enter.
        lengths: These mean squares over their mean (see `row_lengths`), where rows are there.
        carried: Whether what enters is what left the segment before, whose moments theory must carry.
    """

    site: Site
    entering: tuple[float, float, float]
    shape: tuple[int, ...]
    operations: list[Operation] = field(default_factory=list)
    exit: Read | None = None
    gap: str = ""
    directions: float = math.inf
    spread: float = 0.0
    lengths: tuple[float, ...] = ()
    carried: bool = False
