"""What of a gain per block an activation makes: its slope, a factor in front of it, biases that push it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unitygain._types import Cause, Profile, Site
from unitygain.rules._layers import (
    SATURATING,
    SLOPE,
    Layer,
    enclosing,
    measured_slopes,
    parameter_rms,
    value_at,
)
from unitygain.rules._numbers import from_db, median, spell, to_db

# A layer at its own gain passes 0.85 to 1.1 of the gradient: tanh at unit signals loses up to 15 %, and the
# norm of one gradient through one draw of a layer of width 32 wanders by sqrt(5/32)/2, 20 % in one layer and
# a few per cent in the mean of many.
LOOSE_LOW, LOOSE_HIGH = 0.85, 1.1
# A curved activation at its own gain: its slope follows the signal, which is not at unit size in every layer.
# The mean over 24 layers was seen from 0.79 (softsign) to 1.25 (softplus).
LOOSE_CURVED = 0.75, 1.3
# Biases of this rms put a bounded activation where its slope is a quarter of that at rest, and less.
FLAT = 1.5
# How many times its own slope an activation must pass for a factor in front of it. The gradient weighs the
# slopes, and the mean over many layers of one kind was seen to differ from the root mean square by 1.3.
AHEAD = 2.0


@dataclass(frozen=True)
class Suspect:
    """A cause and the decibels per block that it accounts for, with the sign of the trend."""

    decibel: float
    cause: Cause


def layers_per_block(layers: list[Layer], blocks: tuple[Site, ...]) -> float:
    """Return how many of the layers a block holds on average; blocks that share a layer hold it each."""
    times = Counter(block.path for block in blocks)
    return sum(times[above] for layer in layers for above in enclosing(layer.site.path)) / len(blocks)


def most_common(layers: list[Layer]) -> list[Layer]:
    """Return the layers with the activation that most have."""
    [(first, _)] = Counter(layer.activation for layer in layers).most_common(1)
    return [layer for layer in layers if layer.activation == first]


def factor_beside(
    profiles: Mapping[str, Profile],
    layers: list[Layer],
    blocks: tuple[Site, ...],
    parts: Mapping[str, float],
) -> float:
    """Return by what forward multiplies beside each activation, as in sin(30·x); 1 where nothing is seen.

    What lies between two layers has no module: the gradient's gain there, over the slope of the activation
    as it was measured on what entered it, is the rest of that arithmetic. An activation that no weight is
    known to feed would be taken for a factor below 1, so that only those above are told.
    """
    active = [layer for layer in layers if layer.activation != "identity"]
    names = {layer.activation for layer in active}
    slope = measured_slopes(profiles).get(next(iter(names))) if len(names) == 1 else None
    if not slope or not parts.get("activation", 0.0) > 0:
        return 1.0
    each = layers_per_block(active, blocks)
    factor = from_db(to_db(parts["activation"]) / each) / slope
    return factor if factor > AHEAD else 1.0


def blame_slope(
    layers: list[Layer], blocks: tuple[Site, ...], per_block: float, *, forward: bool
) -> Iterable[Suspect]:
    """Yield an activation whose slope is nowhere near 1, such as the sigmoid's quarter."""
    flat = [layer for layer in layers if layer.activation in SLOPE]
    if not flat or forward:
        return
    name, slope = flat[0].activation, SLOPE[flat[0].activation]
    each = layers_per_block(flat, blocks)
    wrong = to_db(slope) * each
    centre = per_block / from_db(wrong)
    of = {"sigmoid": "Sigmoid", "hardsigmoid": "Hardsigmoid"}[name]
    yield Suspect(
        wrong,
        Cause(
            f"activation: the slope of a {name} is at most {spell(slope)}, which alone gives that per layer",
            "swap_activation",
            {"of": of, "to": "Tanh"},
            (centre * LOOSE_LOW**each, centre * LOOSE_HIGH**each),
        ),
    )


def blame_biases(
    profiles: Mapping[str, Profile],
    layers: list[Layer],
    blocks: tuple[Site, ...],
    per_block: float,
    *,
    forward: bool,
) -> Iterable[Suspect]:
    """Yield the biases, where those of most layers push a bounded activation to where it is flat."""
    bounded = [layer for layer in layers if layer.activation in SATURATING]
    pushed = [layer for layer in bounded if _pushed(profiles, layer)]
    if forward or len(pushed) <= len(bounded) / 2:
        return
    each = layers_per_block(bounded, blocks)
    logs = [to_db(layer.gain / layer.needed * SLOPE.get(layer.activation, 1.0)) for layer in bounded]
    alone = from_db(sum(logs) / len(logs) * each)
    size = median([parameter_rms(profiles, f"{layer.site.path}.bias") for layer in pushed])
    yield Suspect(
        to_db(per_block / alone),
        Cause(
            f"biases: rms {spell(size)} in {len(pushed)} of {len(bounded)} layers, most of what their "
            f"activation sees, which is flat there; the weights alone give {spell(alone)}x per block",
            "zero_biases",
            {"sites": tuple(layer.site.path for layer in pushed)},
            (alone * LOOSE_CURVED[0] ** each, alone * LOOSE_CURVED[1] ** each),
        ),
    )


def _pushed(profiles: Mapping[str, Profile], layer: Layer) -> bool:
    """Whether the layer's bias is large, and the larger part of what it puts out."""
    bias = parameter_rms(profiles, f"{layer.site.path}.bias")
    return bias > FLAT and bias > value_at(profiles, "act_rms", layer.site) / math.sqrt(2)
