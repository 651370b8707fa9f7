"""orthogonal_weights: keep square weights orthogonal, so that no direction grows or shrinks.

torch's own parametrisation: the weight is a base times the exponential of a skew-symmetric matrix, which is
orthogonal whatever the optimizer does to it. Without `sites` it takes the square matrices from state to state
of recurrent modules, or, in a model without any, all square linear maps.

What it changes:
    The chosen weights: at once to the orthogonal factor of their QR decomposition, and in training to what
    the exponential makes of the old parameters.

Why it helps:
    All singular values are 1. The norm of a state, and of a gradient on its way back, passes the matrix
    unchanged at every step, so that only the activation's slope takes from it. An initialisation gives that
    for the first step, the parametrisation for all.

When it does not help:
    tanh has slopes below 1, so that a gradient over hundreds of steps still fades unless inputs and biases
    are small. A ReLU closes half of the units: over depth its gain is then 1/sqrt(2) per layer, below that of
    He's weights. The gates of an LSTM or GRU decide what is kept, and their weights are not square:
    open_gates. What a network must forget, an orthogonal matrix only turns. Trained weights are lost.
    Pickling a parametrised model does not work; its state does.

What it costs:
    One matrix exponential of n·n per use of the weight, about ten products of that size, and as much
    backward.

References:
    Lezcano-Casado and Martínez-Rubio, "Cheap Orthogonal Constraints in Neural Networks" (ICML 2019), section
    3. Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks" (ICLR 2014), section 3, on orthogonal weights over depth.
"""

from torch.nn.utils import parametrizations

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import Weight
from unitygain.probe.sites import Select
from unitygain.remedies._parametrise import choose_weights, parametrise
from unitygain.remedies._snapshot import Undo


@remedy(
    treats=("UG401", "UG402", "UG403", "UG404", "UG406"),
    changes="parametrisation",
    instead_of=("rescale_weights",),
)
def orthogonal_weights(case: Case, *, sites: Select = None) -> Undo:
    """Register torch.nn.utils.parametrizations.orthogonal on the chosen weights.

    Args:
        case: The case; its model is changed in place.
        sites: Which modules, or single parameters, by path; a matrix that is not square gets orthonormal
            rows or columns.

    Returns:
        What puts modules and parameters back, bit for bit.

    Raises:
        ValueError: If no matrix is chosen.

    Side effects:
        Classes and parameters of the chosen modules.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.RNN(2, 4)
        >>> case = Case(model, loss=lambda m, x: m(x)[0].sum(), data=[torch.ones(3, 1, 2)])
        >>> undo = orthogonal_weights(case)
        >>> torch.allclose(model.weight_hh_l0 @ model.weight_hh_l0.T, torch.eye(4), atol=1e-5)
        True
    """

    def takes(weight: Weight) -> bool:
        shape = weight.parameter.shape
        return len(shape) == 2 and (sites is not None or shape[0] == shape[1])

    weights = choose_weights(case.model, sites, takes, "square matrix" if sites is None else "matrix")

    def register(weight: Weight) -> None:
        parametrizations.orthogonal(weight.module, weight.name)

    return parametrise(case, weights, register)
