"""rescale_weights: multiply each weight so that sqrt(fan_in · variance) is the given gain.

The pattern of a weight stays, its scale changes: what a different initialisation scale would have given, and
nothing else.

What it changes:
    The chosen weights, once, before training. Biases stay.

Why it helps:
    A layer of independent weights multiplies the mean square of its input by fan_in times their variance. At
    sqrt(2), the gain of He et al., a ReLU layer keeps it, at 1 a tanh or linear one does; every other number
    is multiplied by itself as often as there are layers, or steps in time.

When it does not help:
    In front of a normalisation the scale of a weight has no effect on the signal, and only turns the
    effective learning rate. Weights that were trained are not random: their scale is what they learned. A
    sigmoid has slope 1/4 at most, and no scale makes a deep stack of them train. A recurrent matrix at gain 1
    keeps the typical direction, where some still grow (UG406): orthogonal_weights keeps all.

What it costs:
    Nothing per step.

References:
    He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (ICCV 2015), section 2.2, equations 10 and 14.
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (AISTATS
    2010), section 4.2.1.
"""

import math

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import find_weights
from unitygain.probe.sites import Select
from unitygain.remedies._snapshot import Undo, keep
from unitygain.stats import rms


@remedy(
    treats=(
        *("UG101", "UG102", "UG103", "UG104", "UG201", "UG202"),
        *("UG204", "UG401", "UG402", "UG403", "UG404", "UG406", "UG605"),
    ),
    changes="initial weights",
)
def rescale_weights(case: Case, *, sites: Select = None, gain: float = 1.0, only: str = "*") -> Undo:
    """Scale the chosen weights to sqrt(fan_in · mean square) = `gain`.

    Args:
        case: The case; its model's weights are changed in place.
        sites: Which modules, as patterns of paths or a callable.
        gain: What a layer of independent weights multiplies the rms of its input by.
        only: Pattern for the names of parameters, such as ``"weight_hh_l*"`` for recurrent matrices.

    Returns:
        What puts the weights back, bit for bit.

    Raises:
        ValueError: If `gain` is no positive number, or no weight was chosen.

    Side effects:
        The weights, in place; a copy of them is kept for the undo.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(64, 64)
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(2, 64)])
        >>> undo = rescale_weights(case, gain=1.0)
        >>> round(64 * model.weight.square().mean().item(), 4)
        1.0
        >>> undo()
    """
    if not (gain > 0 and math.isfinite(gain)):
        raise ValueError(f"gain is {gain}; give a positive number, such as 1.0 or 2 ** 0.5")
    weights = list(find_weights(case.model, sites, only))
    if not weights:
        raise ValueError(f"no weight of a linear map is chosen by sites={sites!r}, only={only!r}")
    undo = keep(weight.parameter for weight in weights)
    with torch.no_grad():
        for weight in weights:
            now = float(rms(weight.parameter)) * math.sqrt(weight.fan_in)
            if now > 0 and math.isfinite(now):
                weight.parameter.mul_(gain / now)
    return undo
