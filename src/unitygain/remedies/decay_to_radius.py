"""decay_to_radius: weight decay that brings the spectral radius of recurrent matrices down in given steps.

Decay multiplies a matrix, and with it its eigenvalues, by 1 - eta·lambda at every step; from the radius of
now and the steps follows the lambda. Only matrices above the radius are decayed.

What it changes:
    The optimizer: each such matrix stands in a group of its own, with that weight decay and all other
    settings as before.

Why it helps:
    What passes a recurrent matrix grows like its spectral radius to the power of the steps in time. Above 1
    it explodes however small the learning rate is; a decay takes it below without touching any other weight,
    and lets the gradient hold against it.

When it does not help:
    It acts over the steps that are stated, and an exploding gradient does its harm at the first:
    orthogonal_weights, rescale_weights or clip_gradients act at once. Gradients that pull outwards win
    against it. It goes on after the goal is reached, so that the matrix shrinks further: set it back then.
    Below a radius of 1 a matrix that is far from normal still grows for a while (UG406). Learning rates that
    a schedule lowers lengthen it.

What it costs:
    The eigenvalues of each matrix once, n³.

References:
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019), equation 1. Pascanu, Mikolov
    and Bengio, "On the difficulty of training recurrent neural networks" (ICML 2013), section 2.1, on the
    largest eigenvalue.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import Weight
from unitygain.probe.sites import Select
from unitygain.remedies._parametrise import choose_weights
from unitygain.remedies._snapshot import Undo
from unitygain.stats import absmax

DECOUPLED = ("AdamW", "Muon", "Adafactor")


@remedy(treats=("UG402", "UG403"), changes="optimizer", instead_of=("rescale_weights",))
def decay_to_radius(case: Case, *, sites: Select = None, radius: float = 1.0, steps: int = 100) -> Undo:
    """Decay every chosen square matrix so that decay alone takes its spectral radius to `radius` in `steps`.

    Args:
        case: The case; its optimizer gets further groups.
        sites: Which modules, or single parameters, by path. When left out: the square matrices from state to
            state of recurrent modules, or, in a model without any, all square matrices.
        radius: Spectral radius to come down to.
        steps: Optimizer steps in which.

    Returns:
        What puts the optimizer, or its groups, back.

    Raises:
        ValueError: If a number is not above 0, no chosen matrix is above the radius, or the case declares no
            optimizer, or one that does not decay by eta·lambda.

    Side effects:
        ``case.optimizer``; of an instance the groups.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.RNN(1, 2)
        >>> _ = model.weight_hh_l0.data.copy_(2 * torch.eye(2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> case = Case(model, loss=lambda m, x: m(x)[0].sum(), data=[torch.ones(3, 1, 1)],
        ...             optimizer=optimizer)
        >>> undo = decay_to_radius(case, steps=10)
        >>> fraction = 0.1 * optimizer.param_groups[-1]["weight_decay"]
        >>> round(2 * (1 - fraction) ** 10, 6)
        1.0
    """
    if not 0 < radius < math.inf or steps < 1:
        raise ValueError(f"radius is {radius} and steps {steps}; give a radius above 0 and at least 1 step")
    given = case.optimizer
    if given is None:
        raise ValueError("the case declares no optimizer; pass optimizer= to set its weight decay")
    weights = choose_weights(case.model, sites, _square, "square matrix")
    found = {id(weight.parameter): spectral_radius(weight.parameter) for weight in weights}
    shrink = {key: 1 - (radius / now) ** (1 / steps) for key, now in found.items() if now > radius}
    if not shrink:
        largest = max(found.values())
        raise ValueError(f"no chosen matrix has a spectral radius above {radius} (largest: {largest:.3g})")
    if isinstance(given, torch.optim.Optimizer):
        return _regroup(given, shrink)
    case.optimizer = _decaying(case, given, shrink)
    try:
        case.build_optimizer()
    except BaseException:
        case.optimizer = given
        raise

    def undo() -> None:
        case.optimizer = given

    return undo


def spectral_radius(matrix: Tensor) -> float:
    """Return the largest modulus of the eigenvalues; 0 where the matrix is zero or not finite."""
    size = float(absmax(matrix))
    if not 0 < size < math.inf:
        return 0.0
    return size * float(absmax(torch.linalg.eigvals(matrix.detach().double().cpu() / size)))


def _square(weight: Weight) -> bool:
    shape = weight.parameter.shape
    return len(shape) == 2 and shape[0] == shape[1]


def _decaying(
    case: Case, build: Callable[[Any], torch.optim.Optimizer], shrink: Mapping[int, float]
) -> Callable[..., Any]:
    """Return a factory that does the same for those parameters, or in a copy for those in their places."""

    def decaying(parameters: Any) -> torch.optim.Optimizer:
        held = list(parameters)
        optimizer = build(held)
        own = {id(p): shrink[id(p)] for p in held if id(p) in shrink}
        # Their places are asked for now: another change may have added parameters since.
        places = {place: shrink[id(p)] for place, p in enumerate(case.model.parameters()) if id(p) in shrink}
        _regroup(optimizer, own or {id(held[place]): fraction for place, fraction in places.items()})
        return optimizer

    return decaying


def _regroup(optimizer: torch.optim.Optimizer, shrink: Mapping[int, float]) -> Undo:
    """Put every parameter that is to shrink by a fraction per step into a group of its own."""
    groups = optimizer.param_groups
    before = [(group, list(group["params"])) for group in groups]
    taken = [(g, p) for g in list(groups) for p in g["params"] if id(p) in shrink]
    if not taken:
        raise ValueError("the optimizer holds none of the chosen matrices; see UG604")
    made = [{**g, "params": [p], "weight_decay": shrink[id(p)] / _rate(optimizer, g)} for g, p in taken]
    for group in list(groups):
        group["params"] = [p for p in group["params"] if id(p) not in shrink]
    groups.extend(made)

    def undo() -> None:
        groups[:] = [group for group, _ in before]
        for group, parameters in before:
            group["params"] = parameters

    return undo


def _rate(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
    """What a weight decay of 1 takes from a weight per step."""
    name, rate = type(optimizer).__name__, float(group["lr"])
    if name == "SGD" and not group["dampening"]:
        rate /= 1 - float(group["momentum"])
    elif not (group.get("decoupled_weight_decay") or name in DECOUPLED):
        raise ValueError(f"{name} does not decay by its rate times the weight decay; use AdamW or SGD")
    if not rate > 0:
        raise ValueError(f"the learning rate is {rate}, at which nothing decays; give one above 0")
    return rate
