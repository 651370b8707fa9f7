"""scheduled: a global norm whose threshold is a function of the step."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from unitygain.clip._clip import Clip
from unitygain.clip._gradients import Gradients
from unitygain.clip._rule import State, Stateless, least, require_threshold
from unitygain.stats.scale import combined_norm


@dataclass(frozen=True)
class _Scheduled(Stateless):
    threshold: Callable[[int], float]

    name = "scheduled"
    keeps_direction = True

    def decide(self, seen: Gradients, state: State) -> tuple[Tensor, State]:
        bound = require_threshold(f"threshold({seen.step})", self.threshold(seen.step))
        return least(bound, combined_norm(seen.norm)), {}


def scheduled(threshold: Callable[[int], float]) -> Clip:
    """Scale all gradients by min(1, c_t/‖g‖) with c_t = ``threshold(t)`` for the t-th call, from 0.

    Keeps the direction. A tight threshold in the warm-up that loosens, or one that falls with the learning
    rate, so that noise is averaged out at the end: with a fixed one, clipped steps stay biased. Every call
    counts, also one whose gradients were not finite; the number of calls is part of ``state_dict``.

    Cost: one pass.

    Args:
        threshold: From the step to the largest norm; infinity clips nothing.

    Raises:
        TypeError: If the threshold is no function.
        ValueError: On the call, if it returns no number above 0.

    Example:
        >>> import torch
        >>> def rising(step):
        ...     return min(1.0, 0.25 * (step + 1))
        >>> w = torch.zeros(2, requires_grad=True)
        >>> clip = scheduled(rising)
        >>> for _ in range(3):
        ...     w.grad = torch.tensor([3.0, 4.0])
        ...     print(round(clip([w]).norm_after, 6))
        0.25
        0.5
        0.75

    References:
        Koloskova, Hendrikx and Stich, Revisiting gradient clipping: stochastic bias and tight convergence
        guarantees, 2023, for the bias of a fixed threshold.
    """
    if not callable(threshold):
        raise TypeError(
            f"threshold is {threshold!r}; give a function of the step, or use by_global_norm({threshold!r})"
        )
    return Clip(_Scheduled(threshold))
