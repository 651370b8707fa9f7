"""Why attention logits are large: the scale of query and key weights, or what enters them."""

from collections.abc import Callable, Iterable, Mapping

from unitygain._types import Cause, Profile, Site
from unitygain.rules._layers import Layer, read_layers, within
from unitygain.rules._numbers import spell

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
        profiles: All profiles; ``weight_gain`` tells the scale of query and key maps.
        site: The attention's softmax.
        logits: The largest of them.
        predict: Range of the finding's value once the logits are multiplied by the factor given.
    """
    query, key = find_scale(profiles, site)
    product = query * key
    if product > USUAL:
        yield Cause(
            f"weights: sqrt(fan_in·var) = {spell(query)} in the query map and {spell(key)} in the key map, "
            f"where 1 and 1 are usual: {spell(product)}x on every logit",
            "calm_attention",
            {"sites": (site.path,), "factor": 1 / product},
            predict(1 / product),
        )
    size = largest_input(profiles)
    if product <= USUAL and size > LOUD:
        low, high = predict(1 / size**2)[0], predict(1 / size)[1]
        yield Cause(
            f"inputs: rms {spell(size)}, and logits grow in proportion to the keys, or to keys and queries",
            "unit_inputs",
            {},
            (low, high),
        )
    yield Cause(
        "scale: scores that are not divided by the square root of the head's width "
        f"(the largest is {spell(logits)})"
    )
    yield Cause("inputs: what enters the attention is not normalised, or its norm's weight has grown")


def largest_input(profiles: Mapping[str, Profile]) -> float:
    """Return the largest rms among the model's floating inputs, 0 where there is none."""
    profile = profiles.get("input_rms")
    return max((value for _, value in profile.finite()), default=0.0) if profile else 0.0


def find_scale(profiles: Mapping[str, Profile], site: Site) -> tuple[float, float]:
    """Return the gains of the query and key maps inside the attention; 1 where they are not known."""
    layers = read_layers(profiles, (site,)) if site.path else []
    packed = pick(layers, site, PACKED)
    return pick(layers, site, QUERIES) or packed or 1.0, pick(layers, site, KEYS) or packed or 1.0


def pick(layers: Iterable[Layer], site: Site, names: tuple[str, ...]) -> float:
    """Return the gain of the first layer with one of the names inside the attention, 0 if there is none."""
    for layer in layers:
        inside = str(layer.site)[len(site.path) :].lower()
        if within(layer.site.path, site.path) and any(name in inside for name in names):
            return layer.gain
    return 0.0
