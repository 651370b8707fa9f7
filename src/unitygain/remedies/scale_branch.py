"""scale_branch: multiply the output of residual branches, by scaling the last linear map of each.

A factor of 1/sqrt(2L) for L blocks of two branches keeps the sum of all branches as large as the stream that
they are added to; a factor of 0 takes a branch out.

What it changes:
    Weight and bias of the last linear map of every chosen branch, or of the BatchNorm that ends it, once.

Why it helps:
    A sum of a stream and a branch of the same size grows by sqrt(2) per block, in both directions. Branches
    that are small at first leave the block near the identity, whose gain is 1 at any depth.

When it does not help:
    A block that is no sum of a stream and a branch loses its signal instead. In a Post-LN block the norm
    takes any scale of the sum away, and only the ratio of branch to stream is left. A factor of 0 gives no
    gradient to what lies in front of the last map until that has moved.

What it costs:
    Nothing per step.

References:
    Zhang, Dauphin and Ma, "Fixup Initialization" (ICLR 2019). De and Smith, "Batch Normalization Biases
    Residual Blocks Towards the Identity Function" (NeurIPS 2020), on SkipInit. Noci et al., "Signal
    Propagation in Transformers" (NeurIPS 2022), on 1/sqrt(L) against rank collapse.
"""

import math

import torch
from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import NORMS, find_weights
from unitygain.probe.sites import Select, selects
from unitygain.remedies._snapshot import Undo, keep

SHORTCUTS = ("downsample", "shortcut", "skip")


@remedy(treats=("UG102", "UG201", "UG205", "UG402", "UG605", "UG703"), changes="initial weights")
def scale_branch(case: Case, *, sites: Select, factor: float) -> Undo:
    """Multiply weight and bias of the last linear map inside every chosen module by `factor`.

    Args:
        case: The case; its model is changed in place.
        sites: The branches, or blocks whose last linear map (or a BatchNorm behind it) ends the branch.
        factor: What the branch's output is multiplied by.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If `factor` is not finite, or no chosen module holds a linear map.

    Side effects:
        The parameters of those maps, in place.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.ModuleDict({"branch": nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))})
        >>> case = Case(model, loss=lambda m, x: (x + m["branch"](x)).sum(), data=[torch.ones(1, 2)])
        >>> undo = scale_branch(case, sites=["branch"], factor=0.0)
        >>> model["branch"](torch.ones(1, 2)).abs().tolist()
        [[0.0, 0.0]]
    """
    if not math.isfinite(factor):
        raise ValueError(f"factor is {factor}; give a finite number")
    chosen = [module for path, module in case.model.named_modules() if selects(sites, path, module)]
    last = {id(end): end for module in chosen if (end := find_end(module)) is not None}
    if not last:
        raise ValueError(f"no module chosen by sites={sites!r} holds a linear map to scale")
    parameters = [parameter for module in last.values() for parameter in module.parameters(recurse=False)]
    undo = keep(parameters)
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(factor)
    return undo


def find_end(branch: nn.Module) -> nn.Module | None:
    """Return what the branch ends with: its last linear map, or the BatchNorm that directly follows it."""
    maps = {id(weight.module) for weight in find_weights(branch)}
    end = None
    for path, module in branch.named_modules():
        if any(word in path for word in SHORTCUTS):
            continue
        behind = end is not None and isinstance(module, NORMS) and not isinstance(module, nn.LayerNorm)
        if id(module) in maps or (behind and any(True for _ in module.parameters())):
            end = module
    return end
