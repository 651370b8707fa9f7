"""UG105: a block's gain is not the one that its weights, activation and norms claim.

What it sees:
    Per block, `rms_gain` as measured over `predicted_gain`, what theory expects of random weights of the
    same mean square in the same operations on the same input. It fires at a factor of 3 or more (10 dB)
    that is also five standard deviations or more, of the prediction and of the measurement together. A gain
    that is extreme but expected is not seen here: that is UG101 to UG104, where the design is to be changed.
    A hook on the tensor between two blocks shows at both. A block that runs over its own weights again, as a
    recurrence does that stands between two layers, is not predicted.
    The sign, too: a custom autograd function that hands on minus the gradient stands on every way from the
    loss to the inputs, and small steps of what lies before it raise the loss (`gradient_reversed`).
    Blocks with half of their units dead are left to UG203. It is a warning where something contradicts: the
    trunk's weights still are a random draw, or other blocks of the same name, two or more and most of them,
    are as expected. Else it is a note: training alone may have aligned the weights.

Why it matters:
    The scale of the weights, the activation and the place of the norm are what one looks at and changes. If
    they do not explain the gain, changing them does not mend it: something else acts in that block.

When it is a false alarm:
    A trained block whose weights have grown together: two maps of one branch that are aligned with each
    other, or a bias for each unit that keeps most of them open or shut; a discriminator that has won passes
    far more than its weights would at random. A gradient that is scaled or stopped on purpose. A reversal is
    right where an encoder has an adversary and no other task.

Remedies:
    Where the forward gain is as expected and the backward gain is not: look for a custom autograd function
    whose backward is not the derivative of its forward (`torch.autograd.gradcheck` compares them), a hook on
    a gradient, a `detach`. Where both are off: draw the weights with mean zero and independently.

References:
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (AISTATS
    2010), section 4.2, for weights of mean zero. Poole et al., "Exponential expressivity in deep neural
    networks through transient chaos" (2016), and Schoenholz et al., "Deep Information Propagation" (2017),
    for what is expected.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> blocks = tuple(Site(f"blocks.{i}") for i in range(4))
    >>> theory = Profile("predicted_gain", "ratio", blocks, (1.0,) * 4, interval=((0.8, 1.25),) * 4)
    >>> gain = Profile("rms_gain", "ratio", blocks, (1.02, 0.97, 0.1, 1.0), error=(0.01,) * 4)
    >>> [str(f.sites[0]) for f in judge({"predicted_gain": theory, "rms_gain": gain})]
    ['blocks.2']

A silent example:
    >>> theory = Profile("predicted_gain", "ratio", blocks[:3], (0.4, 0.4, 0.04), interval=((0.03, 0.5),) * 3)
    >>> gain = Profile("rms_gain", "ratio", blocks[:3], (0.4, 0.42, 0.039), error=(0.01,) * 3)
    >>> list(judge({"predicted_gain": theory, "rms_gain": gain}))
    []
"""

import math
from collections.abc import Iterable, Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._design import Block, read_blocks
from unitygain.rules._layers import SATURATING, value_at, within
from unitygain.rules._numbers import from_db, median, spell, to_db
from unitygain.rules._parameters import pattern
from unitygain.rules._reversed import turned_round

FAR_DB = 10.0
LEAST_DEVIATIONS = 5.0
DEAD = 0.5
# A forward gain this near to the expected one is as expected.
NEAR_DB = 3.0
SATURATED = 0.5
# Blocks of one name beside the one that deviates, from which on they are a measure for it.
SIBLINGS = 2


@rule(
    code="UG105",
    name="not-what-it-claims",
    severity="warning",
    needs=("predicted_gain", "rms_gain"),
    wants=(
        "forward_gain",
        "backward_gain",
        "act_frac_dead",
        "act_frac_saturated",
        "act_rms",
        "gradient_reversed",
    ),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding for a reversed gradient, and one for the blocks whose gain deviates from theory."""
    if "gradient_reversed" in profiles:
        yield turned_round(profiles["gradient_reversed"])
    blocks = read_blocks(profiles)
    far = [
        block
        for block in blocks
        if abs(block.residual) >= FAR_DB
        and block.deviations >= LEAST_DEVIATIONS
        and not _dead(profiles, block.site)
    ]
    if not far:
        return
    far.sort(key=lambda block: -abs(block.residual))
    worst = far[0]
    factor = from_db(abs(worst.residual))
    side = "above" if worst.residual > 0 else "below"
    others = "1 other block" if len(far) == 2 else f"{len(far) - 1} other blocks"
    more = f", and at {others}" if len(far) > 1 else ""
    yield Finding(
        "UG105",
        "not-what-it-claims",
        "warning" if any(_contradicted(profiles, block, blocks) for block in far) else "info",
        f"{worst.site} passes {spell(worst.measured)}x of a random gradient back, {spell(factor)}x {side} "
        f"what theory expects of its weights, activation and norms ({spell(worst.expected)}x): look "
        f"there{more}",
        tuple(block.site for block in far),
        "rms_gain",
        worst.measured,
        "x, backward, random u",
        worst.expected * from_db(math.copysign(FAR_DB, worst.residual)),
        interval=worst.interval,
        expected=worst.expected,
        causes=tuple(_causes(profiles, worst)),
        evidence={"residual_db": worst.residual, "deviations": worst.deviations},
    )


def _contradicted(profiles: Mapping[str, Profile], block: Block, blocks: list[Block]) -> bool:
    """Whether a random draw, or blocks that are made alike, tell that the block should be as expected."""
    gains = profiles.get("backward_gain")
    if gains is not None and gains.facts.get("law") == "redrawn":
        return True
    alike = [other for other in blocks if other is not block and pattern(other.site) == pattern(block.site)]
    return len(alike) >= SIBLINGS and median([abs(other.residual) for other in alike]) < NEAR_DB


def _causes(profiles: Mapping[str, Profile], block: Block) -> Iterator[Cause]:
    """What acts in the block beside its design: told by whether the forward gain is off, too."""
    ahead = value_at(profiles, "forward_gain", block.site)
    off = abs(to_db(ahead / block.forward)) if block.forward > 0 and ahead > 0 else math.nan
    flat = _flat(profiles, block.site)
    way = (
        f"way back: the signal passes forward at {spell(ahead)}x, as expected ({spell(block.forward)}x), so "
        "that the gradient alone is changed: a custom autograd function, a hook on a gradient, or a detach"
    )
    weights = "weights: not independent or not of mean zero, or aligned with what enters"
    if math.isfinite(off):
        weights += f"; forward it passes {spell(ahead)}x where {spell(block.forward)}x is expected"
    saturated = f"activation: {spell(flat)} of its entries are flat, more than weights of this scale give"
    if off < NEAR_DB and flat < SATURATED:
        yield Cause(way)
        yield Cause(weights)
        return
    if flat >= SATURATED and block.residual < 0:
        yield Cause(saturated)
    yield Cause(weights)
    if off < NEAR_DB:
        yield Cause(way)


def _dead(profiles: Mapping[str, Profile], site: Site) -> bool:
    return max(_inside(profiles, "act_frac_dead", site).values(), default=0.0) >= DEAD


def _flat(profiles: Mapping[str, Profile], site: Site) -> float:
    """The largest flat share of the activations that saturate: half of a ReLU is flat by design."""
    profile = profiles.get("act_frac_saturated")
    names = dict(zip(profile.sites, profile.labels, strict=True)) if profile and profile.labels else {}
    found = _inside(profiles, "act_frac_saturated", site)
    return max((value for place, value in found.items() if names.get(place) in SATURATING), default=0.0)


def _inside(profiles: Mapping[str, Profile], name: str, site: Site) -> dict[Site, float]:
    """The finite values of a profile inside a block, or before the next one."""
    profile = profiles.get(name)
    return {here: x for here, x in profile.finite() if _belongs(profiles, here, site)} if profile else {}


def _belongs(profiles: Mapping[str, Profile], place: Site, block: Site) -> bool:
    """Whether a place lies in a block or before the next one, as an activation behind a bare layer."""
    if within(place.path, block.path):
        return True
    order = [leaf.path for leaf in profiles["act_rms"].sites] if "act_rms" in profiles else []
    starts = [site.path for site in profiles["predicted_gain"].sites]
    if place.path not in order or block.path not in order:
        return False
    at, begin = order.index(place.path), order.index(block.path)
    following = [order.index(path) for path in starts if path in order and order.index(path) > begin]
    return begin < at < min(following, default=begin + 2)
