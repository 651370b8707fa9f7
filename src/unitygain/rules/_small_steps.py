"""Why steps lead nowhere though none of them is tiny: a schedule, an epsilon, a rounding."""

import math
from collections.abc import Iterator, Mapping

from unitygain._types import Cause, Finding, Profile
from unitygain.rules._activation_causes import most_common
from unitygain.rules._clipped_steps import explain_clip
from unitygain.rules._layers import read_layers
from unitygain.rules._losses import reduction
from unitygain.rules._numbers import median, power_of_ten, spell
from unitygain.rules._parameters import is_bias
from unitygain.rules._updates import Updates, read_fact

# What is left of the step that the learning rate promises, where epsilon is far above the gradient.
DAMPED = 0.05
# Such a step is still as long as others where the rate was chosen with epsilon, as for Inception's RMSprop.
USUAL = 1e-3
# Gradients below this are damped by the usual epsilon of 1e-8 as well: what made them so small is to blame.
FOR_USUAL_EPS = 1e-9
MOSTLY = 0.5
# No training is over after a dozen steps; 0.9 to the power of the step adds up to 10.
DOZEN = 12.0
# A rate that would change a weight by more than this in every step is nobody's choice: the schedule is one.
TOO_LONG = 0.1
# What a division must leave of a loss's mean per row, not to be what makes the steps too small. A loss of
# several terms may weigh its main one by a hundredth.
DIVIDED = 1e-3
NARROW = {"float16", "bfloat16"}
# Layers whose weights together leave no more of signal and gradient than this, as of a trunk's decay.
LEFT = 1e-3


def blame_weights(profiles: Mapping[str, Profile]) -> Iterator[Cause]:
    """Yield the scale of the weights, where it leaves little of the gradient and the rate is a usual one."""
    if not read_fact(profiles, "learning_rate") >= USUAL:
        return
    layers = read_layers(profiles)
    left = math.prod(min(layer.gain / layer.needed, 1.0) for layer in layers)
    if layers and left < LEFT:
        usual = most_common(layers)[0]
        yield Cause(
            f"weights: sqrt(fan_in·var) = {spell(median([layer.gain for layer in layers]))} in {len(layers)} "
            f"layers, where {usual.activation} needs {spell(usual.needed)}; that alone leaves {spell(left)} "
            "of the signal, and of the gradient on its way back: draw them anew",
            remedy="activation_init",
        )


def judge_schedule(updates: Updates, profiles: Mapping[str, Profile]) -> Finding | None:
    """Say where a schedule, stepped after every batch, gives a dozen full steps, or crumbs of its rate."""
    steps = read_fact(profiles, "full_steps")
    if not steps < DOZEN:
        return _judge_granted(updates, profiles)
    cause = Cause(
        f"schedule: its rates add up to {spell(steps)} steps at the largest of them, as of one that is meant "
        "for epochs and stepped after every batch",
        note="not tested: what the schedule counts in is the program's to say",
    )
    message = f"the schedule, stepped after every batch, gives {spell(steps)} full steps in a thousand"
    fix = "step the schedule once an epoch, or count its milestones in batches"
    return _found(updates, "full_steps", steps, DOZEN, "steps at the largest rate", message, (cause,), fix)


def _judge_granted(updates: Updates, profiles: Mapping[str, Profile]) -> Finding | None:
    """Say where a schedule never gives more than crumbs of the optimizer's rate, and the steps are short."""
    granted, most = read_fact(profiles, "granted"), _longest(updates, profiles)
    if not (0 < granted < DAMPED and most < USUAL):
        return None
    squared = read_fact(profiles, "squared") == 1.0
    # A schedule that only falls may have been resumed near its end.
    falls = not (most > updates.ratio)
    if not squared and (falls or not updates.by_sign or not USUAL <= most / granted < TOO_LONG):
        return None
    told = (
        f"factors, {spell(granted)}, is the learning rate itself: a function that returns the rate is "
        "multiplied by the rate"
        if squared
        else f"rates is {spell(granted)} of the learning rate that it multiplies, as of a schedule that is a "
        "rate by itself (the first transformer's)"
    )
    cause = Cause(
        f"schedule: the largest of its first thousand {told}",
        "lower_learning_rate",
        {"factor": 1 / granted},
        note="a schedule that is a rate by itself multiplies a learning rate of 1",
    )
    message = (
        f"the schedule never gives more than {spell(granted)} of the learning rate, and a step at that "
        f"changes the median weight by {spell(most)} of its own rms"
    )
    fix = "a learning rate of 1 with a schedule that is the rate, or a schedule whose largest factor is 1"
    if squared:
        fix = "LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warm_up))  # a share of the rate"
    return _found(updates, "granted", granted, DAMPED, "of the rate", message, (cause,), fix)


def _longest(updates: Updates, profiles: Mapping[str, Profile]) -> float:
    """Return the ratio at the schedule's largest rate; NaN where it is not known.

    Where the schedule starts from nothing, so does the step: one of one size in every entry is the rate.
    """
    if read_fact(profiles, "learning_rate") or not updates.by_sign:
        return updates.ratio * read_fact(profiles, "rise")
    known = profiles["param_rms"].finite() if "param_rms" in profiles else ()
    sizes = [value for site, value in known if value > 0 and not is_bias(site)]
    return (
        read_fact(profiles, "granted") * read_fact(profiles, "given") / median(sizes) if sizes else math.nan
    )


def judge_rounding(updates: Updates, profiles: Mapping[str, Profile], dtype: str) -> Finding | None:
    """Say where most entries of narrow weights stay where they are, though they have a gradient."""
    lost = read_fact(profiles, "lost")
    if dtype not in NARROW or not lost > MOSTLY:
        return None
    message = (
        f"the first optimizer step leaves a fraction of {spell(lost)} of all entries with a gradient where "
        f"they are: it is less than half a unit in the last place of {dtype}"
    )
    fix = f'keep the weights in float32 and compute under torch.autocast("cuda", torch.{dtype})'
    cause = explain_rounding(dtype, f"{spell(lost)} of all entries do not move")
    return _found(updates, "lost", lost, MOSTLY, "fraction of entries", message, (cause,), fix)


def judge_epsilon(updates: Updates, profiles: Mapping[str, Profile]) -> Finding | None:
    """Say where an adaptive optimizer's step is a small part of what its rate promises, and short."""
    left = read_fact(profiles, "damped")
    if not (left < DAMPED and updates.ratio < USUAL and updates.most < 10 * USUAL):
        return None
    gradients = profiles.get("param_grad_rms")
    sizes = [value for _, value in gradients.finite()] if gradients else []
    if sizes and median(sizes) < FOR_USUAL_EPS:
        return None
    message = (
        f"the first optimizer step is {spell(left)} of what its learning rate promises, and changes the "
        f"median weight by {spell(updates.ratio)} of its own rms"
    )
    fix = "eps=1e-8, or a learning rate as many times larger"
    causes = (*explain_clip(profiles, updates.ratio), *explain_loss(profiles), explain_epsilon(left))
    return _found(updates, "damped", left, DAMPED, "of the step", message, causes, fix)


def explain_rounding(dtype: str, what: str) -> Cause:
    """Return the cause of updates that are lost in weights of `dtype`."""
    return Cause(
        f"rounding: the weights are {dtype}, where {what}",
        note="not tested: it needs weights of another dtype",
    )


def explain_loss(profiles: Mapping[str, Profile]) -> Iterator[Cause]:
    """Yield the loss as a cause of a small gradient, where it is a small part of its mean per row."""
    times = reduction(profiles)
    if times < DIVIDED:
        yield Cause(
            f"loss: it is {spell(times)} times its mean per row, and the gradient is as small",
            remedy="lower_learning_rate",
            parameters={"factor": power_of_ten(1 / times)},
            note="a loss that is a mean does what the factor does",
        )


def explain_epsilon(left: float) -> Cause:
    """Return the cause of a step of which an optimizer's epsilon leaves this share."""
    return Cause(
        f"eps: the optimizer divides by the gradient's size plus eps, which is far above it and leaves "
        f"{spell(left)} of the step",
        note="not tested: it needs another optimizer",
    )


def _found(
    updates: Updates,
    fact: str,
    value: float,
    threshold: float,
    unit: str,
    message: str,
    causes: tuple[Cause, ...],
    fix: str,
) -> Finding:
    return Finding(
        "UG602",
        "update-too-small",
        "warning",
        message,
        (updates.middle,),
        "update_ratio",
        value,
        unit,
        threshold,
        fact=fact,
        causes=causes,
        evidence={"ratio": updates.ratio, "largest ratio": updates.largest, "read": updates.coverage},
        fix=fix,
    )
