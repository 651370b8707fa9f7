"""The eyes of a guard: its detectors over the frames of a run, and what a loss scale is to blame for."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from unitygain._types import Event, Frame
from unitygain.detectors import Nonfinite, Spike
from unitygain.guard._loss_scale import ScaleGuard
from unitygain.guard._reading import Reading, described


def broken_weights(step: int, how: str) -> Event:
    """Return the event of weights that are not finite."""
    text = f"weights are not finite at step {step}, {how}"
    return Event("nonfinite", "error", step, "weights", math.nan, math.inf, text)


class Watch:
    """Detectors, in order, whose histories hold healthy steps alone.

    Args:
        detectors: What judges besides `Nonfinite`, which is always there; None takes a `Spike` each for
            gradient norm, loss, and the running variances of batch norms: a huge batch leaves no other trace
            where a norm hides its size.
        scale: The loss scale, if there is one.
    """

    def __init__(self, detectors: Iterable[Any] | None, scale: ScaleGuard | None) -> None:
        usual = [
            Spike("grad_norm"),
            Spike("loss", log=None, ratio=1.5),
            Spike("running_var_norm", ratio=30.0),
        ]
        always = Nonfinite("loss", "grad_norm", "running_var_norm")
        self.detectors = [always, *(usual if detectors is None else detectors)]
        self._scale = scale

    def judge(self, frame: Frame, reading: Reading) -> tuple[Event, ...]:
        """Return the events of a step; an ``overflow`` comes first, and says that nothing else is wrong."""
        events = [event for detector in self.detectors if (event := detector.judge(frame)) is not None]
        if reading.tensors:
            where = f", in the gradients of {described(reading.tensors)}"
            events = [replace(e, message=e.message + where) if e.name == "nonfinite" else e for e in events]
        scale = self._scale
        if scale is None or not scale.is_enabled() or not math.isnan(reading.grad_norm):
            return tuple(events)
        before = scale.get_scale()
        blamed, alarm = scale.overflowed(before, reading.loss is None or math.isfinite(reading.loss))
        alarms = () if alarm is None else (alarm,)
        if blamed and (alarm is None or alarm.severity != "error"):
            text = f"the gradient overflowed at a loss scale of {before:g}"
            return (Event("overflow", "info", frame.step, "loss_scale", before, before, text), *alarms)
        return (*events, *alarms)

    def learn(self, frame: Frame) -> None:
        """Take a healthy step into all histories."""
        for detector in self.detectors:
            detector.learn(frame)

    def accept(self, frame: Frame) -> None:
        """Begin all histories anew, with this step."""
        for detector in self.detectors:
            if hasattr(detector, "accept"):
                detector.accept()
        self.learn(frame)

    def usual_norm(self) -> float | None:
        """Return the median gradient norm of the healthy history, None while there is none."""
        judges = [d for d in self.detectors if isinstance(d, Spike) and d.quantity == "grad_norm"]
        return next((judge.usual for judge in judges if judge.usual), None)

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the states of the detectors."""
        return [detector.state_dict() for detector in self.detectors]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Continue from `state`.

        Raises:
            ValueError: If it is of another number of detectors.
        """
        if len(state) != len(self.detectors):
            have, saw = len(self.detectors), len(state)
            raise ValueError(f"the state is of {saw} detectors; this guard has {have}")
        for detector, own in zip(self.detectors, state, strict=True):
            detector.load_state_dict(own)
