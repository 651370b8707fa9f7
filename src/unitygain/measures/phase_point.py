"""phase_point: where every layer lies on the phase diagram of its activation, from the weights themselves."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.measures._drawn import weight_rms
from unitygain.measures._fan_in import weights_of
from unitygain.measures._following import following
from unitygain.probe.record import Record
from unitygain.theory.activations import Activation
from unitygain.theory.grid import lengths, phases, settle_points
from unitygain.theory.phase import critical_line, largest_bounded

Array = NDArray[np.float64]
UNIT = "chi_1, squared gain of the gradient per layer (predicted)"
COLUMNS = ("sigma_w2", "sigma_b2", "q_star", "c_star", "xi_c", "xi_grad")
NOTE = (
    "as if the whole network were plain layers like this one: skip paths, normalisation and attention change "
    "it. Where the variance grows without bound q_star is infinite, chi_1 is that of a large signal, and "
    "c_star and xi_c are not defined"
)
# Contours of chi_1 for the picture, and to how many points they are thinned.
LEVELS = (0.25, 0.5, 1.0, 2.0)
POINTS = 24


@measure(unit=UNIT, needs=("output.rms", "activation.frac_open"))
def phase_point(case: Case, record: Record) -> Profile | None:
    """Place of every layer on the phase diagram of the activation behind it.

    sigma_w2 is fan_in times the mean square of its weight, sigma_b2 the mean square of its bias. In a wide,
    deep and plain network of such layers the variance settles, and the mean square of the gradient is then
    multiplied by chi_1 per layer: below 1 is the ordered phase, above 1 the chaotic one.

    Cost: one reduction per weight, some milliseconds per activation. No side effects.

    Args:
        case: Its model's weights are read.
        record: A record with `output.rms` and `activation.frac_open`; tells which activation followed.

    Returns:
        chi_1 per layer that an activation follows, in forward order. Rows: sigma_w2, sigma_b2, q_star,
        c_star, xi_c and xi_grad. Labels: activation and phase, as ``tanh: chaotic``. Facts, of the most
        frequent activation: ``phi``, the largest sigma_w at which every signal settles (``settles_to``), and
        contours ``chi_1 = 1`` and others as points ``sigma_w,sigma_b``. None without such layers.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain._registry import MEASURES
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh())
        >>> _ = nn.init.constant_(model[0].weight, 0.25)
        >>> case = Case(model, loss=lambda m, x: m(x).mean(), data=[torch.ones(2, 4)])
        >>> profile = phase_point(case, observe(case, MEASURES["phase_point"].needs))
        >>> profile.values, profile.labels
        ((0.25,), ('tanh: ordered',))

    References:
        Poole et al. 2016; see `unitygain.theory.phase`.
    """
    modules = dict(case.model.named_modules())
    layers = _layers(record, modules)
    found: dict[Site, tuple[float, ...]] = {}
    labels: dict[Site, str] = {}
    for a in dict.fromkeys(a for a, _, _ in layers.values()):
        sites = [site for site, (own, _, _) in layers.items() if own is a]
        for site, row, phase in zip(sites, *_points(a, [layers[site][1:] for site in sites]), strict=True):
            found[site], labels[site] = row, f"{a.name}: {phase}"
    if not found:
        return None
    sites = tuple(site for site in layers if site in found)
    return Profile(
        "phase_point",
        UNIT,
        sites,
        tuple(found[site][0] for site in sites),
        columns=COLUMNS,
        rows=tuple(found[site][1:] for site in sites),
        labels=tuple(labels[site] for site in sites),
        facts=_facts(layers),
        note=NOTE,
    )


def _layers(record: Record, modules: Mapping[str, nn.Module]) -> dict[Site, tuple[Activation, float, float]]:
    """Activation, sigma_w2 and sigma_b2 of every layer that an activation follows."""
    follows = following(record, modules)
    layers = {}
    for path in dict.fromkeys(place.site.path for place in record.of("output")):
        weights = weights_of(modules[path]) if path in follows else {}
        if list(weights) == ["weight"]:
            weight, fan_in = weights["weight"]
            bias = getattr(modules[path], "bias", None)
            offset = 0.0
            if isinstance(bias, Tensor) and bias.numel():
                offset = weight_rms(record, path, "bias", bias) ** 2
            squares = fan_in * weight_rms(record, path, "weight", weight) ** 2, offset
            if all(map(math.isfinite, squares)):
                layers[Site(path)] = (follows[path], *squares)
    return layers


def _points(
    a: Activation, squares: Sequence[tuple[float, float]]
) -> tuple[list[tuple[float, ...]], list[str]]:
    """The numbers of each point, chi_1 first, and its phase."""
    w, b = np.array(squares).T
    at = settle_points(a, w, b, 1.0)
    chi_1 = np.where(at.bounded, at.chi_1, w / largest_bounded(a))
    q_star = np.where(at.bounded, at.q_star, math.inf)
    c_star, xi_c = (np.where(at.bounded, part, math.nan) for part in (at.c_star, at.xi_c))
    rows = zip(chi_1, w, b, q_star, c_star, xi_c, lengths(chi_1), strict=True)
    return [tuple(map(float, row)) for row in rows], phases(chi_1, at.bounded).tolist()


def _facts(layers: Mapping[Site, tuple[Activation, float, float]]) -> dict[str, float | str]:
    """The window of the diagram, and contours of it, for the most frequent activation."""
    a = Counter(a for a, _, _ in layers.values()).most_common(1)[0][0]
    mine = [(math.sqrt(w), math.sqrt(b)) for own, w, b in layers.values() if own is a]
    wide = max(2.0, 1.15 * max(w for w, _ in mine))
    high = max(0.5, 1.15 * max(b for _, b in mine))
    facts: dict[str, float | str] = {"phi": a.name, "sigma_w_shown": wide, "sigma_b_shown": high}
    if math.isfinite(most := largest_bounded(a)):
        facts["settles_to"] = math.sqrt(most)
    for level in LEVELS:
        weights, biases = (np.sqrt(part) for part in critical_line(a, 160, level))
        if line := _thin(weights, biases, wide, high):
            facts[f"chi_1 = {level:g}"] = line
    return facts


def _thin(weights: Array, biases: Array, wide: float, high: float) -> str:
    """What is inside of the window of a line, and one point beyond, at equal distances along it."""
    shown = np.flatnonzero((weights <= wide) & (biases <= high))
    if not len(shown):
        return ""
    shown = np.append(shown, min(shown[-1] + 1, len(weights) - 1))
    w, b = weights[shown], np.minimum(biases[shown], 1.3 * high)
    way = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(w) / wide, np.diff(b) / high))])
    at = np.linspace(0.0, way[-1], POINTS if len(w) > 2 else len(w))
    points = zip(np.interp(at, way, w), np.interp(at, way, b), strict=True)
    return " ".join(dict.fromkeys(f"{round(w, 3):g},{round(b, 3):g}" for w, b in points))
