"""UG102: the gradient grows by a factor per block on its way from the loss to the input.

What it sees:
    The slope of the log gain ‖dL/d(block input)‖ / ‖dL/d(block output)‖ over the blocks of the trunk. It
    fires where the 95 % interval of the slope lies above 0 dB, the trunk has three blocks or more, and the
    product over all blocks is above 1e3 (60 dB); above 1e5 it is an error. Where normalisation is what
    multiplies most, 50 dB are enough: the norms keep the signal at one size, and the growth is of the design.
    40 dB are where residual branches add up, as much per block in both halves of the trunk, and where weights
    are too large and no draw at unity gain shows as much (p <= 0.005).

    Where the weights look like a random draw they are drawn again, and the product is held against what a
    trunk of this very make shows at unity gain by chance: a narrow and deep one wanders by factors. A
    warning needs p <= 0.025 and an error p <= 0.005, half of 5 % and 1 % since forward and backward are two
    tests; above that it is a note.

    Beside it stands what theory expects of the weights, activations and norms: where that agrees, the design
    is what is unstable; where it does not, UG105 says which block to look at. Of a model on the meta device
    theory is all there is: the product that it expects is judged by the same limits, its 95 % interval with
    the error of the theory in it, and the finding says that nothing was measured.

Why it matters:
    No learning rate suits both ends: one that moves the last blocks throws the first ones. Clipping by the
    global norm then leaves almost nothing of the last blocks' gradient.

When it is a false alarm:
    Growth as a power of the depth is no disease: the squared gradient of a Pre-LN transformer grows by
    about (L+1)/2 over L blocks, 17 dB at 96 blocks, and does not fire. Networks with a normalised output
    and gradients that are clipped per block can train at 60 to 80 dB.

Remedies:
    Smaller weights; skip paths around BatchNorm; residual branches divided by sqrt(2L), or normalised.

References:
    Yang, Pennington, Rao, Sohl-Dickstein and Schoenholz, "A Mean Field Theory of Batch Normalization" (ICLR
    2019), theorem 8: pi/(pi-1) per layer of the squared gradient. Hanin and Rolnick, "How to Start
    Training: The Effect of Initialization and Architecture" (NeurIPS 2018). Xiong et al., "On Layer
    Normalization in the Transformer Architecture" (ICML 2020), for Pre-LN.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> blocks = tuple(Site(f"blocks.{i}") for i in range(50))
    >>> facts = {"gain_per_block": 1.19, "slope_db": 1.5, "slope_db_low": 1.2, "slope_db_high": 1.8}
    >>> facts |= {"loop_db": 75.0, "depth": 50}
    >>> gain = Profile("backward_gain", "ratio", blocks, (1.19,) * 50, facts=facts)
    >>> [finding.code for finding in judge({"backward_gain": gain})]
    ['UG102']

A silent example:
    >>> facts |= {"gain_per_block": 1.04, "slope_db": 0.34, "slope_db_low": 0.1, "slope_db_high": 0.6}
    >>> gain = Profile("backward_gain", "ratio", blocks, (1.04,) * 50, facts=facts | {"loop_db": 17.0})
    >>> list(judge({"backward_gain": gain}))
    []
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Finding, Profile
from unitygain.rules._design import describe_design
from unitygain.rules._fixes import suggest
from unitygain.rules._foretold import foretell
from unitygain.rules._layers import by_hand
from unitygain.rules._trend import by_cause, explain_trend, outermost, read_trend, rises


@rule(
    code="UG102",
    name="exploding-gradient",
    severity="error",
    needs=("backward_gain",),
    wants=(
        "weight_gain",
        "gate_mean",
        "gain_parts",
        "act_frac_saturated",
        "predicted_gain",
        "rms_gain",
        "act_rms",
        "param_rms",
        "norm_unset",
        "norm_numbers",
    ),
    static=("predicted_gain",),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding where the gradient grows over the trunk."""
    if "backward_gain" not in profiles:
        yield from foretell(profiles, "UG102", "exploding-gradient", falling=False)
        return
    profile = profiles["backward_gain"]
    trend = read_trend(profile)
    causes = explain_trend(profiles, profile, trend, forward=False) if trend else ()
    trend = by_cause(trend, causes, profile)
    if trend is None or not rises(trend):
        return
    yield Finding(
        "UG102",
        "exploding-gradient",
        trend.severity,
        f"the gradient grows towards the input: {trend.describe()}",
        outermost(profile, lowest=False),
        "backward_gain",
        trend.per_block,
        "x per block, backward",
        trend.threshold,
        fact="gain_per_block",
        interval=trend.interval,
        expected=trend.expected,
        p_value=trend.p_value,
        causes=causes,
        fix=suggest(causes, by_hand(profiles)),
        evidence={**trend.evidence(), **describe_design(profiles)},
    )
