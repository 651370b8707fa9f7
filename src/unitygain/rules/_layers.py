"""What rules know of layers: the gain of their weights, and the one that the next activation needs."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unitygain._types import Profile, Site

# sqrt(1/E[φ'(z)²]) for z ~ N(0, 1), by quadrature: the weight gain sqrt(fan_in·var) that keeps the gradient's
# scale. tanh, softsign and hardtanh have slope 1 at 0; theirs is the gain for small signals.
NEEDED = {
    "relu": math.sqrt(2),
    "relu6": math.sqrt(2),
    "leakyrelu": math.sqrt(2),
    "rrelu": math.sqrt(2),
    "gelu": 1.481,
    "silu": 1.623,
    "mish": 1.445,
    "elu": 1.223,
    "selu": 1.0,
    "tanh": 1.0,
    "hardtanh": 1.0,
    "softsign": 1.0,
    "identity": 1.0,
}
SATURATING = {"tanh", "hardtanh", "softsign", "sigmoid", "hardsigmoid", "erf"}
# The largest slope of an activation that can never pass a gradient at full size.
SLOPE = {"sigmoid": 0.25, "hardsigmoid": 1 / 6}


@dataclass(frozen=True)
class Layer:
    """A weight: its module, sqrt(fan_in·var), and the activation that follows (``identity`` for none)."""

    site: Site
    gain: float
    activation: str

    @property
    def needed(self) -> float:
        """The gain that keeps the gradient's scale through this activation, at unit signals."""
        return NEEDED.get(self.activation, 1.0)


def read_layers(profiles: Mapping[str, Profile], inside: Iterable[Site] = ()) -> list[Layer]:
    """Return the layers of ``weight_gain`` with a finite gain, all or those inside the given blocks."""
    profile = profiles.get("weight_gain")
    if profile is None:
        return []
    labels = profile.labels or ("",) * len(profile)
    paths = tuple(site.path for site in inside)
    return [
        Layer(site, value, activation_of(label))
        for (site, value), label in zip(profile.items(), labels, strict=True)
        if math.isfinite(value) and value > 0 and (not paths or any(within(site.path, p) for p in paths))
    ]


def activation_of(label: str) -> str:
    """Return the last word of a label that names an activation, in lower case; ``identity`` if none does."""
    words = [word.lower() for word in re.findall(r"[A-Za-z]\w*", label)]
    known = [word for word in words if word in NEEDED or word in SLOPE or word in SATURATING]
    return known[-1] if known else "identity"


def within(path: str, block: str) -> bool:
    """Whether `path` is `block` or lies inside it."""
    return path == block or not block or path.startswith(f"{block}.")


def before(profiles: Mapping[str, Profile], site: Site) -> Site | None:
    """Return the leaf call that ran before `site`, by the order of the leaf calls."""
    profile = profiles.get("act_rms")
    sites = profile.sites if profile else ()
    index = sites.index(site) if site in sites else 0
    return sites[index - 1] if index else None


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
