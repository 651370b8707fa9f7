"""ema: every gradient to a little above the running mean of its own norm (AdaGC)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unitygain.clip._clip import Clip
from unitygain.clip._gradients import Gradients
from unitygain.clip._rule import NormsAlone, State, least, require_threshold
from unitygain.stats.scale import combined_norm
from unitygain.theory._given import require_count


@dataclass(frozen=True)
class _Ema(NormsAlone):
    relative: float
    absolute: float
    beta: float
    warmup: int

    name = "ema"
    keeps_direction = False

    def start(self, seen: Gradients) -> State:
        # A mean of 0 says that the tensor has not been seen with a gradient other than zero.
        zeros = torch.zeros(len(seen.given.parameters), dtype=torch.float64, device=seen.norm.device)
        return {"each_mean": zeros, "steps": seen.number(0.0)}

    def decide(self, seen: Gradients, state: State) -> tuple[Tensor, State]:
        before = seen.pick(state["each_mean"])
        unknown = before == 0
        warming = state["steps"] < self.warmup
        together = least(self.absolute, combined_norm(seen.norm))
        factors = torch.where(warming | unknown, together, least(self.relative * before, seen.norm))
        clipped = seen.norm * factors
        followed = torch.where(
            warming, torch.minimum(before, clipped), self.beta * before + (1 - self.beta) * clipped
        )
        known = torch.where(unknown, clipped, followed)
        after = seen.put(state["each_mean"], torch.where(seen.norm > 0, known, before))
        return factors, {"each_mean": after, "steps": state["steps"] + 1}


def ema(relative: float = 1.05, absolute: float = 1.0, *, beta: float = 0.98, warmup: int = 100) -> Clip:
    """Scale every gradient by min(1, λ_rel·γ_i/‖g_i‖), γ_i the running mean of its own norm after the cut.

    Changes the direction, between tensors: one that spikes is cut, the others are not; within a tensor it
    stays. In the first `warmup` steps it stays altogether: all are scaled together by min(1, λ_abs/‖g‖),
    and γ_i is the least norm of each. As γ
    grows by at most (1 - β)(λ_rel - 1), 0.1 % per step, a gradient that grows for good is held back for
    long.

    Two things depart from the paper, and are the same where no gradient is zero. A norm of zero enters no
    mean: in the paper one zero in the warm-up (a branch that starts at zero) makes γ 0, and the tensor
    never gets a gradient again. A tensor that has not been seen is cut with the others, as in the warm-up.
    Gradients that are not finite are left out.

    Cost: one pass.

    Args:
        relative: λ_rel, times the running mean.
        absolute: λ_abs, the largest norm of all together in the warm-up.
        beta: What the running means keep at every step.
        warmup: Steps of the warm-up.

    Raises:
        ValueError: If a number is out of range; on the call, if the number of parameters changed.

    Example:
        >>> import torch
        >>> w = torch.zeros(1, requires_grad=True)
        >>> clip = ema(warmup=1)
        >>> for norm in (1.0, 5.0):
        ...     w.grad = torch.tensor([norm])
        ...     report = clip([w])
        >>> round(report.norm_after, 4)
        1.05

    References:
        Wang et al., AdaGC: improving training stability for large language model pretraining, 2025,
        algorithm 1.
    """
    return Clip(
        _Ema(
            require_threshold("relative", relative),
            require_threshold("absolute", absolute),
            require_threshold("beta", beta, largest=1),
            require_count("warmup", warmup),
        )
    )
