"""loss_scale: multiply the loss by a power of two.

Every gradient is multiplied by the same number, which moves it within the range of its dtype and changes
nothing else: a power of two rounds nothing. It tells an underflow (the gradient comes back, in proportion)
from a gradient that is truly that small. In training it needs its counterpart, a division of the gradients
before the step: torch.amp.GradScaler does both.

References: Micikevicius et al., "Mixed Precision Training" (ICLR 2018, arXiv:1710.03740), section 3.2.
"""

import math

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG501", "UG503"))
def loss_scale(case: Case, *, scale: float) -> Undo:
    """Multiply the loss of the case by `scale`.

    Args:
        case: The case; its loss function is wrapped.
        scale: A positive power of two.

    Returns:
        What gives the case its own loss function back.

    Raises:
        ValueError: If `scale` is no positive power of two.

    Side effects:
        ``case.loss``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> case = Case(nn.Linear(1, 1), loss=lambda m, x: x.sum() + 0 * m(x).sum(), data=[torch.ones(1, 1)])
        >>> undo = loss_scale(case, scale=1024.0)
        >>> case.compute_loss(case.batches[0]).item()
        1024.0
    """
    if not (math.isfinite(scale) and scale > 0 and math.frexp(scale)[0] == 0.5):
        raise ValueError(f"scale is {scale}; give a positive power of two, such as 1024.0")
    given = case.loss
    case.loss = lambda model, batch: given(model, batch) * scale

    def undo() -> None:
        case.loss = given

    return undo
