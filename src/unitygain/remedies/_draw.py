"""Draws weights anew, at a stated gain, with numbers of its own."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from unitygain._case import Case
from unitygain._registry import MEASURES
from unitygain.measures._following import following
from unitygain.probe.isolate import isolated
from unitygain.probe.linear_maps import Weight, find_weights
from unitygain.probe.observe import observe
from unitygain.probe.sites import Select
from unitygain.stats import rms
from unitygain.theory.activations import Activation
from unitygain.theory.criticality import critical, is_odd
from unitygain.theory.mean_field import second_moment

Kind = Literal["normal", "uniform", "orthogonal"]
KINDS = ("normal", "uniform", "orthogonal")
RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def find_own_weights(case: Case, sites: Select, *, recurrent: bool = False) -> list[Weight]:
    """Return the chosen weights that train and that no embedding shares.

    Args:
        case: The case.
        sites: Which modules, or single parameters, by path.
        recurrent: Whether those of recurrent modules count.

    Raises:
        ValueError: If there is none.
    """
    tables = {
        id(parameter)
        for module in case.model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for parameter in module.parameters(recurse=False)
    }
    found = [
        weight
        for weight in find_weights(case.model, sites)
        if weight.parameter.requires_grad
        and weight.parameter.is_floating_point()
        and id(weight.parameter) not in tables
        and (recurrent or not isinstance(weight.module, RECURRENT))
    ]
    if not found:
        also = "" if recurrent else ", recurrent modules apart"
        raise ValueError(f"no trainable weight of a linear map is chosen by sites={sites!r}{also}")
    return found


def find_activations(case: Case) -> Mapping[str, Activation]:
    """Return which activation follows each module, by path, where the theory knows it.

    Cost: one forward and backward pass of a copy.
    """
    with isolated(case) as (twin, _):
        record = observe(twin, MEASURES["phase_point"].needs)
        return following(record, dict(twin.model.named_modules()))


def unit_gain(activation: Activation | None) -> float:
    """Return sqrt(fan_in · variance) of a weight at which the activation behind it keeps a signal.

    That is the critical point without bias where there is one: 1/|φ'(0)| of an odd activation, and He's
    sqrt(2/(a² + b²)) of one that is linear on each side with slopes a and b. Otherwise 1/sqrt(E φ(z)²),
    at which a Gaussian pre-activation of variance 1 stays one. 1 where no activation follows.
    """
    if activation is None:
        return 1.0
    if activation.rays is not None or is_odd(activation):
        return math.sqrt(critical(activation, 0.0).sigma_w2)
    return 1 / math.sqrt(second_moment(activation, 1.0))


def draw(weights: Iterable[Weight], gains: Mapping[int, float], kind: Kind, seed: int) -> None:
    """Fill every weight at its gain, each of the matrices that it stacks on its own.

    Args:
        weights: The weights, in the order in which they are drawn.
        gains: sqrt(fan_in · mean square) by the parameter's id.
        kind: Gaussian, uniform or orthogonal.
        seed: Seed of a generator that nothing else uses; the same numbers on every device.
    """
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in weights:
            deviation = gains[id(weight.parameter)] / math.sqrt(weight.fan_in)
            for part in stacked(weight):
                part.copy_(sample(tuple(part.shape), deviation, kind, source, part.dtype))


def stacked(weight: Weight) -> tuple[Tensor, ...]:
    """Return the matrices that a parameter stacks, as views: gates, query and key and value, groups."""
    module, rows = weight.module, len(weight.parameter)
    count = 1
    if isinstance(module, nn.MultiheadAttention) and weight.name == "in_proj_weight":
        count = 3
    elif isinstance(module, RECURRENT):
        count = max(1, rows // module.hidden_size)
    elif isinstance(module, _ConvNd):
        count = module.groups
    return weight.parameter.detach().chunk(count)


def sample(
    shape: tuple[int, ...], deviation: float, kind: Kind, source: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """Return a tensor with the given root mean square (exact where it is orthogonal, else in the mean)."""
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    drawn = torch.empty(shape, dtype=wide)
    if kind == "uniform":
        return drawn.uniform_(-math.sqrt(3) * deviation, math.sqrt(3) * deviation, generator=source)
    if kind == "normal":
        return drawn.normal_(0.0, deviation, generator=source)
    nn.init.orthogonal_(drawn, generator=source)
    return drawn * (deviation / float(rms(drawn)))


def biases_of(weights: Iterable[Weight]) -> list[nn.Parameter]:
    """Return the trainable biases of the weights' modules, each once; not those of recurrent modules."""
    modules = {id(w.module): w.module for w in weights if not isinstance(w.module, RECURRENT)}
    return [
        parameter
        for module in modules.values()
        for name, parameter in module.named_parameters(recurse=False)
        if "bias" in name and parameter.requires_grad
    ]
