"""by_update_rms: gradients whose Adam update would be larger than usual (StableAdamW, Adafactor)."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unitygain.clip._clip import Clip
from unitygain.clip._gradients import Gradients
from unitygain.clip._rule import State, Stateless, least, require_threshold
from unitygain.stats import rms


@dataclass(frozen=True)
class _ByUpdateRms(Stateless):
    d: float
    eps: float
    optimizer: torch.optim.Optimizer = field(repr=False)

    name = "by_update_rms"
    keeps_direction = False

    @property
    def reads_entries(self) -> bool:
        return True

    def decide(self, seen: Gradients, state: State) -> tuple[Tensor, State]:
        groups = {id(p): group for group in self.optimizer.param_groups for p in group["params"]}
        sizes = [self._size(seen, i, groups) for i in range(len(seen.parameters))]
        if not sizes:
            return seen.norm, {}
        home = seen.norm.device
        return least(self.d, torch.stack([size.to(home, non_blocking=True) for size in sizes])), {}

    def _size(self, seen: Gradients, index: int, groups: dict[int, dict[str, Any]]) -> Tensor:
        """Return the rms of g/√v, v the second moment that holds g; 0, which cuts nothing, without one."""
        parameter, gradient = seen.parameters[index], seen.gradient(index)
        state = self.optimizer.state.get(parameter, {})
        if "exp_avg_sq" not in state:
            return torch.zeros((), dtype=torch.float64, device=seen.norm.device)
        keep = groups[id(parameter)]["betas"][1]
        before = state["exp_avg_sq"]
        size = (gradient if gradient.layout is torch.strided else gradient.to_dense()).abs().to(before.dtype)
        # No square of the gradient is formed: that of 1e20 is infinite, and would pass for a usual one.
        root = torch.hypot(before.sqrt() * keep**0.5, size * (1 - keep) ** 0.5)
        return rms(size / (root / _bias(state["step"], keep)).clamp(min=self.eps))


def _bias(step: float | Tensor, keep: float) -> float | Tensor:
    """Return what √v is divided by in the step after `step`; on an accelerator a tensor, not waited for."""
    if isinstance(step, Tensor) and step.device.type != "cpu":
        return (1 - keep ** (step.double() + 1)) ** 0.5
    return (1 - keep ** (float(step) + 1)) ** 0.5


def by_update_rms(optimizer: torch.optim.Optimizer, d: float = 1.0, eps: float = 1e-8) -> Clip:
    """Scale every gradient by min(1, d/RMS_i), RMS_i the rms of g/√v with Adam's second moment v.

    Changes the direction: every tensor is cut on its own; within a tensor it stays. RMS_i says how large
    the tensor's update would be without momentum: 1 where the gradient is as it was of late, and at most
    1/√(1 - β₂) where it is suddenly larger. StableAdamW lowers the learning rate by this factor for one step;
    here the gradient is scaled before it enters the moments, so that a spike does not stay in them. In the
    first step, where there is no second moment, nothing is cut.

    Cost: about eight passes and memory for three copies of the largest gradient, a sparse one filled in.

    Args:
        optimizer: Adam, AdamW or another that keeps ``exp_avg_sq``.
        d: Largest RMS_i.
        eps: Least √v.

    Raises:
        ValueError: If d or eps is not above 0, or the optimizer has no second moment.

    Example:
        >>> import torch
        >>> w = torch.zeros(1, requires_grad=True)
        >>> adam = torch.optim.AdamW([w], betas=(0.9, 0.99))
        >>> clip = by_update_rms(adam)
        >>> for entry in (1.0, 10.0):
        ...     w.grad = torch.tensor([entry])
        ...     report = clip([w])
        ...     adam.step()
        >>> round(report.norm_after, 3)  # v = (0.99·0.01·1 + 0.01·100)/(1 - 0.99²), 10 over 10/√v
        7.124

    References:
        Wortsman et al., Stable and low-precision training for large-scale vision-language models, 2023,
        algorithm 2; Shazeer and Stern, Adafactor, 2018, section 6.
    """
    if not all("betas" in group for group in optimizer.param_groups):
        raise ValueError(
            f"{type(optimizer).__name__} keeps no second moment; give Adam or AdamW, or use ema() or agc()"
        )
    return Clip(_ByUpdateRms(require_threshold("d", d), require_threshold("eps", eps), optimizer))
