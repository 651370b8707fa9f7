"""UG609: weight decay outweighs the gradient.

What it sees:
    Over the weights (biases, also those that an embedding of one column looks up, scales of norms and
    weights that start at zero are left out) the rms of the weight decay's term over that
    of the gradient's: the median above 2, the smallest above 0.03, the geometric mean of these two above a
    half, while one step of decay takes more than 0.002 of the median weight. Coupled decay (SGD, Adam) is
    held against the gradient that it is added to, decoupled decay (AdamW) against a step of the size of the
    learning rate. Decoupled decay that takes more than 0.04 of the median weight per step is found whatever
    the ratio.

Why it matters:
    The weights go where decay and gradient hold each other. Where decay is twice as strong at the start,
    that place is far below the weights, signals shrink with them, and the gradient becomes smaller still:
    the model ends at the loss of a guess, however long it trains. In Adam a coupled decay is divided by the
    same root as the gradient, so that every entry moves towards zero by the whole learning rate at each
    step: 0.5, harmless in AdamW at a rate of 1e-3, takes a default layer to zero in fifty steps. At 0.04 per
    step a weight is what the last 25 steps made of it, and nothing older is kept.

When it is a false alarm:
    Where the weights are to be brought down on purpose, or to be driven to zero by decay in order to prune
    them. Where the first batch's gradient is far smaller than those that follow.

Remedies:
    lower_weight_decay; use_adamw in the place of Adam, so that the decay is beside the gradient and not
    divided with it. Where depth makes the gradient small (UG101), depth first.

References:
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (arXiv:1711.05101), section 2 and
    proposition 2. The limits are an experiment of this project: docs/log.md, "decay that outweighs".

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = tuple(Site(f"{i}.weight") for i in range(3))
    >>> def found(ratios, per_step):
    ...     facts = {"optimizer": "Adam", "weight_decay": 0.5, "learning_rate": 1e-3}
    ...     facts["median_per_step"] = per_step
    ...     labels = ("coupled",) * 3
    ...     profile = Profile("decay_ratio", "decay over gradient", sites, ratios, labels=labels, facts=facts)
    ...     return [finding.code for finding in judge({"decay_ratio": profile})]
    >>> found((8.0, 12.0, 0.5), 0.004)
    ['UG609']

A silent example:
    >>> found((0.01, 0.02, 0.0005), 0.0001), found((8.0, 12.0, 0.5), 0.0001)
    ([], [])
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._losses import reduction
from unitygain.rules._numbers import power_of_ten, spell

OUTWEIGHS = 2.0
# The weight that the gradient reaches best, usually the head, must feel the decay too: where it does not, the
# gradient is small on the way and not the decay large. The mean is geometric, of the median and the smallest.
LEAST, MEAN = 0.03, 0.5
# One part in 500 per step: a training of a few hundred steps feels it.
PER_STEP = 0.002
# Decoupled decay of a memory of 25 steps.
FORGETS = 0.04
AIM, AIM_PER_STEP = 0.1, 0.001
CRUMBS, DIVIDED = 0.01, 1e-3


@rule(
    code="UG609",
    name="decay-outweighs-gradient",
    severity="warning",
    needs=("decay_ratio",),
    wants=("update_ratio", "loss_value"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Judge the median of decay over gradient, and how fast the decay is there."""
    profile = profiles["decay_ratio"]
    labels = dict(zip(profile.sites, profile.labels, strict=True))
    read = sorted((value, site) for site, value in profile.finite())
    if not read:
        return
    ratio, middle = read[(len(read) - 1) // 2]
    least, taken = read[0][0], float(profile.facts["median_per_step"])
    pull = Pull(labels[middle], ratio, taken, weaker=not _outweighs(ratio, least))
    if pull.weaker and not (pull.kind == "decoupled" and taken > FORGETS):
        return
    if not taken > PER_STEP:
        return
    beside = "the gradient does" if pull.kind == "coupled" else "a step of the learning rate does"
    yield Finding(
        code="UG609",
        name="decay-outweighs-gradient",
        severity="warning",
        message=(
            f"weight decay pulls at the median weight {spell(ratio)} times as hard as {beside}, and "
            f"takes {spell(taken)} of it at every step: the weights go towards zero"
        ),
        sites=(middle,),
        quantity="decay_ratio",
        value=taken if pull.weaker else ratio,
        unit="fraction of the weight per step" if pull.weaker else profile.unit,
        threshold=FORGETS if pull.weaker else OUTWEIGHS,
        fact="median_per_step" if pull.weaker else "",
        causes=tuple(_causes(profiles, pull)),
        evidence={
            "taken per step": taken,
            "smallest ratio": least,
            "read": f"{len(read)} weights read; biases, norms and weights of zeros left out",
        },
        fix=_fix(profile, pull),
    )


def _outweighs(ratio: float, least: float) -> bool:
    return ratio > OUTWEIGHS and least > LEAST and ratio * least > MEAN**2


@dataclass(frozen=True)
class Pull:
    """What decay does to the median weight.

    Args:
        kind: Coupled or decoupled.
        ratio: Its term over the gradient's.
        taken: What it takes of the weight per step.
        weaker: Whether the gradient is the stronger one, and only the speed is judged.
    """

    kind: str
    ratio: float
    taken: float
    weaker: bool

    @property
    def factor(self) -> float:
        """The power of ten that brings the ratio to a tenth or below, and decoupled decay to a slow one."""
        slow = AIM_PER_STEP / self.taken if self.kind == "decoupled" else math.inf
        weak = AIM / self.ratio if self.ratio > 0 else math.inf
        return power_of_ten(min(weak, slow))


def _causes(profiles: Mapping[str, Profile], pull: Pull) -> Iterator[Cause]:
    facts = profiles["decay_ratio"].facts
    factor, decay = pull.factor, float(facts["weight_decay"])
    if pull.kind == "coupled":
        yield from _behind_the_gradient(profiles)
    how = "coupled, added to the gradient" if pull.kind == "coupled" else "decoupled, beside the step"
    sized = pull.kind == "coupled" and facts["optimizer"] not in {"SGD", "ASGD"}
    divided = " and divided with it by their common size; AdamW keeps it apart" if sized else ""
    value = pull.taken if pull.weaker else pull.ratio
    yield Cause(
        f"weight decay: {spell(decay)} in {facts['optimizer']} ({how}{divided}); {spell(factor * decay)} "
        f"gives {spell(factor * value)}",
        remedy="lower_weight_decay",
        parameters={"factor": factor},
        # Both are proportional to the decay; weights and gradients are those of the same pass.
        predicted=(0.99 * factor * value, 1.01 * factor * value),
    )
    if pull.kind == "coupled":
        yield Cause("gradient: it is small everywhere; look at what takes it away (UG101, UG603)")


def _behind_the_gradient(profiles: Mapping[str, Profile]) -> Iterator[Cause]:
    """Yield what makes a gradient small that a decay is held against, where it was measured."""
    clipped = profiles["update_ratio"].facts.get("clipped", math.nan) if "update_ratio" in profiles else 1.0
    if float(clipped) < CRUMBS:
        yield Cause(
            f"clip: it leaves {spell(float(clipped))} of the gradient's norm, and the decay is added after it"
        )
    times = reduction(profiles) if "loss_value" in profiles else math.nan
    if times < DIVIDED:
        yield Cause(f"loss: it is {spell(times)} times its mean per row, and the gradient is as small")


def _fix(profile: Profile, pull: Pull) -> str:
    facts = profile.facts
    decay = float(facts["weight_decay"])
    if pull.kind == "coupled" and facts["optimizer"] in {"Adam", "NAdam", "RAdam"}:
        rate = float(facts["learning_rate"])
        return f"torch.optim.AdamW(model.parameters(), lr={rate:g}, weight_decay=0.01)"
    return f"weight_decay={pull.factor * decay:.3g}  # in the optimizer, which has {decay:g}"
