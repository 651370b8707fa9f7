"""The numbers of a step, read once and the same on every rank."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unitygain.guard._ranks import largest, meeting_place
from unitygain.stats import gradient_stats

SHOWN = 3


@dataclass(frozen=True)
class Reading:
    """Loss and gradient norm of a step; NaN where any rank's was not finite.

    Args:
        loss: The largest of all ranks; None if none was given.
        grad_norm: The largest of all ranks, which are equal where gradients are reduced or sharded.
        running_var_norm: Norm of the running variances of all batch norms; None if there are none.
        tensors: Names of tensors whose gradient is not finite here; empty if another rank's was not.
    """

    loss: float | None
    grad_norm: float
    running_var_norm: float | None
    tensors: tuple[str, ...] = ()

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
) -> Reading:
    """Read the gradients of `named`, the loss, and running variances.

    Cost: one pass over the gradients, one wait for the device; on several ranks one all-reduce of six
    numbers, besides what a norm of sharded gradients takes.

    Raises:
        ValueError: If the loss is not one number.
    """
    held = [(name, parameter.grad) for name, parameter in named if parameter.grad is not None]
    stats = gradient_stats([gradient for _, gradient in held])
    total = stats.total_norm().to(meeting_place(named[0][1].device))
    running = gradient_stats(variances).total_norm().to(total.device)
    own = torch.stack([total, _number(loss, total), running])
    bad = ~own.isfinite()
    # A MAX over ranks may drop a NaN, so that it travels as a flag.
    packed = torch.cat([bad.to(torch.float64), own.masked_fill(bad, -math.inf)])
    *flags, norm, value, running = largest(packed, group)
    bad_norm, bad_loss, bad_running = flags
    tensors = ()
    if bad_norm:
        finite = stats.finite.tolist()
        tensors = tuple(name for (name, _), good in zip(held, finite, strict=True) if not good)
    return Reading(
        loss=None if loss is None else math.nan if bad_loss else value,
        grad_norm=math.nan if bad_norm else norm,
        running_var_norm=None if not variances else math.nan if bad_running else running,
        tensors=tensors,
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
