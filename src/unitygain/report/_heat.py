"""Heatmaps: a canvas for the cells, SVG for the axes, and one byte per cell in between."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unitygain._types import Profile
from unitygain.report._panels import names_of
from unitygain.report._show import number, power, short_labels, signed
from unitygain.report._svg import BOTTOM, HALF, LEFT, RIGHT, TOP, WIDE, tick_step, x_axis
from unitygain.report._thin import merge

FIRST_EXPONENT = -160
ROWS = 240
_GAP_CELL = 255
_STEPS = 253
# name, exponents of the smallest subnormal, the smallest normal and the largest number
FORMATS = (
    ("float32", -149, -126, 127),
    ("bfloat16", -133, -126, 127),
    ("float16", -24, -14, 15),
    ("e5m2", -16, -14, 15),
    ("e4m3", -9, -6, 8),
)


@dataclass(frozen=True)
class Heat:
    """A heatmap: `cells` row by row as bytes (0 empty, 1..254 from `low` to `high`, 255 not finite)."""

    key: str
    title: str
    about: str
    ends: tuple[str, str]
    columns: Sequence[str]
    rows: Sequence[str]
    cells: bytes
    low: float
    high: float
    diverging: bool
    svg: Markup
    box: str
    notes: tuple[str, ...] = ()
    wide: bool = False
    unit: str = "entries"
    over: Markup | str = ""

    def payload(self) -> dict[str, object]:
        """Return what the script needs to paint the cells and to name them."""
        return {
            "columns": list(self.columns),
            "rows": list(self.rows),
            "cells": base64.b64encode(self.cells).decode(),
            "low": self.low,
            "high": self.high,
            "diverging": self.diverging,
            "unit": self.unit,
        }


def heats(profiles: Mapping[str, Profile]) -> list[Heat]:
    """Return the heatmaps for which there are profiles with rows."""
    drawn = [histogram(profiles.get("grad_exponents")), singular_values(profiles.get("jacobian_sigma_max"))]
    several = profiles.get("log_spectrum")
    if several is not None and len(several) > 1:
        drawn.append(singular_values(several, log=True))
    return [heat for heat in drawn if heat is not None]


def box(width: float, height: float, top: float, inner: float, area: float) -> str:
    """Return the style that lays a canvas over the plotting area of an SVG."""
    edges = {"left": LEFT / width, "top": top / height, "width": inner / width, "height": area / height}
    return ";".join(f"{edge}:{100 * share:.3f}%" for edge, share in edges.items())


def quantise(value: float, low: float, high: float) -> int:
    """Return the byte of a cell."""
    if not math.isfinite(value):
        return _GAP_CELL
    inside = (min(max(value, low), high) - low) / (high - low)
    return 1 + round(inside * _STEPS)


def singular_values(profile: Profile | None, log: bool = False) -> Heat | None:
    """Singular values of each block as decibels around unity: blocks along x, the largest value on top."""
    if profile is None or not profile.rows or not profile.rows[0]:
        return None
    most = min(len(row) for row in profile.rows)
    if not most:
        return None
    table = [[_as_db(v, log) for v in row[:most]] for row in profile.rows]
    merged, size = merge(table, ROWS)
    finite = [abs(v) for row in merged for v in row if math.isfinite(v)]
    reach = max([3.0, *finite])
    cells = bytes(quantise(merged[x][y], -reach, reach) for y in range(most) for x in range(len(merged)))
    names = names_of(profile.sites)[::size]
    inner, area = HALF - LEFT - RIGHT, 230
    height = TOP + area + BOTTOM
    step = tick_step(most, area // 20)
    texts = [
        _text("y", LEFT - 8, TOP + (k + 0.5) * area / most + 3.5, f"σ{k + 1}") for k in range(0, most, step)
    ]
    labels = short_labels(profile.sites)[::size]
    ticks = labels if max(map(len, labels)) <= 8 else None
    axis = x_axis(ticks, len(names), TOP + area, inner, "block")
    svg = _frame(HALF, height, Markup("").join(texts) + axis)
    notes = (f"{size} blocks to a column; each cell is the farthest from unity.",) if size > 1 else ()
    title = f"Singular values of each {'trunk' if log else 'block'}"
    about = "Blue damps, orange amplifies, blank is unity gain."
    ends = (f"{signed(-reach)} dB", f"{signed(reach)} dB")
    return Heat(
        "spectrum" if log else "sigma", title, about, ends, names, [f"σ{k + 1}" for k in range(most)],
        cells, -reach, reach, True, svg, box(HALF, height, TOP, inner, area), (*notes, *_gaps(table)),
    )  # fmt: skip


def _as_db(value: float, log: bool) -> float:
    if log:
        return 20 * value
    return 20 * math.log10(value) if 0 < value < math.inf else math.nan


def histogram(profile: Profile | None) -> Heat | None:
    """Gradient entries by binary exponent, one row per site, above the ranges of the number formats."""
    if profile is None or not profile.rows:
        return None
    counts, size = merge(profile.rows, ROWS)
    used = [k for row in counts for k, count in enumerate(row) if count > 0]
    if not used:
        return None
    low = min(min(used) + FIRST_EXPONENT - 4, -28)
    high = max(max(used) + FIRST_EXPONENT + 4, 18)
    most = max([10.0, *(c for row in counts for c in row if math.isfinite(c))])
    top = math.log10(most)
    window = range(low - FIRST_EXPONENT, high - FIRST_EXPONENT + 1)
    cells = bytes(_count_cell(row, k, top) for row in counts for k in window)
    inner, area = WIDE - LEFT - RIGHT, 230
    height = TOP + area + 30 + 19 * len(FORMATS) + 24
    svg = _frame(WIDE, height, _ranges(low, high, area, inner))
    columns = [power(e, 2) for e in range(low, high + 1)]
    names = names_of(profile.sites)[::size]
    notes = (f"{size} sites to a row; each cell is the largest count among them.",) if size > 1 else ()
    about = (
        "Each row is a call (input on top), each column a power of two. "
        "Entries left of a format's bar become zero in it; the light part is subnormal."
    )
    ends = ("1 entry", f"{number(most)} entries")
    return Heat(
        "exponents", "Gradient entries against the number formats", about, ends, columns, names,
        cells, 0.0, top, False, svg, box(WIDE, height, TOP, inner, area), notes, True,
    )  # fmt: skip


def _count_cell(row: Sequence[float], column: int, top: float) -> int:
    if not 0 <= column < len(row) or row[column] <= 0:
        return 0
    return quantise(math.log10(row[column]) if row[column] < math.inf else math.nan, 0.0, top)


def _ranges(low: int, high: int, area: float, inner: float) -> Markup:
    """Ticks of the exponents, and one bar per number format: normal numbers full, subnormal ones light."""
    count = high - low + 1

    def at(exponent: float) -> float:
        return round(LEFT + (min(max(exponent, low), high + 1) - low) / count * inner, 1)

    base = TOP + area
    pieces = [_text("y", LEFT - 8, TOP + 10, "input"), _text("y", LEFT - 8, base - 3, "loss")]
    step = 10 if count <= 150 else 20
    exponents = range(math.ceil(low / step) * step, high + 1, step)
    pieces += [_text("x", at(exponent + 0.5), base + 16, power(exponent, 2)) for exponent in exponents]
    for index, (name, tiny, normal, largest) in enumerate(FORMATS):
        y = base + 30 + 19 * index
        pieces.append(_text("y", LEFT - 8, y + 9, name))
        for kind, start, stop in (("subnormal", tiny, normal), ("normal", normal, largest + 1)):
            width = round(at(stop) - at(start), 1)
            pieces.append(_rect(kind, at(start), y, width))
    pieces.append(_text("label end", LEFT + inner, base + 30 + 19 * len(FORMATS) + 16, "size of the entry"))
    return Markup("").join(pieces)


def _rect(kind: str, x: float, y: float, width: float) -> Markup:
    return Markup('<rect class="range {}" x="{}" y="{}" width="{}" height="11" rx="2"/>').format(
        kind, x, y, width
    )


def _text(kind: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, round(x, 1), round(y, 1), text)


def _frame(width: float, height: float, content: Markup) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" aria-hidden="true">{}</svg>').format(width, height, content)


def _gaps(table: list[list[float]]) -> tuple[str, ...]:
    odd = sum(not all(math.isfinite(v) for v in row) for row in table)
    if not odd:
        return ()
    return (f"{odd} of {len(table)} sites hold zeros or values that are not finite; their cells are red.",)
