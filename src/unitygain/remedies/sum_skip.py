"""sum_skip: add the two tensors that a block concatenates and projects, x + scale·f(x).

The way back from a concatenation: where the projection loses what passes it, the sum does not.

What it changes:
    Every linear map or 1x1 convolution that reads the concatenation of two tensors of its own output's width
    is replaced by their sum. The one that was made first is handed on as it is, the other times `scale`. The
    projection, with its bias, takes no part any more; what stood around it stays.

Why it helps:
    A projection drawn as layers are passes x at a gain of its own: PyTorch's default, for twice the width,
    0.41 per block. In a sum x passes at 1, whatever the weights are, and what f makes is added to it.

When it does not help:
    Where the two are of different meaning, as the encoder's and the decoder's side of a U-Net, a sum makes
    them share their features; where the projection was trained it takes away what it learned. Where branches
    are loud, the sum grows with every block: give a scale of 1/sqrt(depth). An activation behind the
    projection stays, and shrinks what passes.

What it costs:
    Nothing: it saves a map from twice the width to the width per block. Another function than before: a
    trained model has to be trained again.

References:
    He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016), equation 1; Huang,
    Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks" (CVPR 2017), equation 2.
"""

import math

from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.isolate import isolated
from unitygain.probe.sites import Select, selects
from unitygain.probe.wiring import Step, Wire, Wiring, wire
from unitygain.remedies._beside import Summed
from unitygain.remedies._norm_order import put
from unitygain.remedies._snapshot import Undo, all_or_nothing, backwards


@remedy(treats=("UG101", "UG205"), changes="architecture")
def sum_skip(case: Case, *, sites: Select = None, scale: float = 1.0) -> Undo:
    """Put sums in the place of the projections of concatenated pairs.

    Args:
        case: The case; the projections are replaced, and an optimizer instance goes on holding them.
        sites: Which projections, by path; all when left out.
        scale: What the tensor that was made later is multiplied by.

    Returns:
        What puts the projections back.

    Raises:
        ValueError: If `scale` is not finite, or no chosen projection reads a concatenation of two tensors of
            its output's width, once per pass.

    Side effects:
        The model's submodules. Costs one forward pass of a copy of the model, to find them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class Join(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.branch, self.project = nn.Linear(2, 2), nn.Linear(4, 2)
        ...     def forward(self, x):
        ...         return self.project(torch.cat((self.branch(x), x), -1))
        >>> case = Case(Join(), loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> undo = sum_skip(case, scale=0.0)
        >>> case.model(torch.ones(1, 2)).tolist()
        [[1.0, 1.0]]
    """
    if not math.isfinite(scale):
        raise ValueError(f"scale is {scale}; give a finite number, such as 1.0")
    with isolated(case) as (twin, _):
        wiring = wire(twin)
    found = {
        call.path: _sum(wiring, call, scale)
        for call in wiring.calls
        if call.path and selects(sites, call.path, call.module) and wiring.times(call.module) == 1
    }
    chosen = {path: new for path, new in found.items() if new is not None}
    if not chosen:
        raise ValueError(
            "no chosen linear map or 1x1 convolution reads the concatenation of two tensors that are as wide "
            "as what it returns"
        )
    with all_or_nothing() as undos:
        for path, new in chosen.items():
            module = case.model.get_submodule(path)
            undos.append(put(case.model, module, new.train(module.training)))
    return backwards(undos)


def _sum(wiring: Wiring, call: Wire, scale: float) -> Summed | None:
    """Return the sum that stands for a projection, if it reads a pair."""
    joined = wiring.makers.get(next(iter(call.taken.values()), (0, 0, 0)))
    width = _half(call.module)
    if not width or joined is None or joined.name != "cat" or len(joined.reads) != 2:
        return None
    across = -1 if isinstance(call.module, nn.Linear) else 1
    dim = next(iter(joined.plain), 0)
    if joined.reads[0][1] != joined.reads[1][1] or dim % len(joined.shape) != across % len(joined.shape):
        return None
    first, second = (_made(wiring.makers.get(key)) for key in joined.reads)
    return Summed(width, across, (1.0, scale) if first <= second else (scale, 1.0))


def _half(module: nn.Module) -> int:
    """Return the width of a map from twice its output's width, which mixes nothing but features; else 0."""
    if isinstance(module, nn.Linear) and module.in_features == 2 * module.out_features:
        return module.out_features
    if not isinstance(module, nn.modules.conv._ConvNd) or module.transposed:
        return 0
    ones = {*module.kernel_size, *module.stride, module.groups}
    still = ones == {1} and not any(module.padding)
    return module.out_channels if still and module.in_channels == 2 * module.out_channels else 0


def _made(maker: Step | None) -> int:
    """When a tensor was made; what the model was given was there before."""
    return maker.time if maker is not None else 0
