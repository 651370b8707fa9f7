"""swap_to_relu: ReLU in the place of sigmoids and tanhs between linear maps, and weights to match.

Another activation alone would leave weights that were drawn for the old one.

What it changes:
    Every bounded activation module (sigmoid, tanh and their hard and soft kinds) that reads one linear map
    and is read by another becomes a ReLU. The map in front of it is scaled to sqrt(fan_in · variance) =
    sqrt(2), He's gain, and its bias is set to 0.

Why it helps:
    A sigmoid passes less than a quarter of the gradient and both go flat at large inputs. A ReLU has slope
    1 for half of all inputs, whatever their scale, which a gain of sqrt(2) makes up for: the gain per
    layer is 1 at any depth.

When it does not help:
    Where the bound is meant: gates, outputs, recurrent states. Those are left, since no linear map reads
    them or none stands in front. An activation that is a function call has no module and stays. A trained
    model has to be trained again.

What it costs:
    Units may die: a ReLU that is off for all inputs has no gradient.

References:
    Glorot, Bordes and Bengio, "Deep Sparse Rectifier Neural Networks" (AISTATS 2011), section 3; He,
    Zhang, Ren and Sun, "Delving Deep into Rectifiers" (ICCV 2015), equation 10.
"""

import math

import torch
from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.isolate import isolated
from unitygain.probe.linear_maps import find_weights
from unitygain.probe.sites import Select, selects
from unitygain.probe.wiring import Wire, Wiring, wire
from unitygain.remedies._snapshot import Undo, keep, swap
from unitygain.stats import rms

BOUNDED = (nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.Hardtanh, nn.Softsign, nn.LogSigmoid)


@remedy(
    treats=("UG101", "UG103", "UG204", "UG205"),
    changes="architecture",
    instead_of=("swap_activation",),
)
def swap_to_relu(case: Case, *, sites: Select = None) -> Undo:
    """Replace bounded activations between linear maps by ReLU, with He's gain in front.

    Args:
        case: The case; activations are replaced, weights scaled and biases zeroed in place.
        sites: Which activation modules, by path; all that stand between linear maps when left out.

    Returns:
        What puts modules, weights and biases back, bit for bit.

    Raises:
        ValueError: If no chosen bounded activation stands between two linear maps.

    Side effects:
        The model's submodules and weights. Costs one pass of a copy of the model, to find them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 1), nn.Sigmoid())
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 8)])
        >>> undo = swap_to_relu(case)
        >>> kinds = [type(layer).__name__ for layer in model]
        >>> kinds[1], kinds[3], round(8 * model[0].weight.square().mean().item(), 3)
        ('ReLU', 'Sigmoid', 2.0)
    """
    with isolated(case) as (twin, _):
        wiring = wire(twin)
    calls = [
        (call, _in_front(wiring, call) if _is_read(wiring, call) else None)
        for call in wiring.calls
        if isinstance(call.module, BOUNDED) and selects(sites, call.path, call.module)
    ]
    # A module that also stands elsewhere, as at the end, would change there too.
    elsewhere = {id(call.module) for call, front in calls if front is None}
    found = {call.path: f.path for call, f in calls if f is not None and id(call.module) not in elsewhere}
    if not found:
        raise ValueError("no chosen sigmoid or tanh module stands between two linear maps")
    model = case.model
    maps = {id(module): module for path in found.values() for module in [model.get_submodule(path)]}.values()
    undo_weights = keep(parameter for module in maps for parameter in module.parameters(recurse=False))
    bounded = {model.get_submodule(path) for path in found}
    undo_swap = swap(model, None, lambda m: nn.ReLU() if m in bounded else None, "a bounded activation")
    with torch.no_grad():
        for module in maps:
            _set_gain(module)

    def undo() -> None:
        undo_swap()
        undo_weights()

    return undo


def _set_gain(module: nn.Module) -> None:
    for weight in find_weights(module):
        now = float(rms(weight.parameter)) * math.sqrt(weight.fan_in)
        if now > 0 and math.isfinite(now):
            weight.parameter.mul_(math.sqrt(2) / now)
    bias = getattr(module, "bias", None)
    if isinstance(bias, nn.Parameter):
        bias.zero_()


def _is_map(call: Wire) -> bool:
    return any(weight.module is call.module for weight in find_weights(call.module))


def _in_front(wiring: Wiring, call: Wire) -> Wire | None:
    """The linear map whose output an activation reads."""
    given = next(iter(call.taken.values()), None)
    return next((other for other in wiring.calls if given in other.made and _is_map(other)), None)


def _is_read(wiring: Wiring, call: Wire) -> bool:
    """Whether a linear map reads what an activation returns."""
    return any(call.made[0] in other.taken.values() and _is_map(other) for other in wiring.calls if call.made)
