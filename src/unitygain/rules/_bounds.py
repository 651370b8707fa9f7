"""What bounds a prediction: an activation before its targets, a range of the logits before a softmax."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

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
# leave 0.35 of ten classes, 0.48 of 32 and 0.58 of 100; at a scale of 2, 0.07, 0.13 and 0.23. A sigmoid
# leaves 0.63 of ten classes.
FLOOR = 1 / 3


def of_bounds(loss: Profile) -> Iterator[Finding]:
    """Yield what lies beyond the reach of the prediction: targets, or a small loss."""
    beyond = float(loss.facts.get("beyond", math.nan))
    if beyond > BEYOND:
        yield _out_of_reach(loss, beyond)
    # A sigmoid or softmax before a loss that has its own is UG606's.
    logits = _read(loss) if loss.facts.get("softmax_before_loss") != 1.0 else None
    if logits is not None and logits.floor >= FLOOR * logits.expected:
        yield _small_logits(loss, logits)


@dataclass(frozen=True)
class _Logits:
    """Bounded logits of a loss: from where to where, of how many classes, and by what."""

    least: float
    most: float
    classes: int
    by: str

    @property
    def spread(self) -> float:
        """By how much the right logit can lie above the others; above zero of a binary loss's."""
        return self.most - self.least if self.classes > 1 else max(self.most, -self.least)

    @property
    def others(self) -> int:
        """How many classes there are beside the right one."""
        return max(self.classes - 1, 1)

    @property
    def floor(self) -> float:
        """The loss with the right logit at its most and all others at their least."""
        return math.log1p(self.others * math.exp(-self.spread))

    @property
    def expected(self) -> float:
        """The loss of equal probabilities."""
        return math.log1p(self.others)

    @property
    def wanted(self) -> float:
        """The spread that gives the right class a probability of 0.99."""
        return math.log(99 * self.others)


def _read(loss: Profile) -> _Logits | None:
    least, most, classes = (
        float(loss.facts.get(f"logits_{name}", math.nan)) for name in ("least", "most", "classes")
    )
    return _Logits(least, most, int(classes), str(loss.facts["logits_by"])) if most > least else None


def _out_of_reach(loss: Profile, share: float) -> Finding:
    operation = str(loss.facts["bounded_by"])
    name, numbers = RANGES.get(operation, (operation, "of one range"))
    return Finding(
        "UG614",
        "mismatched-loss",
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


def _small_logits(loss: Profile, logits: _Logits) -> Finding:
    times = logits.wanted / logits.spread
    cosines = logits.by == "cosines"
    why = (
        "cosines without a scale: vectors of fixed length make logits"
        if cosines
        else f"bounded logits: the {logits.by} behind the last layer makes logits"
    )
    cure = (
        f"multiplied by {spell(times)} (a temperature of {spell(1 / times)}) or more it can get 0.99"
        if cosines
        else f"without the {logits.by} it can get 0.99 and more"
    )
    return Finding(
        "UG614",
        "mismatched-loss",
        "warning",
        f"logits lie between {spell(logits.least)} and {spell(logits.most)}, whatever is learned: the loss "
        f"cannot fall below {spell(logits.floor)}, where equal probabilities have {spell(logits.expected)}",
        loss.sites,
        "loss_value",
        logits.most,
        "largest logit",
        logits.most * times,
        fact="logits_most",
        expected=logits.most * times,
        causes=(
            Cause(
                f"{why} from {spell(logits.least)} to {spell(logits.most)}, so that the right one of "
                f"{logits.others + 1} classes gets a probability of {spell(math.exp(-logits.floor))} at "
                f"most; {cure}"
            ),
        ),
        evidence={"lowest loss": logits.floor, "equal probabilities": logits.expected},
        fix="scale = torch.nn.Parameter(torch.tensor(10.0)); logits = scale * cosines"
        if cosines
        else f"leave the {logits.by} behind the last layer away: the loss takes logits of any size",
    )
