"""Why one block's gain is far from the others': weights, a saturated softmax, a flat or dead activation."""

from collections.abc import Iterable, Mapping

from unitygain._types import Cause, Profile, Site
from unitygain.rules._layers import read_layers, within
from unitygain.rules._numbers import from_db, median, spell, to_db
from unitygain.rules._places import FAR_DB

# Logits that a softmax turns into a choice: one entry has all but all of its row, p(1 - p) is small, and by
# logits that no usual draw makes of unit signals.
CHOSEN, LOUD_LOGITS = 0.1, 30.0
LARGE_INPUT = 10.0
# Weights this far above the gain that keeps the scale are a word's worth.
LOUD_DB = 3.0


def explain_place(
    profiles: Mapping[str, Profile], site: Site, gain: float, usual: float
) -> tuple[Cause, ...]:
    """Return the causes of one block's gain being far from the usual one of the others."""
    inside = read_layers(profiles, (site,))
    others = [layer for layer in read_layers(profiles) if not within(layer.site.path, site.path)]
    causes: list[Cause] = []
    for layer in inside:
        alike = [other.gain for other in others if other.activation == layer.activation]
        normal = median(alike) if alike else layer.needed
        if abs(to_db(layer.gain / normal)) > 10 and (layer.gain > normal) == (gain > usual):
            causes.append(
                Cause(
                    f"weights: sqrt(fan_in·var) = {spell(layer.gain)} in {layer.site}, "
                    f"{spell(normal)} elsewhere",
                    "rescale_weights",
                    {"sites": (layer.site.path,), "gain": normal},
                    (usual / 3, 3 * usual),
                )
            )
    if gain < usual:
        causes.extend(_chosen(profiles, site, usual))
    causes.extend(_flat(profiles, site, usual))
    text = f"block: no weight or activation of it is far enough from the others' to explain {spell(gain)}x"
    return tuple(causes) or (Cause(text),)


def explain_loop(profiles: Mapping[str, Profile], site: Site, most: float) -> tuple[Cause, ...]:
    """Return the causes of a gain that no single layer has: weights that a loop uses again and again."""
    loud = [layer for layer in read_layers(profiles) if to_db(layer.gain / layer.needed) > LOUD_DB]
    causes = [
        Cause(
            f"loop: it does not contract: {layer.site} has sqrt(fan_in·var) = {spell(layer.gain)}, where "
            f"{spell(layer.needed)} keeps the scale, and a map that is applied many times multiplies by its "
            "gain in every round",
            "rescale_weights",
            {"sites": (layer.site.path,), "gain": layer.needed},
            (0.0, most),
        )
        for layer in sorted(loud, key=lambda layer: -layer.gain / layer.needed)
    ]
    text = (
        f"loop: what forward does at {site} and behind it multiplies in every round, as steps of an "
        "integrator without a step size do, or a sum that grows"
    )
    return (*causes, Cause(text))


def _chosen(profiles: Mapping[str, Profile], site: Site, usual: float) -> Iterable[Cause]:
    """Yield a softmax that reads what the block makes and chooses one entry: no gradient comes through it."""
    profile = profiles.get("softmax_logit_absmax")
    # Attention inside a block that holds its maps is no end of the way: values go past the choice.
    alone = len(read_layers(profiles, (site,))) <= 1
    for softmax, label, (logits, entropy) in (
        zip(profile.sites, profile.labels, profile.rows, strict=True) if profile else ()
    ):
        behind = alone or not within(softmax.path, site.path)
        if not (behind and within(label, site.path) and logits >= LOUD_LOGITS and entropy <= CHOSEN):
            continue
        text = (
            f"softmax: the logits that it gets from {label} reach {spell(logits)}, so that it chooses one "
            f"entry alone (entropy {spell(entropy)} of its maximum) and its slope p(1 - p) lets next to no "
            "gradient back"
        )
        inputs = profiles.get("input_rms")
        size = max((value for _, value in inputs.finite()), default=0.0) if inputs else 0.0
        if size > LARGE_INPUT:
            text += f"; an input of rms {spell(size)} makes them"
            near = (usual / from_db(FAR_DB), usual * from_db(FAR_DB))
            yield Cause(text, "unit_inputs", predicted=near)
        else:
            yield Cause(f"{text}; divide the logits by their size, or normalise what the layer reads")


def _flat(profiles: Mapping[str, Profile], site: Site, usual: float) -> Iterable[Cause]:
    """Yield saturation or dead units at the block, or at the activation that follows it."""
    for name, word in (("act_frac_saturated", "flat"), ("act_frac_dead", "dead")):
        profile = profiles.get(name)
        worst = max(profile.finite(), key=lambda item: item[1], default=None) if profile else None
        if worst is not None and worst[1] > 0.9 and _near(profiles, worst[0], site):
            yield Cause(
                f"activation: {spell(worst[1])} of {worst[0]} is {word}; other blocks pass {spell(usual)}x",
                "zero_biases",
                {"sites": (site.path, f"{site.path}.*")},
                (usual / 3, 3 * usual),
            )


def _near(profiles: Mapping[str, Profile], place: Site, site: Site) -> bool:
    """Whether `place` lies in the block `site`, or is the next leaf after it."""
    if within(place.path, site.path):
        return True
    order = [leaf.path for leaf in profiles["act_rms"].sites] if "act_rms" in profiles else []
    return (
        place.path in order and site.path in order and order.index(place.path) == order.index(site.path) + 1
    )
