"""UG607: floating inputs far from unit scale.

What it sees:
    The rms of every floating input of the model, above 10 or below 1e-3. Token ids are integers and are not
    judged. It is information where the model itself deals with it: the first layer's output has a unit
    scale again (10 or less) or the first layer is a norm layer. Where the loss calls parts of the model one
    by one, as the two players of a game, these are the first layers of the part. Not so above 2^24, where
    float32 does not hold every whole number any more, such as times in seconds since 1970.

Why it matters:
    Initialisations are made for inputs of about unit size. Images in 0..255 start every unit of the first
    layer a hundred times too large: tanh and sigmoid saturate, the gradient of the first weights is a
    hundred times that of the others, and the one learning rate fits either. Inputs of 1e-4 drown in the
    biases.

When it is a false alarm:
    An input that enters through its own embedding, such as the time of a diffusion model in 0..1000 that
    goes through sines, or a mask of large negative numbers; the first is seen by the size of what comes
    out, where that is not bounded as a recurrent layer's is.

Remedies:
    unit_inputs; subtract the mean and divide by the standard deviation of the training data; images divided
    by 255.

References:
    LeCun, Bottou, Orr and Müller, "Efficient BackProp" (1998), section 4.3, "Normalizing the Inputs".

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(rms, first_rms, kind="Linear"):
    ...     inputs = Profile("input_rms", "rms", (Site("", leaf="(input 0)"),), (rms,))
    ...     outputs = Profile("act_rms", "rms", (Site("0"),), (first_rms,), labels=(kind,))
    ...     return [f.severity for f in judge({"input_rms": inputs, "act_rms": outputs})]
    >>> found(130.0, 76.0)
    ['warning']

A silent example:
    >>> found(0.3, 0.2), found(5.0, 2.0)
    ([], [])
"""

import math
from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Severity, Site
from unitygain.rules._layers import within
from unitygain.rules._numbers import spell

LARGE = 10.0
# From here on float32 does not hold every whole number: seconds since 1970 are 128 apart there.
WHOLE = 2.0**24
# What these give is at most 1, however far their inputs lie on the flat side of tanh; x - tanh(x) is not.
BOUNDED = ("RNN", "LSTM", "GRU", "Tanh", "Sigmoid")
UNBOUNDED = ("Tanhshrink",)
SMALL = 1e-3
# Two sources of one module that lie this far apart are told apart by their size.
APART = 10.0
NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm", "SyncBatchNorm")


@rule(
    code="UG607",
    name="input-scale",
    severity="warning",
    needs=("input_rms",),
    wants=("input_mean", "act_rms"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield one finding per input that is far too large or far too small."""
    profile = profiles["input_rms"]
    dtypes = dict(zip(profile.sites, profile.labels, strict=True)) if profile.labels else {}
    for site, size in profile.finite():
        if SMALL <= size <= LARGE or size == 0:
            continue
        coarse = size > WHOLE and dtypes.get(site, "float32") == "float32"
        handled = "" if coarse else _handled(profiles, site, size)
        severity: Severity = "info" if handled else "warning"
        limit = LARGE if size > LARGE else SMALL
        yield Finding(
            "UG607",
            "input-scale",
            severity,
            f"{_spelled(site)} has an rms of {spell(size)}, "
            f"{'above' if size > LARGE else 'below'} {spell(limit)}" + (f"; {handled}" if handled else ""),
            (site,),
            "input_rms",
            size,
            profiles["input_rms"].unit,
            limit,
            expected=1.0,
            causes=(*_causes(size, coarse=coarse), *_beside(profiles, site, size)),
            evidence=_evidence(profiles),
            fix="x = (x - mean) / std  # of the training data, before the model",
        )


def _causes(size: float, *, coarse: bool) -> Iterator[Cause]:
    if coarse:
        apart = 2.0 ** (math.floor(math.log2(size)) - 23)
        yield Cause(
            f"precision: float32 numbers of {spell(size)} are {spell(apart)} apart, and what lies between is "
            "lost before the model sees it: subtract the start in float64 or in integers first"
        )
    bytes_ = size > LARGE and 60 < size < 256
    what = "images as bytes, 0..255" if bytes_ else "data in the units in which they were recorded"
    yield Cause(
        f"data: {what}, not standardised",
        remedy="unit_inputs",
        # The remedy divides by the rms about the mean in float64 and rounds once.
        predicted=(0.999, 1.001),
    )


def _handled(profiles: Mapping[str, Profile], site: Site, size: float) -> str:
    """Say what brings the input to unit scale inside the module that it enters, if anything does."""
    early = _first_outputs(profiles, site)
    if not early:
        return ""
    place, kind, _ = early[0]
    if kind.startswith(NORMS):
        return f"the {kind} at {place} normalises it"
    if kind.startswith(BOUNDED) and not kind.startswith(UNBOUNDED):
        return ""
    largest = max(value for _, _, value in early)
    if size > LARGE and largest <= LARGE:
        return f"the {'module' if site.path else 'model'}'s first outputs have an rms of {spell(largest)}"
    return ""


def _first_outputs(profiles: Mapping[str, Profile], site: Site) -> list[tuple[Site, str, float]]:
    """Place, kind and size of the first outputs behind an input: one for each that enters, and one more.

    A loss may call parts of the model one by one; then these are the outputs of that part, in that call.
    """
    outputs, inputs = profiles.get("act_rms"), profiles["input_rms"].sites
    if outputs is None:
        return []
    kinds = outputs.labels or ("",) * len(outputs)
    rows = [(place, kind, value) for (place, value), kind in zip(outputs.items(), kinds, strict=True)]
    if not site.path:
        return rows[: len(inputs) + 1]
    inside = [row for row in rows if within(row[0].path, site.path)]
    same = [row for row in inside if row[0].call == site.call] or inside
    entered = sum((other.path, other.call) == (site.path, site.call) for other in inputs)
    return same[: entered + 1]


def _beside(profiles: Mapping[str, Profile], site: Site, size: float) -> Iterator[Cause]:
    """Name what else enters the same module at another scale, such as what a generator made."""
    others = [
        (value, other)
        for other, value in profiles["input_rms"].finite()
        if (other.path, other.leaf) == (site.path, site.leaf) and other.call != site.call and value > 0
    ]
    if not others:
        return
    value, other = min(others)
    if value * APART <= size:
        yield Cause(
            f"two sources: {_spelled(other)} has {spell(value)}, so that size alone tells the two apart; "
            "bring the data to the range of what is made, -1..1 where that ends in Tanh"
        )


def _spelled(site: Site) -> str:
    return str(site) if site.path else site.leaf.strip("()") or "the input"


def _evidence(profiles: Mapping[str, Profile]) -> dict[str, float | str]:
    means = profiles.get("input_mean")
    return {f"mean of {_spelled(site)}": value for site, value in means.items()} if means else {}
