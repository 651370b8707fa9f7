"""zscore: norms that lie too many standard deviations above their running mean (ZClip)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unitygain.clip._clip import Clip
from unitygain.clip._gradients import Gradients
from unitygain.clip._rule import NormsAlone, State, least, require_threshold
from unitygain.stats.scale import combined_norm
from unitygain.theory._given import require_count, require_variance

# Of the published implementation: keeps the score finite where all norms were equal.
_EPSILON = 1e-6


@dataclass(frozen=True)
class _ZScore(NormsAlone):
    z: float
    alpha: float
    warmup: int
    warmup_norm: float
    least_spread: float

    name = "zscore"
    keeps_direction = True

    def start(self, seen: Gradients) -> State:
        return {"mean": seen.number(0.0), "variance": seen.number(0.0), "steps": seen.number(0.0)}

    def decide(self, seen: Gradients, state: State) -> tuple[Tensor, State]:
        norm = combined_norm(seen.norm)
        warming = state["steps"] < self.warmup
        bound = torch.where(warming, self.warmup_norm, self._bound(norm, state))
        factor = least(bound, norm)
        first, later = self._warmed(norm, state), self._followed(norm * factor, state)
        after = {key: torch.where(warming, first[key], later[key]) for key in first}
        return factor, after | {"steps": state["steps"] + 1}

    def _bound(self, norm: Tensor, state: State) -> Tensor:
        """Return μ + z²σ/z_t where the score z_t is above z, else infinity."""
        spread = torch.maximum(state["variance"].sqrt(), self.least_spread * state["mean"])
        score = (norm - state["mean"]) / (spread + _EPSILON)
        return torch.where(score > self.z, state["mean"] + self.z**2 / score * spread, torch.inf)

    def _warmed(self, norm: Tensor, state: State) -> dict[str, Tensor]:
        """Mean and variance of all norms so far, one norm more."""
        count = state["steps"] + 1
        off = norm - state["mean"]
        mean = state["mean"] + off / count
        variance = (state["variance"] * (count - 1) + off * (norm - mean)) / count
        return {"mean": mean, "variance": variance}

    def _followed(self, clipped: Tensor, state: State) -> dict[str, Tensor]:
        mean = self.alpha * state["mean"] + (1 - self.alpha) * clipped
        variance = self.alpha * state["variance"] + (1 - self.alpha) * (clipped - mean) ** 2
        return {"mean": mean, "variance": variance}


def zscore(
    z: float = 2.5,
    *,
    alpha: float = 0.97,
    warmup: int = 25,
    warmup_norm: float = 1.0,
    least_spread: float = 0.01,
) -> Clip:
    """Cut a norm n whose score z_t = (n - μ)/σ exceeds z to μ + z²σ/z_t: the higher the spike, the lower.

    Keeps the direction. μ and σ² are running means of the norms *after* the cut and of their squared
    distance to the mean, so that spikes hardly move them; the first `warmup` norms give their first values
    and are cut at `warmup_norm`. A norm that is not finite is left out.

    One number departs from the paper: the spread counts as at least 1 % of the mean. Without it norms that
    were all alike (1, 1, 1) make an outlier of 1.00001; ``least_spread=0`` is the paper.

    Cost: one pass.

    Args:
        z: Score above which a norm is cut.
        alpha: What the running means keep at every step.
        warmup: Steps that make their first values.
        warmup_norm: Largest norm in those steps; infinity for none.
        least_spread: Smallest σ, as a fraction of μ.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> import torch
        >>> w = torch.zeros(1, requires_grad=True)
        >>> clip = zscore(warmup=4, warmup_norm=float("inf"))
        >>> for norm in (1.0, 3.0, 1.0, 3.0, 10.0):  # mean 2, standard deviation 1, so a score of 8
        ...     w.grad = torch.tensor([norm])
        ...     report = clip([w])
        >>> round(report.norm_after, 4)
        2.7813

    References:
        Kumar, Owen, Chowdhury and Güra, ZClip: adaptive spike mitigation for LLM pre-training, 2025,
        algorithm 1.
    """
    alpha = require_threshold("alpha", alpha, largest=1)
    count = require_count("warmup", warmup)
    spread = require_variance("least_spread", least_spread)
    return Clip(
        _ZScore(
            require_threshold("z", z), alpha, count, require_threshold("warmup_norm", warmup_norm), spread
        )
    )
