"""The gradient over the steps of a sequence: how it grows or decays towards the start."""

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unitygain._types import Cause, Profile, Site
from unitygain.rules._layers import read_layers, within
from unitygain.rules._numbers import from_db, median, spell, to_db
from unitygain.rules._residual_steps import blame_full_steps

LEAST = 8
# How far a gradient must have fallen before it counts as lost on the way rather than masked.
DECAYED = -120.0
# One matrix at gain 1, multiplied again and again: its spectral radius scatters by 1/sqrt(width) about 1, and
# tanh at unit signals has a slope of 0.75 (-2.5 dB) on average.
LOOSE_LOW, LOOSE_HIGH = -2.5, 1.0
# Layers of one loop whose gains differ by less: which of them carries the state makes no difference.
ALIKE = 1.2
# Decibels between what a layer alone passes per step and what the loop does, whose activation takes a part.
EXPLAINED_DB = 3.0
# What a layer must pass at least to make a gradient grow.
LOUD = 1.1
# A gate with this much before its sigmoid is open by 0.98.
OPEN_BIAS = 4.0


@dataclass(frozen=True)
class Passage:
    """One recurrent module's gradient over time.

    Args:
        first: The site of step 0.
        steps: How many steps carry a gradient, from step 0 to the last that does.
        values: rms of dL/dx at those steps.
        lost: How many steps from the start have a gradient of exactly zero.
    """

    first: Site
    steps: int
    values: tuple[float, ...]
    lost: int

    @property
    def across(self) -> float:
        """Decibels from the last step to the first; -infinity where nothing arrives."""
        return to_db(self.values[0]) - to_db(self.values[-1])

    @property
    def slope(self) -> float:
        """Median decibels per step backward, over the steps that have a gradient."""
        alive = [to_db(value) for value in self.values if value > 0]
        return median([a - b for a, b in itertools.pairwise(alive)])

    @property
    def share(self) -> float:
        """Share of the steps at which the gradient goes the way that the slope says."""
        alive = [value for value in self.values if value > 0]
        pairs = list(itertools.pairwise(alive))
        falling = sum(a < b for a, b in pairs) / len(pairs)
        return falling if self.slope < 0 else 1 - falling

    @property
    def gradual(self) -> bool:
        """Whether what is zero at the start was small before: not masked, but lost on the way."""
        alive = [value for value in self.values if value > 0]
        return not self.lost or to_db(alive[0]) - to_db(alive[-1]) < DECAYED

    def horizon(self, factor: float = 1e-3) -> int:
        """Return over how many steps back from the last the gradient stays above `factor` of it."""
        for back, value in enumerate(reversed(self.values)):
            if value < factor * self.values[-1]:
                return back
        return self.steps


def read_passages(profile: Profile) -> list[Passage]:
    """Return one passage per recurrent module with `LEAST` steps that carry a gradient, all finite.

    Zeros at the end are padding, or steps after the one that is read, and are left out.
    """
    groups: dict[tuple[str, int, str], list[tuple[int, Site, float]]] = defaultdict(list)
    for site, value in profile.items():
        if site.time is not None:
            groups[site.path, site.call, site.leaf].append((site.time, site, value))
    passages = []
    for steps in groups.values():
        steps.sort(key=lambda step: step[0])
        values = [value for _, _, value in steps]
        if not all(map(math.isfinite, values)):
            continue
        while values and values[-1] == 0:
            values.pop()
        lost = next((index for index, value in enumerate(values) if value > 0), 0)
        if len(values) - lost >= LEAST:
            passages.append(Passage(steps[0][1], len(values), tuple(values), lost))
    return passages


def one_per_loop(profiles: Mapping[str, Profile], passages: Sequence[Passage]) -> list[tuple[Passage, ...]]:
    """Group the passages that are layers of one loop written by hand, the one whose slope is stated first.

    A loop calls each of its layers once per step, so that they have as many steps; a module that has
    recurrent weights of its own is a group of its own.
    """
    own = {layer.site.path.rpartition(".weight_")[0] for layer in read_layers(profiles)}
    groups: dict[object, list[Passage]] = defaultdict(list)
    for passage in passages:
        loop = passage.first.path and passage.first.path not in own
        groups[passage.steps if loop else passage.first].append(passage)
    profile = profiles["time_grad_rms"]
    return [
        tuple(sorted(group, key=lambda passage: math.isnan(stated_slope(profile, passage))))
        for group in groups.values()
    ]


def gates(profiles: Mapping[str, Profile], site: Site) -> dict[str, float]:
    """Return the mean of the gates of the recurrent module at `site`, by the gate's name."""
    profile = profiles.get("gate_mean")
    found = profile.items() if profile else ()
    return {
        here.leaf.strip(".()"): value for here, value in found if within(here.path, site.path) and here.leaf
    }


def keeping(profiles: Mapping[str, Profile], site: Site) -> tuple[str, float]:
    """Return the name and mean of the gate that keeps the state; an empty name for a cell without one."""
    for name, value in gates(profiles, site).items():
        if any(word in name for word in ("forget", "update")):
            return name, value
    return "", math.nan


def recurrent_gain(profiles: Mapping[str, Profile], site: Site) -> float:
    """Return sqrt(fan_in·var) of the recurrent matrix at `site`, NaN where it is not known."""
    found = [
        layer.gain
        for layer in read_layers(profiles)
        if within(layer.site.path, site.path) and "hh" in f"{layer.site}"
    ]
    return found[0] if found else math.nan


def explain_time(profiles: Mapping[str, Profile], passage: Passage) -> tuple[Cause, ...]:
    """Return the causes of a gradient that decays or grows over time, likeliest first.

    Their predictions are of the slope that the measure states; of a module whose slope it does not state
    nothing is predicted.
    """
    slope = stated_slope(profiles["time_grad_rms"], passage)
    causes = tuple(_suspect(profiles, passage, slope if math.isfinite(slope) else passage.slope))
    if math.isfinite(slope):
        return causes
    return tuple(dataclasses.replace(cause, remedy=None, predicted=None) for cause in causes)


def _suspect(profiles: Mapping[str, Profile], passage: Passage, slope: float) -> Iterable[Cause]:
    site = passage.first
    gate, opening = keeping(profiles, site)
    if gate and slope < 0:
        closed = math.log((1 - opening) / opening) if 0 < opening < 1 else 0.0
        bias, low = OPEN_BIAS + max(0.0, closed), slope / 3
        opened = 1 / (1 + math.exp(closed - bias))
        yield Cause(
            f"gate: the {gate} gate is open by {spell(opening)} on average, which alone gives "
            f"{spell(opening)}x per step; opened to {spell(opened)} the decay must fall to a third or less",
            "open_gates",
            {"sites": (site.path,), "bias": bias},
            (low, 1.0),
        )
    gain = recurrent_gain(profiles, site)
    if gate and slope > 0 and gain > 1:
        yield Cause(
            f"recurrent weights: sqrt(fan_in·var) = {spell(gain)}, where 0.577 is PyTorch's default; at 1 at "
            "most a third of the growth may be left",
            "rescale_weights",
            {"sites": (site.path,), "gain": 1.0, "only": "weight_hh*"},
            (-math.inf, slope / 3),
        )
    if not gate and gain > 0 and (gain < 0.9 if slope < 0 else gain > 1.1):
        moved = slope - to_db(gain)
        yield Cause(
            f"recurrent weights: sqrt(fan_in·var) = {spell(gain)}, which alone gives {spell(gain)}x per step",
            "rescale_weights",
            {"sites": (site.path,), "gain": 1.0, "only": "weight_hh*"},
            (min(moved, 0.0) + LOOSE_LOW, max(moved, 0.0) + LOOSE_HIGH),
        )
    # Beside an identity the weights' gain is not that of a step.
    added = tuple(blame_full_steps(profiles, slope, passage.steps))
    yield from added or _bare_layers(profiles, site, slope)
    if not site.path:
        yield Cause(
            f"recurrence: the model's own loop passes {spell(from_db(slope))}x per step back; its recurrent "
            "matrix is a bare parameter, whose gain belongs near 1"
        )
    yield Cause(f"length: {passage.steps} steps at {spell(from_db(slope))}x per step")


def _bare_layers(profiles: Mapping[str, Profile], site: Site, slope: float) -> Iterable[Cause]:
    """Yield the weights of the layers that a hand-written loop calls at every step, where they are alike."""
    repeated = {step.path for step in profiles["time_grad_rms"].sites}
    layers = [layer for layer in read_layers(profiles) if layer.site.path in repeated]
    if slope > 0 and len(loud := [layer for layer in layers if layer.gain > LOUD]) == 1:
        # Nothing else in the loop can make a gradient grow.
        layers = loud
    alone = [layer for layer in layers if abs(to_db(layer.gain) - slope) <= EXPLAINED_DB]
    if slope < 0 and len(alone) == 1:
        # The map of the input is not on the way back through time.
        layers = alone
    gains = [layer.gain for layer in layers if "weight_" not in f"{layer.site}"]
    if not gains or site.path not in repeated or max(gains) > ALIKE * min(gains):
        return
    gain = median(gains)
    if not (gain < 0.9 if slope < 0 else gain > LOUD):
        return
    where, moved = ", ".join(layer.site.path for layer in layers), slope - to_db(gain)
    cause = Cause(
        f"recurrent weights: sqrt(fan_in·var) = {spell(gain)} in {where}, "
        f"which alone gives {spell(gain)}x per step",
        "rescale_weights",
        {"sites": (layers[0].site.path,), "gain": 1.0},
        (min(moved, 0.0) + LOOSE_LOW, max(moved, 0.0) + LOOSE_HIGH),
    )
    if len(layers) > 1:
        # The input's own map at gain 1 would drive tanh into its flat parts beside what is to be tested.
        note = "which of the layers carries the state cannot be told from outside"
        cause = dataclasses.replace(cause, remedy=None, predicted=None, note=note)
    yield cause


def stated_slope(profile: Profile, passage: Passage) -> float:
    """Return the slope that the measure states, NaN where its facts are of another module."""
    module = str(dataclasses.replace(passage.first, time=None))
    slope = profile.facts.get("slope_db_per_step", math.nan)
    return float(slope) if profile.facts.get("module") == module else math.nan


def judged(profile: Profile, passage: Passage, limit: float) -> dict[str, Any]:
    """Return value, unit, threshold and fact of a finding: the slope if it is stated, else the first step."""
    slope = stated_slope(profile, passage)
    if math.isfinite(slope):
        threshold = limit / passage.steps
        unit = "dB per step back in time"
        return {"value": slope, "unit": unit, "threshold": threshold, "fact": "slope_db_per_step"}
    threshold = passage.values[-1] * from_db(limit)
    return {"value": passage.values[0], "unit": profile.unit, "threshold": threshold}


def describe(profile: Profile, passage: Passage) -> str:
    """Say the slope, or the sizes at both ends where it is not stated."""
    slope = stated_slope(profile, passage)
    if math.isfinite(slope):
        return f"{spell(from_db(slope))}x per step ({spell(slope)} dB) over {passage.steps} steps"
    return (
        f"rms {spell(passage.values[0])} of {spell(passage.values[-1])} at the last of {passage.steps} steps"
    )
