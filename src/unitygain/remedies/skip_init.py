"""skip_init: let every residual branch start at zero, by its last map.

Every block is then the identity at the start, and the network as shallow as its stem and head.

What it changes:
    Weight and bias of the map that ends each branch become zero, or those of the norm layer behind it (the
    "zero gamma" of residual networks). SkipInit itself multiplies the branch by a learned number that starts
    at zero; here no parameter is added, and the forward pass at the start is the same. From the first step
    on they differ: the last map learns where SkipInit's number would. `rezero` adds that number.

Why it helps:
    Every block starts as the identity: signal and gradient pass any depth unchanged, and branches grow as
    far as training finds them useful. It is most of what BatchNorm does for residual networks at the start.

When it does not help:
    A branch that ends in an activation is born dead at zero, and is refused. In a Post-LN block the stream is
    normalised all the same. What lies in front of the last map has no gradient in the first step, so that
    a diagnosis of the start has less to measure. It does not repair the stem or the head.

What it costs:
    One forward pass of a copy; nothing per step. The draw of the last maps is lost, and the first steps
    move them alone.

References:
    De and Smith, "Batch Normalization Biases Residual Blocks Towards the Identity Function in Deep Networks"
    (NeurIPS 2020), section 4. Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 5.1, on gamma.
"""

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._branches import ends_of, find_branches, require_straight
from unitygain.remedies._snapshot import Undo, keep


@remedy(treats=("UG102", "UG201", "UG205"), changes="initial weights", instead_of=("scale_branch",))
def skip_init(case: Case, *, sites: Select = None) -> Undo:
    """Set the parameters that end every residual branch to zero.

    Args:
        case: The case; parameters are changed in place.
        sites: Which branches, by the path of the module that ends one or of one that holds it.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If no branch is found, or one ends in an activation.

    Side effects:
        The parameters of the maps that end the branches, in place.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.ModuleList(nn.Linear(2, 2) for _ in range(4))
        >>> def loss(model, x):
        ...     for layer in model:
        ...         x = x + layer(x)
        ...     return x.sum()
        >>> case = Case(model, loss=loss, data=[torch.ones(1, 2, requires_grad=True)])
        >>> undo = skip_init(case)
        >>> case.compute_loss(case.batches[0]).item()
        2.0
    """
    found = find_branches(case, sites)
    require_straight(found)
    ends = ends_of(case, found)
    undo = keep(ends)
    with torch.no_grad():
        for parameter in ends:
            parameter.zero_()
    return undo
