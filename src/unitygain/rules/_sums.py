"""A loss of probabilities that is given numbers which are none."""

import math
from collections.abc import Iterator

from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell

# Of |ln(sum)|: a constant inside of a logarithm, against zeros, moves it by a few hundredths at most.
OFF = 0.1
# Beyond it the sum is no number.
LARGE = 700.0
# By how much rounding may put a target beside the range from 0 to 1.
BESIDE = 1e-3


def of_sums(loss: Profile) -> Iterator[Finding]:
    """Yield a finding where the probabilities of a row do not add up to one, or targets are none."""
    least, most = (float(loss.facts.get(f"target_{end}", math.nan)) for end in ("least", "most"))
    if least < -BESIDE or most > 1 + BESIDE:
        yield _targets(loss, least, most)
    log_sum, along, ones = (
        float(loss.facts.get(key, math.nan)) for key in ("log_sum", "classes_along", "ones_along")
    )
    if not abs(log_sum) > OFF:
        return
    name, turned = str(loss.facts["summed_by"]), not math.isnan(ones)
    written = f"exp({spell(log_sum)})"
    total = f"{spell(math.exp(log_sum))} = {written}" if log_sum < LARGE else written
    yield Finding(
        "UG614",
        "mismatched-loss",
        "error" if turned else "warning",
        f"{name} is given numbers that are no log-probabilities: over the classes of a row they add up to "
        f"{total} in the place of 1",
        loss.sites,
        "loss_value",
        log_sum,
        "ln(sum of the probabilities)",
        OFF,
        fact="log_sum",
        causes=(Cause(_turned(ones, along) if turned else _raw(name)),),
        evidence={"dimension of the classes": along, "dimension that adds up to 1": ones},
        fix=f"torch.nn.functional.log_softmax(logits, dim={int(along)})",
    )


def _turned(ones: float, along: float) -> str:
    return (
        f"wrong axis: log_softmax was taken over dimension {int(ones)}, and the classes lie along dimension "
        f"{int(along)}, so that samples or steps share what belongs to the classes of each"
    )


def _raw(name: str) -> str:
    return (
        f"no log_softmax: {name} takes the entry of the right class alone, and raw outputs lower it without "
        "bound, whatever becomes of the other classes"
    )


def _targets(loss: Profile, least: float, most: float) -> Finding:
    return Finding(
        "UG614",
        "mismatched-loss",
        "error",
        f"a binary cross-entropy is given targets from {spell(least)} to {spell(most)}, not from 0 to 1",
        loss.sites,
        "loss_value",
        least if least < -BESIDE else most,
        "target",
        0.0 if least < -BESIDE else 1.0,
        fact="target_least" if least < -BESIDE else "target_most",
        causes=(
            Cause(
                "targets: those of a binary cross-entropy are 0 and 1, or between; with others the loss "
                "falls without bound as the outputs grow"
            ),
        ),
        fix="targets = (targets > 0).float()  # 0 and 1",
    )
