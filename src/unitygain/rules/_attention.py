"""Why attention logits are large: a missing scale, that of query and key weights, or what enters them."""

import math
from collections.abc import Callable, Iterable, Mapping

from unitygain._types import Cause, Profile, Site
from unitygain.rules._layers import Layer, read_layers, within
from unitygain.rules._numbers import spell

# Logits this many times those of scaled dot products have no scale: it is 2 from 4 numbers per head on.
UNSCALED = 1.9
QUERIES = ("query", "q_proj", "to_q", "q_lin", "wq")
KEYS = ("key", "k_proj", "to_k", "k_lin", "wk")
PACKED = ("qkv", "c_attn", "in_proj")
USUAL = 1.5
LOUD = 3.0

Predict = Callable[[float], tuple[float, float]]


def explain_logits(
    profiles: Mapping[str, Profile], site: Site, logits: float, predict: Predict
) -> Iterable[Cause]:
    """Yield the likely causes of large logits at the attention `site`.

    Args:
        profiles: All profiles; ``attention_scale`` tells the factor on products, ``weight_gain`` the scale of
            query and key maps.
        site: The attention's softmax.
        logits: The largest of them.
        predict: Range of the finding's value once the logits are multiplied by the factor given.
    """
    query, key = find_scale(profiles, site)
    product, (times, width) = query * key, find_factor(profiles, site)
    scaled = [_missing_scale(site, times, width, predict)] if times >= UNSCALED else []
    if times >= product:
        yield from scaled
    if product > USUAL:
        yield Cause(
            f"weights: sqrt(fan_in·var) = {spell(query)} in the query map and {spell(key)} in the key map, "
            f"where 1 and 1 are usual: {spell(product)}x on every logit",
            "calm_attention",
            {"sites": (site.path,), "factor": 1 / product},
            predict(1 / product),
        )
    if times < product:
        yield from scaled
    size = largest_input(profiles)
    if product <= USUAL and size > LOUD:
        low, high = predict(1 / size**2)[0], predict(1 / size)[1]
        yield Cause(
            f"inputs: rms {spell(size)}, and logits grow in proportion to the keys, or to keys and queries",
            "unit_inputs",
            {},
            (low, high),
        )
    if math.isnan(times):
        yield Cause(
            f"scale: scores reach {spell(logits)}: queries and keys are too large, or their products are not "
            "divided by the square root of the head's width, which could not be read here"
        )
    yield Cause("inputs: what enters the attention is not normalised, or its norm's weight has grown")


def _missing_scale(site: Site, times: float, width: int, predict: Predict) -> Cause:
    return Cause(
        f"scale: products of queries and keys of {width} numbers per head, taken {spell(times / width**0.5)} "
        f"times, where 1/sqrt({width}) = {spell(width**-0.5)} is usual: {spell(times)}x on every logit",
        "restore_logit_scale",
        {"sites": (site.path,)},
        predict(1 / times),
    )


def find_factor(profiles: Mapping[str, Profile], site: Site) -> tuple[float, int]:
    """Return the factor on products of queries and keys, times sqrt(d), and d; NaN and 0 where not known."""
    profile = profiles.get("attention_scale")
    if profile is None:
        return math.nan, 0
    seen = zip(profile.sites, profile.values, profile.rows, strict=True)
    return next(((value, int(row[0])) for here, value, row in seen if here.path == site.path), (math.nan, 0))


def largest_input(profiles: Mapping[str, Profile]) -> float:
    """Return the largest rms among the model's floating inputs, 0 where there is none."""
    profile = profiles.get("input_rms")
    return max((value for _, value in profile.finite()), default=0.0) if profile else 0.0


def find_scale(profiles: Mapping[str, Profile], site: Site) -> tuple[float, float]:
    """Return the gains of the query and key maps of the attention; 1 where they are not known.

    Those that ran are known from ``attention_scale``. Otherwise names tell, inside the attention's module.
    """
    maps = find_maps(profiles, site)
    gains = {layer.site.path: layer.gain for layer in read_layers(profiles)} if maps else {}
    if maps and maps[0] in gains and maps[1] in gains:
        return gains[maps[0]], gains[maps[1]]
    layers = read_layers(profiles, (site,) if site.path else ())
    layers = layers if site.path else [layer for layer in layers if "." not in layer.site.path]
    packed = pick(layers, site, PACKED)
    return pick(layers, site, QUERIES) or packed or 1.0, pick(layers, site, KEYS) or packed or 1.0


def find_maps(profiles: Mapping[str, Profile], site: Site) -> list[str]:
    """Return the paths of the query and key maps that ran at the attention; none where they are not known."""
    profile = profiles.get("attention_scale")
    labels = zip(profile.sites, profile.labels, strict=False) if profile else ()
    return next((label.split("|") for here, label in labels if here.path == site.path), [])


def pick(layers: Iterable[Layer], site: Site, names: tuple[str, ...]) -> float:
    """Return the gain of the first layer with one of the names inside the attention, 0 if there is none."""
    for layer in layers:
        inside = str(layer.site)[len(site.path) :].lower()
        if within(layer.site.path, site.path) and any(name in inside for name in names):
            return layer.gain
    return 0.0
