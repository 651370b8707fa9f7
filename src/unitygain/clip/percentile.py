"""percentile: a threshold that is a percentile of the norms seen so far (AutoClip)."""

from dataclasses import dataclass

from torch import Tensor

from unitygain.clip._clip import Clip
from unitygain.clip._gradients import Gradients
from unitygain.clip._history import add, empty_history, quantile
from unitygain.clip._rule import NormsAlone, State, least, require_threshold
from unitygain.stats.scale import combined_norm
from unitygain.theory._given import require_count


@dataclass(frozen=True)
class _Percentile(NormsAlone):
    p: float
    window: int

    name = "percentile"
    keeps_direction = True

    def start(self, seen: Gradients) -> State:
        return empty_history(self.window, seen.norm.device)

    def decide(self, seen: Gradients, state: State) -> tuple[Tensor, State]:
        norm = combined_norm(seen.norm)
        history = add(state, norm)
        return least(quantile(history, self.p / 100), norm), history


def percentile(p: float = 10.0, window: int = 1000) -> Clip:
    """Scale all gradients by min(1, c_t/‖g_t‖), c_t the p-th percentile of the last norms, this one included.

    Keeps the direction. It needs no threshold in units of the gradient, and follows training. The default
    is the paper's and cuts nine steps of ten: the norm then hardly varies, so that the learning rate alone
    sets the size of a step. A p of 90 to 99 cuts outliers alone. The history holds norms as they came, not
    as they were cut, which would tighten the threshold from step to step; a norm that is not finite never
    enters it.

    Cost: one pass, and a sort of the window.

    Args:
        p: Percentile, above 0 and at most 100, interpolated linearly.
        window: How many norms are remembered. The paper keeps all; up to this many steps it is the same.

    Raises:
        ValueError: If p or the window is out of range.

    Example:
        >>> import torch
        >>> w = torch.zeros(1, requires_grad=True)
        >>> clip = percentile(50)
        >>> for norm in (1.0, 3.0, 8.0):
        ...     w.grad = torch.tensor([norm])
        ...     print(clip([w]).norm_after)
        1.0
        2.0
        3.0

    References:
        Seetharaman, Wichern, Pardo and Le Roux, AutoClip: adaptive gradient clipping for source separation
        networks, 2020, algorithm 1.
    """
    return Clip(_Percentile(require_threshold("p", p, largest=100), require_count("window", window)))
