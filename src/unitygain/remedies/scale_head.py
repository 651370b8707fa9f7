"""scale_head: multiply weight and bias of the output layer.

Nothing before the head is changed, and the gradient that it passes back scales along.

What it changes:
    The parameters of one layer, once, before training.

Why it helps:
    The loss of a classifier starts at ln(classes) when its logits start small. Logits that start large start
    it among confident mistakes, and the first steps are spent on taking them back.

When it does not help:
    A head that is too loud because its input is too large (UG201, UG607) hides what is before it. A factor
    near 0 starves the rest of the model of gradient in the first steps. A trained head has the scale that it
    learned. A bias at the log of the class frequencies is meant, and is scaled as well.

What it costs:
    Nothing per step.

References:
    Karpathy, "A Recipe for Training Neural Networks" (2019), step "verify loss @ init".
"""

import math

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import find_weights
from unitygain.remedies._snapshot import Undo, keep


@remedy(treats=("UG605",), changes="initial weights")
def scale_head(case: Case, *, factor: float, site: str = "") -> Undo:
    """Multiply the parameters of the output layer by `factor`.

    Args:
        case: The case; its model is changed in place.
        factor: What the logits are multiplied by.
        site: Path of the layer; the last linear map in order of registration when left out.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If `factor` is not finite, or there is no such layer.

    Side effects:
        The parameters of one layer, in place.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> undo = scale_head(case, factor=0.0)
        >>> case.compute_loss(case.batches[0]).item()
        0.0
    """
    if not math.isfinite(factor):
        raise ValueError(f"factor is {factor}; give a finite number")
    weights = list(find_weights(case.model, site or None))
    if not weights:
        raise ValueError(f"there is no linear map at {site or 'any path'}; give the path of the output layer")
    parameters = list(weights[-1].module.parameters(recurse=False))
    undo = keep(parameters)
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(factor)
    return undo
