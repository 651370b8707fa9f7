"""Which activation of the theory follows each module with weights."""

from collections.abc import Mapping

from torch import nn

from unitygain.probe.record import Place, Record
from unitygain.theory.activations import ACTIVATIONS, Activation, find_activation, leaky_relu

# By the name of an operation that has no arguments which would change it.
PLAIN = ("relu", "gelu", "silu", "mish", "tanh", "sigmoid", "sin", "erf")
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
        return ACTIVATIONS[name] if name in PLAIN else None
    said = repr(module).replace(", inplace=True", "").replace("inplace=True", "")
    if said not in known:
        known[said] = _of_module(module, NAMED.get(said))
    return known[said]


def _of_module(module: nn.Module, name: str | None) -> Activation | None:
    if name is not None and type(module).__module__.startswith("torch.nn"):
        return ACTIVATIONS[name]
    if type(module) is nn.LeakyReLU:
        return leaky_relu(module.negative_slope)
    try:
        return find_activation(module)
    except ValueError:
        return None
