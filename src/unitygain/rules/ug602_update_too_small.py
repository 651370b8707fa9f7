"""UG602: the optimizer's step leaves every weight where it is.

What it sees:
    The median over weight tensors of rms(update)/rms(weight) below 1e-6, and no weight above 1e-5: nothing
    moves. The update is the one that the declared optimizer really makes in its first step, rounding
    included. Biases and weights that start at zero are left out. Where a part of the model moves and
    another does not, the gradient differs, not the step: that is UG101 or UG603. Both limits are ten times as
    high where the step has one size in every entry (Adam and its relatives), where the trunk's weights still
    look like a random draw, so that there is nothing to polish, where the case's clip leaves less than a
    hundredth of the gradient, and where the loss is less than a thousandth of its mean per row.

Why it matters:
    At 1e-6 a weight needs a million steps in one direction to change by its own size. In float32 half a
    unit in the last place is 6e-8 of a number, in bfloat16 it is 2e-3: an update below that is rounded away
    entirely, and the weight never moves however long the training. Adam's first step is the largest that it
    ever makes: where that one is 1e-5 of the weight, a hundred thousand of them in one direction are needed.

When it is a false alarm:
    At the start of a warm-up the rate is small by intent, or zero: with a declared schedule, or a rate of
    zero, nothing is said. A last polish of a finished model may be this slow; fine-tuning is not, at 1e-5 on
    weights of 0.1 or less.

Remedies:
    lower_learning_rate with a factor above 1; weights in float32 beside a bfloat16 model; an optimizer that
    does not depend on the gradient's scale (Adam) where the loss is small by construction.

References:
    Micikevicius et al., "Mixed Precision Training" (arXiv:1710.03740), section 3.1, on updates that are
    lost in the rounding of a narrow weight.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = tuple(Site(f"{i}.weight") for i in range(3))
    >>> sizes = Profile("param_rms", "rms", sites, (0.05, 0.05, 0.05))
    >>> def firing(*ratios):
    ...     update = Profile("update_ratio", "rms(update) over rms(parameter)", sites, ratios)
    ...     return [f.severity for f in judge({"update_ratio": update, "param_rms": sizes})]
    >>> firing(3e-8, 1e-8, 5e-7)
    ['warning']

A silent example:
    >>> firing(1e-9, 1e-8, 1e-3)
    []
"""

import math
from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._losses import reduction
from unitygain.rules._numbers import power_of_ten, spell
from unitygain.rules._parameters import is_bias
from unitygain.rules._updates import Updates, read_updates

LIMIT = 1e-6
# The largest ratio of all must be below so many limits.
MOVES = 10.0
AIM = 1e-3
# What a clip must leave of a gradient, and a division of its mean per row, not to be what makes the steps too
# small. A loss of several terms may weigh its main one by a hundredth.
CRUMBS, DIVIDED = 0.01, 1e-3
# Where either was measured, the step is small by mistake and not by choice, and where the step has one size
# in every entry no larger gradient makes it longer: a hundred thousand steps to move a weight by its own size
# are too many then.
LIMIT_KNOWN = 1e-5
HALF_UNIT = {"float64": 2.0**-54, "float32": 2.0**-25, "float16": 2.0**-12, "bfloat16": 2.0**-9}


@rule(
    code="UG602",
    name="update-too-small",
    severity="warning",
    needs=("update_ratio", "param_rms"),
    wants=("param_grad_rms", "loss_value", "backward_gain"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Judge whether any weight moves."""
    updates = read_updates(profiles)
    if updates is None:
        return
    known = _left_by_clip(profiles) < CRUMBS or reduction(profiles) < DIVIDED
    limit = LIMIT_KNOWN if known or updates.by_sign or _from_scratch(profiles) else LIMIT
    if not (updates.ratio < limit and updates.largest < MOVES * limit):
        return
    if _warming_up(profiles["update_ratio"]) or not _has_gradient(profiles):
        return
    yield Finding(
        code="UG602",
        name="update-too-small",
        severity="warning",
        message=(
            f"the first optimizer step changes the median weight by {spell(updates.ratio)} of its own rms, "
            f"and none by more than {spell(updates.largest)}: nothing is learnt"
        ),
        sites=(updates.middle,),
        quantity="update_ratio",
        value=updates.ratio,
        unit=profiles["update_ratio"].unit,
        threshold=limit,
        causes=tuple(_causes(updates, profiles)),
        evidence={"largest ratio": updates.largest, "read": updates.coverage},
        fix="raise lr until the ratio of update to weight is about 1e-3",
    )


def _causes(updates: Updates, profiles: Mapping[str, Profile]) -> Iterator[Cause]:
    sizes = profiles["param_rms"]
    dtypes = dict(zip(sizes.sites, sizes.labels, strict=True)) if sizes.labels else {}
    dtype = dtypes.get(updates.middle, "float32")
    half = HALF_UNIT.get(dtype, HALF_UNIT["float32"])
    narrow = dtype in {"float16", "bfloat16"}
    if narrow:
        yield Cause(
            f"rounding: the weights are {dtype}, where an update below {spell(half)} of a weight is lost",
            note="not tested: it needs weights of another dtype",
        )
    left, times = _left_by_clip(profiles), reduction(profiles)
    if left < CRUMBS:
        yield Cause(
            f"clip: it leaves {spell(left)} of the gradient's norm; the limit is far below the gradient"
        )
    if not updates.by_sign and times < DIVIDED and updates.ratio > 0 and not narrow:
        yield Cause(
            f"loss: it is {spell(times)} times its mean per row, and the gradient is as small",
            remedy="lower_learning_rate",
            parameters={"factor": power_of_ten(1 / times)},
            note="a loss that is a mean does what the factor does",
        )
    if updates.ratio > 0 and not narrow:
        factor = power_of_ten(AIM / updates.ratio)
        yield Cause(
            f"learning rate: the update is proportional to it; {spell(factor)} times as much gives a ratio "
            f"of {spell(factor * updates.ratio)}",
            remedy="lower_learning_rate",
            parameters={"factor": factor},
            # Rounding can double an entry's update at most, and can take away half a unit of the weight.
            predicted=(0.5 * factor * updates.ratio, factor * (updates.ratio + 2 * half)),
        )
    if updates.ratio == 0 and not narrow:
        yield Cause(
            f"learning rate: every update is below {spell(2 * half)} of its weight, where {dtype} rounds it "
            "away, so that it cannot be told how much larger the rate must be"
        )
    if not updates.by_sign:
        yield Cause("gradient: it is small everywhere; look at the scale of the loss, and at UG501 and UG608")


def _from_scratch(profiles: Mapping[str, Profile]) -> bool:
    """Whether the trunk's weights still are a random draw: no last polish of a trained model is this slow."""
    gains = profiles.get("backward_gain")
    return gains is not None and gains.facts.get("law") == "redrawn"


def _left_by_clip(profiles: Mapping[str, Profile]) -> float:
    """Return what the case's clip leaves of the gradient's norm; 1 where that is not known."""
    left = float(profiles["update_ratio"].facts.get("clipped", math.nan))
    return 1.0 if math.isnan(left) else left


def _warming_up(profile: Profile) -> bool:
    """Whether the measured step is the first of a schedule, which may start from nothing."""
    return profile.facts.get("learning_rate") == 0.0 or profile.facts.get("scheduled") == 1.0


def _has_gradient(profiles: Mapping[str, Profile]) -> bool:
    """Whether any weight that was read gets a gradient; where none does, the step is not to blame.

    Behind a head or a gate that starts at zero only that weight gets one, and it has no relative change.
    """
    gradients, sizes = profiles.get("param_grad_rms"), dict(profiles["param_rms"].items())
    return gradients is None or any(
        value > 0 and not is_bias(site) and sizes.get(site, 0.0) > 0 for site, value in gradients.items()
    )
