"""spectral_norm: divide weights by their largest singular value at every forward pass.

torch's own parametrisation, which follows the singular value by power iteration. Without `sites` it takes the
discriminator of a GAN, else the matrices from state to state of recurrent modules, else all linear maps.

What it changes:
    The chosen weights are computed from the old parameters, which train on under other names; nothing else
    does.

Why it helps:
    No direction is multiplied by more than 1, at any depth, over any number of steps, and also while training
    moves the weights. A discriminator of such layers has a bounded slope: it cannot be infinitely sure of
    points that lie close together, and its verdict keeps a gradient for the generator.

When it does not help:
    It sets the norm to 1 and does not only bound it: weights below are lifted. At 1 for the largest direction
    most are below it, so that a signal over many layers or steps dies away where it grew before;
    orthogonal_weights keeps all directions. Of a convolution it takes the reshaped kernel, whose norm may be
    too small by a factor of up to the root of the kernel's size: spectral_cap takes the true one. An estimate
    from one iteration per pass lags behind weights that move fast. A discriminator that is sure by the bias
    of its last layer stays sure. Pickling a parametrised model does not work; its state does.

What it costs:
    One matrix-vector product with each weight and its transpose per forward pass.

References:
    Miyato, Kataoka, Koyama and Yoshida, "Spectral Normalization for Generative Adversarial Networks" (ICLR
    2018), section 2.1, algorithm 1.
"""

from torch.nn.utils import parametrizations

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import Weight
from unitygain.probe.sites import Select
from unitygain.remedies._parametrise import choose_weights, parametrise
from unitygain.remedies._snapshot import Undo


@remedy(
    treats=("UG402", "UG403", "UG703", "UG704"),
    changes="parametrisation",
    instead_of=("rescale_weights", "scale_branch", "swap_loss"),
)
def spectral_norm(case: Case, *, sites: Select = None, iterations: int = 1) -> Undo:
    """Register torch.nn.utils.parametrizations.spectral_norm on the chosen weights.

    Args:
        case: The case; its model is changed in place.
        sites: Which modules, or single parameters, by path.
        iterations: Power iterations per forward pass in training.

    Returns:
        What puts modules and parameters back, bit for bit.

    Raises:
        ValueError: If no weight is chosen, or `iterations` is below 1.

    Side effects:
        Classes and parameters of the chosen modules. Costs 15 power iterations at once.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(2, 2)
        >>> _ = model.weight.data.copy_(torch.diag(torch.tensor([4.0, 1.0])))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> undo = spectral_norm(case)
        >>> [round(value, 3) for value in model.weight.diag().tolist()]
        [1.0, 0.25]
    """
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; give at least 1")
    weights = choose_weights(case.model, sites, lambda weight: True, "weight of a linear map", judge=True)

    def register(weight: Weight) -> None:
        parametrizations.spectral_norm(weight.module, weight.name, n_power_iterations=iterations)

    return parametrise(case, weights, register)
