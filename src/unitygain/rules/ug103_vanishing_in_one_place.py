"""UG103: the gradient is lost in one block.

What it sees:
    A block whose backward gain lies 40 dB (a factor of 100) or more below the median of the blocks, and six
    robust standard deviations or more; the trunk needs five blocks. A gain of exactly 0 counts, unless all
    units of an activation are dead, which is UG206. From 80 dB it is an error.

    Where the weights look like a random draw it says what chance leaves a block like the others, with p, and
    what the block's own weights give in random places: if that is what was measured, their scale tells it.

    Of a model that runs several times in one loss, one pass is looked at, and not one whose gradient was
    itself differentiated. A block whose input later modules read too has no gain of its own.

Why it matters:
    Everything before the block learns slower by that factor, whatever the depth.

When it is a false alarm:
    A bottleneck that is meant to stop the gradient, such as a scaled straight-through estimator.

Remedies:
    Give the block the initialisation of the others; look at its activation; look for a scale that was left
    in by mistake. Where a softmax behind it, as a router's, has chosen one entry: unit_inputs for what the
    router reads, or smaller logits.

References:
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (AISTATS
    2010), section 3, on single saturated layers. Zoph et al., "ST-MoE: Designing Stable and Transferable
    Sparse Expert Models" (2022), section 3.2, on the logits of routers.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> blocks = tuple(Site(f"layers.{i}") for i in range(8))
    >>> gain = Profile("backward_gain", "ratio", blocks, (0.9, 1.1, 1.0, 0.002, 1.0, 0.9, 1.1, 1.0))
    >>> [(finding.code, str(finding.sites[0])) for finding in judge({"backward_gain": gain})]
    [('UG103', 'layers.3')]

A silent example:
    >>> gain = Profile("backward_gain", "ratio", blocks, (0.9, 1.1, 1.0, 0.2, 1.0, 0.9, 1.1, 1.0))
    >>> list(judge({"backward_gain": gain}))
    []
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Finding, Profile
from unitygain.rules._place_causes import explain_place
from unitygain.rules._places import odd_places, report_place


@rule(
    code="UG103",
    name="vanishing-in-one-place",
    severity="error",
    needs=("backward_gain",),
    wants=(
        "weight_gain",
        "act_frac_saturated",
        "act_frac_dead",
        "act_rms",
        "softmax_logit_absmax",
        "input_rms",
    ),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding for the blocks whose gain is far below the others', the worst first."""
    profile, dead = profiles["backward_gain"], profiles.get("act_frac_dead")
    explained = dead is not None and 1.0 in dead.values
    found = [place for place in odd_places(profile, above=False) if place.gain > 0 or not explained]
    if found:
        causes = explain_place(profiles, found[0].site, found[0].gain, found[0].usual)
        yield report_place("UG103", "vanishing-in-one-place", "is lost in", profile, found, causes)
