"""What epsilon takes from an optimizer's step, what momentum makes of it, and what a schedule ever gives."""

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
# Far above the smallest number of float16, and what is used for weights in it.
HELD = 1e-4
HORIZON = 1000
# What a warm-up that is followed by a fall lacks of its peak.
ALIKE = 0.01


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
        NaN where the optimizer has no epsilon that is a number, or cannot be put back, and where the weights'
        dtype does not hold so small a one.
    """
    taken = length(parameter.detach() - before[name] for name, parameter in model.named_parameters())
    if not _step_again(optimizer, state, model, before, NEGLIGIBLE):
        return math.nan
    whole = length(parameter.detach() - before[name] for name, parameter in model.named_parameters())
    return taken / whole if whole and math.isfinite(whole) else math.nan


def mending(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], model: nn.Module, before: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return the optimizer's ``eps``, and whether the step is finite with one of 1e-4: ``mended``.

    Args:
        optimizer: Of a copy, which has taken the step; it is put back to `state` and takes another.
        state: Its state before.
        model: The copy; its parameters hold the gradients of that step, and are moved.
        before: Its parameters before the step, by name.

    Returns:
        Nothing where the optimizer has no epsilon that is a number, or cannot be put back.
    """
    epsilons = [group.get("eps") for group in state["param_groups"]]
    if not _step_again(optimizer, state, model, before, HELD):
        return {}
    finite = all(math.isfinite(float(rms(parameter.detach()))) for parameter in model.parameters())
    return {"eps": float(min(epsilons)), "mended": float(finite)}


def _step_again(
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    model: nn.Module,
    before: Mapping[str, Tensor],
    epsilon: float,
) -> bool:
    """Take the step once more with another epsilon; False where that cannot be."""
    groups = state["param_groups"]
    if not all(isinstance(group.get("eps"), float) for group in groups):
        return False
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name])
    try:
        optimizer.load_state_dict({**state, "param_groups": [{**g, "eps": epsilon} for g in groups]})
        optimizer.step()
    except Exception:
        return False
    return True


def state_before(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return a copy of the optimizer's state."""
    return copy.deepcopy(optimizer.state_dict())


class Momentum(NamedTuple):
    """The momentum of an optimizer, and what it makes of the first step.

    Args:
        momentum: The largest of the groups; NaN where a group has none.
        built_up: The step that a gradient which stays comes to, over the first one: the largest of the
            groups; NaN where it is not known.
    """

    momentum: float = math.nan
    built_up: float = math.nan


def gather(optimizer: torch.optim.Optimizer) -> Momentum:
    """Return what momentum makes of the first step of an optimizer, by its groups' settings.

    SGD's first step is the gradient, with Nesterov's momentum μ its 1 + μ, and a gradient that stays comes to
    (1 - dampening)/(1 - μ). RMSprop's first step is 1/sqrt(1 - α) in every entry, without momentum and where
    it stays 1. An optimizer that has state made its first steps before.

    Example:
        >>> one = nn.Parameter(torch.ones(1))
        >>> [round(value, 6) for value in gather(torch.optim.SGD([one], 0.1, momentum=0.9))]
        [0.9, 10.0]
        >>> gather(torch.optim.Adam([one], 0.1))
        Momentum(momentum=nan, built_up=nan)
    """
    groups = [group for group in optimizer.param_groups if group["params"]]
    known = all(isinstance(group.get("momentum"), float | int) for group in groups)
    if not groups or not known or any(not 0 <= group["momentum"] < 1 for group in groups):
        return Momentum()
    most = max(float(group["momentum"]) for group in groups)
    return Momentum(most, 1.0 if optimizer.state else max(map(_built_up, groups)))


def _built_up(group: Mapping[str, Any]) -> float:
    momentum = float(group["momentum"])
    if not momentum:
        return 1.0
    if "alpha" in group:
        return math.nan if group.get("centered") else math.sqrt(1 - float(group["alpha"])) / (1 - momentum)
    first = 1 + momentum if group.get("nesterov") else 1.0
    later = (1 - float(group.get("dampening", 0))) / (1 - momentum)
    return (1 + momentum * later if group.get("nesterov") else later) / first


class Betas(NamedTuple):
    """How long a mean of the gradient lasts beside one of its square, in the group where that is longest.

    Args:
        beta1: What the first keeps at each step; NaN where the optimizer has not both.
        beta2: What the second keeps.
        beta_ratio: β1²/sqrt(β2), which Adam's analysis needs to be below 1.
    """

    beta1: float = math.nan
    beta2: float = math.nan
    beta_ratio: float = math.nan


def read_betas(optimizer: torch.optim.Optimizer) -> Betas:
    """Return the betas of an optimizer that has taken a step, by whose state it is known to be like Adam.

    Example:
        >>> one = nn.Parameter(torch.ones(1))
        >>> one.grad = torch.ones(1)
        >>> swapped, infinite = torch.optim.Adam([one], betas=(0.9, 0.25)), torch.optim.Adamax([one])
        >>> _ = swapped.step(), infinite.step()
        >>> round(read_betas(swapped).beta_ratio, 6), read_betas(infinite).beta_ratio
        (1.62, nan)
    """
    found = [
        Betas(first, second, first**2 / math.sqrt(second) if second > 0 else math.inf * first)
        for group in optimizer.param_groups
        if len(betas := group.get("betas") or ()) == 2
        and any(_is_adam(optimizer, p) for p in group["params"])
        for first, second in [(float(betas[0]), float(betas[1]))]
    ]
    return max(found, key=lambda one: one.beta_ratio, default=Betas())


def _is_adam(optimizer: torch.optim.Optimizer, parameter: Tensor) -> bool:
    """Whether the optimizer keeps means of the gradient and of its square, by the names all give them."""
    held = optimizer.state.get(parameter, {})
    return "exp_avg" in held and ("exp_avg_sq" in held or "exp_avg_var" in held)


class Schedule(NamedTuple):
    """What the next thousand rates of a schedule come to; NaN where it does not say.

    Args:
        full_steps: How many steps at the largest of them they add up to.
        rise: The largest of them over the first.
        granted: The largest of them over the rate that the optimizer was given; NaN also where that comes
            last, so that a later one may be larger, and was not held for the second half of them.
        given: The rate that the optimizer was given, of the first group.
        squared: 1 where the largest of every group is the square of what it was given, else 0.
    """

    full_steps: float = math.nan
    rise: float = math.nan
    granted: float = math.nan
    given: float = math.nan
    squared: float = math.nan


def look_ahead(schedule: Any, optimizer: torch.optim.Optimizer) -> Schedule:
    """Return what the next thousand rates of a schedule, stepped after each, come to.

    A schedule that ends before, or needs to be told of a loss, does not say how long it is meant to last, or
    when it falls.

    Args:
        schedule: A learning-rate scheduler; it is stepped.
        optimizer: Its own; the rates change.
    """
    rates, groups = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(HORIZON):
            rates.append(_rate(optimizer, "lr"))
            groups.append([float(group["lr"]) for group in optimizer.param_groups])
            try:
                schedule.step()
            except Exception:
                return Schedule()
    most, given = max(rates), _rate(optimizer, "initial_lr")
    if not most > 0:
        return Schedule()
    past = rates[-1] < most or min(rates[HORIZON // 2 :]) == most
    own = [float(group.get("initial_lr", math.nan)) for group in optimizer.param_groups]
    largest = [max(of_group) for of_group in zip(*groups, strict=True)]
    squared = all(abs(high - rate**2) <= ALIKE * rate**2 for high, rate in zip(largest, own, strict=True))
    return Schedule(
        full_steps=math.fsum(rates) / most,
        rise=most / rates[0] if rates[0] > 0 else math.nan,
        granted=most / given if given > 0 and past else math.nan,
        given=own[0],
        squared=float(squared),
    )


def _rate(optimizer: torch.optim.Optimizer, name: str) -> float:
    """Sum of the groups' rates; NaN where one has none of that name."""
    return sum(float(group.get(name, math.nan)) for group in optimizer.param_groups)
