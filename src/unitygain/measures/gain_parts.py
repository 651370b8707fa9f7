"""gain_parts: what the backward gain of every block is made of."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.measures._staging import sizes
from unitygain.probe.record import Place, Record

UNIT = "norm of dL/d(block input) over norm of dL/d(block output)"
FACTORS = ("weights", "activation", "normalisation", "attention")
COLUMNS = (*FACTORS, "skip", "branch", "open_fraction", "merge", "other")
NOTE = (
    "weights, activation, normalisation, attention, merge and other multiply to the gain; merge is where a "
    "skip path joins, so that before it the factors are those of the branch. Parallel branches are followed "
    "in the order in which they ran. skip and branch are NaN in a block without a skip path, open_fraction "
    "in one without an activation, and all where a part of the block gets no gradient or is no module"
)
NEEDS = (
    "flow.total",
    "flow.through",
    "flow.past",
    "flow.out",
    "flow.inlet",
    "entry_grad.rms",
    "exit_grad.rms",
    "activation.frac_open",
    "softmax.absmax",
)
# Sums over several readers are rounded: what is left beside them must be larger to be a path of its own.
ROUNDING = {"float64": 1e-12, "float32": 1e-5, "float16": 3e-2, "bfloat16": 9e-2}


@dataclass
class _Step:
    """The units of a block that read one tensor, taken as one with their outputs side by side."""

    kind: str
    total: float
    through: float
    past: float
    out: float
    places: list[Place]


class _Ran:
    """The activations and softmaxes that ran, found by their site and by the weights that they follow."""

    def __init__(self, record: Record) -> None:
        fractions = record.values.get("activation.frac_open", {})
        self._open = {p.site: fractions[p.site][0] for p in record.of("activation") if p.site in fractions}
        self._following: dict[str, dict[str, list[Site]]] = {}
        for signal in ("activation", "softmax"):
            behind = self._following[signal] = defaultdict(list)
            for place in record.of(signal):
                if place.site.leaf:
                    behind[place.note].append(place.site)

    def between(self, weights: set[str]) -> str:
        """What ran since these weights in no module of its own: an activation, attention, or another."""
        for signal, kind in (("activation", "activation"), ("softmax", "attention")):
            if not weights.isdisjoint(self._following[signal].keys()):
                return kind
        return "other"

    def open_fraction(self, steps: Sequence[_Step]) -> float:
        """Mean open fraction over the activations in these steps; NaN without one."""
        sites = {place.site for step in steps for place in step.places}
        for path in {site.path for site in sites}:
            sites.update(self._following["activation"].get(path, ()))
        inside = [self._open[site] for site in sites if site in self._open]
        return math.fsum(inside) / len(inside) if inside else math.nan


@measure(unit=UNIT, needs=NEEDS)
def gain_parts(case: Case, record: Record) -> Profile | None:
    """Backward gain of every block, split into weights, activation, normalisation and attention.

    Every unit of a block (a leaf module, or attention as a whole) has the ratio of the gradient's norm that
    it hands back to the one that it gets, both on this batch; the ratios of one kind multiply to a column.
    What lies between two units without a module of its own is an activation if one ran there, else
    ``other``. Where a tensor is read by a unit and also passes by it, the gradient that comes past is
    ``skip`` and that which comes through is ``branch``, both over the gradient at the next such place: over
    several places in a block the skips multiply, and the branches add as squares.

    Cost: up to four norms per unit of the trunk. No side effects.

    Args:
        case: Not used.
        record: A record with the signals `flow`, `entry_grad.rms`, `exit_grad.rms`,
            `activation.frac_open` and `softmax.absmax`.

    Returns:
        The gain per block, in forward order. Rows, plain ratios: ``weights``, ``activation``,
        ``normalisation``, ``attention``, ``skip``, ``branch``, ``open_fraction`` (mean over the block's
        activations of the fraction of entries whose slope is at least half of the steepest), ``merge``
        (whole gradient over that through the branch), ``other``. A kind that does not occur is 1. None
        where no repeated trunk was found.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain._registry import MEASURES
        >>> from unitygain.probe.observe import observe
        >>> layers = [nn.Linear(4, 4, bias=False) for _ in range(2)]
        >>> _ = [layer.weight.data.copy_(torch.eye(4) / 2) for layer in layers]
        >>> model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU())
        >>> data = [torch.tensor([[1.0, 1.0, -1.0, -1.0]])]
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=data)
        >>> profile = gain_parts(case, observe(case, MEASURES["gain_parts"].needs))
        >>> [round(number, 4) for number in profile.rows[0][:2]], profile.columns[:2]
        ([0.5, 1.0], ('weights', 'activation'))
    """
    entries, exits = sizes(record, "entry_grad.rms"), sizes(record, "exit_grad.rms")
    blocks = [site for site in record.blocks if site in entries and site in exits]
    steps = _steps(record)
    if not any(str(site) in steps for site in blocks):
        return None
    ran = _Ran(record)
    rows = [_split(ran, steps.get(str(site), []), entries[site], exits[site]) for site in blocks]
    values = tuple(entries[site] / exits[site] if exits[site] else math.nan for site in blocks)
    return Profile("gain_parts", UNIT, tuple(blocks), values, columns=COLUMNS, rows=tuple(rows), note=NOTE)


def _steps(record: Record) -> dict[str, list[_Step]]:
    """The steps of every block, in forward order, by the block's name."""
    found: dict[str, dict[float, _Step]] = {}
    for place in record.of("flow"):
        total, through, past, out, inlet = (record.values[key][place.site][0] for key in NEEDS[:5])
        steps = found.setdefault(place.note, {})
        step = steps.get(inlet)
        if step is None:
            steps[inlet] = _Step(place.type, total, through, past, out, [place])
        else:
            step.kind = place.type if step.kind == place.type else "other"
            step.out = math.hypot(step.out, out)
            step.places.append(place)
    return {block: list(steps.values()) for block, steps in found.items()}


def _split(ran: _Ran, steps: Sequence[_Step], entry: float, exit_: float) -> tuple[float, ...]:
    sizes_ = [entry, exit_, *(size for step in steps for size in (step.total, step.through, step.out))]
    if not steps or not all(math.isfinite(size) and size > 0 for size in sizes_):
        return (math.nan,) * len(COLUMNS)
    factors: dict[str, float] = dict.fromkeys((*FACTORS, "merge", "other"), 1.0)
    weights: set[str] = set()
    factors["other"] *= entry / steps[0].total
    for step, following in zip(steps, (*steps[1:], None), strict=True):
        if step.kind in {"weights", "attention"}:
            weights = {place.site.path for place in step.places}
        factors[step.kind] *= step.through / step.out
        factors["merge"] *= step.total / step.through
        gap = step.out / (exit_ if following is None else following.total)
        factors[ran.between(weights)] *= gap
    skip, branch = _paths(steps, exit_)
    opened = ran.open_fraction(steps)
    return (*(factors[kind] for kind in FACTORS), skip, branch, opened, factors["merge"], factors["other"])


def _paths(steps: Sequence[_Step], exit_: float) -> tuple[float, float]:
    """Gain of the skip path and of the branches, from the places that the gradient also passes by."""
    forks = [step for step in steps if step.past > ROUNDING.get(step.places[0].dtype, 1e-5) * step.total]
    if not forks:
        return math.nan, math.nan
    ends = [*(fork.total for fork in forks[1:]), exit_]
    skip = math.prod(fork.past / end for fork, end in zip(forks, ends, strict=True))
    return skip, math.hypot(*(fork.through / end for fork, end in zip(forks, ends, strict=True)))
