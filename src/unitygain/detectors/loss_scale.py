"""LossScale: the loss scale has fallen to its floor, or no scale gives finite gradients.

What it sees:
    Two things. The scale is at `floor` and the step still overflowed. And a bucket that fills by 1 with every
    step that overflowed and leaks 1/2 with every one that did not: at `patience` the scale is stuck, so that
    it takes `patience` bad steps in a row, or more than a third of all steps over a long time.

Why it matters:
    A scale that falls without a floor ends at numbers whose reciprocal is infinite; the next healthy
    gradient, divided by it, destroys the weights. And a run that skips most of its steps burns its time.

When it is a false alarm:
    The first steps with a large initial scale overflow a few times; a power of two is lost each time.

References:
    Micikevicius et al., "Mixed Precision Training" (ICLR 2018), section 3.2, for the loss scale.

A firing example:
    >>> detector = LossScale(patience=3)
    >>> frames = [Frame(step, {"loss_scale": 64.0, "overflow": 1.0}) for step in (1, 2, 3, 4)]
    >>> [event.message for frame in frames if (event := detector.judge(frame))]
    ['the loss scale is stuck at 64: 3 steps have overflowed, the last at step 3']

A silent example:
    >>> detector = LossScale(patience=3)
    >>> flags = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    >>> frames = [Frame(step, {"loss_scale": 64.0, "overflow": flag}) for step, flag in enumerate(flags)]
    >>> [detector.judge(frame) for frame in frames] == [None] * 6
    True
"""

from collections.abc import Mapping
from typing import Any

from unitygain._registry import detector
from unitygain._types import Event, Frame, Severity

LEAK = 0.5


@detector(name="loss_scale", needs=("loss_scale", "overflow"))
class LossScale:
    """Says that a loss scale is at its floor (warning), or stuck (error); each once until it recovers.

    Args:
        floor: The least scale.
        patience: Steps that may overflow before the scale is stuck.

    Raises:
        ValueError: If `patience` is below 1.
    """

    def __init__(self, *, floor: float = 1.0, patience: int = 30) -> None:
        if patience < 1:
            raise ValueError(f"patience is {patience}; wait for at least 1 step")
        self.floor = floor
        self.patience = patience
        self._bucket = 0.0
        self._said: list[str] = []

    def judge(self, frame: Frame) -> Event | None:
        """Return an event when the scale becomes stuck or reaches its floor; says each of them once."""
        scale = frame.values.get("loss_scale")
        if scale is None:
            return None
        overflow = frame.values.get("overflow", 0.0) > 0
        self._bucket = self._bucket + 1.0 if overflow else max(0.0, self._bucket - LEAK)
        if self._bucket == 0.0:
            self._said = []
        if overflow and self._bucket >= self.patience and "stuck" not in self._said:
            bad, floor = f"{self._bucket:g} steps have overflowed", float(self.patience)
            message = f"the loss scale is stuck at {scale:g}: {bad}, the last at step {frame.step}"
            return self._say("stuck", "error", frame, self._bucket, floor, message)
        if overflow and scale <= self.floor and "floor" not in self._said:
            message = f"step {frame.step} overflowed at a loss scale of {scale:g}, which is its floor"
            return self._say("floor", "warning", frame, scale, self.floor, message)
        return None

    def learn(self, frame: Frame) -> None:
        """Nothing: healthy steps were counted when they were judged."""

    def state_dict(self) -> dict[str, Any]:
        """Return the count as plain values."""
        return {"bucket": self._bucket, "said": list(self._said)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._bucket = float(state["bucket"])
        self._said = [str(word) for word in state["said"]]

    def _say(
        self, what: str, severity: Severity, frame: Frame, value: float, threshold: float, message: str
    ) -> Event:
        self._said.append(what)
        return Event("loss_scale", severity, frame.step, "loss_scale", value, threshold, message)
