"""loss_scale: multiply the loss by a power of two, and divide the gradients by it before the step.

Every gradient is multiplied by the same number, which moves it within the range of its dtype and changes
nothing else: a power of two rounds nothing. It tells an underflow (the gradient comes back, in proportion)
from a gradient that is truly that small.

What it changes:
    The loss of the case, and its clip: between backward and step the gradients are divided again, then
    clipped as before. The default is the scale that torch.amp.GradScaler starts with.

Why it helps:
    Most gradients of a network lie far below 1, and float16 loses what is below 6e-8 where it has room up to
    65504. Times 65536 they fit, and the division happens in the float32 of the parameters.

When it does not help:
    Where the gradient spans more than the dtype holds, one end is always lost. Parameters that are narrow
    themselves, or a gradient below the range of float32 (UG503), lose the gradient again in the division;
    there the scale only shows what is lost. Under autocast to float16 the plain step has a GradScaler
    already, which also finds the scale by itself. A step of one's own must call ``case.clip``, or the step is
    as many times longer.

What it costs:
    One multiplication per gradient and step.

References:
    Micikevicius et al., "Mixed Precision Training" (ICLR 2018, arXiv:1710.03740), section 3.2.
"""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG501", "UG503"), changes="precision")
def loss_scale(case: Case, *, scale: float = 65536.0) -> Undo:
    """Multiply the loss of the case by `scale`, and divide the gradients by it before the clip.

    Args:
        case: The case; its loss function and its clip are wrapped.
        scale: A positive power of two.

    Returns:
        What gives the case its own loss function and clip back.

    Raises:
        ValueError: If `scale` is no positive power of two.

    Side effects:
        ``case.loss`` and ``case.clip``.

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
    loss, clip = case.loss, case.clip

    def unscale(parameters: Iterable[nn.Parameter]) -> Any:
        held = list(parameters)
        for parameter in held:
            if parameter.grad is not None:
                parameter.grad.mul_(1 / scale)
        return None if clip is None else clip(held)

    case.loss = lambda model, batch: loss(model, batch) * scale
    case.clip = unscale

    def undo() -> None:
        case.loss, case.clip = loss, clip

    return undo
