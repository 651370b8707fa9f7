"""layer_scale: multiply every channel of every residual branch by a learned number that starts small.

x + diag(gamma)·F(x), one vector gamma for each branch.

What it changes:
    The last map of each branch (or the norm layer that ends it) is parametrised as gamma times what it
    was, output by output: one new vector for each branch, under ``parametrizations``, which the optimizer
    is given. gamma starts at 0.1 up to 18 layers, at 1e-5 up to 24, and at 1e-6 beyond. Weights keep their
    draw.

Why it helps:
    Blocks start close to the identity, and each channel of a branch is let in at its own pace. Unlike at an
    exact zero, everything has a gradient from the first step on.

When it does not help:
    In a Post-LN block the stream is normalised all the same. Gradients inside a branch are as small as
    gamma in the first steps: plain gradient descent barely moves them, Adam does; in float16 they can be
    lost. Weight decay pulls gamma to zero, and clipping by the ratio of gradient to weight (AGC) freezes
    it: leave it out of both.

What it costs:
    One multiplication of each last map per step. Names in the state dict change: what was ``weight``
    becomes ``parametrizations.weight.original``.

References:
    Touvron, Cord, Sablayrolles, Synnaeve and Jégou, "Going deeper with Image Transformers" (ICCV 2021),
    section 2, on LayerScale and its start.
"""

import math

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._branch_scale import add_scales
from unitygain.remedies._branches import find_branches
from unitygain.remedies._layers import layer_of
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG102", "UG201", "UG205"), changes="parametrisation", instead_of=("scale_branch",))
def layer_scale(case: Case, *, sites: Select = None, start: float | None = None) -> Undo:
    """Give every output of every residual branch a learned scale that starts small.

    Args:
        case: The case; its model gets one vector per branch.
        sites: Which branches, by the path of the module that ends one or of one that holds it.
        start: Where the scales start; by the number of layers when left out.

    Returns:
        What takes the scales away, and them out of the optimizer.

    Raises:
        ValueError: If no branch is found, one ends in a scale of its own, or `start` is no positive number.

    Side effects:
        The parametrisation of the maps that end the branches; a parameter group of an optimizer instance.

    Example:
        >>> first_scale(12), first_scale(24), first_scale(36)
        (0.1, 1e-05, 1e-06)
    """
    if start is not None and not (start > 0 and math.isfinite(start)):
        raise ValueError(f"start is {start}; give a positive number, or use rezero")
    found = find_branches(case, sites)
    first = first_scale(len({layer_of(branch) for branch in found})) if start is None else start
    return add_scales(case, found, first, each=True)


def first_scale(layers: int) -> float:
    """Return where the scales of a model of so many layers start."""
    return 0.1 if layers <= 18 else 1e-5 if layers <= 24 else 1e-6
