"""activation_init: draw all weights anew at the gain that the activation behind each of them needs.

He's and Glorot's initialisation, with the activation that really follows instead of one that was assumed, and
its gain from the integral instead of a table.

What it changes:
    The weights of linear maps, convolutions and attention that train, and their biases, which become zero.
    Recurrent modules, norms, embeddings (and heads that share their weights) and frozen parameters stay.
    The variance is gain²/fan_in: gain sqrt(2) for ReLU, 1 for tanh and where no activation follows, and
    1/sqrt(E φ(z)²) for others: 1.534 for GELU, 1.677 for SiLU, 1 for SELU.

Why it helps:
    PyTorch's default has a gain of sqrt(1/3) whatever follows, with which a ReLU network loses 8 dB a layer
    on the way back. At the gain of its activation the mean square of signal and gradient stays where it is.

When it does not help:
    For activations with a mean, such as the sigmoid, no gain keeps the gradient: its slope is at most 1/4,
    and the forward signal alone is kept. GELU and SiLU are not homogeneous, so that 1.534 and 1.677 keep a
    variance of 1 that small errors leave over tens of layers; `critical_init` holds longer. Blocks with
    skip paths add up at any gain (`gpt2_residual_scale`, `fixup`), and behind a norm layer the scale of a
    weight does nothing. A trained model loses what it knows.

What it costs:
    One forward and backward pass of a copy, to see what follows what; nothing per step.

References:
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (AISTATS
    2010), section 4.2.1. He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (ICCV 2015), equations 10
    and 14.
"""

from typing import Literal

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._draw import biases_of, draw, find_activations, find_own_weights, unit_gain
from unitygain.remedies._snapshot import Undo, keep


@remedy(
    treats=(
        *("UG101", "UG102", "UG103", "UG104", "UG201", "UG202", "UG203", "UG204", "UG205"),
        *("UG206", "UG207", "UG301", "UG602", "UG603"),
    ),
    changes="initial weights",
    instead_of=("rescale_weights",),
)
def activation_init(
    case: Case, *, sites: Select = None, distribution: Literal["normal", "uniform"] = "normal", seed: int = 0
) -> Undo:
    """Draw weights with the variance gain²/fan_in of the activation that follows, and set biases to zero.

    Args:
        case: The case; its model's parameters are changed in place.
        sites: Which modules, as patterns of paths or a callable.
        distribution: ``"normal"`` or ``"uniform"``, of the same variance.
        seed: Seed of the draw.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If no weight was chosen, or the distribution is unknown.

    Side effects:
        The chosen weights and their modules' biases, in place; a copy of them is kept for the undo.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(2, 64)])
        >>> undo = activation_init(case)
        >>> [round(64 * model[i].weight.square().mean().item(), 1) for i in (0, 2)]
        [2.0, 1.0]
    """
    if distribution not in {"normal", "uniform"}:
        raise ValueError(f"distribution is {distribution!r}; give 'normal' or 'uniform'")
    weights = find_own_weights(case, sites)
    follows = find_activations(case)
    gains = {id(weight.parameter): unit_gain(follows.get(weight.path)) for weight in weights}
    biases = biases_of(weights)
    undo = keep([*(weight.parameter for weight in weights), *biases])
    draw(weights, gains, distribution, seed)
    with torch.no_grad():
        for bias in biases:
            bias.zero_()
    return undo
