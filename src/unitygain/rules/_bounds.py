"""What bounds a prediction: an activation before its targets, a fixed length before a softmax."""

import math
from collections.abc import Iterator

from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell

# Of the targets' variance: of a normal one half lies below zero, and 0.15 beyond -1 and 1.
BEYOND = 0.25
POSITIVE, SHARE = "0 and above", "from 0 to 1"
RANGES = {
    "relu": ("ReLU", POSITIVE),
    "softplus": ("softplus", POSITIVE),
    "exp": ("exponential", POSITIVE),
    "sigmoid": ("sigmoid", SHARE),
    "hardsigmoid": ("hard sigmoid", SHARE),
    "softmax": ("softmax", SHARE),
    "tanh": ("tanh", "from -1 to 1"),
}
# What a loss of bounded logits cannot fall below, over that of equal probabilities: cosines at a scale of 1
# leave 0.35 of ten classes, 0.48 of 32 and 0.58 of 100; at a scale of 2, 0.07, 0.13 and 0.23.
FLOOR = 1 / 3


def of_bounds(loss: Profile) -> Iterator[Finding]:
    """Yield what lies beyond the reach of the prediction: targets, or a small loss."""
    beyond, bound = (float(loss.facts.get(key, math.nan)) for key in ("beyond", "logit_bound"))
    if beyond > BEYOND:
        yield _out_of_reach(loss, beyond)
    if bound > 0 and (floor := _floor(loss, bound)) >= FLOOR * math.log(float(loss.facts["classes"])):
        yield _small_logits(loss, bound, floor)


def _floor(loss: Profile, bound: float) -> float:
    """Return the loss with the right logit at its most and all others at their least."""
    apart = bound if _is_binary(loss) else 2 * bound
    return math.log1p((float(loss.facts["classes"]) - 1) * math.exp(-apart))


def _is_binary(loss: Profile) -> bool:
    return str(loss.facts.get("kind")).startswith("binary")


def _out_of_reach(loss: Profile, share: float) -> Finding:
    operation = str(loss.facts["bounded_by"])
    name, numbers = RANGES.get(operation, (operation, "of one range"))
    return Finding(
        "UG608",
        "dead-loss-link",
        "warning",
        f"targets lie beyond what the {name} behind the prediction can put out: what is out of its reach is "
        f"{spell(share)} of their variance",
        loss.sites,
        "loss_value",
        share,
        "of the targets' variance",
        BEYOND,
        fact="beyond",
        causes=(
            Cause(
                f"bounded output: the {name} puts out numbers {numbers} alone, and the targets lie outside; "
                "leave the last activation away, or put the targets to its scale"
            ),
        ),
        fix=f"let the last layer end without {name}, or scale the targets",
    )


def _small_logits(loss: Profile, bound: float, floor: float) -> Finding:
    classes, binary = float(loss.facts["classes"]), _is_binary(loss)
    expected = math.log(classes)
    most, wanted = math.exp(-floor), math.log(99 * (classes - 1)) / (1 if binary else 2)
    return Finding(
        "UG608",
        "dead-loss-link",
        "warning",
        f"logits cannot be larger than {spell(bound)}, whatever is learned: the loss cannot fall below "
        f"{spell(floor)}, where equal probabilities have {spell(expected)}",
        loss.sites,
        "loss_value",
        bound,
        "largest logit",
        wanted,
        fact="logit_bound",
        expected=wanted,
        causes=(
            Cause(
                f"cosines without a scale: vectors of fixed length make logits from {spell(-bound)} to "
                f"{spell(bound)}, and the right one of {spell(classes)} classes gets a probability of "
                f"{spell(most)} at most; multiplied by {spell(wanted / bound)} (a temperature of "
                f"{spell(bound / wanted)}) or more it can get 0.99"
            ),
        ),
        evidence={"lowest loss": floor, "equal probabilities": expected},
        fix="scale = torch.nn.Parameter(torch.tensor(10.0)); logits = scale * cosines",
    )
