"""UG301: almost all directions die in the trunk: its Jacobian is ill-conditioned.

What it sees:
    How many singular values of the trunk's Jacobian, for one sample, lie within a factor of 1000 of the
    largest. It fires where that is one in twelve or fewer; where only the leading eight are known, where
    fewer than eight do. The trunk needs sixteen dimensions and three blocks. The message keeps three
    numbers apart: what the product of the layers' norms allows, what a random direction gets, and what the
    best direction gets.

Why it matters:
    The gradient is squeezed into a few directions: whatever the loss asks for, the first blocks hear a
    number or two. The mean gain can be 1 all the same, so that no norm shows it.

When it is a false alarm:
    A bottleneck that is meant to be one lowers the number of dimensions itself and is not counted. Every
    random chain spreads its singular values with depth over width; He networks stay silent up to about L =
    n.

Remedies:
    More width for the depth; orthogonal weights; skip paths; activations that are not saturated.

References:
    Pennington, Schoenholz and Ganguli, "Resurrecting the sigmoid in deep learning through dynamical
    isometry" (NIPS 2017), section 2. Hanin and Nica, "Products of Many Large Random Matrices and Gradients
    in Deep Neural Networks" (2018), on depth over width. Saxe, McClelland and Ganguli, "Exact solutions to
    the nonlinear dynamics of learning in deep linear neural networks" (ICLR 2014), on orthogonal weights.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> facts = {"dimension": 32.0, "blocks": 20.0}
    >>> logs = (0.0, -2.1, -4.0) + tuple(-5.0 - i for i in range(29))
    >>> trunk = (Site("", leaf=".(trunk)"),)
    >>> chain = Profile("log_spectrum", "log10", trunk, (33.0,), rows=(logs,), facts=facts)
    >>> [finding.code for finding in judge({"log_spectrum": chain})]
    ['UG301']

A silent example:
    >>> logs = tuple(-0.1 * i for i in range(32))
    >>> chain = Profile("log_spectrum", "log10", trunk, (3.1,), rows=(logs,), facts=facts)
    >>> list(judge({"log_spectrum": chain}))
    []
"""

import math
from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell

OPEN = 3.0
SHARE = 1 / 12
LEADING = 8
LEAST_DIMENSION, LEAST_BLOCKS = 16, 3


@rule(
    code="UG301",
    name="ill-conditioned",
    severity="warning",
    needs=("log_spectrum",),
    wants=("chain_gain", "act_frac_saturated", "act_frac_dead"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding where few directions get through the trunk."""
    profile = profiles["log_spectrum"]
    logs = profile.rows[0] if profile.rows else ()
    dimension, blocks = (int(float(profile.facts.get(name, 0))) for name in ("dimension", "blocks"))
    if not logs or dimension < LEAST_DIMENSION or blocks < LEAST_BLOCKS:
        return
    passing = sum(log > logs[0] - OPEN for log in logs)
    whole = math.isfinite(profile.values[0])
    limit = SHARE * dimension if whole else LEADING - 0.5
    if passing > limit or (not whole and len(logs) < LEADING):
        return
    site = profile.sites[0]
    yield Finding(
        "UG301",
        "ill-conditioned",
        "warning",
        f"{passing} of {dimension} directions pass the {blocks} blocks within a factor of 1000 of the "
        f"strongest{three_numbers(profiles)}",
        (site,),
        "log_spectrum",
        float(passing),
        "directions of one sample",
        math.floor(limit),
        fact="open_directions",
        causes=tuple(causes(profiles, dimension, blocks)),
        evidence={"dimension": dimension, "blocks": blocks, "log10_condition": profile.values[0]},
    )


def three_numbers(profiles: Mapping[str, Profile]) -> str:
    """Say bound, typical and worst gain as three numbers."""
    chain = profiles.get("chain_gain")
    if chain is None or len(chain) != 3 or not all(map(math.isfinite, chain.values)):
        return ""
    bound, typical, worst = (spell(value) for value in chain.values)
    return (
        f"; the norms' product allows 10^{bound}, a random direction gets 10^{typical}, the best 10^{worst}"
    )


def causes(profiles: Mapping[str, Profile], dimension: int, blocks: int) -> Iterable[Cause]:
    """Yield activations that are shut, then the depth over the width."""
    for name, word, much in (("act_frac_saturated", "flat", 0.6), ("act_frac_dead", "dead", 0.8)):
        profile = profiles.get(name)
        worst = max(profile.finite(), key=lambda item: item[1], default=None) if profile else None
        if worst is not None and worst[1] >= much:
            yield Cause(f"activations: {spell(worst[1])} of {worst[0]} is {word}, and passes nothing on")
    shape = Cause(
        f"shape: {blocks} blocks on {dimension} dimensions, {spell(blocks / dimension)} of depth over width; "
        "the singular values of random blocks spread in proportion to it"
    )
    rank = Cause("weights: maps of low rank, such as constant or copied rows")
    yield from (shape, rank) if blocks > dimension else (rank, shape)
