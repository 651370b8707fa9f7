"""What a guarded step came to, and the exception that ends a run which nothing helped."""

from dataclasses import dataclass
from typing import Any

from unitygain._types import Event
from unitygain.guard._actions import Name


@dataclass(frozen=True)
class Verdict:
    """What `Guard.step` saw and did; the same on every rank.

    Args:
        position: How many batches the guard has been asked about, this one included; the data goes on after
            it, also after a rewind.
        action: ``step``, or what was done instead of a plain step.
        stepped: Whether the optimizer stepped on this batch.
        events: What the detectors said.
        loss: The largest loss of all ranks; None if none was given.
        grad_norm: The norm of the gradient, as it came from the backward pass, unscaled.
        lr_factor: What the learning rates were multiplied by in this step.
        rewound_to: Position of the snapshot whose weights came back; None without a rewind.
        recovered: Whether with this step the guard is green again after events.
        clip: What the clip of the training returned.
    """

    position: int
    action: Name | str
    stepped: bool
    events: tuple[Event, ...]
    loss: float | None
    grad_norm: float
    lr_factor: float = 1.0
    rewound_to: int | None = None
    recovered: bool = False
    clip: Any = None

    def __str__(self) -> str:
        seen = "; ".join(event.message for event in self.events)
        done = self.action if self.rewound_to is None else f"{self.action} to step {self.rewound_to}"
        return f"step {self.position}: {done}" + (f" ({seen})" if seen else "")


class TrainingStopped(RuntimeError):
    """A guard has nothing left to try.

    Args:
        events: What was wrong in the last step.
        tried: What was done before, oldest first.
        last_good: Position of the last healthy step.
        restored: Position whose weights the model has now; None if they were left alone.
    """

    def __init__(
        self, events: tuple[Event, ...], tried: tuple[str, ...], last_good: int, restored: int | None
    ) -> None:
        self.events = events
        self.tried = tried
        self.last_good = last_good
        self.restored = restored
        lines = [f"training stopped at step {events[0].step}: " + "; ".join(e.message for e in events)]
        lines += [f"  last healthy step: {last_good}"]
        lines += [f"  tried before: {line}" for line in tried] or ["  tried before: nothing is allowed"]
        kept = "were left as they are" if restored is None else f"are those of step {restored} again"
        lines += [f"  the weights {kept}; look at what the batches since step {last_good} have in common"]
        super().__init__("\n".join(lines))
