"""irnn: make the recurrent matrix of plain RNNs the identity.

Each unit starts by adding up what enters it, so that state and gradient pass from step to step unchanged.

What it changes:
    In every chosen nn.RNN and nn.RNNCell the recurrent matrix becomes the identity times `scale` and both
    biases zero; the input weights of the first layer are drawn from a Gaussian of standard deviation 0.001.
    Upper layers of a stack keep their input weights.

Why it helps:
    The Jacobian of a step is the identity where the units are on: with ReLU the gradient reaches the first
    step in full, with tanh nearly so as long as the states are small, for which the small input weights are.

When it does not help:
    It is an edge: any growth of the recurrent matrix in training makes the gradient explode with the length
    of the sequence, so that it wants a small learning rate or clipping. Long sequences of inputs whose mean
    is not zero add up and saturate tanh. Cells with gates have `forget_bias` and `chrono` instead. The
    units do not mix at the start; an orthogonal recurrent matrix (`orthogonal_init`) keeps norms as well and
    mixes.

What it costs:
    Nothing per step. The signal starts small: logits begin close to each other.

References:
    Le, Jaitly and Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units" (2015),
    on the scale of the identity (1, or 0.01 where little memory is wanted) and of the other weights (0.001).
"""

import math

import torch
from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._recurrent import find_recurrent
from unitygain.remedies._snapshot import Undo, keep

ENTRANCES = ("weight_ih", "weight_ih_l0", "weight_ih_l0_reverse")


@remedy(
    treats=("UG401", "UG402", "UG403", "UG404", "UG406"),
    changes="initial weights",
    instead_of=("rescale_weights",),
)
def irnn(
    case: Case, *, sites: Select = None, scale: float = 1.0, input_std: float = 0.001, seed: int = 0
) -> Undo:
    """Set the recurrent matrices of plain RNNs to `scale` times the identity.

    Args:
        case: The case; parameters are changed in place.
        sites: Which module paths.
        scale: Gain of a step.
        input_std: Standard deviation of the weights on the sequence.
        seed: Seed of their draw.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If no chosen module is an nn.RNN or nn.RNNCell, or a number is not finite.

    Side effects:
        The parameters of those modules, in place.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.RNN(2, 3, nonlinearity="relu")
        >>> case = Case(model, loss=lambda m, x: m(x)[0].sum(), data=[torch.ones(5, 1, 2)])
        >>> undo = irnn(case)
        >>> bool((model.weight_hh_l0 == torch.eye(3)).all())
        True
    """
    if not (math.isfinite(scale) and math.isfinite(input_std) and input_std >= 0):
        raise ValueError(
            f"scale is {scale} and input_std {input_std}; give finite numbers, the second not negative"
        )
    modules = [module for _, module in find_recurrent(case.model, sites, (nn.RNN, nn.RNNCell))]
    if not modules:
        raise ValueError(
            f"no module chosen by sites={sites!r} is an nn.RNN or nn.RNNCell; "
            "for LSTM and GRU use forget_bias or chrono"
        )
    own = [item for module in modules for item in module.named_parameters(recurse=False)]
    undo = keep(parameter for _, parameter in own)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in own:
            if name.startswith("weight_hh"):
                parameter.copy_(scale * torch.eye(len(parameter)))
            elif name in ENTRANCES:
                parameter.copy_(input_std * torch.randn(parameter.shape, generator=source))
            elif name.startswith("bias"):
                parameter.zero_()
    return undo
