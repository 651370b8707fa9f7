"""Nonfinite: a number of the step is NaN or infinite.

What it sees:
    Any of the named numbers that is there and not finite. It keeps no history, so that nothing can poison it.

Why it matters:
    One step along a gradient that is not finite makes the weights NaN, and nothing brings them back. Clipping
    does not help: a norm of NaN makes every entry NaN.

When it is a false alarm:
    While a loss scale is being found, overflow of the scaled gradient is expected (`guard.ScaleGuard`).

A firing example:
    >>> Nonfinite().judge(Frame(3, {"loss": 2.0, "grad_norm": math.inf})).message
    'grad_norm is inf at step 3'

A silent example:
    >>> Nonfinite().judge(Frame(3, {"loss": 2.0, "grad_norm": 1e300}))
"""

import math
from collections.abc import Mapping
from typing import Any

from unitygain._registry import detector
from unitygain._types import Event, Frame


@detector(name="nonfinite", needs=("loss", "grad_norm"))
class Nonfinite:
    """Says that a number of the step is NaN or infinite.

    Args:
        quantities: Which numbers of the frame.
    """

    def __init__(self, *quantities: str) -> None:
        self.quantities = quantities or ("loss", "grad_norm")

    def judge(self, frame: Frame) -> Event | None:
        """Return an event for the first of the numbers that is not finite."""
        for name in self.quantities:
            value = frame.values.get(name, 0.0)
            if not math.isfinite(value):
                message = f"{name} is {value} at step {frame.step}"
                return Event("nonfinite", "error", frame.step, name, value, math.inf, message)
        return None

    def learn(self, frame: Frame) -> None:
        """Nothing: there is no history."""

    def state_dict(self) -> dict[str, Any]:
        """Return the empty state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing: there is no state."""
