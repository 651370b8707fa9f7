"""adaptive_value: entries above the running mean of the tensor's largest entry (AdaClip of Stable-SPAM)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unitygain.clip._apply import own_piece
from unitygain.clip._clip import Clip
from unitygain.clip._gradients import Gradients
from unitygain.clip._rule import Bend, State, require_threshold


@dataclass(frozen=True)
class _AdaptiveValue:
    gamma: float

    name = "adaptive_value"
    keeps_direction = False
    needs_absmax = True
    reads_entries = False

    def start(self, seen: Gradients) -> State:
        zeros = torch.zeros(len(seen.given.parameters), dtype=torch.float64, device=seen.norm.device)
        return {"each_largest": zeros, "each_steps": zeros}

    def decide(self, seen: Gradients, state: State) -> tuple[Bend, State]:
        largest = seen.absmax
        assert largest is not None, "the rule asks for it"
        before, steps = seen.pick(state["each_largest"]), seen.pick(state["each_steps"])
        some = largest > 0
        count = torch.where(some, steps + 1, steps)
        mean = torch.where(some, self.gamma * before + (1 - self.gamma) * largest, before)
        bounds = mean / (1 - self.gamma**count)

        def change(index: int) -> Tensor:
            gradient = own_piece(seen.gradient(index))
            bound, top = bounds[index], largest[index]
            return _shrunk(gradient, bound, bound / top)

        after = {
            "each_largest": seen.put(state["each_largest"], mean),
            "each_steps": seen.put(state["each_steps"], count),
        }
        return Bend(largest > bounds, change), after


def adaptive_value(gamma: float = 0.999) -> Clip:
    """Scale the entries above T by T/m, m the largest entry of the tensor and T the running mean of m.

    Changes the direction: a few entries lose weight against the others. Signs stay, and so does a tensor
    whose largest entry is not above T. Unlike `by_value` it needs no threshold in units of the gradient,
    and keeps the large entries in proportion to each other. A tensor that is zero says nothing and is left
    out of T, and so is what is not finite. It is the first half of the gradient's treatment in Stable-SPAM;
    the second, which sets every norm at every step, is no clip.

    Cost: two passes, since the largest entry is looked for; where something is cut, about ten more over
    that tensor, for its cosine.

    Args:
        gamma: What the running mean keeps at every step.

    Raises:
        ValueError: If gamma is not above 0 and at most 0.999999; on the call, if the number of parameters
            changed.

    Example:
        >>> import torch
        >>> w = torch.zeros(3, requires_grad=True)
        >>> clip = adaptive_value(0.5)
        >>> for largest in (1.0, 3.0):  # T = (0.25·1 + 0.5·3)/0.75 = 7/3
        ...     w.grad = torch.tensor([largest, 2.5, 1.0]).clamp(max=largest)
        ...     report = clip([w])
        >>> w.grad
        tensor([2.3333, 1.9444, 1.0000])

    References:
        Huang et al., Stable-SPAM: how to train in 4-bit more stably than 16-bit Adam, 2025, AdaClip.
    """
    return Clip(_AdaptiveValue(require_threshold("gamma", gamma, largest=0.999999)))


def _shrunk(gradient: Tensor, bound: Tensor, factor: Tensor) -> Tensor:
    """Return the gradient with the entries above `bound` multiplied; a sparse one coalesced."""
    if gradient.layout is torch.sparse_coo:
        whole = gradient.coalesce()
        values = _shrunk(whole.values(), bound, factor)
        return torch.sparse_coo_tensor(
            whole.indices(), values, whole.shape, is_coalesced=True, check_invariants=False
        )
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    cut = wide * factor.to(wide.device, non_blocking=True)
    return torch.where(wide.abs() > bound.to(wide.device, non_blocking=True), cut, wide).to(gradient.dtype)
