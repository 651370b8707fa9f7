"""batchnorm_gamma: give the BatchNorm that ends a residual branch a small scale.

Residual blocks begin as the identity, or near it.

What it changes:
    The weight of the BatchNorm or GroupNorm behind the last linear map of every residual block is set to
    one number, 0 unless said otherwise. Other norms stay, and so do those of a shortcut.

Why it helps:
    With a scale of 0 every residual block is the identity at the start: signal and gradient pass the skip
    path alone, and the depth that counts grows as training moves the scales. With 0.1 the branches have a
    share.

When it does not help:
    Without a skip path: there a scale of 0 lets nothing through, and it is refused. Weights of the branch
    get no gradient in the first step, as the scale stands between them and the loss. A trained model loses
    what its scales have learnt.

What it costs:
    Nothing: no parameter is added, and no work.

References:
    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour" (2017), section 5.1; De and
    Smith, "Batch Normalization Biases Residual Blocks Towards the Identity Function" (NeurIPS 2020),
    section 3.
"""

import math

import torch
from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import NORMS
from unitygain.probe.sites import Select
from unitygain.remedies._snapshot import Undo, keep
from unitygain.remedies._trunk import find_spine, has_skip
from unitygain.remedies.scale_branch import find_end


@remedy(
    treats=("UG102", "UG201", "UG205"),
    changes="initial weights",
    instead_of=("scale_branch",),
)
def batchnorm_gamma(case: Case, *, sites: Select = None, gamma: float = 0.0) -> Undo:
    """Set the scale of the norm that ends the branch of every residual block.

    Args:
        case: The case; the norms' weights are changed in place.
        sites: Which blocks of the trunk; all when left out.
        gamma: The scale.

    Returns:
        What puts the scales back, bit for bit.

    Raises:
        ValueError: If `gamma` is not finite, nothing repeats, or no block with a skip path ends its branch
            with a norm that has a scale.

    Side effects:
        The norms' weights, in place. Costs two passes of a copy of the model, to find the blocks.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.branch = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        ...     def forward(self, x):
        ...         return x + self.branch(x)
        >>> model = nn.Sequential(Block(), Block())
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.randn(4, 2)])
        >>> undo = batchnorm_gamma(case)
        >>> model(torch.ones(4, 2)).tolist()[0]
        [1.0, 1.0]
    """
    if not math.isfinite(gamma):
        raise ValueError(f"gamma is {gamma}; give a finite number, such as 0.0 or 0.1")
    spine = find_spine(case, sites)
    scales = [
        scale
        for block, after in zip(spine.blocks, spine.after, strict=True)
        if has_skip(spine.wiring, block, after)
        and (scale := _last_scale(case.model.get_submodule(block.path))) is not None
    ]
    if not scales:
        raise ValueError("no block with a skip path ends its branch with a norm that has a scale")
    undo = keep(scales)
    with torch.no_grad():
        for scale in scales:
            scale.fill_(gamma)
    return undo


def _last_scale(block: nn.Module) -> nn.Parameter | None:
    """The weight of the BatchNorm or GroupNorm behind the last linear map of a branch."""
    end = find_end(block)
    if not isinstance(end, NORMS):
        return None
    weight = getattr(end, "weight", None)
    return weight if isinstance(weight, nn.Parameter) else None
