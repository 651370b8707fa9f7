"""A learning rate that is lowered for a while: a factor that acts only while the optimizer steps."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer

NEARLY = 0.999


class RateFactor:
    """What all learning rates are multiplied by: 1, or less and climbing back over healthy steps."""

    def __init__(self) -> None:
        self.factor = 1.0
        self._growth = 1.0

    def lower(self, factor: float, restore: int | None) -> None:
        """Multiply by `factor`; over `restore` healthy steps, geometrically, the rate comes back."""
        self.factor *= factor
        self._growth = 1.0 if restore is None else self.factor ** (-1.0 / restore)

    def climb(self) -> None:
        """Count one healthy step."""
        grown = self.factor * self._growth
        # Half of the last stride early, so that rounding does not cost a step: 0.9999999 is 1.
        self.factor = 1.0 if grown > NEARLY and self._growth > 1 else min(1.0, grown)

    @contextmanager
    def applied(self, optimizer: Optimizer) -> Iterator[None]:
        """Lower the rates of `optimizer` inside; outside they are the very objects that they were."""
        if self.factor == 1.0:
            yield
            return
        before = [group["lr"] for group in optimizer.param_groups]
        try:
            for group, rate in zip(optimizer.param_groups, before, strict=True):
                group["lr"] = rate * self.factor
            yield
        finally:
            for group, rate in zip(optimizer.param_groups, before, strict=True):
                group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Return the factor and how it climbs."""
        return {"factor": self.factor, "growth": self._growth}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.factor, self._growth = float(state["factor"]), float(state["growth"])
