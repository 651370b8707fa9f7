"""Logits that an activation keeps above 0: classes that are not raised, and a no that cannot be said."""

import math
from collections.abc import Iterator

from unitygain._types import Cause, Finding, Profile
from unitygain.rules._bounds import FLOOR
from unitygain.rules._numbers import spell

NAMES = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "clamp": "clamp at 0",
    "softplus": "softplus",
    "exp": "exponential",
}
# Of the right classes' logits, at which 11 of 20 small classifiers end with a training loss that is higher by
# 0.1 or more than their twins'. At 0.1 six of 20 do, at 0.3 thirteen; behind a bare last layer, which has 0.3
# to 0.7 as a rule, 137 of 162 do.
SILENT = 0.2


def of_rectified(loss: Profile) -> Iterator[Finding]:
    """Yield what a ReLU behind the last layer takes from a cross-entropy, over classes or binary."""
    silent, denied = (float(loss.facts.get(name, math.nan)) for name in ("silent", "denied"))
    if silent > SILENT:
        yield _silent(loss, silent)
    # What the loss cannot fall below, over that of equal probabilities.
    if denied >= FLOOR:
        yield _denied(loss, denied)


def _silent(loss: Profile, share: float) -> Finding:
    name = NAMES.get(str(loss.facts["silent_by"]), "ReLU")
    return Finding(
        "UG614",
        "mismatched-loss",
        "warning",
        f"{spell(share)} of the right classes have a logit of exactly 0 behind a {name}, and no gradient",
        loss.sites,
        "loss_value",
        share,
        "of the right classes' logits",
        SILENT,
        fact="silent",
        causes=(
            Cause(
                f"rectified logits: the {name} behind the last layer puts out 0 for all logits below 0, and "
                f"its slope is 0 there, so that a class that is right is not raised; leave the {name} away, "
                "since a cross-entropy takes logits of any sign"
            ),
        ),
        fix=f"let the last layer end without {name}: a cross-entropy takes logits of any sign",
    )


def _denied(loss: Profile, share: float) -> Finding:
    name = NAMES.get(str(loss.facts["denied_by"]), "ReLU")
    return Finding(
        "UG614",
        "mismatched-loss",
        "warning",
        f"{spell(share)} of the targets ask for a probability below 0.5, which no logit "
        f"behind a {name} gives",
        loss.sites,
        "loss_value",
        share,
        "of the binary targets",
        FLOOR,
        fact="denied",
        causes=(
            Cause(
                f"rectified logits: the {name} behind the last layer puts out 0 and above, which are "
                f"probabilities of 0.5 and above, and the loss cannot fall below "
                f"{spell(share * math.log(2))}; leave the {name} away"
            ),
        ),
        evidence={"lowest loss": share * math.log(2), "equal probabilities": math.log(2)},
        fix=f"let the last layer end without {name}: the loss has a sigmoid of its own, which takes any sign",
    )
