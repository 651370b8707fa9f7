"""UG601: the first optimizer step changes the weights by a large part of their own size.

What it sees:
    The median over weight tensors of rms(update)/rms(weight), where the update is the one that the declared
    optimizer really makes in its first step, on a copy. Biases and weights that start at zero are left out,
    and their number is said. Two kinds of optimizer have two limits. Where the step is in proportion to the
    gradient (SGD, with or without momentum), 0.2, and 2 for a model of one weight. Where the first step has
    the size of the learning rate in every entry, whatever the gradient (Adam and its relatives), 2: that step
    is the largest they ever make, and later ones, in which signs disagree, are smaller. For the first kind,
    what was measured to make the gradient large is named before the rate: inputs, a loss that is a sum,
    targets of a squared error. Where momentum is above 0.95, the step that it builds up of a gradient that
    stays, first step/(1 - momentum), is judged too: at ten times these limits, which is what a momentum of
    0.9 makes of a first step at the limit. And a first step that leaves parameters infinite or NaN, of finite
    weights and a finite gradient, whatever the others do. And a step of the case's own that adds its gradient
    to those of all steps before, whatever their sizes.

Why it matters:
    A step that is a large part of the weight throws away what the initialisation or the training before it
    gave, and overshoots wherever the loss is curved. The loss then jumps, oscillates or becomes NaN within
    a few steps. A gradient that nothing clears grows with every step, as with a momentum of 1.

When it is a false alarm:
    With a warm-up that the case does not declare, the first real step is smaller. A model whose weights are
    meant to be replaced at once, such as a linear probe from tiny weights, can live with a ratio above 1.

Remedies:
    lower_learning_rate; a warm-up; optimizer.zero_grad(); weights in float32, or an eps that their dtype
    holds; a mean instead of a sum in the loss; inputs of unit scale (UG607).

References:
    Kingma and Ba, "Adam" (arXiv:1412.6980), section 2.1, on the bound of the step by the learning rate.
    You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks" (arXiv:1708.03888), section
    4, on the ratio of weight to update per layer. Sutskever, Martens, Dahl and Hinton, "On the importance of
    initialization and momentum in deep learning" (ICML 2013), section 2, on the 1/(1 - momentum) of
    directions in which the gradient stays. The limits are an experiment of this project:
    docs/log.md, "update ratios".

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = tuple(Site(f"{i}.weight") for i in range(3))
    >>> sizes = Profile("param_rms", "rms", sites, (0.05, 0.05, 0.05))
    >>> def firing(*ratios):
    ...     update = Profile("update_ratio", "rms(update) over rms(parameter)", sites, ratios)
    ...     return [f.severity for f in judge({"update_ratio": update, "param_rms": sizes})]
    >>> firing(0.4, 0.9, 0.1)
    ['warning']

A silent example:
    >>> firing(0.01, 0.15, 0.02)
    []
    >>> firing(0.02, 0.02, 0.02)
    []
"""

import math
from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._broken_step import judge_broken
from unitygain.rules._numbers import spell
from unitygain.rules._piled_up import judge_piled_up
from unitygain.rules._updates import Updates, behind_the_gradient, read_fact, read_updates

LIMIT_PROPORTIONAL = 0.2
LIMIT_BY_SIGN = 2.0
# A model of one weight has nothing behind it that a new weight could upset, and its loss is usually convex.
LIMIT_ALONE = 2.0
FATAL = 10.0
# Nearly all recipes have 0.9 and are judged by their first step; some have 0.99 at a lower rate.
HEAVY = 0.95
# What a momentum of 0.9 builds up of a first step at the limit.
BUILT_UP = 10.0


@rule(
    code="UG601",
    name="update-too-large",
    severity="error",
    needs=("update_ratio", "param_rms"),
    wants=("input_rms", "loss_value", "param_grad_rms"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Judge the median ratio of the first update to the weight."""
    broken = judge_broken(profiles)
    if broken:
        yield broken
        return
    piled_up = judge_piled_up(profiles)
    if piled_up:
        yield piled_up
    updates = read_updates(profiles)
    if updates is None:
        return
    limit = LIMIT_ALONE if updates.count == 1 else LIMIT_PROPORTIONAL
    limit = LIMIT_BY_SIGN if updates.by_sign else limit
    if not updates.ratio > limit:
        yield from _built_up(updates, limit, profiles)
        return
    kind = "has one size in every entry" if updates.by_sign else "is in proportion to the gradient"
    yield Finding(
        code="UG601",
        name="update-too-large",
        severity="error" if updates.ratio > FATAL * limit else "warning",
        message=(
            f"the first optimizer step changes the median weight by {spell(updates.ratio)} of its own rms; "
            f"steps above {spell(limit)} rarely train, for a step that {kind}"
        ),
        sites=(updates.middle,),
        quantity="update_ratio",
        value=updates.ratio,
        unit=profiles["update_ratio"].unit,
        threshold=limit,
        causes=tuple(_causes(updates, limit, profiles)),
        evidence={
            "largest ratio": updates.largest,
            "read": updates.coverage,
            "step": kind,
        },
        fix=f"lr *= {spell(_factor(updates, limit))}  # in the optimizer; or warm up over the first steps",
    )


def _built_up(updates: Updates, limit: float, profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield a finding where momentum makes a step too large of a first one that is not."""
    momentum, times = read_fact(profiles, "momentum"), read_fact(profiles, "built_up")
    if not (momentum > HEAVY and times > 1 and updates.ratio > BUILT_UP * limit / times):
        return
    most, whole = BUILT_UP * limit / times, times * updates.ratio
    factor = _factor(updates, most)
    yield Finding(
        code="UG601",
        name="update-too-large",
        severity="error" if updates.ratio > FATAL * most else "warning",
        message=(
            f"the first optimizer step changes the median weight by {spell(updates.ratio)} of its own rms, "
            f"and momentum makes {times:.4g} times as much of it where the gradient stays: {spell(whole)}; "
            f"steps that come to more than {spell(BUILT_UP * limit)} rarely train"
        ),
        sites=(updates.middle,),
        quantity="update_ratio",
        value=updates.ratio,
        unit=profiles["update_ratio"].unit,
        threshold=most,
        causes=(
            Cause(
                f"momentum: {momentum:.6g} adds up {1 / (1 - momentum):.4g} steps, and the step becomes "
                f"{spell(whole)} of the weights; 0.9, or a rate as many times smaller, such as "
                f"{spell(factor)} of it",
                remedy="lower_learning_rate",
                parameters={"factor": factor},
                predicted=(0.99 * factor * updates.ratio, 1.01 * factor * updates.ratio),
            ),
        ),
        evidence={"largest ratio": updates.largest, "read": updates.coverage, "momentum": momentum},
        fix="momentum=0.9  # in the optimizer",
    )


def _causes(updates: Updates, limit: float, profiles: Mapping[str, Profile]) -> Iterator[Cause]:
    factor = _factor(updates, limit)
    # Decay, weight and gradient are the same in both first steps; only the rate's rounding differs.
    predicted = (0.99 * factor * updates.ratio, 1.01 * factor * updates.ratio)
    if not updates.by_sign:
        yield from behind_the_gradient(profiles, factor, predicted)
    yield Cause(
        f"learning rate: it is too high; the update is proportional to it, and {spell(factor)} of it gives a "
        f"ratio of {spell(factor * updates.ratio)}",
        remedy="lower_learning_rate",
        parameters={"factor": factor},
        predicted=predicted,
    )
    if not updates.by_sign:
        yield Cause("gradient: its scale; look at what grows over the depth (UG102, UG201)")


def _factor(updates: Updates, limit: float) -> float:
    """The power of ten that brings the ratio to a tenth of the limit or below."""
    return 10.0 ** math.floor(math.log10(limit / 10 / updates.ratio)) if math.isfinite(updates.ratio) else 0.0
