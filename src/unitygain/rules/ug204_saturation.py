"""UG204: an activation works where it is flat.

What it sees:
    The fraction of entries at which the slope of a bounded activation (tanh, sigmoid and their like) is
    below a hundredth of its largest slope: beyond 3 for tanh, 6 for a sigmoid. It fires from 0.6; from 0.9
    it is an error. The activation that makes the output, gates, and what only frozen layers stand before are
    not judged.

Why it matters:
    Behind such an activation the gradient is a hundredth of what it was, or it jumps with the sign of the
    pre-activation: the layer computes with signs.

When it is a false alarm:
    Gates that are meant to be open or shut, in modules that write their own. Quantised or binary networks.

Remedies:
    Weights with sqrt(fan_in·var) near 1; inputs at unit scale; a normalisation in front of the activation.

References:
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (AISTATS
    2010), section 3. LeCun, Bottou, Orr and Müller, "Efficient BackProp" (1998), sections 4.4 to 4.6.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = (Site("1"), Site("3"), Site("5"))
    >>> values = Profile("act_frac_saturated", "fraction", sites, (0.7, 0.8, 0.2), labels=("tanh",) * 3)
    >>> [str(finding.sites[0]) for finding in judge({"act_frac_saturated": values})]
    ['3']

A silent example:
    >>> labels = ("tanh", "tanh", "tanh (output)")
    >>> values = Profile("act_frac_saturated", "fraction", sites, (0.1, 0.2, 0.9), labels=labels)
    >>> list(judge({"act_frac_saturated": values}))
    []
"""

import math
from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Severity, Site
from unitygain.rules._fixes import suggest
from unitygain.rules._layers import (
    SATURATING,
    Layer,
    by_hand,
    fed_by,
    parameter_rms,
    read_layers,
    value_at,
    within,
)
from unitygain.rules._numbers import spell
from unitygain.rules._parameters import owner

MANY, NEARLY_ALL = 0.6, 0.9
CURED = 0.3
LARGE = 2.0


@rule(
    code="UG204",
    name="saturation",
    severity="error",
    needs=("act_frac_saturated",),
    wants=("weight_gain", "gate_mean", "input_rms", "act_rms", "param_rms", "param_trainable"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding for all saturated activations but the output, the worst first."""
    profile = profiles["act_frac_saturated"]
    labels = profile.labels or ("",) * len(profile)
    gates = set(profiles["gate_mean"].sites) if "gate_mean" in profiles else set()
    found = [
        (site, value)
        for (site, value), label in zip(profile.items(), labels, strict=True)
        if value >= MANY and bounded(label) and site not in gates and _matters(profiles, site)
    ]
    found.sort(key=lambda item: -item[1])
    if not found:
        return
    site, value = found[0]
    severity: Severity = "error" if value >= NEARLY_ALL else "warning"
    more = f", and {MANY} or more at {len(found) - 1} other places" if len(found) > 1 else ""
    likely = tuple(causes(profiles, site))
    yield Finding(
        "UG204",
        "saturation",
        severity,
        f"{spell(value)} of the entries at {site} lie where the activation is flat{more}",
        tuple(site for site, _ in found),
        "act_frac_saturated",
        value,
        "fraction of entries",
        MANY,
        causes=likely,
        fix=suggest(likely, by_hand(profiles)),
        evidence={str(site): value for site, value in found[:8]},
    )


def _matters(profiles: Mapping[str, Profile], site: Site) -> bool:
    """Whether anything may learn by a gradient that comes through `site`: not behind frozen parts alone.

    An activation that is a function call has no place in the order; every layer of its module with this
    activation behind it may be in front.
    """
    trainable = profiles.get("param_trainable")
    layer = feeding(profiles, site)
    leaves = profiles["act_rms"].sites if "act_rms" in profiles else ()
    if trainable is None or layer is None or layer.site not in leaves:
        return True
    ahead = {leaf.path for leaf in leaves[: leaves.index(layer.site) + 1]}
    return any(value > 0 for place, value in trainable.items() if owner(place) in ahead)


def bounded(label: str) -> bool:
    """Whether a label names an activation that is flat on both sides, other than the model's output."""
    return label.lower() in SATURATING


def causes(profiles: Mapping[str, Profile], site: Site) -> Iterable[Cause]:
    """Yield weights, inputs and biases by how far they lie above 1, the farthest first."""
    layer = feeding(profiles, site)
    layers = read_layers(profiles)
    leaves = profiles["act_rms"].sites if "act_rms" in profiles else ()
    # Inside a recurrent module no layer is told from another: the first leaf call sees the inputs itself.
    inside = layer is None and bool(leaves) and site.path == leaves[0].path
    first = inside or (layer is not None and layer.site == layers[0].site)
    inputs = profiles["input_rms"].values[0] if first and "input_rms" in profiles else 0.0
    likely: list[tuple[float, Cause]] = []
    if layer and layer.gain > LARGE:
        loud = [other for other in layers if other.activation == layer.activation and other.gain > LARGE]
        others = len(loud) - 1
        more = f" and {others} other layer{'s' * (others > 1)}" if others else ""
        text = (
            f"weights: sqrt(fan_in·var) = {spell(layer.gain)} in {layer.site}{more}, where 1 keeps the scale"
        )
        given = {"sites": tuple(other.site.path for other in loud), "gain": 1.0}
        likely.append((layer.gain, Cause(text, "rescale_weights", given, (0.0, CURED))))
    if math.isfinite(inputs) and inputs > LARGE:
        text = f"inputs: rms {spell(inputs)}, and {site} sees them through one layer"
        likely.append((inputs, Cause(text, "unit_inputs", {}, (0.0, CURED))))
    for ahead in fed_by(profiles, site)[:1]:
        bias, whole = parameter_rms(profiles, f"{ahead.path}.bias"), value_at(profiles, "act_rms", ahead)
        if bias > LARGE and bias > whole / 2:
            text = f"biases: rms {spell(bias)} in {ahead}, of a pre-activation of rms {spell(whole)} in all"
            likely.append((bias, Cause(text, "zero_biases", {"sites": (ahead.path,)}, (0.0, CURED))))
    yield from (cause for _, cause in sorted(likely, key=lambda item: -item[0]))
    yield Cause(f"signals: what enters {layer.site if layer else site} is already too large")


def feeding(profiles: Mapping[str, Profile], site: Site) -> Layer | None:
    """Return the layer with a weight that ran last before the activation `site`.

    An activation that is a function call has no place in the order: it is fed by one of those layers of the
    module around it that have this activation behind them, of which the loudest is returned; the very first
    such call is fed by the first of them.
    """
    profile = profiles.get("act_rms")
    order = {leaf.path: index for index, leaf in enumerate(profile.sites)} if profile else {}
    if profile is None or site not in profile.sites:
        flat = profiles["act_frac_saturated"]
        name = dict(zip(flat.sites, flat.labels, strict=True)).get(site, "").lower() if flat.labels else ""
        around = [
            layer
            for layer in read_layers(profiles)
            if layer.activation == name and within(layer.site.path, site.path)
        ]
        return around[0] if around and site == flat.sites[0] else max(around, key=_gain, default=None)
    place = order.get(site.path, -1)
    earlier = [layer for layer in read_layers(profiles) if order.get(layer.site.path, place) < place]
    return max(earlier, key=lambda layer: order[layer.site.path], default=None)


def _gain(layer: Layer) -> float:
    return layer.gain
