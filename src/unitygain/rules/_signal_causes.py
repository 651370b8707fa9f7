"""Why what enters the head is large: the place in front of it where the signal grew."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from unitygain._types import Cause, Profile, Site
from unitygain.rules._attention import KEYS, PACKED, QUERIES
from unitygain.rules._layers import parameter_rms, read_layers, within
from unitygain.rules._numbers import spell
from unitygain.rules._parameters import pattern

# A head of 0.58 (PyTorch), 1 or 1.41 (He) is usual; what enters it is 1 behind a norm, and the root of the
# number of branches behind a residual stream.
USUAL, LARGE = 2.0, 10.0
# A sum over branches that are alike grows with their root, and that of neighbours with their number.
JUMP = 10.0
DIVIDE = "weights = weights / weights.sum(-1, keepdim=True)  # over the keys; or a norm behind their sum"


@dataclass(frozen=True)
class Grown:
    """The first place where the signal is many times as large as all that came before.

    Args:
        before: The leaf call before it.
        at: The layer that reads it, or puts it out.
        size: Its rms.
        times: Over the largest output before it.
        outside: Whether no module put it out.
        gain: Of the layer's weights.
    """

    before: Site
    at: Site
    size: float
    times: float
    outside: bool
    gain: float


def blame_signal(profiles: Mapping[str, Profile], ceiling: float) -> Iterator[Cause]:
    """Yield what makes the head's input large, where the head's own weights do not make its output large.

    Args:
        profiles: All profiles; ``act_rms`` tells what modules put out. What enters a layer of random weights
            is that, without the bias, over ``weight_gain``.
        ceiling: The finding's value below which the loss starts well.
    """
    outputs = profiles["act_rms"].finite() if "act_rms" in profiles else ()
    entering = enters(profiles) if outputs else {}
    if not outputs or not entering.get(outputs[-1][0], (0.0, math.inf))[0] >= LARGE:
        return
    head = outputs[-1][0]
    size, gain = entering[head]
    grown = first_growth(profiles, entering) if gain <= USUAL else None
    if grown is None:
        return
    behind = f"rms {spell(size)} enters {head}, whose own gain of {spell(gain)} is usual"
    parent = grown.before.path.rpartition(".")[0]
    if grown.outside and attends(profiles, parent):
        paths = alike(profiles, parent)
        yield Cause(
            f"attention: {parent or 'the model'} sums its values with weights over the keys that do not sum "
            f"to 1 (no softmax, and no normaliser divides by their sum), and hands on {spell(grown.size)}, "
            f"{spell(grown.times)}x what any module before it puts out; {behind}",
            "scale_branch" if parent else None,
            {"sites": paths, "factor": 1 / grown.times} if parent else {},
            (0.0, ceiling) if parent else None,
        )
    elif grown.outside:
        yield Cause(
            f"signal: rms {spell(grown.size)} enters {grown.at}, {spell(grown.times)}x what any module "
            f"before it puts out; what forward does itself behind {grown.before} makes it grow, as a sum "
            f"over rows that is not divided by their number, or a product; {behind}"
        )
    else:
        yield Cause(
            f"signal: {grown.at} with weights of sqrt(fan_in·var) = {spell(grown.gain)} puts out "
            f"{spell(grown.size)}, {spell(grown.times)}x what any module before it does; {behind}",
            "rescale_weights",
            {"sites": (grown.at.path,), "gain": 1.0},
            (0.0, ceiling),
        )


def enters(profiles: Mapping[str, Profile]) -> dict[Site, tuple[float, float]]:
    """Return what enters every layer whose weights' gain is known, as its output tells, and that gain."""
    gains = {layer.site.path: layer.gain for layer in read_layers(profiles)}
    found: dict[Site, tuple[float, float]] = {}
    for site, size in profiles["act_rms"].finite():
        if gains.get(site.path, 0.0) > 0:
            bias = parameter_rms(profiles, f"{site.path}.bias")
            rest = size**2 - (bias**2 if math.isfinite(bias) else 0.0)
            found[site] = math.sqrt(max(rest, 0.0)) / gains[site.path], gains[site.path]
    return found


def first_growth(
    profiles: Mapping[str, Profile], entering: Mapping[Site, tuple[float, float]]
) -> Grown | None:
    """Return where the signal first grows by `JUMP` or more; None where it does nowhere at once."""
    inputs = profiles.get("input_rms")
    most = max((value for _, value in inputs.finite()), default=0.0) if inputs else 0.0
    before: Site | None = None
    for site, size in profiles["act_rms"].finite():
        enter, gain = entering.get(site, (0.0, 1.0))
        if before is not None and enter >= JUMP * most > 0:
            return Grown(before, site, enter, enter / most, True, gain)
        if before is not None and gain > USUAL and size >= JUMP * most > 0:
            return Grown(before, site, size, size / most, False, gain)
        before, most = site, max(most, size)
    return None


def attends(profiles: Mapping[str, Profile], parent: str) -> bool:
    """Whether the module has maps of queries and keys, by their names, and no softmax that is attention."""
    names = {
        site.path.rpartition(".")[2].lower()
        for site in profiles["act_rms"].sites
        if site.path.rpartition(".")[0] == parent
    }
    both = all(any(word in name for name in names for word in words) for words in (QUERIES, KEYS))
    packed = any(word in name for name in names for word in PACKED)
    softmax = profiles.get("attention_entropy")
    chosen = any(within(site.path, parent) for site in softmax.sites) if softmax else False
    return not chosen and (both or packed or {"q", "k"} <= names or {"wq", "wk"} <= names)


def alike(profiles: Mapping[str, Profile], parent: str) -> tuple[str, ...]:
    """Return the modules whose path differs from this one's in numbers alone."""
    kind = pattern(Site(parent))
    parents = dict.fromkeys(site.path.rpartition(".")[0] for site in profiles["act_rms"].sites)
    return tuple(path for path in parents if path and pattern(Site(path)) == kind)
