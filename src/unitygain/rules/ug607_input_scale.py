"""UG607: floating inputs far from unit scale.

What it sees:
    The rms of every floating input of the model, above 10 or below 1e-3. Token ids are integers and are not
    judged. It is information where the model itself deals with it: the first layer's output has a unit
    scale again (10 or less) or the first layer is a norm layer; not so above 2^24, where float32 does not
    hold every whole number any more, such as times in seconds since 1970.

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
from unitygain._types import Cause, Finding, Profile, Severity
from unitygain.rules._numbers import spell

LARGE = 10.0
# From here on float32 does not hold every whole number: seconds since 1970 are 128 apart there.
WHOLE = 2.0**24
# What these give is at most 1, however far their inputs lie on the flat side of tanh; x - tanh(x) is not.
BOUNDED = ("RNN", "LSTM", "GRU", "Tanh", "Sigmoid")
UNBOUNDED = ("Tanhshrink",)
SMALL = 1e-3
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
        handled = "" if coarse else _handled(profiles, size)
        severity: Severity = "info" if handled else "warning"
        limit = LARGE if size > LARGE else SMALL
        yield Finding(
            "UG607",
            "input-scale",
            severity,
            f"{site.leaf.strip('()') or 'the input'} has an rms of {spell(size)}, "
            f"{'above' if size > LARGE else 'below'} {spell(limit)}" + (f"; {handled}" if handled else ""),
            (site,),
            "input_rms",
            size,
            profiles["input_rms"].unit,
            limit,
            expected=1.0,
            causes=tuple(_causes(size, coarse=coarse)),
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


def _handled(profiles: Mapping[str, Profile], size: float) -> str:
    """Say what brings the input to unit scale inside the model, if anything does."""
    outputs = profiles.get("act_rms")
    if outputs is None or not len(outputs):
        return ""
    if outputs.labels and outputs.labels[0].startswith(NORMS):
        return f"the {outputs.labels[0]} at {outputs.sites[0]} normalises it"
    early = outputs.values[: len(profiles["input_rms"]) + 1]
    first = outputs.labels[0] if outputs.labels else ""
    if first.startswith(BOUNDED) and not first.startswith(UNBOUNDED):
        return ""
    if size > LARGE and all(value <= LARGE for value in early):
        return f"the model's first outputs have an rms of {spell(max(early))}"
    return ""


def _evidence(profiles: Mapping[str, Profile]) -> dict[str, float | str]:
    means = profiles.get("input_mean")
    return {f"mean of {site.leaf.strip('()')}": value for site, value in means.items()} if means else {}
