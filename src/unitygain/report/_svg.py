"""Charts as SVG, built here so that the page draws without a script. No name from a model enters a path."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup, escape

from unitygain.report._chart import Chart, Panel, Series
from unitygain.report._scale import Scale, fit

WIDE, HALF = 1040, 508
LEFT, RIGHT, TOP, GAP, BOTTOM = 58, 12, 18, 34, 40
_DOTS = 64
_CHARACTER = 6.4


def draw(chart: Chart) -> Markup:
    """Return the chart as an SVG element; x is measured in places, so that zooming is one attribute."""
    width = WIDE if chart.wide else HALF
    inner = width - LEFT - RIGHT
    count = max(1, len(chart.names))
    pieces, top = [], float(TOP)
    for panel in chart.panels:
        pieces.append(_panel(panel, chart.kept, top, inner, count))
        top += panel.height + GAP
    bottom = top - GAP
    pieces.append(x_axis(chart.ticks, count, bottom, inner, chart.axis))
    height = bottom + BOTTOM
    head = Markup(
        '<svg viewBox="0 0 {} {}" aria-hidden="true" data-left="{}" data-inner="{}" data-bottom="{}">'
    ).format(width, _short(height), LEFT, inner, _short(bottom))
    cross = Markup('<line class="cross" y1="{}" y2="{}"/><rect class="drag" y="{}" height="{}"/>').format(
        TOP, _short(bottom), TOP, _short(bottom - TOP)
    )
    return head + Markup("").join(pieces) + cross + Markup("</svg>")


def _panel(panel: Panel, kept: Sequence[int], top: float, inner: float, count: int) -> Markup:
    values = _extent(panel, kept)
    scale = fit(values, panel.height, panel.log, panel.baseline)
    grid = [
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="y" x="{}" y="{}">{}</text>'
        ).format(LEFT, LEFT + inner, top + y, top + y, LEFT - 8, top + y + 3.5, text)
        for y, text in ((round(y, 1), text) for y, text in scale.lines())
    ]
    base = Markup("")
    at = scale.place(panel.baseline) if panel.baseline is not None else None
    if at is not None:
        base = Markup('<line class="unity" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            LEFT, LEFT + inner, top + at, top + at
        )
    label = Markup('<text class="label" x="{}" y="{}">{}</text>').format(LEFT, _short(top - 6), panel.label)
    area = Markup(
        '<svg class="area" x="{}" y="{}" width="{}" height="{}" viewBox="0 0 {} {}" '
        'preserveAspectRatio="none">'
    ).format(LEFT, _short(top), inner, _short(panel.height), count, _short(panel.height))
    marks = Markup("").join(_marks(panel, kept, scale, count))
    return Markup("").join(grid) + label + area + marks + Markup("</svg>") + base


def _extent(panel: Panel, kept: Sequence[int]) -> list[float]:
    """All values that the axis must hold; stacked ones reach as far as their sums."""
    values = [s.values[k] for s in panel.series if s.kind != "stack" for k in kept]
    stacked = [s for s in panel.series if s.kind == "stack"]
    for k in kept if stacked else ():
        finite = [s.values[k] for s in stacked if abs(s.values[k]) < float("inf")]
        values += [sum(v for v in finite if v > 0), sum(v for v in finite if v < 0)]
    return values


def _marks(panel: Panel, kept: Sequence[int], scale: Scale, count: int) -> Iterator[Markup]:
    bars = [series for series in panel.series if series.kind == "bars"]
    stacked = [series for series in panel.series if series.kind == "stack"]
    thick = max(1.0, count / max(1, len(kept)))
    for place, series in enumerate(bars):
        yield _path("bar", series, _bars(series, kept, scale, place, len(bars), thick))
    yield from _stack(stacked, kept, scale)
    for series in panel.series:
        if series.kind == "line":
            yield _path("line", series, _line(series, kept, scale))
        if series.kind == "dots" or (series.kind == "line" and len(kept) <= _DOTS):
            yield _path("dot", series, _points(series, kept, scale))
        gaps = "".join(f"M{k + 0.5} 0V{scale.height}" for k in kept if abs(series.values[k]) == float("inf"))
        gaps += "".join(f"M{k + 0.5} 0V{scale.height}" for k in kept if series.values[k] != series.values[k])
        yield _path("gap", series, gaps)
        if scale.log:
            floor = scale.height - 3
            yield _path(
                "zero", series, "".join(f"M{k + 0.5} {floor}h0" for k in kept if series.values[k] <= 0)
            )


def _path(kind: str, series: Series, path: str) -> Markup:
    return Markup('<path class="{} {}" d="{}"/>').format(kind, series.tone, path) if path else Markup("")


def _line(series: Series, kept: Sequence[int], scale: Scale) -> str:
    path, pen = [], "M"
    for k in kept:
        y = scale.place(series.values[k])
        if y is not None:
            path.append(f"{pen}{k + 0.5} {y}")
        pen = "M" if y is None else "L"
    return "".join(path)


def _points(series: Series, kept: Sequence[int], scale: Scale) -> str:
    placed = ((k, scale.place(series.values[k])) for k in kept)
    return "".join(f"M{k + 0.5} {y}h0" for k, y in placed if y is not None)


def _bars(series: Series, kept: Sequence[int], scale: Scale, place: int, of: int, thick: float) -> str:
    zero = scale.place(0.0) or 0.0
    width = 0.76 * thick / of
    path = []
    for k in kept:
        y = scale.place(series.values[k])
        if y is not None:
            left = k + 0.5 - 0.38 * thick + place * width
            path.append(
                f"M{left:.3g} {zero}V{y}h{width * 0.94:.3g}V{zero}z"
                if left < 100
                else _bar(left, zero, y, width)
            )
    return "".join(path)


def _bar(left: float, zero: float, y: float, width: float) -> str:
    return f"M{left:.2f} {zero}V{y}h{width * 0.94:.3g}V{zero}z"


def _stack(stacked: Sequence[Series], kept: Sequence[int], scale: Scale) -> Iterator[Markup]:
    up = dict.fromkeys(kept, 0.0)
    down = dict.fromkeys(kept, 0.0)
    for series in stacked:
        path = []
        for k in kept:
            value = series.values[k]
            if not abs(value) < float("inf") or value == 0:
                continue
            side = up if value > 0 else down
            low, high = scale.place(side[k]), scale.place(side[k] + value)
            side[k] += value
            path.append(f"M{k + 0.16:.6g} {low}V{high}h.68V{low}z")
        yield _path("bar", series, "".join(path))


def x_axis(ticks: Sequence[str] | None, count: int, bottom: float, inner: float, label: str) -> Markup:
    """Return the tick texts below the panels (the script moves them when zoomed) and the axis' name."""
    longest = max((len(text) for text in ticks), default=1) if ticks else len(str(count))
    step = tick_step(count, int(inner // (longest * _CHARACTER + 14)))
    texts = [
        Markup('<text class="x" x="{}" y="{}">{}</text>').format(
            round(LEFT + (k + 0.5) / count * inner, 1), bottom + 16, ticks[k] if ticks else k
        )
        for k in range(0, count, step)
    ]
    name = Markup('<text class="label end" x="{}" y="{}">{}</text>').format(LEFT + inner, bottom + 33, label)
    return Markup('<g class="ticks">') + Markup("").join(texts) + Markup("</g>") + name


def tick_step(count: int, most: int) -> int:
    """Return 1, 2, 5, 10, ... such that at most `most` ticks are written."""
    step, more = 1, (2, 2.5, 2)
    turn = 0
    while count / step > max(1, most):
        step = int(step * more[turn % 3])
        turn += 1
    return step


def _short(value: float) -> str:
    return str(escape(f"{value:g}"))
