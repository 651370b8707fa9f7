"""What an optimizer's epsilon takes from its step, and how much of the first rate a schedule ever gives."""

import copy
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unitygain.stats import rms

# Next to nothing beside any gradient that float32 holds; zero itself would divide what has no gradient by it.
NEGLIGIBLE = 1e-30
HORIZON = 1000


def length(tensors: Iterable[Tensor]) -> float:
    """Norm of all tensors together."""
    return math.hypot(*(float(rms(part)) * math.sqrt(part.numel()) for part in tensors))


def damping(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], model: nn.Module, before: Mapping[str, Tensor]
) -> float:
    """Norm of the step that the optimizer took over that of one with an epsilon of next to nothing.

    Args:
        optimizer: Of a copy, which has taken the step; it is put back to `state` and takes another.
        state: Its state before.
        model: The copy; its parameters hold the gradients of that step, and are moved.
        before: Its parameters before the step, by name.

    Returns:
        NaN where the optimizer has no epsilon that is a number, or cannot be put back.
    """
    groups = state["param_groups"]
    if not all(isinstance(group.get("eps"), float) for group in groups):
        return math.nan
    taken = length(parameter.detach() - before[name] for name, parameter in model.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name])
    try:
        optimizer.load_state_dict({**state, "param_groups": [{**g, "eps": NEGLIGIBLE} for g in groups]})
        optimizer.step()
    except Exception:
        return math.nan
    whole = length(parameter.detach() - before[name] for name, parameter in model.named_parameters())
    return taken / whole if whole else math.nan


def state_before(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return a copy of the optimizer's state."""
    return copy.deepcopy(optimizer.state_dict())


class Schedule(NamedTuple):
    """What the next thousand rates of a schedule come to; NaN where it does not say.

    Args:
        full_steps: How many steps at the largest of them they add up to.
        rise: The largest of them over the first.
        granted: The largest of them over the rate that the optimizer was given; NaN also where that comes
            last, so that a later one may be larger.
    """

    full_steps: float = math.nan
    rise: float = math.nan
    granted: float = math.nan


def look_ahead(schedule: Any, optimizer: torch.optim.Optimizer) -> Schedule:
    """Return what the next thousand rates of a schedule, stepped after each, come to.

    A schedule that ends before, or needs to be told of a loss, does not say how long it is meant to last, or
    when it falls.

    Args:
        schedule: A learning-rate scheduler; it is stepped.
        optimizer: Its own; the rates change.
    """
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(HORIZON):
            rates.append(_rate(optimizer, "lr"))
            try:
                schedule.step()
            except Exception:
                return Schedule()
    most, given = max(rates), _rate(optimizer, "initial_lr")
    if not most > 0:
        return Schedule()
    granted = most / given if given > 0 and rates[-1] < most else math.nan
    return Schedule(math.fsum(rates) / most, most / rates[0] if rates[0] > 0 else math.nan, granted)


def _rate(optimizer: torch.optim.Optimizer, name: str) -> float:
    """Sum of the groups' rates; NaN where one has none of that name."""
    return sum(float(group.get(name, math.nan)) for group in optimizer.param_groups)
