"""The losses whose value for a prediction that knows nothing is known: ln(classes)."""

import math
from collections.abc import Mapping

from unitygain._types import Profile

KINDS = {
    "cross_entropy",
    "nll",
    "soft_cross_entropy",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
}
# A model that is stuck at the frequencies of the classes does not come to half of the loss of a guess.
LEARNT = 0.5


def read_entropy(profile: Profile) -> tuple[float, float] | None:
    """Return (mean loss per row, loss of equal probabilities) of a cross-entropy; None for other losses."""
    mean, expected = (float(profile.facts.get(name, math.nan)) for name in ("row_mean", "expected"))
    if profile.facts.get("kind") not in KINDS or not (math.isfinite(mean) and math.isfinite(expected)):
        return None
    return mean, expected


def reduction(profiles: Mapping[str, Profile]) -> float:
    """Return how many times its mean per row the loss is, NaN where it is not known.

    A loss that is to rise is minus one time its mean; of one that is zero or infinite nothing can be told.
    """
    loss = profiles.get("loss_value")
    times = abs(float(loss.facts.get("reduction", math.nan))) if loss else math.nan
    return times if 0 < times < math.inf else math.nan


def target_spread(profiles: Mapping[str, Profile]) -> float:
    """Return the standard deviation of the targets of a squared error, NaN for other losses."""
    loss = profiles.get("loss_value")
    known = loss is not None and loss.facts.get("kind") == "mse"
    return math.sqrt(float(loss.facts["expected"])) if loss and known else math.nan
