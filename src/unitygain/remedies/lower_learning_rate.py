"""lower_learning_rate: multiply the learning rate of every parameter group.

The first update of every optimizer of torch is proportional to the learning rate, so the ratio of the update
to the parameter moves by the same factor.

What it changes:
    The learning rate of every group, of an instance in place and of a factory in what it builds.

Why it helps:
    Above 2 over the largest curvature each step of gradient descent overshoots further than the one before.
    Below it the same model trains. A factor above 1 is for steps that are too small to be seen.

When it does not help:
    A gradient that is itself a thousand times too large at one place is only hidden: everything else then
    learns a thousand times too slowly. A rate that is too large at the start alone asks for warm_up, a rare
    batch with a large gradient for clip_gradients. A schedule that sets rates by itself, without their first
    value, overwrites the change.

What it costs:
    Nothing per step; as many times more steps as the rate is lower, where it was not the reason.

References:
    LeCun, Bottou, Orr and Müller, "Efficient BackProp" (1998), section 4.7, on choosing the rate.
"""

import math

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._groups import scale_groups
from unitygain.remedies._snapshot import Undo

# A schedule that was made before has left its first value in the group, where the next one begins.
RATES = ("lr", "initial_lr")


@remedy(treats=("UG601", "UG602", "UG611"), changes="optimizer")
def lower_learning_rate(case: Case, *, factor: float) -> Undo:
    """Multiply the learning rate by `factor`, which may be above 1.

    Args:
        case: The case; an optimizer instance is changed in place, a factory is wrapped.
        factor: What every group's learning rate is multiplied by.

    Returns:
        What puts the optimizer, or its learning rates, back.

    Raises:
        ValueError: If `factor` is not finite and positive, or the case declares no optimizer.

    Side effects:
        ``case.optimizer``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        >>> case = Case(layer, loss=lambda m, x: m(x).sum(), data=[], optimizer=optimizer)
        >>> undo = lower_learning_rate(case, factor=0.5)
        >>> optimizer.param_groups[0]["lr"]
        0.25
    """
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"factor is {factor}; give a positive number, such as 0.1")
    return scale_groups(case, RATES, factor)
