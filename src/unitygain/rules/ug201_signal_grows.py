"""UG201: the forward signal grows by a factor per block.

What it sees:
    The slope of the log gain rms(block output) / rms(block input) over the blocks of the trunk. It fires
    where the 95 % interval lies above 0 dB, the trunk has three blocks or more, and the product over all
    blocks is above 1e3 (60 dB); above 1e5 it is an error. 40 dB are enough where residual branches add up, as
    much per block in both halves of the trunk, and where weights are too large and no draw at unity gain
    shows as much (p <= 0.005).

    Where the weights look like a random draw they are drawn again, and the product is held against what a
    trunk of this very make shows at unity gain by chance: a narrow and deep one wanders by factors. A
    warning needs p <= 0.025 and an error p <= 0.005, half of 5 % and 1 % since forward and backward are two
    tests; above that it is a note.

Why it matters:
    The logits start far from 0 and the loss far above its expected start; in half precision the signal
    overflows at 65,504; the first normalisation behind the trunk divides the gradient by as much as the
    signal has grown.

When it is a false alarm:
    A residual stream that grows as a power of the depth, as in every Pre-LN transformer, does not fire.

Remedies:
    Smaller weights; residual branches divided by sqrt(2L); normalisation in the branches.

References:
    Hanin and Rolnick, "How to Start Training: The Effect of Initialization and Architecture" (NeurIPS
    2018). Zhang, Dauphin and Ma, "Fixup Initialization: Residual Learning Without Normalization" (ICLR
    2019).

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> blocks = tuple(Site(f"blocks.{i}") for i in range(40))
    >>> facts = {"gain_per_block": 2.2, "slope_db": 6.9, "slope_db_low": 6.6, "slope_db_high": 7.2}
    >>> facts |= {"loop_db": 277.0, "depth": 40}
    >>> gain = Profile("forward_gain", "ratio", blocks, (2.2,) * 40, facts=facts)
    >>> [finding.code for finding in judge({"forward_gain": gain})]
    ['UG201']

A silent example:
    >>> facts |= {"gain_per_block": 1.04, "slope_db": 0.34, "slope_db_low": 0.2, "slope_db_high": 0.5}
    >>> gain = Profile("forward_gain", "ratio", blocks, (1.04,) * 40, facts=facts | {"loop_db": 13.9})
    >>> list(judge({"forward_gain": gain}))
    []
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Finding, Profile
from unitygain.rules._fixes import suggest
from unitygain.rules._layers import by_hand
from unitygain.rules._trend import by_cause, explain_trend, outermost, read_trend, rises


@rule(
    code="UG201",
    name="signal-grows",
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
    """Yield one finding where the signal grows over the trunk."""
    profile = profiles["forward_gain"]
    trend = read_trend(profile)
    causes = explain_trend(profiles, profile, trend, forward=True) if trend else ()
    trend = by_cause(trend, causes, profile)
    if trend is None or not rises(trend):
        return
    yield Finding(
        "UG201",
        "signal-grows",
        trend.severity,
        f"the signal grows towards the output: {trend.describe()}",
        outermost(profile, lowest=False),
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
