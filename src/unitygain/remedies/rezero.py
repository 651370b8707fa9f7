"""rezero: multiply every residual branch by a learned number that starts at zero.

x + alpha·F(x), one alpha for each branch, so that the whole stack is the identity at the start.

What it changes:
    The last map of each branch (or the norm layer that ends it) is parametrised as alpha times what it
    was: one new parameter for each branch, under ``parametrizations``, which the optimizer is given.
    Weights keep their draw. The paper also takes LayerNorm out, which `bypass_norm` does.

Why it helps:
    Signal and gradient pass any depth unchanged at the start, and only alpha has a gradient in the first
    step: each branch is let in as fast as it is useful. Unlike `skip_init`, which zeroes the last map,
    nothing that was drawn is lost.

When it does not help:
    A branch that ends in an activation is born dead at zero, and is refused. In a Post-LN block the stream
    is normalised all the same. Weight decay pulls alpha back to zero, and clipping by the ratio of
    gradient to weight (AGC) freezes it there: leave it out of both. What lies inside the branches has no
    gradient in the first step.

What it costs:
    One multiplication of each last map per step. Names in the state dict change: what was ``weight``
    becomes ``parametrizations.weight.original``.

References:
    Bachlechner, Majumder, Mao, Cottrell and McAuley, "ReZero is All You Need: Fast Convergence at Large
    Depth" (UAI 2021), equation 1. De and Smith, "Batch Normalization Biases Residual Blocks Towards the
    Identity Function in Deep Networks" (NeurIPS 2020), on the same number under the name SkipInit.
"""

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._branch_scale import add_scales
from unitygain.remedies._branches import find_branches, require_straight
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG102", "UG201", "UG205"), changes="parametrisation", instead_of=("scale_branch",))
def rezero(case: Case, *, sites: Select = None) -> Undo:
    """Give every residual branch a learned scale that starts at zero.

    Args:
        case: The case; its model gets one parameter per branch.
        sites: Which branches, by the path of the module that ends one or of one that holds it.

    Returns:
        What takes the scales away, and them out of the optimizer.

    Raises:
        ValueError: If no branch is found, one ends in an activation, or in a scale of its own.

    Side effects:
        The parametrisation of the maps that end the branches; a parameter group of an optimizer instance.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.ModuleList(nn.Linear(2, 2) for _ in range(4))
        >>> def loss(model, x):
        ...     for layer in model:
        ...         x = x + layer(x)
        ...     return x.sum()
        >>> case = Case(model, loss=loss, data=[torch.ones(1, 2, requires_grad=True)])
        >>> undo = rezero(case)
        >>> case.compute_loss(case.batches[0]).item(), model[0].parametrizations.weight[0].scale.tolist()
        (2.0, [0.0])
    """
    found = find_branches(case, sites)
    require_straight(found)
    return add_scales(case, found, 0.0, each=False)
