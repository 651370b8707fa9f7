"""UG503: float32 itself cannot hold the gradient.

What it sees:
    Leaf modules in float32 (or float64) whose gradient is zero or subnormal in the run, and not zero in a
    second pass with room for any exponent: in float64, and with the loss multiplied by 2^900 where float64
    ends too. A gradient that is zero there as well is truly zero, a dead or unused path, and not meant
    here.

Why it matters:
    A zero looks like a dead unit, a detached tensor or a mask. Here it is neither: the product of many
    small factors went below 1.2e-38, from where it first loses digits and then everything. The number says
    how far, where float32 only says 0.

When it is a false alarm:
    A loss that is multiplied by a tiny constant on purpose, with an optimizer that does not mind (Adam with
    a small eps).

Remedies:
    Where the loss multiplies probabilities: a sum of their logarithms. Where the loss is tiny: loss_scale.
    Where the gradient falls over the depth (UG101 tells) the underflow is a consequence, and what cures the
    decay cures it: gain, normalisation, skip paths.

References:
    Goldberg, "What Every Computer Scientist Should Know About Floating-Point Arithmetic" (ACM Computing
    Surveys 23, 1991), on gradual underflow. Hochreiter, Bengio, Frasconi and Schmidhuber, "Gradient Flow in
    Recurrent Nets" (2001), on the exponential decay behind it.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = (Site("0"), Site("1"), Site("2"))
    >>> def found(true, seen):
    ...     rescaled = Profile("grad_rescaled", "log10", sites, true, labels=("float32",) * 3)
    ...     return judge({"grad_rescaled": rescaled, "grad_rms": Profile("grad_rms", "rms", sites, seen)})
    >>> [f.message for f in found((-54.0, -30.0, -3.0), (0.0, 1e-30, 1e-3))]
    ['the gradient at 0 is 0 in float32 and 1e-54 in truth: below the smallest normal number at 1 of 3 sites']

A silent example:
    >>> list(found((float("-inf"), -30.0, -3.0), (0.0, 1e-30, 1e-3)))
    []
"""

import math
from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._layers import within
from unitygain.rules._numbers import spell
from unitygain.rules._ranges import SMALLEST_NORMAL

SMALLEST = {dtype: SMALLEST_NORMAL[dtype] for dtype in ("float32", "bfloat16", "float64")}
# Where the scaled gradient is put, and what the largest one may become: inside float32 on both sides.
LOW, HIGH = -30.0, 30.0
FAR = 6.0
# Dropout is drawn anew in the second pass.
SLACK = 1.5
# A product that a later sum, a logarithm or a division cannot bring back in float32.
TINY_PRODUCT = 1e-20


@rule(
    code="UG503",
    name="float32-underflow",
    severity="warning",
    needs=("grad_rescaled", "grad_rms"),
    wants=("time_grad_rms", "loss_value"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield one finding for all gradients below the smallest normal number; what can be repaired first."""
    profile, seen = profiles["grad_rescaled"], dict(profiles["grad_rms"].items())
    dtypes = dict(zip(profile.sites, profile.labels, strict=True))
    true = dict(profile.finite())
    lost = [
        site
        for site, value in true.items()
        if dtypes[site] in SMALLEST
        and value < math.log10(SMALLEST[dtypes[site]])
        and seen.get(site, math.nan) < SMALLEST[dtypes[site]]
    ]
    if not lost:
        return
    room = HIGH - max(true.values())
    repairable = [site for site in lost if true[site] + room >= LOW]
    first = min(repairable or lost, key=lambda site: true[site])
    dtype, fall = dtypes[first], max(true.values()) - true[first]
    also = "" if fall <= FAR else "UG401" if _in_a_loop(profiles, first) else "UG101"
    yield Finding(
        "UG503",
        "float32-underflow",
        "warning",
        f"the gradient at {first} is {spell(seen[first])} in {dtype} and {_power(true[first])} in truth: "
        f"below the smallest normal number at {len(lost)} of {len(profile)} sites",
        (first, *(site for site in lost if site != first)),
        "grad_rms",
        seen[first],
        profiles["grad_rms"].unit,
        SMALLEST[dtype],
        expected=10 ** true[first],
        causes=(
            *_product(profiles),
            _range(true[first], fall, dtype, bool(repairable)),
            *_fall(also, fall, first),
        ),
        evidence={"log10 of the true rms": true[first], "sites": len(lost)},
        fix="loss = loss * 2.0**k, with the gradients divided by it before the step"
        + (f"; but see {also} first" if also else ""),
    )


def _range(exponent: float, fall: float, dtype: str, repairable: bool) -> Cause:
    """Return the dtype's range as a cause, with the factor of the loss that the gradient needs."""
    if not repairable:
        return Cause(
            f"range: the gradient spans 10^{fall:.0f}, more than {dtype} holds: no loss scale serves all"
        )
    power = math.ceil((LOW - exponent) / math.log10(2))
    scaled = 10 ** (exponent + power * math.log10(2))
    return Cause(
        f"range: {dtype} ends at {spell(SMALLEST[dtype])}; with the loss times 2^{power} the gradient "
        f"here is {spell(scaled)}",
        remedy="loss_scale",
        parameters={"scale": 2.0**power},
        predicted=(scaled / SLACK, scaled * SLACK),
    )


def _product(profiles: Mapping[str, Profile]) -> Iterator[Cause]:
    """Yield a product of many numbers in the loss, where it is as small as what is lost."""
    loss = profiles.get("loss_value")
    least = float(loss.facts.get("smallest_product", math.nan)) if loss else math.nan
    if least < TINY_PRODUCT:
        yield Cause(
            f"product: the loss multiplies many numbers, probabilities for instance, to {spell(least)}; add "
            "their logarithms instead"
        )


def _fall(code: str, fall: float, first: Site) -> Iterator[Cause]:
    """Yield the way on which the gradient itself falls, where `code` names the rule that judges it."""
    if code:
        way = "time" if code == "UG401" else "depth"
        yield Cause(f"{way}: the gradient itself falls by 10^{fall:.0f} on its way to {first} ({code})")


def _in_a_loop(profiles: Mapping[str, Profile], site: Site) -> bool:
    """Whether the gradient reaches `site` through the steps of a recurrence rather than through layers."""
    time = profiles.get("time_grad_rms")
    loops = {step.path for step in time.sites} if time else set()
    # Where the recurrence is the model's own loop, what it calls again and again is part of it.
    return any(within(site.path, path) if path else site.call > 0 for path in loops)


def _power(exponent: float) -> str:
    value = 10.0**exponent
    return spell(value) if value > 0 else f"10^{exponent:.0f}"
