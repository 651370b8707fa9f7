"""The relative size of an optimizer's first update, read over the weights of a model."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from unitygain._types import Cause, Profile, Site
from unitygain.rules._losses import reduction, target_spread
from unitygain.rules._numbers import spell
from unitygain.rules._parameters import is_bias, owner

# Optimizers whose first step has about the size of the learning rate in every entry, whatever the gradient.
BY_SIGN = frozenset([
    "Adagrad",
    "Adam",
    "AdamW",
    "NAdam",
    "Adamax",
    "RMSprop",
    "Rprop",
    "Lion",
    "SignSGD",
    "AdamWScheduleFree",
])
# Such steps have one rms in all tensors; those in proportion to the gradient do not.
SAME_SIZE = 1.2
LARGE_INPUT = 10.0
# A loss of several terms, or weighted, is a few times its main term; the smallest batch worth summing is 10.
LARGE_LOSS = 10.0
# Of PyTorch's default draw: below it a weight was drawn near zero on purpose. A default draw of few entries
# lies some percent below its nominal size; a policy's last layer is at 0.017.
NEAR_ZERO = 1 / 3


@dataclass(frozen=True)
class Updates:
    """Ratios of update to weight, without biases and weights that start at zero.

    Args:
        middle: The weight with the (lower) median ratio.
        ratio: Its ratio.
        largest: The largest ratio of all.
        most: The largest where a weight that was drawn near zero counts as if it had PyTorch's default size:
            a policy's last layer at a gain of 0.01 moves by a hundredth of itself and still says nothing.
        count: How many weights were read.
        left_out: How many parameters were not: biases, and weights that are zero.
        by_sign: Whether the step has one size in all entries, as Adam's first one.
    """

    middle: Site
    ratio: float
    largest: float
    most: float
    count: int
    left_out: int
    by_sign: bool

    @property
    def held_against(self) -> str:
        """Say what the largest ratio is over, where that is not the weight itself."""
        return "" if self.most == self.largest else " of what a default draw would be"

    @property
    def coverage(self) -> str:
        """Say what was read and what was not."""
        return f"{self.count} weights read; {self.left_out} biases and weights that start at zero left out"


def read_updates(profiles: Mapping[str, Profile]) -> Updates | None:
    """Return the ratios over the weights; None where there is none to read."""
    profile = profiles["update_ratio"]
    sizes = dict(profiles["param_rms"].items())
    read = [
        (ratio, site) for site, ratio in profile.finite() if not is_bias(site) and sizes.get(site, 0.0) > 0
    ]
    if not read:
        return None
    ordered = sorted(read)
    ratio, middle = ordered[(len(ordered) - 1) // 2]
    steps = [value * sizes[site] for value, site in read if value > 0]
    alike = len(steps) >= 3 and max(steps) <= SAME_SIZE * min(steps)
    named = str(profile.facts.get("optimizer", "")) in BY_SIGN
    left_out = len(profile) - len(read)
    drawn = _shares_of_draw(profiles)
    most = max(value * drawn.get(site.path, drawn.get(owner(site), 1.0)) for value, site in read)
    return Updates(middle, ratio, ordered[-1][0], most, len(read), left_out, named or alike)


def _shares_of_draw(profiles: Mapping[str, Profile]) -> dict[str, float]:
    """Return the gains of weights drawn near zero over PyTorch's default draw, by module or parameter."""
    weights = profiles.get("weight_gain")
    if weights is None:
        return {}
    default = float(weights.facts.get("default", math.nan))
    return {site.path: value / default for site, value in weights.finite() if 0 < value < NEAR_ZERO * default}


def read_fact(profiles: Mapping[str, Profile], name: str) -> float:
    """Return what ``update_ratio`` says of the step as a whole; NaN where it says nothing."""
    return float(profiles["update_ratio"].facts.get(name, math.nan))


def behind_the_gradient(
    profiles: Mapping[str, Profile], factor: float, predicted: tuple[float, float]
) -> Iterator[Cause]:
    """Yield what makes a gradient large, where it was measured: inputs, the loss's reduction, targets.

    Args:
        profiles: All profiles.
        factor: What the learning rate would have to be multiplied by.
        predicted: Range of the finding's value under that rate, which a loss as many times smaller gives too.
    """
    scales = profiles["input_rms"].finite() if "input_rms" in profiles else ()
    inputs = max((value for _, value in scales), default=0.0)
    if inputs > LARGE_INPUT:
        yield Cause(
            f"inputs: their rms is {spell(inputs)}; the gradient of the first weights grows with it (UG607)",
            remedy="unit_inputs",
        )
    times = reduction(profiles)
    if times > LARGE_LOSS:
        yield Cause(
            f"loss: it is {spell(times)} times its mean per row, as a sum over rows is; so is the gradient",
            remedy="lower_learning_rate",
            parameters={"factor": factor},
            predicted=predicted,
            note="a mean in the place of the sum does what the factor does",
        )
    spread = target_spread(profiles)
    if spread > LARGE_INPUT:
        yield Cause(
            f"targets: their spread is {spell(spread)}, and the gradient of a squared error grows with it"
        )
