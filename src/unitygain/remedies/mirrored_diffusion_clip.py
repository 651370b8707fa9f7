"""mirrored_diffusion_clip: clip a diffusion model's gradient at what mirrors the weight of its time.

The threshold at time t is c · mean weight / weight of t, so that the weighted step is no longer at one time
than at another. The times of a step are read from the call of the module that is told them.

What it changes:
    The clip of the case, in whose place it stands; hooks on the modules that take a time note it.

Why it helps:
    Where the loss at low noise is worth fifty times more, so is its gradient, and one constant threshold
    either cuts those times alone or never cuts the others.

When it does not help:
    It is for gradients of the unweighted loss, whose weights come after, in the step or the learning rate;
    where the loss weighs its samples itself, a constant threshold is the mirrored one: clip_gradients. A
    batch of many times is cut at the mean of their thresholds, which is nearly one number. What is weighed
    wrongly stays so: min_snr.

What it costs:
    One pass over the gradients per step.

References:
    Ho, Jain and Abbeel, "Denoising diffusion probabilistic models" (NeurIPS 2020), equation 12, for the
    weights. The thresholds are derived from them: the gradient of a weighted loss is its weight times the
    gradient of the loss.
"""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.clip import mirrored
from unitygain.probe.clock import find_clocks
from unitygain.probe.hooks import Hooks
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG705",), changes="gradient", instead_of=("swap_loss",))
def mirrored_diffusion_clip(case: Case, *, weights: ArrayLike | None = None, c: float = 1.0) -> Undo:
    """Clip at c · mean(weights) / weights[t].

    Args:
        case: The case; it gets another clip. A case with its own step must call ``case.clip`` in it.
        weights: The weight of the loss at every time, as theory.bound_weights(schedule) gives it. Times that
            are whole numbers are its indices; times from 0 to 1 are the part of its length.
        c: Largest norm at a time of the mean weight.

    Returns:
        What gives the case its own clip back and removes the hooks.

    Raises:
        ValueError: If there are no weights, one is not above 0, or no module is told a time; on the clip, if
            no time was told or one lies outside.

    Side effects:
        ``case.clip``; a hook on every module that is told a time.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class Denoiser(nn.Linear):
        ...     def forward(self, x, t):
        ...         return super().forward(x)
        >>> case = Case(Denoiser(1, 1), loss=lambda m, b: m(*b).sum(),
        ...             data=[(torch.ones(2, 1), torch.tensor([0, 0]))])
        >>> undo = mirrored_diffusion_clip(case, weights=[4.0, 1.0], c=0.1)
        >>> case.compute_loss(case.batches[0]).backward()
        >>> round(case.clip(case.model.parameters()).norm_after, 4)  # 0.1 · 2.5 / 4
        0.0625
    """
    if weights is None:
        raise ValueError(
            "the case does not say how its loss weighs the times; give weights="
            "theory.bound_weights(schedule), or theory.min_snr_weights(schedule, target='x0')"
        )
    clocks = find_clocks(case.model)
    if not clocks:
        raise ValueError(
            "no module's forward takes a time (t, timestep, sigma, ...); call mirrored in the step"
        )
    cut, given = mirrored(c, weights), case.clip
    count, told, hooks = len(list(torch.as_tensor(weights))), [], Hooks()
    modules = dict(case.model.named_modules())
    for path, name in clocks.items():
        hooks.on_call(modules[path], _noting(told, name), lambda *_: None)

    def clip(parameters: Iterable[nn.Parameter]) -> Any:
        if not told:
            raise ValueError("no module was told a time in this step; the clip does not know its threshold")
        return cut(list(parameters), timestep=_index(told[-1], count))

    case.clip = clip

    def undo() -> None:
        hooks.remove()
        case.clip = given

    return undo


def _noting(told: list[Tensor], name: str) -> Any:
    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        time = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments.get(name)
        if isinstance(time, Tensor):
            told[:] = [time.detach()]

    return note


def _index(times: Tensor, count: int) -> Tensor:
    """Return the times as indices of the weights.

    Raises:
        ValueError: If they are neither whole numbers nor from 0 to 1.
    """
    if not times.is_floating_point():
        return times
    if bool(((times >= 0) & (times <= 1)).all()):
        return (times * count).round().long().clamp(max=count - 1)
    if not torch.equal(times, times.round()):
        raise ValueError(
            f"the module was told a time of {float(times.flatten()[0]):.4g}; times are indices of the "
            f"{count} weights, or lie from 0 to 1"
        )
    return times.long()
