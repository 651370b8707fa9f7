"""Gain staging before and after: the gains of every block untreated, and with a change that was tried."""

import math
from collections.abc import Mapping, Sequence

from unitygain._trial import Trial
from unitygain._types import Profile
from unitygain.report._chart import Chart, Panel, Series
from unitygain.report._panels import names_of, ticks_of
from unitygain.report._show import decibel, number, show, signed
from unitygain.report._trials import brief

# Charts of this many changes, best first; the numbers of the others are in the JSON report.
MOST = 6
_WORDS = {"backward_gain": "backward", "forward_gain": "forward"}


def before_after(trials: Sequence[Trial], profiles: Mapping[str, Profile]) -> dict[int, Chart]:
    """Return a chart for each of the best changes whose gains were measured, by the index of the trial.

    Args:
        trials: The trials, best first.
        profiles: Those of the untreated case.
    """
    charts: dict[int, Chart] = {}
    for index, trial in enumerate(trials):
        panels = [
            panel
            for name, word in _WORDS.items()
            if name in profiles and name in trial.profiles
            if (panel := _panel(word, profiles[name], trial.profiles[name])) is not None
        ]
        if panels and len(charts) < MOST:
            charts[index] = _chart(index, trial, panels, profiles)
    return charts


def _chart(index: int, trial: Trial, panels: list[Panel], profiles: Mapping[str, Profile]) -> Chart:
    sites = next(profiles[name].sites for name in _WORDS if name in profiles)
    count = max(len(series.values) for panel in panels for series in panel.series)
    names = [*names_of(sites), *(f"block {k}" for k in range(len(sites), count))]
    title = f"Before and after: {show(brief(trial), 200)}"
    about = "Zero is unity gain; both before any training."
    notes = () if count == len(sites) and all(_alike(trial, sites)) else (
        "The change moves or renames blocks: they are compared in their order.",
    )  # fmt: skip
    ticks = ticks_of(sites) if count == len(sites) else None
    return Chart(
        f"trial{index + 1}", title, about, "block", names, tuple(panels), ticks,
        wide=True, notes=notes,
    )  # fmt: skip


def _alike(trial: Trial, sites: Sequence[object]) -> list[bool]:
    return [profile.sites == tuple(sites) for name, profile in trial.profiles.items() if name in _WORDS]


def _panel(word: str, before: Profile, after: Profile) -> Panel | None:
    if not len(before) or not len(after):
        return None
    count = max(len(before), len(after))
    series = (
        _bars(f"{word}, before", "c6", before, count),
        _bars(f"{word}, after", "back", after, count),
    )
    return Panel(f"{word}, dB per block", series, height=150, baseline=0.0)


def _bars(name: str, tone: str, profile: Profile, count: int) -> Series:
    gains = [*profile.values, *[math.nan] * (count - len(profile))]
    values = [decibel(gain) for gain in gains]
    texts = [f"{signed(db)} dB  ({number(gain)}×)" for db, gain in zip(values, gains, strict=True)]
    return Series(name, tone, values, "bars", texts)
