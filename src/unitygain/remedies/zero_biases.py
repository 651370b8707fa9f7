"""zero_biases: set the additive parameters of the chosen modules to zero.

Takes away what biases alone do. The shift of a normalisation layer counts as a bias.

What it changes:
    Every bias of the chosen modules, once, before training.

Why it helps:
    A bias far below the spread of the pre-activations switches ReLU units off for every input; biases that
    outweigh a shrinking signal make the outputs of all inputs the same.

When it does not help:
    Where the signal shrinks because of the weights, it shrinks as before. Biases that mean something (the
    gate of an LSTM, the log prior of a head) are lost with the others: choose by `sites`. Units that trained
    weights switched off stay off.

What it costs:
    Nothing per step.

References:
    Lu, Shin, Su and Karniadakis, "Dying ReLU and Initialization" (2019), on networks that are born dead.
    Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 8.4, on biases at initialisation.
"""

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select, selects
from unitygain.remedies._snapshot import Undo, keep


@remedy(
    treats=("UG103", "UG104", "UG203", "UG204", "UG205", "UG206"),
    changes="initial weights",
    instead_of=("zero_biases",),
)
def zero_biases(case: Case, *, sites: Select = None) -> Undo:
    """Set every parameter whose name starts with ``bias``, or ends with it, to zero in the chosen modules.

    Args:
        case: The case; its model's biases are changed in place.
        sites: Which modules, as patterns of paths or a callable.

    Returns:
        What puts the biases back, bit for bit.

    Raises:
        ValueError: If the chosen modules have no bias.

    Side effects:
        The biases, in place.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(3, 2)
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(2, 3)])
        >>> undo = zero_biases(case)
        >>> model.bias.tolist()
        [0.0, 0.0]
    """
    biases = [
        parameter
        for path, module in case.model.named_modules()
        if selects(sites, path, module)
        for name, parameter in module.named_parameters(recurse=False)
        if name.startswith("bias") or name.endswith("bias")
    ]
    if not biases:
        raise ValueError(f"no module chosen by sites={sites!r} has a bias")
    undo = keep(biases)
    with torch.no_grad():
        for bias in biases:
            bias.zero_()
    return undo
