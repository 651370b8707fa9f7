"""Detectors over a whole run at once: from a file, or to choose thresholds."""

from collections.abc import Iterable, Sequence
from typing import Any

from unitygain._types import Event, Frame


def replay(detectors: Sequence[Any], frames: Iterable[Frame]) -> list[Event]:
    """Judge `frames` in order, as a running guard would, and return all events.

    A frame that any of the detectors complains of enters the history of none of them.

    Example:
        >>> from unitygain.detectors import Nonfinite, Spike
        >>> losses = [2.0, 1.9, 2.1, 1.8] * 8 + [9.0, float("nan"), 1.7]
        >>> frames = [Frame(step, {"loss": loss}) for step, loss in enumerate(losses, 1)]
        >>> [(event.step, event.name) for event in replay([Nonfinite(), Spike("loss", log=False)], frames)]
        [(33, 'spike'), (34, 'nonfinite')]
    """
    found: list[Event] = []
    for frame in frames:
        events = [event for detector in detectors if (event := detector.judge(frame)) is not None]
        found += events
        if not events:
            for detector in detectors:
                detector.learn(frame)
    return found
