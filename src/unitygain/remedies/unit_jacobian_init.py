"""unit_jacobian_init: scale the weights of each block until its measured Jacobian has unit gain.

The gain is measured by random vectors, and the weights follow it until it is 1.

What it changes:
    All weights of linear maps in a block are multiplied by one factor, found by measuring: the rms gain of
    every block, ‖J‖_F/sqrt(rows), is estimated, every factor is moved towards its target, and so on, at most
    `rounds` times. The target of a plain block is 1. In a block with residual branches only their last maps
    are scaled, and its squared gain becomes 1 + 1/L for L blocks, so that the product of all stays below
    sqrt(e): at 1 the branches would be gone. The draw of a weight stays, biases too.

Why it helps:
    It needs no formula for the activation, the mixture of layers or the data: chi = 1 is measured where the
    model works, in the finite network and not in the limit of a wide one.

When it does not help:
    A gain of 1 on average hides a wide spread of singular values (`orthogonal_init`). Where no scale of the
    weights gives the gain, because a norm layer takes it away or a saturating activation caps it, the
    remedy is refused and says for which block. The last blocks of a stack of sigmoids need weights so
    large that they saturate. The gain holds for the first batch, and for the start.

What it costs:
    Up to `rounds` forward passes and rounds·probes backward passes through the trunk of a copy; nothing per
    step.

References:
    Doshi, He and Gromov, "Critical initialization of wide and deep neural networks through partial Jacobians"
    (2021), section 2. He, Doshi and Gromov, "AutoInit: Automatic initialization via Jacobian tuning"
    (2022), on tuning by the measured Jacobian.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from unitygain._case import Case, random_states
from unitygain._registry import remedy
from unitygain._types import Site
from unitygain.measures.rms_gain import rms_gain
from unitygain.probe.linear_maps import find_weights
from unitygain.probe.observe import observe
from unitygain.probe.sites import Select, selects
from unitygain.remedies._branches import find_branches
from unitygain.remedies._snapshot import Undo, keep

CLOSE, ACCEPTED = 0.02, 0.1
MOST, STEEPEST, FLATTEST = 3.0, 8.0, 0.5


@remedy(
    treats=("UG101", "UG102", "UG103", "UG104", "UG201", "UG202"),
    changes="initial weights",
    instead_of=("rescale_weights", "scale_branch"),
)
def unit_jacobian_init(
    case: Case, *, sites: Select = None, rounds: int = 8, probes: int = 8, seed: int = 0
) -> Undo:
    """Scale the weights of every block to a measured rms gain of 1.

    Args:
        case: The case; parameters are changed in place.
        sites: Which blocks, by path.
        rounds: How often the gains are measured at most.
        probes: Random vectors per block.
        seed: Seed of the random vectors.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If the model has no repeated blocks with weights, or a block ends more than 10 % off.

    Side effects:
        The chosen weights, in place.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(32, 32), nn.Tanh())))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.randn(8, 32)])
        >>> undo = unit_jacobian_init(case)
        >>> bool(model[0].weight.square().mean() * 32 > 0.9)
        True
    """
    if rounds < 1 or probes < 1:
        raise ValueError(f"rounds is {rounds} and probes {probes}; give 1 or more of each")
    with random_states():
        twin = case.copy()
        sites_of, parts = _blocks(twin, sites, seed)
        ends = _ends(case)
        residual = {path: [name for name in names if name in ends] for path, names in parts.items()}
        scaled = {path: residual[path] or names for path, names in parts.items()}
        goal = {path: 0.5 * math.log1p(1 / len(parts)) if residual[path] else 0.0 for path in parts}
        logs = _tune(twin, sites_of, scaled, goal, (rounds, probes, seed))
    own = dict(case.model.named_parameters())
    undo = keep(own[name] for names in scaled.values() for name in names)
    with torch.no_grad():
        for path, names in scaled.items():
            for name in names:
                own[name].mul_(math.exp(logs[path]))
    return undo


def _blocks(case: Case, sites: Select, seed: int) -> tuple[tuple[Site, ...], dict[str, list[str]]]:
    """The chosen blocks, and the names of the weights of each by its path."""
    record = observe(case, (), probes=1, seed=seed)
    blocks = tuple(
        site
        for site in record.blocks
        if not site.call and selects(sites, site.path, case.model.get_submodule(site.path))
    )
    parts = {
        site.path: [
            f"{site.path}.{weight.path}.{weight.name}".replace("..", ".")
            for weight in find_weights(case.model.get_submodule(site.path))
        ]
        for site in blocks
    }
    parts = {path: names for path, names in parts.items() if names}
    if not parts:
        raise ValueError(f"no repeated block with weights of its own is chosen by sites={sites!r}")
    return blocks, parts


def _ends(case: Case) -> set[str]:
    """Names of the weights that end residual branches; none where there are no branches."""
    try:
        return {name for branch in find_branches(case) for name in branch.end}
    except ValueError:
        return set()


def _tune(
    case: Case,
    blocks: Sequence[Site],
    scaled: Mapping[str, Sequence[str]],
    goal: Mapping[str, float],
    how: tuple[int, int, int],
) -> dict[str, float]:
    """Return the log of each block's factor: secants on the logs of factor and gain, all blocks at once."""
    rounds, probes, seed = how
    own: dict[str, nn.Parameter] = dict(case.model.named_parameters())
    total = dict.fromkeys(scaled, 0.0)
    slope = {path: float(len(names)) for path, names in scaled.items()}
    last: dict[str, tuple[float, float]] = {}
    off = _distances(case, blocks, scaled, goal, probes, seed)
    for _ in range(rounds - 1):
        if max(map(abs, off.values())) < CLOSE:
            break
        for path, names in scaled.items():
            if path in last and abs(moved := total[path] - last[path][0]) > 1e-3:
                slope[path] = min(STEEPEST, max(FLATTEST, (off[path] - last[path][1]) / moved))
            last[path] = total[path], off[path]
            step = min(MOST, max(-MOST, -off[path] / slope[path]))
            total[path] += step
            with torch.no_grad():
                for name in names:
                    own[name].mul_(math.exp(step))
        off = _distances(case, blocks, scaled, goal, probes, seed)
    worst = max(off, key=lambda path: abs(off[path]))
    if not abs(off[worst]) < ACCEPTED:
        raise ValueError(
            f"the gain of block {worst} is {math.exp(off[worst]):.3g} times what it should be after {rounds} "
            "rounds: no scale of its weights gives it, or it follows too slowly"
        )
    return total


def _distances(
    case: Case,
    blocks: Sequence[Site],
    scaled: Mapping[str, Sequence[str]],
    goal: Mapping[str, float],
    probes: int,
    seed: int,
) -> dict[str, float]:
    """The log of every block's gain over its target."""
    profile = rms_gain(case, observe(case, (), probes=probes, seed=seed))
    gains = {} if profile is None else dict(zip(profile.sites, profile.values, strict=True))
    found = {site.path: gains.get(site, math.nan) for site in blocks}
    return {path: math.log(found[path]) - goal[path] if found[path] > 0 else -math.inf for path in scaled}
