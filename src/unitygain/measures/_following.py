"""Which activation of the theory follows each module with weights."""

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from torch import nn

from unitygain.measures._wide_pointwise import activation
from unitygain.probe.activations import PRELU
from unitygain.probe.record import Place, Record
from unitygain.theory.activations import ACTIVATIONS, Activation, find_activation, leaky_relu

# By the name of an operation and its positional arguments.
NAMES = {("elu", (1.0,)): "elu", ("hardtanh", (-1.0, 1.0)): "hardtanh", ("hardtanh", ()): "hardtanh"}
NAMES |= {("elu", ()): "elu", ("softplus", (1.0, 20.0)): "softplus"}
NEAR = 1e-3
SELU = ("elu", (1.6732632423543772, 1.0507009873554805))
# By what a module of torch says of itself.
NAMED = {
    "ReLU()": "relu",
    "GELU(approximate='none')": "gelu",
    "GELU(approximate='tanh')": "gelu_tanh",
    "SiLU()": "silu",
    "Mish()": "mish",
    "ELU(alpha=1.0)": "elu",
    "SELU()": "selu",
    "Tanh()": "tanh",
    "Hardtanh(min_val=-1.0, max_val=1.0)": "hardtanh",
    "Sigmoid()": "sigmoid",
}


def following(record: Record, modules: Mapping[str, nn.Module]) -> dict[str, Activation]:
    """Return the activation behind each module, by path, where the theory knows it.

    Args:
        record: A record with a statistic of the signal `activation`.
        modules: The model's modules by path.
    """
    follows: dict[str, Activation] = {}
    known: dict[str, Activation | None] = {}
    for place in record.of("activation"):
        a = _activation(place, modules, known)
        if a is not None:
            follows.setdefault(place.note, a)
    return follows


def _activation(
    place: Place, modules: Mapping[str, nn.Module], known: dict[str, Activation | None]
) -> Activation | None:
    """The activation of the theory that an operation is; None where its arguments are not known."""
    name = place.type.removesuffix(" (output)")
    module = None if place.site.leaf else modules.get(place.site.path)
    if module is None or any(True for _ in module.children()) or any(True for _ in module.parameters()):
        return _of_operation(name, place)
    said = repr(module).replace(", inplace=True", "").replace("inplace=True", "")
    if said not in known:
        known[said] = _of_module(module, NAMED.get(said))
    return known[said]


def _of_operation(name: str, place: Place) -> Activation | None:
    """The activation of the theory that an operation with these arguments is."""
    if len(place.arguments) != 2 or name == PRELU:
        return None
    rest, keywords = place.arguments
    return _called(name, rest, keywords)


@cache
def _called(name: str, rest: tuple[float, ...], keywords: tuple[tuple[str, Any], ...]) -> Activation | None:
    if (name, rest) in NAMES and not keywords:
        return ACTIVATIONS[NAMES[name, rest]]
    if (name, rest) == SELU:
        return ACTIVATIONS["selu"]
    if name == "leaky_relu" and not keywords:
        return leaky_relu(*rest) if rest else leaky_relu(0.01)
    try:
        found = activation(name, rest, keywords)
    except ValueError:
        return None
    said = ", ".join(f"{value}" for value in rest)
    return _alive(dataclasses.replace(found, name=f"{name}({said})") if rest else found)


def _alive(a: Activation) -> Activation | None:
    """Refuse one that is flat around zero, as a shrinkage: small signals die, and there is no diagram."""
    return a if np.any(a.slope(np.array([-NEAR, NEAR])) != 0) else None


def _of_module(module: nn.Module, name: str | None) -> Activation | None:
    if name is not None and type(module).__module__.startswith("torch.nn"):
        return ACTIVATIONS[name]
    if type(module) is nn.LeakyReLU:
        return leaky_relu(module.negative_slope)
    try:
        return _alive(find_activation(module))
    except ValueError:
        return None
