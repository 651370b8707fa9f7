"""The losses whose value for a prediction that knows nothing is known: ln(classes)."""

import math

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
