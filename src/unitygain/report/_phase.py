"""Where the layers of a model lie on the phase diagram of their activation."""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unitygain._types import Profile
from unitygain.report._show import number, show
from unitygain.report._svg import BOTTOM, HALF, LEFT, RIGHT, TOP

AREA = 250
DOTS = 600
EDGE = "chi_1 = 1"
ABOUT = (
    "Each dot is a layer, by its weights and biases. Left of the line χ₁ = 1 a plain network of such layers "
    "lets gradients fall (ordered), right of it grow (chaotic)."
)
Point = tuple[float, float]


@dataclass(frozen=True)
class Still:
    """A picture without moving parts, and in words what it shows."""

    key: str
    title: str
    about: str
    svg: Markup
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Frame:
    """Standard deviations of weights along x and of biases along y, in pixels."""

    wide: float
    high: float
    left: float = LEFT
    width: float = HALF - LEFT - RIGHT
    area: float = AREA

    def place(self, point: Point) -> Point:
        """Return where a point lies; what is beyond the top or the right is kept just outside."""
        x, y = (min(value, 1.5 * most) for value, most in zip(point, (self.wide, self.high), strict=True))
        return (
            round(self.left + x / self.wide * self.width, 1),
            round(TOP + (1 - y / self.high) * self.area, 1),
        )

    def path(self, points: Sequence[Point]) -> str:
        """Return a line through points as the description of an SVG path."""
        placed = "L".join(f"{x} {y}" for x, y in map(self.place, points))
        return f"M{placed}" if placed else ""


def phase(profile: Profile | None) -> Still | None:
    """Return the phase diagram with the layers on it, or None without any."""
    if profile is None:
        return None
    facts = profile.facts
    wide, high = facts.get("sigma_w_shown"), facts.get("sigma_b_shown")
    if not all(isinstance(most, (int, float)) and 0 < most < math.inf for most in (wide, high)):
        return None
    frame = Frame(float(wide or 0), float(high or 0))
    mine = [k for k, label in enumerate(profile.labels) if label.rpartition(": ")[0] == facts.get("phi")]
    squares = [profile.rows[k][:2] for k in mine if k < len(profile.rows)]
    points = [
        (math.sqrt(pair[0]), math.sqrt(pair[1]))
        for pair in squares
        if len(pair) == 2 and all(0 <= square < math.inf for square in pair)
    ]
    if not points:
        return None
    lines = {key: _read(str(line)) for key, line in facts.items() if key.startswith("chi_1 = ")}
    content = Markup("").join([*axes(frame), *overlay(frame, lines, facts.get("settles_to"), points)])
    svg = Markup('<svg viewBox="0 0 {} {}" aria-hidden="true">{}</svg>').format(
        HALF, TOP + AREA + BOTTOM, content
    )
    title = f"Phase diagram of {show(facts.get('phi', ''), 40)}"
    return Still("phase", title, ABOUT, svg, tuple(_said(profile, mine)))


def axes(frame: Frame) -> Iterator[Markup]:
    """Yield the grid with its numbers, and what the axes are."""
    bottom, right = TOP + frame.area, frame.left + frame.width
    for tick in _ticks(frame.high):
        y = frame.place((0.0, tick))[1]
        yield Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(frame.left, right, y, y)
        yield _text("y", frame.left - 8, y + 3.5, f"{tick:g}")
    for tick in _ticks(frame.wide):
        yield _text("x", frame.place((tick, 0.0))[0], bottom + 16, f"{tick:g}")
    yield _text("label end", right, bottom + 33, "σ of the weights · √fan_in")
    yield _text("label", frame.left, TOP - 6, "σ of the biases")


def overlay(
    frame: Frame, lines: Mapping[str, Sequence[Point]], bound: float | str | None, points: Sequence[Point]
) -> Iterator[Markup]:
    """Yield contours, the edge of chaos, where fixed points end, and the layers.

    Args:
        frame: Where they lie.
        lines: Points along each contour by its name; that of ``chi_1 = 1`` is the edge of chaos.
        bound: Largest sigma_w at which every signal settles; None where all do.
        points: sigma_w and sigma_b of the layers.
    """
    yield Markup(
        '<svg class="area" x="{0}" y="{1}" width="{2}" height="{3}" viewBox="{0} {1} {2} {3}">'
    ).format(round(frame.left - 4, 1), TOP - 4, round(frame.width + 8, 1), frame.area + 8)
    if isinstance(bound, float):
        yield _line("beyond", frame.path([(bound, 0.0), (bound, frame.high)]))
    for name, line in lines.items():
        yield _line("edge" if name == EDGE else "contour", frame.path(line))
    dots = list(dict.fromkeys(map(frame.place, points)))
    yield _line("dot c4", "".join(f"M{x} {y}h0" for x, y in dots[:: math.ceil(len(dots) / DOTS) or 1]))
    yield Markup("</svg>")
    if isinstance(bound, float) and bound < frame.wide:
        x, y = frame.place((bound, frame.high))
        yield _text("label", x + 6, y + 12, "no fixed point beyond")
    for k, (name, line) in enumerate(lines.items()):
        inside = [point for point in line if point[0] <= frame.wide and point[1] <= frame.high]
        if inside:
            # At heights of their own, so that the names of close lines stand beside each other.
            height = frame.high * (0.75 - 0.2 * (k % 4))
            x, y = frame.place(min(inside, key=lambda point: abs(point[1] - height)))
            said = name.replace("chi_1", "χ₁") + (", edge of chaos" if name == EDGE else "")
            yield _text("label", x + 5, min(y + 4, TOP + frame.area - 4), said)


def _said(profile: Profile, mine: Sequence[int]) -> Iterator[str]:
    phases = Counter(profile.labels[k].rpartition(": ")[2] for k in mine)
    gains = sorted(profile.values[k] for k in mine if math.isfinite(profile.values[k]))
    counted = ", ".join(f"{count} {show(name, 20)}" for name, count in phases.most_common())
    middle = f"; median chi_1 {number(gains[len(gains) // 2])} per layer" if gains else ""
    yield f"{len(mine)} {'layer' if len(mine) == 1 else 'layers'}: {counted}{middle}."
    if others := len(profile) - len(mine):
        yield f"{others} more, with other activations, are in the table."


def _read(line: str) -> list[Point]:
    """The points of a line as the profile holds them; what is no pair of finite numbers is left out."""
    points = []
    for pair in line.split():
        x, _, y = pair.partition(",")
        with contextlib.suppress(ValueError):
            if math.isfinite(float(x)) and math.isfinite(float(y)):
                points.append((float(x), float(y)))
    return points


def _ticks(most: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10(most))
    while most / step < 4:
        step /= 2
    return [round(k * step, 6) for k in range(int(most / step) + 1)]


def _line(kind: str, path: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(kind, path) if path else Markup("")


def _text(kind: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, round(x, 1), round(y, 1), text)
