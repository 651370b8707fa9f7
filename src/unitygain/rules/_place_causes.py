"""Why one block's gain is far from that of the others: its weights, or an activation that is flat or dead."""

from collections.abc import Iterable, Mapping

from unitygain._types import Cause, Profile, Site
from unitygain.rules._layers import read_layers, within
from unitygain.rules._numbers import median, spell, to_db


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
    causes.extend(_flat(profiles, site, usual))
    text = f"block: no weight or activation of it is far enough from the others' to explain {spell(gain)}x"
    return tuple(causes) or (Cause(text),)


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
