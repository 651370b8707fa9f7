"""gated_skip: let a learned gate choose between what enters a block and what it makes, t·f(x) + (1 - t)·x.

Highway networks: a residual block whose share is learned, input by input.

What it changes:
    Every block of the trunk that keeps the shape of what enters it and has no skip path is put behind a
    highway gate t = sigmoid(gate(x)). The gate is a linear map over features (a 1x1 convolution where
    features come second) with weights of 0 and a bias of -2, so that t is 0.12 everywhere at first.

Why it helps:
    At the start a block passes 0.88 of what enters it and adds 0.12 of what it makes, whatever its weights
    are: the gradient reaches the first block. Training opens the gates where a block is of use.

When it does not help:
    In a chain of bare layers the activation stands behind the gate and still shrinks what passes, which
    sigmoids do by four. Where the blocks' own gain is far above 8, a share of 0.12 is too much. 0.88 per
    block is lost over a hundred blocks: give a bias of -log(depth), or add_residual.

What it costs:
    A linear map per block, as large as a layer of its width. The block's parameters are saved under
    ``NAME.block``.

References:
    Srivastava, Greff and Schmidhuber, "Training Very Deep Networks" (NeurIPS 2015), equation 3 and section
    2.2 on the bias.
"""

import math

from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._beside import Gated
from unitygain.remedies._held import hold
from unitygain.remedies._norm_order import put
from unitygain.remedies._snapshot import Undo, all_or_nothing, backwards
from unitygain.remedies._trunk import find_spine, has_skip, keeps_shape

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@remedy(
    treats=("UG101", "UG103", "UG202", "UG205"),
    changes="architecture",
    instead_of=("rescale_weights", "swap_activation"),
)
def gated_skip(case: Case, *, sites: Select = None, bias: float = -2.0) -> Undo:
    """Put the blocks of the trunk that have no skip path behind highway gates.

    Args:
        case: The case; blocks are held by gated ones, and an optimizer instance is given the gates.
        sites: Which blocks of the trunk; all when left out.
        bias: Of every gate at the start.

    Returns:
        What puts the blocks back.

    Raises:
        ValueError: If `bias` is not finite, nothing repeats, or no block keeps its shape and lacks a skip.

    Side effects:
        The model's submodules. Costs two passes of a copy of the model, to find the blocks.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> undo = gated_skip(case, bias=-50.0)
        >>> torch.equal(model[0](torch.ones(1, 2)), torch.ones(1, 2))
        True
    """
    if not math.isfinite(bias):
        raise ValueError(f"bias is {bias}; give a finite number, such as -2.0")
    spine = find_spine(case, sites)
    paths = [
        block.path
        for block, after in zip(spine.blocks, spine.after, strict=True)
        if block.path and keeps_shape(block) and not has_skip(spine.wiring, block, after)
    ]
    if not paths:
        raise ValueError("no block keeps the shape of what enters it and lacks a skip path")
    with all_or_nothing() as undos:
        for path in paths:
            block = case.model.get_submodule(path)
            gate = _gate(block, bias)
            undos.append(hold(case, gate.parameters()))
            undos.append(put(case.model, block, Gated(block, gate).train(block.training)))
    return backwards(undos)


def make_map(block: nn.Module, times: int) -> nn.Module:
    """Return a map of zeros to the features that enter a block, from `times` as many; 1x1 in images.

    Raises:
        ValueError: If the block holds no linear map or convolution.
    """
    first = next((m for m in block.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))), None)
    if first is None:
        raise ValueError(f"a {type(block).__name__} holds no linear map or convolution that tells its width")
    like = {"device": first.weight.device, "dtype": first.weight.dtype}
    if isinstance(first, nn.Linear):
        new: nn.Module = nn.utils.skip_init(nn.Linear, times * first.in_features, first.in_features, **like)
    else:
        kind = CONVOLUTIONS[first.weight.ndim - 2]
        new = nn.utils.skip_init(kind, times * first.in_channels, first.in_channels, 1, **like)
    for parameter in new.parameters():
        nn.init.zeros_(parameter)
    return new


def _gate(block: nn.Module, bias: float) -> nn.Module:
    """A gate over the features of what enters a block, with weights of 0."""
    gate = make_map(block, 1)
    nn.init.constant_(gate.bias, bias)  # pyright: ignore[reportArgumentType]
    return gate
