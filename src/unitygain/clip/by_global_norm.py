"""by_global_norm: all gradients, as one vector, to at most a given norm."""

import math
from dataclasses import dataclass

from torch import Tensor

from unitygain.clip._clip import Clip
from unitygain.clip._gradients import Gradients
from unitygain.clip._rule import State, Stateless, least, require_threshold
from unitygain.stats import absmax
from unitygain.stats.scale import combined_norm
from unitygain.stats.units import power_norm_together


@dataclass(frozen=True)
class _ByGlobalNorm(Stateless):
    c: float
    p: float

    name = "by_global_norm"
    keeps_direction = True

    @property
    def needs_absmax(self) -> bool:
        return math.isinf(self.p)

    @property
    def reads_entries(self) -> bool:
        return self.p != 2 and not math.isinf(self.p)

    def decide(self, seen: Gradients, state: State) -> tuple[Tensor, State]:
        return least(self.c, global_norm(seen, self.p)), {}


def by_global_norm(c: float, p: float = 2.0) -> Clip:
    """Scale all gradients by min(1, c/‖g‖_p), with ‖g‖_p the norm of all entries of all gradients.

    Keeps the direction: every entry is multiplied by the same number. There is no small constant in the
    denominator, so that the norm after is c, also for a c of 1e-8.

    Cost: one pass; for p other than 2 one more, which costs about four for p other than infinity.

    Args:
        c: Largest norm. Infinity clips nothing and only reports.
        p: Which norm; infinity is the largest entry.

    Raises:
        ValueError: If c or p is not above 0.

    Example:
        >>> import torch
        >>> w = torch.zeros(2, requires_grad=True)
        >>> w.grad = torch.tensor([3.0, 4.0])
        >>> report = by_global_norm(1.0)([w])
        >>> w.grad
        tensor([0.6000, 0.8000])

    References:
        Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013,
        algorithm 1.
    """
    return Clip(_ByGlobalNorm(require_threshold("c", c), require_threshold("p", p)))


def global_norm(seen: Gradients, p: float) -> Tensor:
    """Return the p-norm of all gradients as one vector, in float64."""
    if p == 2:
        return combined_norm(seen.norm)
    if not seen.parameters:
        return seen.number(0.0)
    if math.isinf(p):
        assert seen.absmax is not None, "the rule asks for it"
        return absmax(seen.absmax)
    gradients = [seen.gradient(i) for i in range(len(seen.parameters))]
    return power_norm_together(gradients, p=p).to(seen.norm.device, non_blocking=True)
