"""UG602: the optimizer's step leaves every weight where it is.

What it sees:
    The median over weight tensors of rms(update)/rms(weight) below 1e-6, and no weight above 1e-5: nothing
    moves. The update is the one that the declared optimizer really makes in its first step, rounding
    included. Biases and weights that start at zero are left out, and a weight that is drawn near zero, such
    as a policy's last layer at a gain of 0.01, is held against the size of PyTorch's default draw: it moves
    by a thousandth of itself long before it says anything. Where a part of the model moves and
    another does not, the gradient differs, not the step: that is UG101 or UG603. Both limits are ten times as
    high where the step has one size in every entry (Adam and its relatives), where the trunk's weights still
    look like a random draw, so that there is nothing to polish, where the case's clip leaves less than a
    hundredth of the gradient, and where the loss is less than a thousandth of its mean per row; fifty times
    as high where the step has one size in every entry and the weights are a random draw, and where they are
    and so little of the gradient reaches a step without momentum; thirty times with momentum.

    Four more steps lead nowhere, and are told apart. In bfloat16 or float16 weights more than half of the
    entries with a gradient stay where they are, while small ones move. An adaptive optimizer's epsilon leaves
    less than a twentieth of the step that it would take without one, and the step is below 1e-3 of the median
    weight. A schedule, stepped after every batch as the case declares it, has a first thousand rates that add
    up to less than twelve steps at the largest of them. Or they rise to the largest and fall, or stay, which
    is less than a twentieth of the rate that the schedule multiplies, and a step of one size in every entry
    is below 1e-3 of the median weight there, where at the optimizer's own rate it were 1e-3 to 0.1; of any
    other step, and without a rise, this is told where the largest factor is the rate itself.

Why it matters:
    At 1e-6 a weight needs a million steps in one direction to change by its own size. In float32 half a
    unit in the last place is 6e-8 of a number, in bfloat16 it is 2e-3: an update below that is rounded away
    entirely, and the weight never moves however long the training. Adam's first step is the largest that it
    ever makes: where that one is 1e-5 of the weight, a hundred thousand of them in one direction are needed.

When it is a false alarm:
    At the start of a warm-up the rate is small by intent, or zero: with a declared schedule, or a rate of
    zero, nothing is said of the first step, nor with RAdam, whose first steps are not divided by anything.
    A training that is meant to last a dozen steps. Narrow weights whose optimizer keeps a wider copy, or
    what rounding took, for later steps. A last polish of a finished model may be this slow; fine-tuning is
    not, at 1e-5 on weights of 0.1 or less.

Remedies:
    lower_learning_rate with a factor above 1; a clip behind scaler.unscale_; eps of 1e-8; a schedule that
    counts in batches; a learning rate of 1 with a schedule that is a rate by itself; weights in float32
    beside a bfloat16 model; an optimizer that does not depend on the gradient's scale (Adam) where the loss
    is small by construction.

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

from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._clipped_steps import (
    CRUMBS,
    UNSCALE,
    clips_scaled,
    explain_clip,
    explain_own_step,
    left_by_clip,
)
from unitygain.rules._kept_statistics import blame_unset
from unitygain.rules._losses import reduction
from unitygain.rules._numbers import power_of_ten, spell
from unitygain.rules._parameters import is_bias
from unitygain.rules._small_steps import (
    DAMPED,
    DIVIDED,
    NARROW,
    blame_weights,
    explain_epsilon,
    explain_loss,
    explain_rounding,
    judge_epsilon,
    judge_rounding,
    judge_schedule,
)
from unitygain.rules._updates import Updates, read_fact, read_updates

LIMIT = 1e-6
# The largest ratio of all must be below so many limits.
MOVES = 10.0
# Of a rate that moves random matrices by more, norms' weights of one alone are slow.
MOVES_DRAWN = 2.0
# Share of the layers whose weights have the spread of PyTorch's default draw.
MOST = 0.5
AIM = 1e-3
# Where a clip or a division made it so, the step is small by mistake and not by choice, and where it has one
# size in every entry no larger gradient makes it longer: a hundred thousand steps to move a weight by its own
# size are too many then.
LIMIT_KNOWN = 1e-5
# Random weights are far from where they have to go, and twenty thousand steps in one direction are too many;
# trained ones are tuned at 5e-7 on weights of 0.02. Behind a clip, momentum makes ten steps of one.
LIMIT_DRAWN, LIMIT_DRAWN_CLIPPED = 5e-5, 3e-5
# Where epsilon takes more of the step, it is the gradient that is small, and not the rate.
HALF = 0.5
HALF_UNIT = {"float64": 2.0**-54, "float32": 2.0**-25, "float16": 2.0**-12, "bfloat16": 2.0**-9}


@rule(
    code="UG602",
    name="update-too-small",
    severity="warning",
    needs=("update_ratio", "param_rms"),
    wants=(
        "param_grad_rms",
        "loss_value",
        "backward_gain",
        "weight_gain",
        "norm_unset",
        "act_frac_saturated",
    ),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Judge whether any weight moves."""
    updates = read_updates(profiles)
    if updates is None:
        return
    scheduled = judge_schedule(updates, profiles)
    if scheduled:
        yield scheduled
    if _warming_up(profiles["update_ratio"]) or not _has_gradient(profiles):
        return
    if not _too_small(updates, profiles):
        other = judge_rounding(updates, profiles, _dtype(updates, profiles))
        yield from filter(None, (other or judge_epsilon(updates, profiles),))
        return
    yield Finding(
        code="UG602",
        name="update-too-small",
        severity="warning",
        message=(
            f"the first optimizer step changes the median weight by {spell(updates.ratio)} of its own rms, "
            f"and none by more than {spell(updates.most)}{updates.held_against}: nothing is learnt"
        ),
        sites=(updates.middle,),
        quantity="update_ratio",
        value=updates.ratio,
        unit=profiles["update_ratio"].unit,
        threshold=_limit(updates, profiles),
        causes=tuple(_causes(updates, profiles)),
        evidence={
            "largest ratio": updates.largest,
            "largest ratio to a draw": updates.most,
            "read": updates.coverage,
        },
        fix=UNSCALE
        if clips_scaled(profiles)
        else "raise lr until the ratio of update to weight is about 1e-3",
    )


def _limit(updates: Updates, profiles: Mapping[str, Profile]) -> float:
    clipped = left_by_clip(profiles) < CRUMBS or read_fact(profiles, "handed") < CRUMBS
    divided, plain = reduction(profiles) < DIVIDED, read_fact(profiles, "momentum") == 0
    if _from_scratch(profiles) and clipped and plain:
        return LIMIT_DRAWN
    if _from_scratch(profiles) and updates.by_sign and not read_fact(profiles, "damped") < HALF:
        return LIMIT_DRAWN
    if _from_scratch(profiles) and clipped and not updates.by_sign:
        return LIMIT_DRAWN_CLIPPED
    return LIMIT_KNOWN if clipped or divided or updates.by_sign or _from_scratch(profiles) else LIMIT


def _too_small(updates: Updates, profiles: Mapping[str, Profile]) -> bool:
    limit = _limit(updates, profiles)
    moves = MOVES_DRAWN if limit == LIMIT_DRAWN else MOVES
    return updates.ratio < limit and updates.most < moves * limit


def _dtype(updates: Updates, profiles: Mapping[str, Profile]) -> str:
    sizes = profiles["param_rms"]
    dtypes = dict(zip(sizes.sites, sizes.labels, strict=True)) if sizes.labels else {}
    return dtypes.get(updates.middle, "float32")


def _causes(updates: Updates, profiles: Mapping[str, Profile]) -> Iterator[Cause]:
    dtype = _dtype(updates, profiles)
    half = HALF_UNIT.get(dtype, HALF_UNIT["float32"])
    narrow = dtype in NARROW
    if narrow:
        yield explain_rounding(dtype, f"an update below {spell(half)} of a weight is lost")
    yield from explain_clip(profiles, updates.ratio)
    yield from explain_own_step(profiles)
    if not updates.by_sign:
        yield from blame_unset(profiles, updates.count)
        yield from blame_weights(profiles)
    left = read_fact(profiles, "damped")
    if (left < DAMPED or not updates.by_sign) and updates.ratio > 0 and not narrow:
        yield from explain_loss(profiles)
    if left < DAMPED:
        yield explain_epsilon(left)
    if updates.ratio > 0 and not narrow:
        factor = power_of_ten(AIM / updates.ratio)
        yield Cause(
            f"learning rate: it is too low; the update is proportional to it, and {spell(factor)} times as "
            f"much gives a ratio of {spell(factor * updates.ratio)}",
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
    """Whether the weights still are a random draw: no last polish of a trained model is this slow."""
    gains, weights = profiles.get("backward_gain"), profiles.get("weight_gain")
    default = float(weights.facts.get("like_default", 0.0)) if weights else 0.0
    return default >= MOST or (gains is not None and gains.facts.get("law") == "redrawn")


def _warming_up(profile: Profile) -> bool:
    """Whether the measured step is the first of a warm-up, declared or the optimizer's own."""
    facts = profile.facts
    return (
        facts.get("learning_rate") == 0.0
        or facts.get("scheduled") == 1.0
        or facts.get("optimizer") == "RAdam"
    )


def _has_gradient(profiles: Mapping[str, Profile]) -> bool:
    """Whether any weight that was read gets a gradient; where none does, the step is not to blame.

    Behind a head or a gate that starts at zero only that weight gets one, and it has no relative change.
    """
    gradients, sizes = profiles.get("param_grad_rms"), dict(profiles["param_rms"].items())
    return gradients is None or any(
        value > 0 and not is_bias(site) and sizes.get(site, 0.0) > 0 for site, value in gradients.items()
    )
