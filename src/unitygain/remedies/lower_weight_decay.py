"""lower_weight_decay: multiply the weight decay.

Both of what decay asks of a weight, the term that it adds to the gradient and the fraction that it takes of
the weight, are proportional to it.

What it changes:
    The weight decay of every group, of an instance in place and of a factory in what it builds.

Why it helps:
    Decay takes a weight to where its gradient holds against it. Where the gradient is the weaker one that
    place is near zero, and what the model could learn goes there with it.

When it does not help:
    Where gradients are small for another reason, such as depth or a small loss, less decay keeps the weights
    and brings no gradient back. Where a training overfits, it may have been right.

What it costs:
    Nothing per step. Weights grow larger over a long training, and with them the gap to unseen data.

References:
    Krogh and Hertz, "A Simple Weight Decay Can Improve Generalization" (NIPS 1991), equation 2. Loshchilov
    and Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019), section 2.
"""

import math

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._groups import scale_groups
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG609",), changes="optimizer")
def lower_weight_decay(case: Case, *, factor: float = 0.1) -> Undo:
    """Multiply the weight decay of every group by `factor`.

    Args:
        case: The case; an optimizer instance is changed in place, a factory is wrapped.
        factor: What every group's weight decay is multiplied by; 0 takes it away.

    Returns:
        What puts the optimizer, or its weight decay, back.

    Raises:
        ValueError: If `factor` is not finite or below 0, or the case declares no optimizer, or one that has
            no weight decay.

    Side effects:
        ``case.optimizer``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.5, weight_decay=0.5)
        >>> case = Case(layer, loss=lambda m, x: m(x).sum(), data=[], optimizer=optimizer)
        >>> undo = lower_weight_decay(case, factor=0.5)
        >>> optimizer.param_groups[0]["weight_decay"]
        0.25
    """
    if not (math.isfinite(factor) and factor >= 0):
        raise ValueError(f"factor is {factor}; give 0 or a positive number, such as 0.1")
    built = case.build_optimizer() if case.optimizer is not None else None
    if built is not None and not any(group.get("weight_decay") for group in built.param_groups):
        raise ValueError("no group of the optimizer has a weight decay above 0; there is none to lower")
    return scale_groups(case, ("weight_decay",), factor)
