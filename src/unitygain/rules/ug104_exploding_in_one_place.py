"""UG104: the gradient is multiplied in one block.

What it sees:
    A block whose backward gain lies 40 dB (a factor of 100) or more above the median of the blocks, and six
    robust standard deviations or more; the trunk needs five blocks. From 80 dB it is an error. Where there
    are fewer blocks to compare with, a gain of 100 dB (a factor of 1e5) by itself: what multiplies so is a
    loop that forward takes many times. Over the steps of a sequence UG402 tells it.

    Where the weights look like a random draw it says what chance leaves a block like the others, with p, and
    what the block's own weights give in random places: if that is what was measured, their scale tells it.

    Of a model that runs several times in one loss, one pass is looked at, and not one whose gradient was
    itself differentiated. A block whose input later modules read too has no gain of its own,
    and one whose gradient grows by more than three times ‖J‖_F of what it computes gets it by another way.

Why it matters:
    Everything before the block gets a gradient that is larger by that factor: one learning rate cannot
    serve both sides, and clipping by the global norm throws the later side away.

When it is a false alarm:
    A normalisation right behind small embeddings multiplies the gradient by one over their scale: 50x at a
    standard deviation of 0.02, which stays below the threshold; much smaller embeddings do not.

Remedies:
    Give the block the initialisation of the others; scale what enters its normalisation.

References:
    Xiong et al., "On Layer Normalization in the Transformer Architecture" (ICML 2020), lemma on the
    Jacobian of LayerNorm: its norm goes as one over the scale of its input.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> blocks = tuple(Site(f"layers.{i}") for i in range(8))
    >>> gain = Profile("backward_gain", "ratio", blocks, (0.9, 1.1, 1.0, 800.0, 1.0, 0.9, 1.1, 1.0))
    >>> [(finding.code, str(finding.sites[0])) for finding in judge({"backward_gain": gain})]
    [('UG104', 'layers.3')]

A silent example:
    >>> gain = Profile("backward_gain", "ratio", blocks, (35.0, 1.1, 1.0, 1.2, 1.0, 0.9, 1.1, 1.0))
    >>> list(judge({"backward_gain": gain}))
    []
"""

import math
from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Finding, Profile, Site
from unitygain.rules._numbers import spell, to_db
from unitygain.rules._place_causes import explain_loop, explain_place
from unitygain.rules._places import LEAST, odd_places, report_place

# The norm is an estimate, and of a large batch one of its first samples.
SLACK = 3.0
# Alone, as much as is an error over a whole trunk (UG102).
ALONE = 1e5


@rule(
    code="UG104",
    name="exploding-in-one-place",
    severity="error",
    needs=("backward_gain",),
    wants=("weight_gain", "act_frac_saturated", "act_frac_dead", "act_rms", "rms_gain", "time_grad_rms"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding for the blocks whose gain is far above the others', the worst first."""
    profile = profiles["backward_gain"]
    most = _frobenius(profiles.get("rms_gain"))
    found = [
        place
        for place in odd_places(profile, above=True)
        if not place.gain > SLACK * most.get(place.site, math.inf)
    ]
    few = sum(value > 0 for _, value in profile.finite()) < LEAST
    if not found and few and "time_grad_rms" not in profiles:
        yield from _alone(profiles, most)
    if found:
        causes = explain_place(profiles, found[0].site, found[0].gain, found[0].usual)
        yield report_place("UG104", "exploding-in-one-place", "is multiplied in", profile, found, causes)


def _alone(profiles: Mapping[str, Profile], most: Mapping[Site, float]) -> Iterable[Finding]:
    """Yield the largest gain of a few blocks, where it needs no other to be told."""
    profile = profiles["backward_gain"]
    known = [item for item in profile.finite() if not item[1] > SLACK * most.get(item[0], math.inf)]
    site, gain = max(known, key=lambda item: item[1], default=(Site(""), 0.0))
    if gain >= ALONE:
        yield Finding(
            "UG104",
            "exploding-in-one-place",
            "error",
            f"the gradient is multiplied on its way from the next block back to what enters {site}: "
            f"{spell(gain)}x ({to_db(gain):+.0f} dB)",
            (site,),
            "backward_gain",
            gain,
            profile.unit,
            ALONE,
            causes=explain_loop(profiles, site, ALONE),
            fix="fewer rounds, weights whose largest singular value is below 1, or a step size in the loop",
        )


def _frobenius(gains: Profile | None) -> dict[Site, float]:
    """Return ‖J‖_F per block, where it is known."""
    if gains is None or "frobenius" not in gains.columns:
        return {}
    column = gains.columns.index("frobenius")
    known = ((site, row[column]) for site, row in zip(gains.sites, gains.rows, strict=True))
    return {site: most for site, most in known if math.isfinite(most)}
