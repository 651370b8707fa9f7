"""mirrored: a threshold for every diffusion time, that mirrors the weight of its loss."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unitygain.clip._clip import Clip
from unitygain.clip._gradients import Gradients, Timestep
from unitygain.clip._rule import State, Stateless, least
from unitygain.stats import mean
from unitygain.stats.scale import combined_norm
from unitygain.theory import mirrored_clip


@dataclass(frozen=True)
class _Mirrored(Stateless):
    c: float
    times: int
    thresholds: Tensor = field(repr=False, compare=False)

    name = "mirrored"
    keeps_direction = True

    def decide(self, seen: Gradients, state: State) -> tuple[Tensor, State]:
        bounds = at_times(self.thresholds, seen.timestep).to(seen.norm.device, non_blocking=True)
        return least(mean(bounds), combined_norm(seen.norm)), {}


def mirrored(c: float, weights: ArrayLike, reference: float | None = None) -> Clip:
    """Scale all gradients by min(1, c_t/‖g‖) with c_t = c·λ_ref/λ_t, λ_t the weight of the loss at time t.

    Keeps the direction. For a diffusion model whose gradient is that of the *unweighted* loss at time t:
    where the weight λ_t is large, the threshold is low, so that the weighted step is never longer than
    c·λ_ref at any time. Call it with the time: ``clip(parameters, timestep=t)``. A batch of several times
    is cut at the mean of their thresholds, which is the longest that a mean of samples, each cut at its
    own, can be; for the exact bound of every sample give `mirrored_thresholds` to `per_sample`.

    Cost: one pass.

    Args:
        c: Largest norm at a time whose weight is the reference.
        weights: λ_t, shape (T,), as `theory.bound_weights` or `theory.min_snr_weights` give them.
        reference: λ_ref; the mean of the weights where left out.

    Raises:
        ValueError: If c or a weight is not above 0; on the call, if the time is missing or not in 0..T-1.

    Example:
        >>> import torch
        >>> from unitygain import theory
        >>> weights = theory.bound_weights(theory.linear_schedule())
        >>> clip = mirrored(1.0, weights)
        >>> w = torch.zeros(1, requires_grad=True)
        >>> norms = []
        >>> for t in (0, 999):
        ...     w.grad = torch.tensor([1e6])
        ...     norms.append(clip([w], timestep=t).norm_after)
        >>> round(norms[1] / norms[0], 1)
        49.0

    References:
        Derived: the gradient of λ·loss is λ times the gradient of the loss; for the weights see Ho, Jain
        and Abbeel, Denoising diffusion probabilistic models, 2020, eq. 12.
    """
    thresholds = mirrored_thresholds(c, weights, reference)
    return Clip(_Mirrored(float(c), len(thresholds), thresholds))


def mirrored_thresholds(c: float, weights: ArrayLike, reference: float | None = None) -> Tensor:
    """Return c_t = c·λ_ref/λ_t for every time, shape (T,), float64; see `mirrored`.

    Raises:
        ValueError: If c or a weight is not above 0.

    Example:
        >>> mirrored_thresholds(1.0, [4.0, 1.0], reference=1.0).tolist()
        [0.25, 1.0]
    """
    return torch.from_numpy(np.ascontiguousarray(mirrored_clip(c, weights, reference)))


def at_times(thresholds: Tensor, timestep: Timestep) -> Tensor:
    """Return the thresholds at the given times, those of a tensor where it lies."""
    if timestep is None:
        raise ValueError("mirrored needs the diffusion time; call clip(parameters, timestep=t)")
    times = torch.as_tensor(timestep)
    if times.is_floating_point() or times.dtype is torch.bool:
        raise ValueError(
            f"timestep has dtype {times.dtype}; give whole numbers from 0 to {len(thresholds) - 1}"
        )
    # On an accelerator the kernel itself refuses a wrong index; looking here would wait for it.
    if times.device.type == "cpu" and not bool(((times >= 0) & (times < len(thresholds))).all()):
        raise ValueError(f"timestep is {timestep}; give whole numbers from 0 to {len(thresholds) - 1}")
    return thresholds.to(times.device, non_blocking=True)[times.long()]
