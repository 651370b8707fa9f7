"""max_norm: after the step, the weights of every unit to at most a given norm."""

from collections.abc import Callable

import torch
from torch import Tensor

from unitygain.clip._apply import own_piece
from unitygain.clip._rule import least, require_threshold
from unitygain.stats.units import unit_norms


@torch.no_grad()
def max_norm(weight: Tensor, limit: float, *, units: int | None = 0) -> Callable[[], None]:
    """Scale the weights of every unit by min(1, limit/‖w_i‖): a projection, to be called after the step.

    Changes the direction of the weight, between units: each is scaled down by a factor of its own; within a
    unit it stays. The gradient stays. A unit below the limit keeps its bits, and so does one that is not
    finite. The optimizer's state is left as it is.

    Cost: about ten passes in float64 over the weight, and a copy of it where something is scaled, for the
    undo.

    Args:
        weight: A parameter; changed in place.
        limit: Largest norm.
        units: Dimension that indexes the units: 0 for the outputs of torch's layers; None takes the
            weight as one unit.

    Returns:
        What puts the weight back, bit for bit.

    Raises:
        ValueError: If the limit is not above 0, or the weight is sparse or cut through its units.

    Example:
        >>> import torch
        >>> weight = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
        >>> undo = max_norm(weight, 1.0)
        >>> weight
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])

    References:
        Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, Dropout: a simple way to prevent
        neural networks from overfitting, 2014, section 5.1.
    """
    bound = require_threshold("limit", limit)
    norms = unit_norms(weight, units if weight.ndim > 1 else None)
    factors = torch.where(norms.isfinite(), least(bound, norms), 1.0)
    return scale_down(weight, factors)


def scale_down(weight: Tensor, factors: Tensor) -> Callable[[], None]:
    """Multiply a weight in place, where a factor is below 1, and return the undo."""
    piece = own_piece(weight).detach()
    if not (factors < 1).any():
        return _nothing
    before = piece.clone()
    wide = torch.promote_types(piece.dtype, torch.float32)
    piece.copy_((before.to(wide) * factors.to(wide.to_real())).to(piece.dtype))

    def undo() -> None:
        with torch.no_grad():
            piece.copy_(before)

    return undo


def _nothing() -> None:
    """Undo of a projection that changed nothing."""
