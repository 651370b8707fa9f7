"""UG202: the forward signal shrinks by a factor per block.

What it sees:
    The slope of the log gain rms(block output) / rms(block input) over the blocks of the trunk. It fires
    where the 95 % interval lies below 0 dB, the trunk has three blocks or more, and the product over all
    blocks is below 1e-3 (-60 dB); below 1e-5 it is an error.

    Where the weights look like a random draw they are drawn again, and the product is held against what a
    trunk of this very make shows at unity gain by chance: a narrow and deep one wanders by factors. A
    warning needs p <= 0.025 and an error p <= 0.005, half of 5 % and 1 % since forward and backward are two
    tests; above that it is a note.

Why it matters:
    What arrives is lost in the biases and in rounding: the output hardly depends on the input.

When it is a false alarm:
    Layers with biases stop the fall at the size of the biases, so that this rule is silent where UG205 (all
    outputs the same) tells the story. A trunk that ends in a normalisation restores the scale, not what was
    rounded away.

Remedies:
    Weights at the gain that the activation needs; skip paths; normalisation.

References:
    He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (ICCV 2015), equation 10. Poole et al.,
    "Exponential expressivity in deep neural networks through transient chaos" (NeurIPS 2016), section 2.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> blocks = tuple(Site(f"layers.{i}") for i in range(30))
    >>> facts = {"gain_per_block": 0.57, "slope_db": -4.9, "slope_db_low": -5.2, "slope_db_high": -4.6}
    >>> facts |= {"loop_db": -148.0, "depth": 30}
    >>> gain = Profile("forward_gain", "ratio", blocks, (0.57,) * 30, facts=facts)
    >>> [finding.code for finding in judge({"forward_gain": gain})]
    ['UG202']

A silent example:
    >>> facts |= {"gain_per_block": 0.95, "slope_db": -0.45, "slope_db_low": -0.9, "slope_db_high": -0.1}
    >>> gain = Profile("forward_gain", "ratio", blocks, (0.95,) * 30, facts=facts | {"loop_db": -13.5})
    >>> list(judge({"forward_gain": gain}))
    []
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Finding, Profile
from unitygain.rules._fixes import suggest
from unitygain.rules._layers import by_hand
from unitygain.rules._trend import explain_trend, falls, outermost, read_trend


@rule(
    code="UG202",
    name="signal-dies",
    severity="error",
    needs=("forward_gain",),
    wants=(
        "weight_gain",
        "gate_mean",
        "gain_parts",
        "act_frac_saturated",
        "act_rms",
        "param_rms",
        "norm_unset",
    ),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding where the signal decays over the trunk."""
    profile = profiles["forward_gain"]
    trend = read_trend(profile)
    if trend is None or not falls(trend):
        return
    causes = explain_trend(profiles, profile, trend, forward=True)
    yield Finding(
        "UG202",
        "signal-dies",
        trend.severity,
        f"the signal shrinks towards the output: {trend.describe()}",
        outermost(profile, lowest=True),
        "forward_gain",
        trend.per_block,
        "x per block, forward",
        trend.threshold,
        fact="gain_per_block",
        interval=trend.interval,
        expected=trend.expected,
        p_value=trend.p_value,
        causes=causes,
        fix=suggest(causes, by_hand(profiles)),
        evidence=trend.evidence(),
    )
