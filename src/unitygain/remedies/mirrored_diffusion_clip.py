"""mirrored_diffusion_clip: clip a diffusion model's gradient at what mirrors the weight of its time.

The threshold at time t is c · mean weight / weight of t, so that the weighted step is no longer at one time
than at another. The times of a step are read from the last call of the outermost module that is told them;
calls without gradients (a teacher, an evaluation) do not count.

What it changes:
    The clip of the case, in whose place it stands; hooks on the modules that take a time note it.

Why it helps:
    Where the loss at low noise is worth fifty times more, so is its gradient, and one constant threshold
    either cuts those times alone or never cuts the others.

When it does not help:
    It is for gradients of the unweighted loss, whose weights come after, in the step or the learning rate;
    where the loss weighs its samples itself, a constant threshold is the mirrored one: clip_gradients. A
    batch of many times is cut at the mean of their thresholds, which is nearly one number. Of micro-batches
    that are added up the last one's times count. What is weighed wrongly stays so: min_snr.

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
from unitygain.clip import Clip, ClipReport, mirrored
from unitygain.probe.clock import find_clocks
from unitygain.probe.hooks import Hooks
from unitygain.probe.leaves import in_backward
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
    given, times, hooks = case.clip, _Times(), Hooks()
    modules = dict(case.model.named_modules())
    for path, name in clocks.items():
        note = _Note(times, path, name)
        hooks.on_call(modules[path], note, note.leave)
    case.clip = _AtTheirTimes(mirrored(c, weights), times, len(list(torch.as_tensor(weights))))

    def undo() -> None:
        hooks.remove()
        case.clip = given

    return undo


class _Times:
    """What the outermost module of the last call was told; None where that call told it no time.

    A copy of the case shares it, as it shares the clip that reads it.
    """

    def __init__(self) -> None:
        self.told: Tensor | None = None
        self.inside: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Times":
        return self


class _Note:
    """Notes the time of a call, if it is the outermost one, trains, and is no recomputation.

    Args:
        times: Where to note it.
        path: Of the module.
        name: Of the argument.
    """

    def __init__(self, times: _Times, path: str, name: str) -> None:
        self.times, self.path, self.name = times, path, name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A call that raised never left: the module's next one is outermost again.
        if in_backward() or not torch.is_grad_enabled() or self.times.inside not in {None, self.path}:
            return
        self.times.inside = self.path
        time = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments.get(self.name)
        known = isinstance(time, (Tensor, int, float)) and not isinstance(time, bool)
        self.times.told = torch.as_tensor(time).detach() if known else None

    def leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Let the next call be an outermost one."""
        if self.times.inside == self.path and not in_backward():
            self.times.inside = None


class _AtTheirTimes:
    """The clip: at the threshold of the times that were told."""

    def __init__(self, cut: Clip, times: _Times, count: int) -> None:
        self.cut, self.times, self.count = cut, times, count

    def __call__(self, parameters: Iterable[nn.Parameter]) -> ClipReport:
        told = self.times.told
        if told is None:
            raise ValueError("no module was told a time in this step; the clip does not know its threshold")
        return self.cut(list(parameters), timestep=_index(told, self.count))


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
