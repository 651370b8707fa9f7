"""concat_skip: join what enters a block and what its branch makes by a learned projection of both.

The sum of a residual block, with weights that can be learned.

What it changes:
    Every block of the trunk that keeps the shape of what enters it is put into one that concatenates x and
    the branch f(x) and projects them back to the width of x. The projection starts as [1, scale]: where
    the block was a sum x + f(x) already, the model computes at first what it did; where it had no skip
    path, it gets one.

Why it helps:
    A sum fixes the share of the branch. The projection has the sum's gain at the start, and can then lower
    or turn the branch, feature by feature, where branches outweigh the stream.

When it does not help:
    In a chain of bare layers the activation stands behind the projection and still shrinks what passes,
    which sigmoids do by four. Where blocks have a gain above 1 that is not the branch's share. At the start a
    block that was a sum has the very gains that it had: what is cured is cured by training.

What it costs:
    A map from twice the width to the width per block. The block's parameters are saved under
    ``NAME.block``.

References:
    Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks" (CVPR 2017),
    equation 2; Ronneberger, Fischer and Brox, "U-Net" (MICCAI 2015), section 2.
"""

import math

import torch
from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._beside import Concatenated
from unitygain.remedies._held import hold
from unitygain.remedies._norm_order import put
from unitygain.remedies._snapshot import Undo, all_or_nothing, backwards
from unitygain.remedies._trunk import find_spine, has_skip, keeps_shape
from unitygain.remedies.gated_skip import make_map


@remedy(treats=("UG101", "UG103", "UG205"), changes="architecture", instead_of=("swap_activation",))
def concat_skip(case: Case, *, sites: Select = None, scale: float = 1.0) -> Undo:
    """Put projections of input and branch in the place of sums, or of no skip path at all.

    Args:
        case: The case; blocks are held by others, and an optimizer instance is given the projections.
        sites: Which blocks of the trunk; all when left out.
        scale: What the projection multiplies the branch by at the start.

    Returns:
        What puts the blocks back.

    Raises:
        ValueError: If `scale` is not finite, nothing repeats, or no block keeps its shape.

    Side effects:
        The model's submodules. Costs two passes of a copy of the model, to find the blocks.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> undo = concat_skip(case, scale=0.0)
        >>> torch.equal(model[0](torch.ones(1, 2)), torch.ones(1, 2))
        True
    """
    if not math.isfinite(scale):
        raise ValueError(f"scale is {scale}; give a finite number, such as 1.0")
    spine = find_spine(case, sites)
    blocks = [
        (block.path, has_skip(spine.wiring, block, None))
        for block in spine.blocks
        if block.path and keeps_shape(block)
    ]
    if not blocks:
        raise ValueError("no block keeps the shape of what enters it")
    with all_or_nothing() as undos:
        for path, sums in blocks:
            block = case.model.get_submodule(path)
            project = make_map(block, 2)
            _start(project, scale)
            across = -1 if isinstance(project, nn.Linear) else 1
            new = Concatenated(block, project, across, sums).train(block.training)
            undos.append(hold(case, project.parameters()))
            undos.append(put(case.model, block, new))
    return backwards(undos)


def _start(project: nn.Module, scale: float) -> None:
    """Let a projection begin as x + scale·f."""
    weight = project.weight
    assert isinstance(weight, nn.Parameter)
    width = weight.shape[0]
    with torch.no_grad():
        flat = weight.view(width, 2 * width)
        flat.zero_()
        flat[:, :width].fill_diagonal_(1.0)
        flat[:, width:].fill_diagonal_(scale)
