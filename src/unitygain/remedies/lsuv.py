"""lsuv: draw orthogonal weights, and give the output of every layer unit variance on the first batch.

Layer-sequential unit variance: what formulas promise of each layer is measured and set right, in the order
in which the layers run.

What it changes:
    The weights of linear maps, convolutions and attention that train become orthogonal, their biases zero;
    then, in the order in which the layers run, each weight is divided by the deviation of its layer's
    output. One forward pass does it: a layer's output is linear in its weight, so that it is divided on
    the spot and the next layer already sees it. torch's attention is scaled by its output map. A layer that
    runs more than once is scaled at its first call. Recurrent modules, norms and embeddings stay.

Why it helps:
    It measures what formulas assume: the activation, the pooling, the padding and the data are those of the
    model. Whatever stands between the layers, no signal dies or grows on the way forward.

When it does not help:
    Unit variance forward is not unit gain backward: a layer that mixes widths or whose activation has a mean
    can have one without the other, and sigmoid layers still lose the gradient. A batch of one sample or of
    rows that are all alike has no variance to speak of. Behind a norm layer a weight's scale does nothing.
    In blocks with skip paths each branch becomes as large as its stream (then `gpt2_residual_scale`).

What it costs:
    One forward pass of a copy; nothing per step.

References:
    Mishkin and Matas, "All you need is a good init" (ICLR 2016), algorithm 1; there with a pass per layer and
    repeated until the variance is within 0.1, here exact at once.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.hooks import Hooks
from unitygain.probe.isolate import isolated
from unitygain.probe.linear_maps import Weight
from unitygain.probe.sites import Select
from unitygain.remedies._draw import biases_of, draw, find_own_weights
from unitygain.remedies._snapshot import Undo, keep
from unitygain.stats import mean, rms


@remedy(
    treats=("UG101", "UG102", "UG103", "UG104", "UG201", "UG202", "UG204"),
    changes="initial weights",
    instead_of=("rescale_weights",),
)
def lsuv(case: Case, *, sites: Select = None, seed: int = 0) -> Undo:
    """Draw orthogonal weights and scale each to unit variance of its layer's output.

    Args:
        case: The case; its model's parameters are changed in place.
        sites: Which modules, as patterns of paths or a callable.
        seed: Seed of the draw.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If no weight was chosen, or none of their layers was called as a module.

    Side effects:
        The chosen weights and their modules' biases, in place; a copy of them is kept for the undo.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.randn(16, 8)])
        >>> undo = lsuv(case)
        >>> round(model(case.batches[0]).std(correction=0).item(), 4)
        1.0
    """
    weights = find_own_weights(case, sites)
    biases = biases_of(weights)
    undo = keep([*(weight.parameter for weight in weights), *biases])
    places = _places(case.model, weights)
    try:
        with torch.no_grad():
            for bias in biases:
                bias.zero_()
        draw(weights, {id(weight.parameter): 1.0 for weight in weights}, "orthogonal", seed)
        factors = measure_outputs(case, places)
        if not factors:
            raise ValueError(f"none of the layers chosen by sites={sites!r} was called as a module")
    except BaseException:
        undo()
        raise
    with torch.no_grad():
        for path, factor in factors.items():
            places[path].parameter.mul_(factor)
    return undo


def _places(model: nn.Module, weights: list[Weight]) -> dict[str, Weight]:
    """The weight that scales the output of a module, by the path of the module that is called."""
    places: dict[str, Weight] = {}
    for weight in weights:
        above = weight.path.rpartition(".")[0]
        if weight.name != "weight":
            continue
        packed = bool(weight.path) and isinstance(model.get_submodule(above), nn.MultiheadAttention)
        places[above if packed else weight.path] = weight
    return places


def measure_outputs(case: Case, places: Mapping[str, Any]) -> dict[str, float]:
    """Return by what each module's output was multiplied to have unit variance, those before it done.

    Cost: one forward pass of a copy, no graph.
    """
    factors: dict[str, float] = {}
    with isolated(case) as (twin, _), torch.no_grad():
        hooks = Hooks()
        for path in places:
            hooks.on_call(twin.model.get_submodule(path), lambda *_: None, _scaling(path, factors))
        try:
            twin.compute_loss(twin.batches[0])
        finally:
            hooks.remove()
    return factors


def _scaling(path: str, factors: dict[str, float]) -> Any:
    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        made = output[0] if isinstance(output, tuple) else output
        if not isinstance(made, Tensor):
            return
        if path not in factors:
            wide = made.double()
            deviation = float(rms(wide - mean(wide)))
            if not (deviation > 0 and math.isfinite(deviation)):
                return
            factors[path] = 1 / deviation
        made.mul_(factors[path])

    return leave
