"""What rules know of layers: the gain of their weights, and the one that the next activation needs."""

import math
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from unitygain._types import Profile, Site
from unitygain.rules._numbers import median

# sqrt(1/E[φ'(z)²]) for z ~ N(0, 1), by quadrature: the weight gain sqrt(fan_in·var) that keeps the gradient's
# scale. tanh and softsign have slope 1 at 0; theirs is the gain for small signals. Of other activations the
# slopes that were measured tell.
NEEDED = {
    "relu": math.sqrt(2),
    "gelu": 1.481,
    "silu": 1.623,
    "mish": 1.445,
    "hardswish": 1.670,
    "softplus": 1.846,
    "tanh": 1.0,
    "softsign": 1.0,
    "identity": 1.0,
    # Their slope, a quarter or a sixth at most, is a cause of its own.
    "sigmoid": 1.0,
    "hardsigmoid": 1.0,
}
SATURATING = {"tanh", "softsign", "sigmoid", "hardsigmoid", "erf"}
# Activations whose slope does not depend on the scale of what enters.
SCALE_FREE = {"identity", "relu", "leaky_relu", "prelu_kernel"}
# Activations whose outputs have a mean of the size of their spread, by the class that makes them.
OFFSET = {"sigmoid": "Sigmoid", "softplus": "Softplus"}
# How many leaf calls back to look for the layer that feeds an activation: past a norm, a dropout.
REACH = 4
# The largest slope of an activation that can never pass a gradient at full size.
SLOPE = {"sigmoid": 0.25, "hardsigmoid": 1 / 6}


@dataclass(frozen=True)
class Layer:
    """A weight: its module, sqrt(fan_in·var), the activation behind it, and the gain that this needs.

    The activation is ``identity`` where there is none.
    """

    site: Site
    gain: float
    activation: str
    needed: float


def read_layers(profiles: Mapping[str, Profile], inside: Iterable[Site] = ()) -> list[Layer]:
    """Return the layers of ``weight_gain`` with a finite gain, all or those inside the given blocks."""
    profile = profiles.get("weight_gain")
    if profile is None:
        return []
    labels = profile.labels or ("",) * len(profile)
    paths = {site.path for site in inside}
    chosen = [
        (site, value, activation_of(label))
        for (site, value), label in zip(profile.items(), labels, strict=True)
        if math.isfinite(value) and value > 0 and (not paths or within_any(site.path, paths))
    ]
    slopes = measured_slopes(profiles)
    needs = {name: NEEDED.get(name) or 1 / slopes.get(name, 1.0) for _, _, name in chosen}
    return [Layer(site, value, name, needs[name]) for site, value, name in chosen]


def by_hand(profiles: Mapping[str, Profile]) -> Set[str]:
    """Return the names of the matrices that modules multiply by hand."""
    profile = profiles.get("weight_gain")
    pairs = zip(profile.sites, profile.labels, strict=True) if profile and profile.labels else ()
    return {site.path for site, label in pairs if label.startswith("matrix")}


def activation_of(label: str) -> str:
    """Return the activation that a label such as ``Linear→relu`` names, ``identity`` where it names none."""
    _, _, name = label.partition("→")
    return name.strip("_").lower() or "identity"


def measured_slopes(profiles: Mapping[str, Profile]) -> dict[str, float]:
    """Return the median root mean square of the slope by activation, as ``act_frac_saturated`` states it."""
    profile = profiles.get("act_frac_saturated")
    if profile is None or not profile.rows or not profile.labels:
        return {}
    found: dict[str, list[float]] = {}
    for label, row in zip(profile.labels, profile.rows, strict=True):
        if row and row[0] > 0 and math.isfinite(row[0]):
            found.setdefault(label.removesuffix(" (output)").strip("_").lower(), []).append(row[0])
    return {name: median(values) for name, values in found.items()}


def within(path: str, block: str) -> bool:
    """Whether `path` is `block` or lies inside it."""
    return path == block or not block or path.startswith(f"{block}.")


def within_any(path: str, blocks: Set[str]) -> bool:
    """Whether `path` is one of `blocks` or lies inside one; takes the same time however many there are."""
    return any(above in blocks for above in enclosing(path))


def enclosing(path: str) -> Iterator[str]:
    """Yield the path and those of all modules around it, the model's own (empty) last.

    Example:
        >>> list(enclosing("layers.3.norm"))
        ['layers.3.norm', 'layers.3', 'layers', '']
    """
    yield path
    while path:
        path = path.rpartition(".")[0]
        yield path


def fed_by(profiles: Mapping[str, Profile], site: Site, holding: str = "bias") -> list[Site]:
    """Return the leaf calls with a bias that may feed the activation `site`, the nearest first.

    An activation that is a function call has no place among the leaf calls: all leaves of the module around
    it may feed it.

    Args:
        profiles: All profiles; ``act_rms`` tells the leaf calls, ``param_rms`` what they hold.
        site: The activation.
        holding: Name of the parameter that they must hold.
    """
    profile = profiles.get("act_rms")
    leaves = profile.sites if profile else ()
    if site in leaves:
        earlier = leaves[: leaves.index(site)][-REACH:]
    else:
        earlier = tuple(leaf for leaf in leaves if within(leaf.path, site.path))
    return [leaf for leaf in earlier if parameter_rms(profiles, f"{leaf.path}.{holding}") >= 0][::-1]


def parameter_rms(profiles: Mapping[str, Profile], name: str) -> float:
    """Return the rms of the parameter `name`, NaN where it was not measured."""
    profile = profiles.get("param_rms")
    return (
        next((value for site, value in profile.items() if site.path == name), math.nan)
        if profile
        else math.nan
    )


def value_at(profiles: Mapping[str, Profile], name: str, site: Site | None) -> float:
    """Return a profile's value at `site`, NaN where there is none."""
    profile = profiles.get(name)
    if profile is None or site is None:
        return math.nan
    return next((value for here, value in profile.items() if here == site), math.nan)
