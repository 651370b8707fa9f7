"""The numbers of a step, read once and the same on every rank."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unitygain.guard._ranks import meeting_place
from unitygain.stats import GradientStats, agreed_gradient_stats, gradient_stats

SHOWN = 3


@dataclass(frozen=True)
class Reading:
    """Loss and gradient norm of a step; NaN where any rank's was not finite.

    Args:
        loss: The largest of all ranks; None if none was given.
        grad_norm: The largest of all ranks, which are equal where gradients are reduced or sharded.
        running_var_norm: Norm of the running variances of all batch norms; None if there are none.
        tensors: Names of tensors whose gradient is not finite here; empty if another rank's was not.
        stats: Of each gradient that there is, in the order of the parameters.
    """

    loss: float | None
    grad_norm: float
    running_var_norm: float | None
    tensors: tuple[str, ...] = ()
    stats: GradientStats | None = None

    @property
    def seen(self) -> tuple[float | None, float]:
        """Loss and gradient norm."""
        return self.loss, self.grad_norm

    def values(self) -> dict[str, float]:
        """Return the numbers that there are, by name."""
        numbers = {
            "loss": self.loss,
            "grad_norm": self.grad_norm,
            "running_var_norm": self.running_var_norm,
        }
        return {name: number for name, number in numbers.items() if number is not None}


def read(
    named: Sequence[tuple[str, nn.Parameter]],
    loss: Tensor | float | None,
    variances: Sequence[Tensor] = (),
    group: Any = None,
    *,
    absmax: bool = False,
) -> Reading:
    """Read the gradients of `named`, the loss, and running variances.

    Cost: one pass over the gradients, one wait for the device; on several ranks one all-gather, in which the
    norms of sharded gradients travel too (`agreed_gradient_stats`).

    Raises:
        ValueError: If the loss is not one number.
    """
    held = [(name, parameter.grad) for name, parameter in named if parameter.grad is not None]
    meeting = meeting_place(named[0][1].device)
    running = gradient_stats(variances).total_norm().to(meeting)
    own = torch.stack([_number(loss, running), running])
    # The largest of all ranks is NaN if one is; of infinities it might be a number.
    own = own.masked_fill(~own.isfinite(), math.nan)
    agreed = agreed_gradient_stats([gradient for _, gradient in held], own, absmax=absmax, group=group)
    norm, value, running = torch.cat([agreed.total.reshape(1), agreed.largest]).tolist()
    tensors = ()
    if not math.isfinite(norm):
        finite = agreed.stats.finite.tolist()
        tensors = tuple(name for (name, _), good in zip(held, finite, strict=True) if not good)
    return Reading(
        loss=None if loss is None else _finite_or_nan(value),
        grad_norm=_finite_or_nan(norm),
        running_var_norm=_finite_or_nan(running) if variances else None,
        tensors=tensors,
        stats=agreed.stats,
    )


def described(tensors: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = len(tensors) - SHOWN
    return ", ".join(tensors[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _number(loss: Tensor | float | None, like: Tensor) -> Tensor:
    if loss is None:
        return torch.zeros_like(like)
    if isinstance(loss, Tensor):
        if loss.numel() != 1:
            raise ValueError(f"the loss has shape {tuple(loss.shape)}; give one number, such as loss.mean()")
        return loss.detach().reshape(()).to(like.device, torch.float64)
    return torch.full_like(like, float(loss))


def _finite_or_nan(number: float) -> float:
    return number if math.isfinite(number) else math.nan
