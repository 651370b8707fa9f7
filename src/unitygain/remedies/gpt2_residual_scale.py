"""gpt2_residual_scale: divide the last map of every residual branch by the root of the number of branches.

N branches of equal size then add up to as much as one would have, whatever N is.

What it changes:
    Weight and bias of the map that ends each branch, or of the norm layer or scale behind it, are
    multiplied by 1/sqrt(N) for N branches: 2L in a transformer of L blocks, as in GPT-2. The draw stays,
    its size changes. A branch is found in the graph: a sum of a tensor and what was made from it.

Why it helps:
    Each branch adds its own variance to the stream and its own gain to the gradient. N branches of the
    stream's size multiply both by up to 2^N; at 1/sqrt(N) the product stays below e, whatever the depth.

When it does not help:
    In a Post-LN block the norm behind each sum takes the stream back to unit size, and with it what was
    saved; there it moves the block towards the identity (`deepnorm`, `admin`). Behind a Pre-LN stream the
    variance only grows linearly without it. Projected shortcuts are no branches and stay. A model without
    skip paths has none.

What it costs:
    One forward pass of a copy; nothing per step. Branches start quiet, and learn at the same rate.

References:
    Radford, Wu, Child, Luan, Amodei and Sutskever, "Language Models are Unsupervised Multitask Learners"
    (2019), section 2.3. Hanin and Rolnick, "How to Start Training" (NeurIPS 2018), on residual networks.
"""

import math

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._branches import ends_of, find_branches
from unitygain.remedies._snapshot import Undo, keep


@remedy(treats=("UG102", "UG201", "UG205"), changes="initial weights", instead_of=("scale_branch",))
def gpt2_residual_scale(case: Case, *, sites: Select = None, branches: int | None = None) -> Undo:
    """Multiply the end of every residual branch by 1/sqrt(N).

    Args:
        case: The case; parameters are changed in place.
        sites: Which branches, by the path of the module that ends one or of one that holds it.
        branches: N; the number of branches found when left out.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If no branch is found, or N is below 1.

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
        >>> before = model[0].weight.detach().clone()
        >>> undo = gpt2_residual_scale(case)
        >>> torch.equal(model[0].weight, before / 2)
        True
    """
    found = find_branches(case, sites)
    count = len(found) if branches is None else branches
    if count < 1:
        raise ValueError(f"branches is {count}; give the number of branches, 2 for each transformer block")
    ends = ends_of(case, found)
    undo = keep(ends)
    with torch.no_grad():
        for parameter in ends:
            parameter.mul_(1 / math.sqrt(count))
    return undo
