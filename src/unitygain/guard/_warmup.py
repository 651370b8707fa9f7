"""LengthWarmup: short sequences first, longer ones as training goes on, and only while it goes well."""

from collections.abc import Iterator, Mapping
from typing import Any

from unitygain.guard._guard import Guard


class LengthWarmup:
    """An iterator over sequence lengths: from `start` to `end` in `steps` steps, linearly, then `end`.

    The length at step s is start + (end - start) · s / steps, rounded down to a multiple of `multiple_of` but
    never below `start`. With a guard the clock s stands still unless the guard is green, so that sequences
    do not grow into an instability; lengths never shrink.

    Do not grow the batch at the same time: the number of tokens per step would grow with both.

    Args:
        start: First length.
        end: Last length.
        steps: Steps in which it grows.
        multiple_of: Lengths are multiples of this, where kernels are fast; `start` and `end` are as given.
        guard: The guard of the same training, for the gated form.

    Raises:
        ValueError: If the lengths do not grow or a number is below 1.

    Example:
        >>> lengths = LengthWarmup(8, 64, steps=4)
        >>> [next(lengths) for _ in range(6)]
        [8, 16, 32, 48, 64, 64]

    References:
        Li, Zhang and He, "The Stability-Efficiency Dilemma: Investigating Sequence Length Warmup for Training
        GPT Models" (NeurIPS 2022), section 4, with a pacing function that is linear.
    """

    def __init__(
        self, start: int, end: int, steps: int, *, multiple_of: int = 8, guard: Guard | None = None
    ) -> None:
        if not 1 <= start <= end:
            raise ValueError(f"lengths from {start} to {end}; give 1 <= start <= end")
        if steps < 1 or multiple_of < 1:
            raise ValueError(f"steps is {steps} and multiple_of {multiple_of}; both are at least 1")
        self.start = start
        self.end = end
        self.steps = steps
        self.multiple_of = multiple_of
        self.guard = guard
        self._clock = 0

    @property
    def length(self) -> int:
        """The length that comes next."""
        if self._clock >= self.steps:
            return self.end
        exact = self.start + (self.end - self.start) * self._clock // self.steps
        return max(self.start, exact - exact % self.multiple_of)

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        length = self.length
        if self.guard is None or self.guard.green:
            self._clock = min(self._clock + 1, self.steps)
        return length

    def state_dict(self) -> dict[str, Any]:
        """Return the clock."""
        return {"clock": self._clock}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._clock = min(int(state["clock"]), self.steps)
