"""insert_norm: put a normalisation between the linear maps of the trunk and their activations.

Makes the gain of a layer independent of the scale of its weights.

What it changes:
    Every linear map or convolution of a block that an activation reads, and that no norm follows or
    precedes already, gets a norm of its width behind it: LayerNorm behind linear maps and GroupNorm with
    one group behind convolutions, or RMSNorm, or BatchNorm. The map keeps its path and its weights.

Why it helps:
    What an activation reads has unit scale whatever the weights' scale is, and on the way back the norm
    divides by the same scale: the gain of a layer no longer depends on the weights' scale. ReLU layers
    come to a gain near 1, at any width and depth.

When it does not help:
    Behind a sigmoid, whose slope is below 1/4 at unit scale too. BatchNorm without skip paths multiplies
    the gradient by about 1.21 in each ReLU layer, whatever the weights are, which explodes from 30 layers
    on. BatchNorm needs batches of some size. Norms hide weights that grow; decay them.

What it costs:
    Two numbers per feature and one more pass over what each map returns. The map's parameters are saved
    under ``NAME.held``.

References:
    Ba, Kiros and Hinton, "Layer Normalization" (2016), equation 4; Ioffe and Szegedy, "Batch
    Normalization" (ICML 2015), algorithm 1 and section 3.3; Zhang and Sennrich, "Root Mean Square Layer
    Normalization" (NeurIPS 2019), equation 4; Yang et al., "A Mean Field Theory of Batch Normalization"
    (ICLR 2019), theorem 8.
"""

from torch import nn
from torch.nn.modules.conv import _ConvNd

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import NORMS
from unitygain.probe.sites import Select, selects
from unitygain.probe.wiring import VIEWS, Wire, Wiring
from unitygain.remedies._beside import Followed
from unitygain.remedies._held import hold
from unitygain.remedies._norm_order import put
from unitygain.remedies._snapshot import Undo, all_or_nothing, backwards
from unitygain.remedies._trunk import find_spine

KINDS = ("layer", "rms", "batch")
ACTIVATIONS = frozenset({
    *("relu", "threshold", "gelu", "silu", "mish", "elu", "celu", "softplus", "hardtanh", "hardswish"),
    *(
        "tanh",
        "sigmoid",
        "hardsigmoid",
        "leaky_relu",
        "_prelu_kernel",
        "clamp",
        "clamp_min",
        "log_sigmoid_forward",
    ),
})


@remedy(
    treats=("UG101", "UG102", "UG103", "UG104", "UG201", "UG202", "UG204"),
    changes="architecture",
    instead_of=("rescale_weights",),
)
def insert_norm(case: Case, *, sites: Select = None, kind: str = "layer") -> Undo:
    """Put a norm behind the linear maps of the trunk that an activation reads.

    Args:
        case: The case; maps are held by modules with a norm, and an optimizer instance is given the norms.
        sites: Which maps, by path; all of the trunk's when left out.
        kind: ``"layer"`` (over all features of a token, or of an image), ``"rms"`` (linear maps alone) or
            ``"batch"``.

    Returns:
        What puts the maps back.

    Raises:
        ValueError: If `kind` is unknown, nothing repeats, or no chosen map of the trunk is read by an
            activation without a norm beside it.

    Side effects:
        The model's submodules. Costs two passes of a copy of the model, to find the maps.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.randn(1, 4)])
        >>> undo = insert_norm(case)
        >>> [type(model[i].behind).__name__ for i in (0, 2)], type(model[4]).__name__
        (['LayerNorm', 'LayerNorm'], 'Linear')
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; use one of {', '.join(KINDS)}")
    spine = find_spine(case, None)
    paths = [
        call.path
        for call in spine.wiring.calls
        if any(around in spine.blocks for around in call.around())
        and selects(sites, call.path, call.module)
        and _bare(spine.wiring, call)
    ]
    if not paths:
        raise ValueError(
            "no chosen linear map of the trunk is read by an activation without a norm beside it"
        )
    with all_or_nothing() as undos:
        for path in dict.fromkeys(paths):
            held = case.model.get_submodule(path)
            norm = _norm(held, kind)
            weight = next(held.parameters())
            new = Followed(held, norm.to(weight.device, weight.dtype)).train(held.training)
            undos.append(hold(case, norm.parameters()))
            undos.append(put(case.model, held, new))
    return backwards(undos)


def _bare(wiring: Wiring, call: Wire) -> bool:
    """Whether it is a linear map that an activation reads, with no norm on either side."""
    if not isinstance(call.module, (nn.Linear, _ConvNd)) or len(call.made) != 1 or not call.path:
        return False
    made, given = call.made[0], next(iter(call.taken.values()), None)
    if any(isinstance(other.module, NORMS) and given in other.made for other in wiring.calls):
        return False
    readers = [step for step in wiring.readers.get(made, ()) if step.name not in VIEWS]
    return bool(readers) and all(step.name in ACTIVATIONS for step in readers)


def _norm(held: nn.Module, kind: str) -> nn.Module:
    if isinstance(held, nn.Linear):
        make = {"layer": nn.LayerNorm, "rms": nn.RMSNorm, "batch": nn.BatchNorm1d}
        return make[kind](held.out_features)
    assert isinstance(held, _ConvNd)
    if kind == "batch":
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        return kinds[held.weight.ndim - 3](held.out_channels)
    if kind == "rms":
        raise ValueError("kind 'rms' is for linear maps; behind convolutions use 'layer' or 'batch'")
    return nn.GroupNorm(1, held.out_channels)
