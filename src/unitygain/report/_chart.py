"""What a chart is: named places along x, and panels of series above one another that share them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from unitygain.report._show import number, show
from unitygain.report._thin import keep

Kind = Literal["line", "bars", "stack", "dots"]
_LISTED = 6


@dataclass(frozen=True)
class Series:
    """One quantity: `tone` names its colour, `texts` what hovering says where the value alone would not."""

    name: str
    tone: str
    values: Sequence[float]
    kind: Kind = "line"
    texts: Sequence[str] | None = None

    def text(self, index: int) -> str:
        """Return the value at `index` in words."""
        return self.texts[index] if self.texts is not None else number(self.values[index])


@dataclass(frozen=True)
class Panel:
    """A stack of series on one vertical axis."""

    label: str
    series: tuple[Series, ...]
    log: bool = False
    height: float = 180.0
    baseline: float | None = None


@dataclass(frozen=True)
class Chart:
    """A titled picture over the places `names`; `ticks` are short names for the axis, if it has some.

    A `prefix` says that the names are the prefix and the place's number.
    """

    key: str
    title: str
    about: str
    axis: str
    names: Sequence[str]
    panels: tuple[Panel, ...]
    ticks: Sequence[str] | None = None
    prefix: str = ""
    wide: bool = False
    notes: tuple[str, ...] = ()
    kept: list[int] = field(init=False)

    def __post_init__(self) -> None:
        values = [series.values for series in self.series()]
        object.__setattr__(self, "kept", keep(values, len(self.names)))

    def series(self) -> list[Series]:
        """Return the series of all panels."""
        return [series for panel in self.panels for series in panel.series]

    def remarks(self) -> list[str]:
        """Return what the picture cannot show: gaps, zeros on a logarithmic axis, points left out."""
        remarks = list(self.notes)
        if len(self.kept) < len(self.names):
            remarks.append(
                f"{len(self.kept):,} of {len(self.names):,} places are drawn: each stretch keeps its "
                "smallest and its largest value. The JSON report holds all of them."
            )
        for panel in self.panels:
            for series in panel.series:
                remarks += self._absent(series, panel.log)
        return remarks

    def _absent(self, series: Series, log: bool) -> list[str]:
        gaps = [k for k, v in enumerate(series.values) if not math.isfinite(v)]
        zeros = [k for k, v in enumerate(series.values) if log and -math.inf < v <= 0]
        listed = []
        for where, word in (
            (gaps, "not finite (dashed lines)"),
            (zeros, "zero or below (marks on the axis)"),
        ):
            if where:
                named = ", ".join(f"{series.text(k)} at {show(self.names[k], 60)}" for k in where[:_LISTED])
                more = f" and {len(where) - _LISTED} more" if len(where) > _LISTED else ""
                listed.append(f"{series.name}: {len(where)} {word}: {named}{more}.")
        return listed

    def payload(self) -> dict[str, object]:
        """Return what hovering and the arrow keys need, in words."""
        series = [
            {"name": s.name, "tone": s.tone, "text": [s.text(k) for k in self.kept]} for s in self.series()
        ]
        names = self.prefix or [self.names[k] for k in self.kept]
        data: dict[str, object] = {"n": len(self.names), "names": names, "series": series}
        if len(self.kept) < len(self.names):
            data["at"] = self.kept
        if self.ticks is not None:
            data["ticks"] = list(self.ticks)
        return data
