"""Which profiles are drawn together, and how: each function returns its chart, or none without profiles."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from unitygain._types import Profile, Site
from unitygain.report._chart import Chart, Panel, Series
from unitygain.report._show import decibel, number, short_labels, show, signed

Profiles = Mapping[str, Profile]
_STACKED = ("weights", "activation", "normalisation", "attention")
_PATHS = ("skip", "branch")
_TONES = ("c1", "c2", "c3", "c4", "c5", "c6")
_SEVERAL = 6
_LABELLED = 400


def charts(profiles: Profiles) -> list[Chart]:
    """Return every chart for which there is a profile with sites, in the order of the page."""
    drawn = [draw(profiles) for draw in (gains, depth, parts, spectrum, rank, time, update)]
    return [chart for chart in drawn if chart is not None]


def names_of(sites: Sequence[Site]) -> list[str]:
    """Return the sites as inert one-line names."""
    return [show(str(site)) for site in sites]


def _have(profiles: Profiles, *names: str) -> list[Profile]:
    """The profiles among `names` that share the sites of the first one that has any."""
    found = [profiles[name] for name in names if name in profiles and len(profiles[name])]
    return [profile for profile in found if profile.sites == found[0].sites]


def gains(profiles: Profiles) -> Chart | None:
    """Gain per block in dB, backward and forward, above their running sums."""
    found = _have(profiles, "backward_gain", "forward_gain")
    if not found:
        return None
    each, summed = [], []
    for profile in sorted(found, key=lambda p: p.name, reverse=True):
        back = profile.name == "backward_gain"
        word, tone = ("backward", "back") if back else ("forward", "ahead")
        values = [decibel(value) for value in profile.values]
        texts = [f"{signed(db)} dB  ({number(v)}×)" for db, v in zip(values, profile.values, strict=True)]
        each.append(Series(word, tone, values, "bars", texts))
        running = list(accumulate(values[::-1]))[::-1] if back else list(accumulate(values))
        summed.append(
            Series(f"{word}, summed", tone, running, "line", [f"{signed(db)} dB" for db in running])
        )
    panels = (
        Panel("dB per block", tuple(each), height=190, baseline=0.0),
        Panel("dB, summed along the signal's own way", tuple(summed), height=130, baseline=0.0),
    )
    about = "Zero is unity gain. The signal runs from left to right, the gradient from right to left."
    sites = found[0].sites
    return Chart(
        "gain", "Gain per block", about, "block", names_of(sites), panels, ticks_of(sites), wide=True
    )


def depth(profiles: Profiles) -> Chart | None:
    """Rms of activations and gradients by depth, on a logarithmic axis."""
    found = _have(profiles, "act_rms", "grad_rms")
    if not found:
        return None
    looks = {"act_rms": ("activation rms", "ahead"), "grad_rms": ("gradient rms", "back")}
    series = tuple(Series(*looks[profile.name], profile.values) for profile in found)
    about = "Output of every leaf module call, and the loss gradient with respect to it. Drag to look closer."
    panel = Panel("rms, logarithmic", series, log=True, height=260)
    names = names_of(found[0].sites)
    return Chart(
        "depth", "Signal and gradient by depth", about, "call, in forward order", names, (panel,), wide=True
    )


def parts(profiles: Profiles) -> Chart | None:
    """Backward gain of each block, split into its factors; their decibels add up."""
    found = _have(profiles, "gain_parts")
    if not found or not found[0].rows:
        return None
    profile = found[0]
    series = []
    for tone, name in zip(_TONES, _STACKED + _PATHS, strict=True):
        if name not in profile.columns:
            continue
        column = profile.columns.index(name)
        ratios = [row[column] if column < len(row) else math.nan for row in profile.rows]
        values = [decibel(ratio) for ratio in ratios]
        if all(math.isnan(value) for value in values):
            continue
        texts = [f"{signed(db)} dB" for db in values]
        series.append(Series(name, tone, values, "stack" if name in _STACKED else "dots", texts))
    if not series:
        return None
    panel = Panel("dB of the backward gain", tuple(series), height=230, baseline=0.0)
    about = "The factors of a block's gain as stacked decibels; dots are the skip path and the branch path."
    sites = profile.sites
    return Chart(
        "parts", "What each gain is made of", about, "block", names_of(sites), (panel,), ticks_of(sites)
    )


def spectrum(profiles: Profiles) -> Chart | None:
    """The singular values of the whole trunk in falling order."""
    found = _have(profiles, "log_spectrum")
    if not found or len(found[0]) != 1 or not found[0].rows or not found[0].rows[0]:
        return None
    profile = found[0]
    values = profile.rows[0]
    names = [f"singular value {k}" for k in range(len(values))]
    panel = Panel("log10 of the singular value", (Series("log10", "back", values),), height=230)
    value = profile.values[0]
    about = (
        f"{show(profile.unit)}: {'not known' if math.isnan(value) else number(value)}. {show(profile.note)}"
    )
    return Chart(
        "spectrum", "Spectrum of the whole chain", about, "singular value, largest first", names, (panel,),
        prefix="singular value ",
    )  # fmt: skip


def rank(profiles: Profiles) -> Chart | None:
    """Whether tokens become alike with depth."""
    found = _have(profiles, "token_cosine", "effective_rank")
    if not found:
        return None
    looks = {"token_cosine": ("token cosine", "c1"), "effective_rank": ("effective rank", "c3")}
    series = tuple(Series(*looks[profile.name], profile.values) for profile in found)
    panel = Panel("fraction", series, height=230, baseline=0.0)
    about = "A cosine near 1 or a rank near 0 means that the positions carry the same vector."
    sites = found[0].sites
    names = names_of(sites)
    return Chart("rank", "Rank of the representation", about, "block", names, (panel,), ticks_of(sites))


def time(profiles: Profiles) -> Chart | None:
    """Gradient with respect to the input of each time step."""
    profile = profiles.get("time_grad_rms")
    if profile is None or not len(profile):
        return None
    lines: dict[str, dict[int, float]] = {}
    for site, value in profile.items():
        source = str(Site(site.path, site.call, site.leaf))
        lines.setdefault(source, {})[site.time or 0] = value
    steps = range(
        min(t for line in lines.values() for t in line), 1 + max(t for x in lines.values() for t in x)
    )
    shown = list(lines.items())[:_SEVERAL]
    series = [
        Series(show(source, 60), tone, [line.get(t, math.nan) for t in steps])
        for (source, line), tone in zip(shown, _TONES, strict=False)
    ]
    notes = (f"{len(lines) - len(shown)} more modules are in the tables.",) if len(lines) > len(shown) else ()
    about = "How much of the loss gradient reaches the input of each time step; the loss is at the right."
    panel = Panel("rms of ∂L/∂xₜ, logarithmic", tuple(series), log=True, height=230)
    names = [f"step {t}" for t in steps]
    prefix = "step " if steps.start == 0 else ""
    return Chart(
        "time", "Gradient over time", about, "time step", names, (panel,), notes=notes, prefix=prefix
    )


def update(profiles: Profiles) -> Chart | None:
    """Size of one true optimizer step relative to each parameter."""
    found = _have(profiles, "update_ratio")
    if not found:
        return None
    profile = found[0]
    panel = Panel("rms(update) / rms(parameter)", (Series("update ratio", "c3", profile.values),), True, 180)
    about = "One true optimizer step, relative to each parameter."
    names = names_of(profile.sites)
    return Chart("update", "Update ratio", about, "parameter, in order", names, (panel,), wide=True)


def ticks_of(sites: Sequence[Site]) -> list[str] | None:
    """Short names for the axis; None (numbers) where the names stay long."""
    if len(sites) > _LABELLED:
        return None
    labels = short_labels(sites)
    return labels if labels and max(map(len, labels)) <= 8 else None


def three_numbers(profiles: Profiles) -> list[tuple[str, float, str]]:
    """Return (name, log10, meaning) of the chain's bound, typical and worst gain, where they are there."""
    profile = profiles.get("chain_gain")
    if profile is None:
        return []
    meaning = {
        "bound": "product of the norms",
        "typical": "a random direction",
        "worst": "the worst direction",
    }
    found = []
    for index, (site, value) in enumerate(profile.items()):
        word = str(site).rsplit("(", 1)[-1].strip(").")
        if word in meaning:
            label = profile.labels[index] if profile.labels else meaning[word]
            found.append((word, value, show(label)))
    return found
