"""fixup: scale the maps inside residual branches by their depth, and start the last of each at zero.

A residual network without normalisation then takes steps of a size that does not depend on its depth.

What it changes:
    In a model of L branches with m maps each, every map of a branch but the last gets the gain of the
    activation behind it (sqrt(2) for ReLU) times L^(-1/(2m-2)); the last map becomes zero, and so do the
    biases of the branches. The draw of a weight stays, its size changes. With ``head=True`` the output layer
    becomes zero too, as in the paper. The learned scalar biases and multipliers of the paper are not added.

Why it helps:
    A step of gradient descent changes each branch by an amount that depends on the sizes of its maps. With
    this rule all L branches together change the output by an amount that does not grow with L, so that a
    residual network without normalisation trains at any depth, at the learning rate of a shallow one.

When it does not help:
    With a norm layer inside a branch, or behind one, the sizes of the maps do not count, and the rule is
    refused: `skip_init` works there. A branch of one map has no exponent, one that ends in an activation is
    born dead at zero. Under Adam, whose steps do not scale with the gradient, only the zero is left of it.

What it costs:
    Two passes of a copy; nothing per step. Nothing in front of a branch's last map has a gradient in the
    first step; with a zero head nothing but the head has.

References:
    Zhang, Dauphin and Ma, "Fixup Initialization: Residual Learning Without Normalization" (ICLR 2019),
    section 3, steps 1 and 2 of the rule.
"""

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import Weight, find_weights
from unitygain.probe.sites import Select
from unitygain.remedies._branches import Branch, ends_of, find_branches, require_straight
from unitygain.remedies._draw import find_activations, unit_gain
from unitygain.remedies._layers import biases_in
from unitygain.remedies._snapshot import Undo, keep
from unitygain.stats import rms


@remedy(treats=("UG102", "UG201"), changes="initial weights", instead_of=("scale_branch",))
def fixup(case: Case, *, sites: Select = None, head: bool = False) -> Undo:
    """Scale the maps of residual branches by L^(-1/(2m-2)), and set the last of each to zero.

    Args:
        case: The case; parameters are changed in place.
        sites: Which branches, by the path of the module that ends one or of one that holds it.
        head: Whether the output layer becomes zero as well.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If no branch is found, or one holds a norm layer, a single map, or ends in an activation.

    Side effects:
        The parameters of the branches, in place, and with ``head=True`` those of the last map.

    Example:
        >>> scale(branches=50, maps=2) ** 2
        0.02
    """
    found = find_branches(case, sites)
    require_straight(found)
    _require_maps(found)
    follows = find_activations(case)
    known = {f"{w.path}.{w.name}".lstrip("."): w for w in find_weights(case.model)}
    scaled = [
        (known[name], unit_gain(follows.get(known[name].path)) * scale(len(found), branch.maps))
        for branch in found
        for name in branch.weights
        if name in known and name not in branch.end
    ]
    zeros = [*ends_of(case, found), *biases_in(case, found), *(_head(known, found) if head else ())]
    undo = keep([*(weight.parameter for weight, _ in scaled), *zeros])
    with torch.no_grad():
        for weight, gain in scaled:
            now = float(rms(weight.parameter)) * weight.fan_in**0.5
            if now > 0:
                weight.parameter.mul_(gain / now)
        for parameter in zeros:
            parameter.zero_()
    return undo


def scale(branches: int, maps: int) -> float:
    """Return L^(-1/(2m-2)) for L branches of m maps, 2 or more."""
    return branches ** (-1 / (2 * maps - 2))


def _require_maps(branches: list[Branch]) -> None:
    for branch in branches:
        if branch.normalised or branch.post:
            raise ValueError(
                f"the branch that ends in {branch.path} has a norm layer; Fixup is for residual networks "
                "without: use skip_init"
            )
        if branch.maps < 2:
            raise ValueError(
                f"the branch that ends in {branch.path} has one map; Fixup needs two or more: use skip_init"
            )


def _head(known: dict[str, Weight], branches: list[Branch]) -> list[torch.nn.Parameter]:
    """The parameters of the last linear map, unless it is a branch's."""
    inside = {name for branch in branches for name in branch.weights}
    last = [weight for name, weight in known.items() if name not in inside][-1:]
    return [parameter for weight in last for parameter in weight.module.parameters(recurse=False)]
