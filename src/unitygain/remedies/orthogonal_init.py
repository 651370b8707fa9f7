"""orthogonal_init: draw all weights anew as orthogonal matrices, at the gain of the activation behind them.

Every singular value of a weight is then the same: the map turns the signal and stretches no direction
more than another.

What it changes:
    The weights of linear maps, convolutions, attention and recurrent modules that train, each gate and each
    of query, key and value on its own; biases of all but recurrent modules become zero. W Wᵀ = gain²·I
    for a matrix that is not taller than wide; a taller one has Wᵀ W = gain²·(rows/columns)·I, so that the
    mean square of the signal is kept there too. A convolution's kernel is taken as one matrix of
    in/groups·kernel columns. Norms, embeddings (and heads that share their weights) and frozen parameters
    stay.

Why it helps:
    Every direction passes with the same gain, not only the average one: the singular values of a product of
    Gaussian matrices spread with depth, those of orthogonal ones do not. With tanh near zero the whole
    network is then close to an isometry. A recurrent matrix keeps the norm of the state at every step.

When it does not help:
    ReLU switches half of the directions off, and its Jacobian is then no isometry for any W: the gain per
    layer is right, as with `activation_init`, the spread of singular values is not much smaller. Tanh whose
    pre-activations are not small loses its isometry as well. An orthogonal kernel of a convolution is no
    orthogonal map (`delta_orthogonal_init`). It does not lengthen a memory that gates or the slope of tanh
    cut short: a default tanh RNN over 120 steps, whose states are not small, and LSTMs keep their vanishing
    gradient (`irnn`, `forget_bias`).

What it costs:
    A QR decomposition per matrix, and one pass of a copy to see what follows what; nothing per step.

References:
    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks" (ICLR 2014), section 3. Pennington, Schoenholz and Ganguli, "Resurrecting the sigmoid in deep
    learning through dynamical isometry" (NeurIPS 2017), on tanh and ReLU.
"""

import math

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._draw import biases_of, draw, find_activations, find_own_weights, unit_gain
from unitygain.remedies._snapshot import Undo, keep


@remedy(
    treats=("UG101", "UG102", "UG201", "UG204", "UG205", "UG207", "UG301", "UG402", "UG403", "UG406"),
    changes="initial weights",
    instead_of=("rescale_weights",),
)
def orthogonal_init(case: Case, *, sites: Select = None, gain: float | None = None, seed: int = 0) -> Undo:
    """Draw weights as orthogonal matrices times a gain, and set biases to zero.

    Args:
        case: The case; its model's parameters are changed in place.
        sites: Which modules, or single parameters, as patterns of paths or a callable.
        gain: The gain of all of them; that of the activation that follows each when left out, 1 for
            recurrent modules.
        seed: Seed of the draw.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If no weight was chosen, or `gain` is no positive number.

    Side effects:
        The chosen weights and their modules' biases, in place; a copy of them is kept for the undo.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(2, 8)])
        >>> undo = orthogonal_init(case)
        >>> torch.allclose(model[0].weight @ model[0].weight.T, torch.eye(8), atol=1e-6)
        True
    """
    if gain is not None and not (gain > 0 and math.isfinite(gain)):
        raise ValueError(f"gain is {gain}; give a positive number, such as 1.0 or 2 ** 0.5")
    weights = find_own_weights(case, sites, recurrent=True)
    follows = {} if gain is not None else find_activations(case)
    gains = {
        id(weight.parameter): unit_gain(follows.get(weight.path)) if gain is None else gain
        for weight in weights
    }
    biases = biases_of(weights)
    undo = keep([*(weight.parameter for weight in weights), *biases])
    draw(weights, gains, "orthogonal", seed)
    with torch.no_grad():
        for bias in biases:
            bias.zero_()
    return undo
