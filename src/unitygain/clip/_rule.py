"""What a rule is: a frozen value that says how much of each gradient stays."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from unitygain.clip._gradients import Gradients

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Bend:
    """A change that no factor per tensor expresses: entries, or units, are cut on their own.

    Args:
        fires: Which tensors it changes.
        change: Returns the new gradient of tensor i (of a DTensor, its local piece).
    """

    fires: Bool[Tensor, " tensors"]
    change: Callable[[int], Tensor]


# One factor for all tensors (0-dim), one for each, or a change of the entries.
Decision = Tensor | Bend


class Rule(Protocol):
    """``(gradients, state) -> (decision, state)``: pure, so that the same input gives the same bits.

    A rule that waits for no device: it returns tensors and never asks for their value.
    """

    @property
    def name(self) -> str:
        """What makes the rule: the public function."""
        ...

    @property
    def keeps_direction(self) -> bool:
        """Whether the gradient as a whole keeps its direction."""
        ...

    @property
    def needs_absmax(self) -> bool:
        """Whether it reads the largest entry of each tensor, which costs a pass."""
        ...

    @property
    def reads_entries(self) -> bool:
        """Whether it reads the gradients themselves to decide, so that what was decided must be written."""
        ...

    def start(self, seen: Gradients) -> State:
        """Return what the rule remembers before its first step; empty if it remembers nothing."""
        ...

    def decide(self, seen: Gradients, state: State) -> tuple[Decision, State]:
        """Return what stays, and what to remember, which is dropped if a gradient is not finite."""
        ...


class NormsAlone:
    """The part of a rule that decides from the norms and never reads an entry."""

    @property
    def needs_absmax(self) -> bool:
        """Not at all."""
        return False

    @property
    def reads_entries(self) -> bool:
        """Not at all."""
        return False


class Stateless(NormsAlone):
    """The part of a rule that remembers nothing."""

    def start(self, seen: Gradients) -> State:
        """Return nothing."""
        return {}


def describe(rule: Rule) -> str:
    """Return a rule as the call that makes it, such as ``by_global_norm(c=1.0, p=2.0)``."""
    given = [f"{field.name}={_short(getattr(rule, field.name))}" for field in fields(rule) if field.repr]  # pyright: ignore[reportArgumentType]
    return f"{rule.name}({', '.join(given)})"


def least(bound: Tensor | float, norm: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Return min(1, bound/norm): the factor that brings a norm down to a bound, and 1 for a norm of zero."""
    return torch.where(norm > bound, bound / norm, 1.0)


def require_threshold(name: str, value: float, *, largest: float = math.inf) -> float:
    """Return `value` as a float.

    Raises:
        ValueError: If it is NaN, not above 0, or above `largest`.
    """
    if not 0 < value <= largest:
        upper = "" if math.isinf(largest) else f" and at most {largest:g}"
        raise ValueError(f"{name} is {value}; give a number above 0{upper}")
    return float(value)


def _short(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)
