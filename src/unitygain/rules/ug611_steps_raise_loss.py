"""UG611: the first steps do not lower the loss, and smaller ones do.

What it sees:
    The mean loss over the drawn batches before and after 24 training steps on a copy, by the case's own
    optimizer, precision, clip and schedule, and after as many at a tenth and a hundredth of its learning
    rate. It fires where the case's own steps lower it by less than 2 %, and those at a smaller rate by five
    times as much and by 10 % or more; by 5 % where the loss jumped by half on the way. A loss that falls by
    more, but less than at a smaller rate, is given 72 steps, and must then be as far behind. Where the loss
    is not known to be that of an untrained model, by a guess's for its kind of loss, it must rise by a fifth.
    And it fires where the loss rises at every rate, and the more the larger the rate, by three to thirty
    times for ten times the rate: then the steps go uphill.

Why it matters:
    A step that is too long overshoots: the loss jumps, ends on a plateau (dead units, saturated outputs) or
    becomes NaN. What is lost in the first steps is often not learnt again at any rate.

When it is a false alarm:
    A rate that is too large for the first steps alone, where a warm-up is meant and not declared, or where
    the loss comes down again after more than two dozen steps. Drawn batches that are no sample of the data.

Remedies:
    lower_learning_rate; a warm-up; a clip; what makes the gradient large (inputs, a summed loss), where it
    is named.

References:
    LeCun, Bottou, Orr and Müller, "Efficient BackProp" (1998), section 4.6: beyond twice the inverse of the
    largest curvature gradient descent diverges. Cohen et al., "Gradient Descent on Neural Networks Typically
    Occurs at the Edge of Stability" (ICLR 2021). The limits are of this project.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> columns = ("before", "after", "at_a_tenth", "at_a_hundredth")
    >>> def firing(*row):
    ...     steps = Profile("first_steps", "loss", (Site(""),), row[1:2], columns=columns, rows=(row,))
    ...     return [f.severity for f in judge({"first_steps": steps})]
    >>> firing(2.3, 9.1, 1.2, 2.2)
    ['warning']

A silent example:
    >>> firing(2.3, 1.9, math.nan, math.nan), firing(2.3, 2.3, 2.3, 2.3)
    ([], [])
"""

import itertools
import math
from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell
from unitygain.rules._updates import behind_the_gradient

FALLS, LEARNS, TIMES = 0.02, 0.1, 5.0
# A loss that falls a little is given so many steps to fall by more.
LONG = 72
# A loss that jumped is sure to have overshot, and what a smaller rate gains beside it may be little.
OVERSHOT, LEARNS_BESIDE = 1.5, 0.05
# A loss that is small against that of a guess, or not known to be large, wanders: there it must jump.
JUMPS, UNTRAINED = 1.2, 0.5
# A loss that rises by the rate, to first order, and what is left of that where the rise bends; the least rise
# is well above rounding.
RISES, PROPORTIONAL, ROUNDING = 0.05, (3.0, 30.0), 1e-5
RATES = {"at_a_tenth": 0.1, "at_a_hundredth": 0.01}


@rule(
    code="UG611",
    name="steps-raise-loss",
    severity="warning",
    needs=("first_steps",),
    wants=("input_rms", "loss_value"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield one finding where a smaller learning rate alone makes the first steps lower the loss."""
    profile = profiles["first_steps"]
    losses = dict(zip(profile.columns, profile.rows[0], strict=True))
    before, after = losses["before"], losses["after"]
    tried = [(losses[name], name) for name in RATES if math.isfinite(losses[name])]
    if not tried or not before > 0:
        return
    if _uphill(*losses.values()):
        yield _rising(profile, losses)
        return
    best, name = min(tried)
    gained, won = before - after, before - best
    overshot = float(profile.facts.get("highest", math.nan)) >= OVERSHOT * before
    least = (LEARNS_BESIDE if overshot else LEARNS) * before
    kept_on = float(profile.facts.get("steps", math.nan)) >= LONG
    if (gained >= FALLS * before and not kept_on) or won < least or won < TIMES * gained:
        return
    if after < JUMPS * before and not before >= UNTRAINED * _guess(profiles):
        return
    rate, steps = RATES[name], float(profile.facts.get("steps", math.nan))
    yield Finding(
        code="UG611",
        name="steps-raise-loss",
        severity="warning",
        message=(
            f"{spell(steps)} training steps take the loss from {spell(before)} to "
            f"{spell(after)}; at {spell(rate)} of the learning rate they take it to {spell(best)}"
        ),
        sites=profile.sites,
        quantity="first_steps",
        value=after,
        unit=profile.unit,
        threshold=before - (won / TIMES if kept_on else FALLS * before),
        causes=tuple(_causes(profiles, rate, best, before)),
        evidence=losses,
        fix=f"lr *= {spell(rate)}  # in the optimizer; or warm up over the first steps",
    )


def _uphill(before: float, after: float, at_a_tenth: float, at_a_hundredth: float) -> bool:
    """Whether the loss rises by about as much as the rate is large."""
    rises = [loss - before for loss in (after, at_a_tenth, at_a_hundredth)]
    if not (all(map(math.isfinite, rises)) and rises[0] >= RISES * before and rises[2] > ROUNDING * before):
        return False
    return all(PROPORTIONAL[0] <= more / less <= PROPORTIONAL[1] for more, less in itertools.pairwise(rises))


def _rising(profile: Profile, losses: Mapping[str, float]) -> Finding:
    steps = float(profile.facts.get("steps", math.nan))
    return Finding(
        "UG611",
        "steps-raise-loss",
        "warning",
        f"{spell(steps)} training steps take the loss from {spell(losses['before'])} up to "
        f"{spell(losses['after'])}, and at a tenth and a hundredth of the learning rate they raise it too, "
        "in proportion: they go uphill",
        profile.sites,
        "first_steps",
        losses["after"],
        profile.unit,
        losses["before"],
        causes=(
            Cause(
                "wrong sign: the optimizer goes up the gradient (maximize=True, a negative learning rate), "
                "or the gradient was reversed on its way (a custom backward, a hook)"
            ),
        ),
        evidence=losses,
        fix="maximize=False in the optimizer; no gradient reversal between this loss and the weights",
    )


def _guess(profiles: Mapping[str, Profile]) -> float:
    """Return the loss of a guess, to which that of a trained model is small; NaN where it is not known."""
    return float(profiles["loss_value"].facts["expected"]) if "loss_value" in profiles else math.nan


def _causes(profiles: Mapping[str, Profile], rate: float, best: float, before: float) -> Iterator[Cause]:
    # Where eight steps lower the loss no further ones are taken, so that it may stay above the best.
    predicted = (0.9 * best, (1 - FALLS) * before)
    yield from behind_the_gradient(profiles, rate, predicted)
    yield Cause(
        f"learning rate: too large for the curvature here; {spell(rate)} of it ends at {spell(best)}",
        remedy="lower_learning_rate",
        parameters={"factor": rate},
        predicted=predicted,
    )
