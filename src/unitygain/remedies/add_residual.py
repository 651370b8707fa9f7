"""add_residual: add what enters a block to a share of what it makes, x + scale·f(x).

A block that shrinks what passes it no longer stops the rest: signal and gradient go past it.

What it changes:
    Every block of the trunk that keeps the shape of what enters it and has no skip path gets one. In a
    chain of bare layers what enters a layer is added where the next one begins, behind the activation. No
    parameter is added and every path stays.

Why it helps:
    The skip path has gain 1, whatever the weights are; f adds its share. With scale 1/sqrt(L) over L
    blocks the sum of all shares is as large as one of them, so that gradient and signal stay within a
    small factor. Norms without a skip path multiply the gradient in every block; beside a path they do so in
    the branch alone, where taking them out would leave the weights to themselves.

When it does not help:
    Where the blocks' own gain is above 1: the sum grows faster still. Where what a block makes must not
    pass on, as in an autoencoder's bottleneck. An activation with a mean adds that mean in each block.

What it costs:
    One addition per block. Another function than before: a trained model has to be trained again.

References:
    He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016), equation 1; Hanin
    and Rolnick, "How to Start Training" (NeurIPS 2018), theorem 6, and Zhang, Dauphin and Ma, "Fixup
    Initialization" (ICLR 2019), on the scale of branches.
"""

import math

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.hooks import Hooks
from unitygain.probe.sites import Select
from unitygain.remedies._beside import AddBefore, AddInput, Stream
from unitygain.remedies._snapshot import Undo
from unitygain.remedies._trunk import Spine, find_spine, has_skip, keeps_shape


@remedy(
    treats=("UG101", "UG102", "UG103", "UG202", "UG205"),
    changes="architecture",
    instead_of=("rescale_weights", "swap_activation", "bypass_norm"),
)
def add_residual(case: Case, *, sites: Select = None, scale: float | None = None) -> Undo:
    """Put a skip path around the blocks of the trunk that have none.

    Args:
        case: The case; the model's blocks get hooks.
        sites: Which blocks of the trunk; all when left out.
        scale: What the block's own output is multiplied by; 1/sqrt(number of blocks) when left out.

    Returns:
        What takes the skip paths away.

    Raises:
        ValueError: If `scale` is not finite, nothing repeats, or no block keeps its shape and lacks a skip.

    Side effects:
        Hooks on the blocks. Costs two passes of a copy of the model, to find them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> undo = add_residual(case, scale=0.0)
        >>> torch.equal(model(torch.ones(1, 2)), model[4](torch.ones(1, 2)))
        True
    """
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale is {scale}; give a finite number, or leave it out")
    spine = find_spine(case, sites)
    open_ = [
        keeps_shape(block) and not has_skip(spine.wiring, block, after)
        for block, after in zip(spine.blocks, spine.after, strict=True)
    ]
    if not any(open_):
        raise ValueError(
            f"none of the {len(open_)} blocks keeps the shape of what enters it and lacks a skip path"
        )
    share = 1 / math.sqrt(sum(open_)) if scale is None else scale
    hooks = Hooks()
    bare = all(not any(True for _ in block.module.children()) for block in spine.blocks)
    if bare:
        _chain(case, spine, open_, share, hooks)
    else:
        for block, free in zip(spine.blocks, open_, strict=True):
            if free:
                hooks.change_output(case.model.get_submodule(block.path), AddInput(share))
    return hooks.remove


def _chain(case: Case, spine: Spine, open_: list[bool], share: float, hooks: Hooks) -> None:
    """Add at the entrance of every layer what entered the one before."""
    stream = Stream()
    adds: dict[str, bool] = {}
    holds: dict[str, bool] = {}
    for block, after, free in zip(spine.blocks, spine.after, open_, strict=True):
        if free and after is not None:
            holds[block.path] = adds[after.path] = True
    for path in adds | holds:
        before = AddBefore(stream, share if path in adds else None, path in holds)
        hooks.change_input(case.model.get_submodule(path), before)
