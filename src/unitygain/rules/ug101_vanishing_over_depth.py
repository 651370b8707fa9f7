"""UG101: the gradient shrinks by a factor per block on its way from the loss to the input.

What it sees:
    The slope of the log gain ‖dL/d(block input)‖ / ‖dL/d(block output)‖ over the blocks of the trunk. It
    fires where the 95 % interval of the slope lies below 0 dB, the trunk has three blocks or more, and the
    product over all blocks is below 1e-3 (-60 dB); below 1e-5 it is an error. No absolute norm is judged: a
    loss multiplied by a constant changes nothing.

    Where the weights look like a random draw they are drawn again, and the product is held against what a
    trunk of this very make shows at unity gain by chance: a narrow and deep one wanders by factors. A
    warning needs p <= 0.025 and an error p <= 0.005, half of 5 % and 1 % since forward and backward are two
    tests; above that it is a note.

    Beside it stands what theory expects of the weights, activations and norms: where that agrees, the design
    is what is unstable; where it does not, UG105 says which block to look at. Of a model on the meta device
    theory is all there is: the product that it expects is judged by the same limits, its 95 % interval with
    the error of the theory in it, and the finding says that nothing was measured.

Why it matters:
    The first blocks get a signal that is smaller by that product. Plain gradient descent does not move
    them; adaptive optimizers divide the scale away until it meets their epsilon or the smallest number of
    the dtype, and what is left is mostly noise.

When it is a false alarm:
    One seed of a narrow and deep network whose weights were not drawn at random, or are too many to be
    drawn again: at unity gain the log of a norm falls by 5L/(4n) nats over depth L and width n and wanders
    by sqrt(5L/n)/2, so that 60 dB are two standard deviations away at L/n = 2.6. Adaptive optimizers train
    some networks that lose 60 to 80 dB.

Remedies:
    Weights at the gain that the activation needs (He for ReLU); another activation than the sigmoid; skip
    paths; normalisation with skip paths.

References:
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (AISTATS
    2010), section 4. He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (ICCV 2015), equation 14.
    Schoenholz, Gilmer, Ganguli and Sohl-Dickstein, "Deep Information Propagation" (ICLR 2017). Hanin and
    Nica, "Products of Many Large Random Matrices and Gradients in Deep Neural Networks" (2018), for the
    wandering.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> blocks = tuple(Site(f"layers.{i}") for i in range(24))
    >>> facts = {"gain_per_block": 0.41, "slope_db": -7.74, "slope_db_low": -8.0, "slope_db_high": -7.5}
    >>> facts |= {"loop_db": -185.8, "depth": 24}
    >>> gain = Profile("backward_gain", "ratio", blocks, (0.41,) * 24, facts=facts)
    >>> [finding.code for finding in judge({"backward_gain": gain})]
    ['UG101']

A silent example:
    >>> facts |= {"gain_per_block": 0.93, "slope_db": -0.63, "slope_db_low": -0.9, "slope_db_high": -0.3}
    >>> gain = Profile("backward_gain", "ratio", blocks, (0.93,) * 24, facts=facts | {"loop_db": -15.1})
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
from unitygain.rules._trend import explain_trend, falls, outermost, read_trend


@rule(
    code="UG101",
    name="vanishing-gradient",
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
    ),
    static=("predicted_gain",),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding where the gradient decays over the trunk."""
    if "backward_gain" not in profiles:
        yield from foretell(profiles, "UG101", "vanishing-gradient", falling=True)
        return
    profile = profiles["backward_gain"]
    trend = read_trend(profile)
    if trend is None or not falls(trend):
        return
    causes = explain_trend(profiles, profile, trend, forward=False)
    yield Finding(
        "UG101",
        "vanishing-gradient",
        trend.severity,
        f"the gradient shrinks towards the input: {trend.describe()}",
        outermost(profile, lowest=True),
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
