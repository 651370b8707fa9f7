"""The phase diagram as a page of its own, with the layers of a model on it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unitygain.report._assets import asset, digest, inert_json, shared, template
from unitygain.report._heat import Heat, box, quantise
from unitygain.report._phase import Frame, Point, axes, overlay
from unitygain.report._show import number, show
from unitygain.report._svg import BOTTOM, HALF, TOP

HIGH = 340
ROWS = 400
Table = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Layer:
    """A layer of a model: its name, where it lies, and what is predicted there."""

    name: str
    sigma_w: float
    sigma_b: float
    chi_1: float
    xi_c: float
    phase: str


@dataclass(frozen=True)
class PhasePicture:
    """What the page shows.

    Args:
        phi: Name of the activation.
        sigma_w: Standard deviations of the weights times √fan_in, one per column, evenly spaced from 0.
        sigma_b: Standard deviations of the biases, one per row, likewise.
        chi_1: Squared gain per layer, rows by bias; NaN where there is no fixed point.
        xi_c: Layers in which correlations settle, likewise.
        lines: Points (sigma_w, sigma_b) along the contours of chi_1, by name; ``chi_1 = 1`` is the edge.
        bound: Largest sigma_w at which every signal settles; None where all do.
        layers: The model's, if there is one.
        sentences: What the diagram says, in words.
    """

    phi: str
    sigma_w: Sequence[float]
    sigma_b: Sequence[float]
    chi_1: Table
    xi_c: Table
    lines: Mapping[str, Sequence[Point]]
    bound: float | None
    layers: Sequence[Layer] = ()
    sentences: Sequence[str] = ()


def render_phase(picture: PhasePicture) -> str:
    """Return the page: one file that opens without a network."""
    gains = [[10 * math.log10(max(v, 1e-9)) if v == v else v for v in row] for row in picture.chi_1]
    lengths = [
        [math.log10(min(max(v, 0.1), 1e3)) if v == v else math.nan for v in row] for row in picture.xi_c
    ]
    heats = [
        _heat(
            picture, "gain", "Gradient per layer, χ₁", gains, (-10.0, 10.0),
            "Blue: gradients fall (ordered). Orange: they grow (chaotic). Grey: no fixed point.",
        ),
        _heat(
            picture, "reach", "How deep correlations reach, ξ_c", lengths, (-1.0, 3.0),
            "Layers in which what tells two inputs apart falls by e; without end at the edge of chaos.",
        ),
    ]  # fmt: skip
    script = asset("report.js")
    return template("phase.html.j2").render(
        style=asset("report.css"),
        script=script,
        script_hash=digest(script),
        data=inert_json(shared({heat.key: heat.payload() for heat in heats})),
        phi=show(picture.phi, 40),
        sentences=[show(sentence, 400) for sentence in picture.sentences],
        heats=heats,
        layers=[
            (
                show(layer.name),
                *map(number, (layer.sigma_w, layer.sigma_b, layer.chi_1, layer.xi_c)),
                layer.phase,
            )
            for layer in picture.layers[:ROWS]
        ],
        more=max(0, len(picture.layers) - ROWS),
    )


def _heat(
    picture: PhasePicture, key: str, title: str, table: Table, ends: tuple[float, float], about: str
) -> Heat:
    low, high = ends
    frame = Frame(picture.sigma_w[-1], picture.sigma_b[-1], area=HIGH)
    cells = bytes(0 if value != value else quantise(value, low, high) for row in table[::-1] for value in row)
    diverging = key == "gain"
    said = (f"{low:+g} dB", f"{high:+g} dB") if diverging else ("0.1 layers", "1,000 or more")
    height = TOP + HIGH + BOTTOM
    points = [(layer.sigma_w, layer.sigma_b) for layer in picture.layers]
    lines = picture.lines if diverging else {k: v for k, v in picture.lines.items() if k == "chi_1 = 1"}
    over = [_void(frame, table), *overlay(frame, lines, picture.bound, points)]
    return Heat(
        key, title, about, said,
        [f"σ_w {value:.3g}" for value in picture.sigma_w],
        [f"σ_b {value:.3g}" for value in picture.sigma_b[::-1]],
        cells, low, high, diverging,
        _svg(height, Markup("").join(axes(frame))), box(HALF, height, TOP, frame.width, HIGH),
        unit="" if diverging else "layers", over=_svg(height, Markup("").join(over), "over"),
    )  # fmt: skip


def _svg(height: float, content: Markup, kind: str = "under") -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" aria-hidden="true">{}</svg>').format(
        kind, HALF, height, content
    )


def _void(frame: Frame, table: Table) -> Markup:
    """Where there is no fixed point, as one path of a bar per row and run."""
    tall, wide = frame.area / len(table), frame.width / len(table[0])
    path = []
    for k, row in enumerate(table[::-1]):
        start = None
        for column, value in enumerate((*row, 0.0)):
            if value != value and start is None:
                start = column
            elif value == value and start is not None:
                x, y = frame.left + start * wide, TOP + k * tall
                path.append(f"M{x:.1f} {y:.1f}h{(column - start) * wide:.1f}v{tall:.2f}H{x:.1f}z")
                start = None
    return Markup('<path class="void" d="{}"/>').format("".join(path)) if path else Markup("")
