"""`unitygain theory phase`: the phase diagram in the terminal and as a page, with a model's layers on it."""

import contextlib
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from unitygain.cli import _options
from unitygain.cli._faults import ExitCode, Fault, plain, usage
from unitygain.cli._output import outputs, wants_colour
from unitygain.cli._progress import Voice
from unitygain.cli._request import Request
from unitygain.cli._source import Code, Folder
from unitygain.cli._target import HF

if TYPE_CHECKING:
    from unitygain.report._phase_page import Layer
    from unitygain.theory import PhaseDiagram

LEVELS = (0.25, 0.5, 1.0, 2.0)
TALL = 15
WIDEST = 72
SHOWN = 12
# By chi_1: up to this, this character. Readable without colours; the layers of a model are an O.
INK = ((0.5, "."), (0.9, ":"), (1.0, "-"), (1.5, "+"), (math.inf, "*"))
KEY = "chi_1: . below 0.5  : to 0.9  - to 1 (ordered)  |  + to 1.5  * above (chaotic)"
BLUE, ORANGE, BOLD, PLAIN = "\x1b[34m", "\x1b[33m", "\x1b[1m", "\x1b[0m"


def command(phi: str | None, on: str | None, html: str | None, points: str, quiet: bool) -> int:
    """Draw the phase diagram of an activation, and place the layers of a target on it.

    Raises:
        Fault: If an argument, the target or the output is not what it should be.
    """
    from unitygain import theory
    from unitygain.report._phase_page import PhasePicture, render_phase

    voice = Voice(quiet)
    count = _options.whole_number("--points", points, least=10, most=1000)
    page, _ = outputs(html, None)
    layers, used = _layers(on, voice)
    name = phi or used
    if name is None:
        raise usage(
            "--phi or --on is missing",
            fix="unitygain theory phase --phi tanh, or --on TARGET for the layers of a model",
        )
    if name not in theory.ACTIVATIONS:
        raise Fault(
            f"the model's activation {plain(name)} has no name in the theory", name="E-NO-PREDICTION",
            fix="--phi with one of " + ", ".join(sorted(theory.ACTIVATIONS)),
        )  # fmt: skip
    mine = [layer for label, layer in layers if label == name]
    w = np.linspace(0.0, max(2.5, *(1.15 * layer.sigma_w for layer in mine), 0.0), count)
    b = np.linspace(0.0, max(0.5, *(1.15 * layer.sigma_b for layer in mine), 0.0), count)
    # Numpy's functions let go of the interpreter, so that threads share the work.
    with voice.bar() as step, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as executor:
        diagram = theory.phase_diagram(
            name, w**2, b**2, executor=executor, progress=lambda done, of: step(done, of, f"phases of {name}")
        )
    picture = PhasePicture(
        name, w.tolist(), b.tolist(), _filled(diagram.chi_1), _filled(diagram.xi_c), _lines(name),
        _bound(name), mine, (*_said(name), *_placed(mine, len(layers) - len(mine))),
    )  # fmt: skip
    if page is not None:
        page.write(render_phase(picture))
        voice.say(f"wrote {plain(page.given)}")
    sys.stdout.write("\n".join(_drawn(diagram, w, b, mine)) + "\n\n")
    sys.stdout.write("".join(f"{sentence}\n" for sentence in picture.sentences))
    sys.stdout.write("".join(_table(mine)))
    return ExitCode.FINE


def _layers(on: str | None, voice: Voice) -> tuple[list[tuple[str, "Layer"]], str | None]:
    """The layers of a target with the names of their activations, and the most frequent of these."""
    if on is None:
        return [], None
    from unitygain.cli import _replay
    from unitygain.cli._diagnose import require_torch

    require_torch()
    request = Request(text=None, batch_size=1, sequence_length=None, seed=0)
    source = Folder(on.removeprefix(HF), request) if on.startswith(HF) else Code(on)
    with contextlib.redirect_stdout(sys.stderr), source.importable():
        case, _ = source.load(voice)
        owned = source.owned()
        _replay.prepare(case, owned)
        try:
            return _measured(case)
        except Exception as error:
            fault = _replay.failure(error, case, owned, None, None)
            raise fault or error from error


def _measured(case: object) -> tuple[list[tuple[str, "Layer"]], str | None]:
    import unitygain.measures  # noqa: F401 (fills the registry)
    from unitygain._case import Case
    from unitygain._registry import MEASURES
    from unitygain.probe.isolate import isolated
    from unitygain.probe.observe import observe
    from unitygain.report._phase_page import Layer

    assert isinstance(case, Case)
    with isolated(case, 0) as (subject, _):
        item = MEASURES["phase_point"]
        profile = item.compute(subject, observe(subject, item.needs))
    if profile is None:
        raise Fault("the model has no layer with an activation behind it", name="E-NO-PREDICTION")
    found = []
    for (site, chi_1), row, label in zip(profile.items(), profile.rows, profile.labels, strict=True):
        phi, _, phase = label.rpartition(": ")
        found.append((phi, Layer(str(site), math.sqrt(row[0]), math.sqrt(row[1]), chi_1, row[4], phase)))
    return found, Counter(phi for phi, _ in found).most_common(1)[0][0]


def _filled(values: "np.ma.MaskedArray[tuple[int, ...], np.dtype[np.float64]]") -> list[list[float]]:
    return values.filled(math.nan).tolist()


def _lines(phi: str) -> dict[str, list[tuple[float, float]]]:
    from unitygain import theory

    lines = {}
    for level in LEVELS:
        weights, biases = (np.sqrt(part) for part in theory.critical_line(phi, 160, level))
        if len(weights):
            lines[f"chi_1 = {level:g}"] = list(zip(weights.tolist(), biases.tolist(), strict=True))
    return lines


def _bound(phi: str) -> float | None:
    from unitygain import theory

    most = math.sqrt(theory.largest_bounded(phi))
    return most if math.isfinite(most) else None


def _said(phi: str) -> Iterator[str]:
    """The edge of chaos at a few biases, and where signals do not settle."""
    from unitygain import theory

    found = []
    for sigma_b in (0.0, 0.1, 0.3, 0.5):
        with contextlib.suppress(ValueError):
            point = theory.critical(phi, sigma_b**2)
            settled = theory.mean_field(phi, point.sigma_w2, point.sigma_b2, q=1.001 * (point.q_star or 1e-6))
            # Where the fixed point does not hold, signals leave it, and the edge is not where it says.
            if abs(settled.chi_1 - 1) < 0.01:
                found.append((sigma_b, math.sqrt(point.sigma_w2)))
    if found:
        at = ", ".join(f"{w:.4g} at sigma_b {b:g}" for b, w in found)
        yield f"Edge of chaos of {phi} (chi_1 = 1): sigma_w {at}."
    else:
        yield f"{phi} has no edge of chaos at which signals settle, up to sigma_b 0.5."
    if (most := _bound(phi)) is not None:
        yield f"Beyond sigma_w {most:.4g} the variance of a large signal grows without bound."


def _placed(mine: Sequence["Layer"], others: int) -> Iterator[str]:
    if mine:
        phases = ", ".join(f"{n} {name}" for name, n in Counter(layer.phase for layer in mine).most_common())
        middle = sorted(layer.chi_1 for layer in mine)[len(mine) // 2]
        yield (
            f"The model's {len(mine)} layers: {phases}; median chi_1 {middle:.4g} per layer, as if it were "
            "plain: skip paths and normalisation change it."
        )
    if others:
        yield f"{others} layers with other activations are not on it."


def _drawn(diagram: "PhaseDiagram", w: np.ndarray, b: np.ndarray, mine: Sequence["Layer"]) -> Iterator[str]:
    """The diagram in characters: biases upwards, weights to the right."""
    wide = min(WIDEST, (shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80) - 8)
    columns = np.linspace(0, len(w) - 1, wide).round().astype(int)
    rows = np.linspace(len(b) - 1, 0, TALL).round().astype(int)
    marked = {
        (round((1 - layer.sigma_b / b[-1]) * (TALL - 1)), round(layer.sigma_w / w[-1] * (wide - 1)))
        for layer in mine
    }
    colours = wants_colour()
    yield "sigma_b"
    for line, row in enumerate(rows):
        cells = [
            "O" if (line, k) in marked else _ink(diagram.chi_1[row, column])
            for k, column in enumerate(columns)
        ]
        label = f"{b[row]:6.2f} " if line % 7 == 0 else " " * 7
        yield label + "".join(map(_coloured, cells) if colours else cells).rstrip()
    ends = f"{0:<7}{f'{w[-1] / 2:.3g}':^{wide - 14}}{w[-1]:>7.3g}"
    yield " " * 7 + ends + "\n" + " " * 7 + f"{'sigma_w':>{wide}}"
    key = [KEY, "O your layers" if mine else "", "blank: no fixed point" if diagram.chi_1.mask.any() else ""]
    yield "  ".join(filter(None, key))


def _ink(chi_1: float) -> str:
    if np.ma.is_masked(chi_1):
        return " "
    return next(ink for most, ink in INK if chi_1 <= most)


def _coloured(ink: str) -> str:
    colour = BOLD if ink == "O" else BLUE if ink in ".:-" else ORANGE if ink in "+*" else ""
    return f"{colour}{ink}{PLAIN}" if colour else ink


def _table(mine: Sequence["Layer"]) -> Iterator[str]:
    if not mine:
        return
    width = min(40, max(len("layer"), *(len(plain(layer.name)) for layer in mine[:SHOWN])))
    yield f"\n{'layer':<{width}}  sigma_w  sigma_b    chi_1     xi_c  phase\n"
    for layer in mine[:SHOWN]:
        numbers = "  ".join(f"{v:>7.4g}" for v in (layer.sigma_w, layer.sigma_b, layer.chi_1, layer.xi_c))
        yield f"{plain(layer.name)[:width]:<{width}}  {numbers}  {layer.phase}\n"
    if len(mine) > SHOWN:
        yield f"and {len(mine) - SHOWN} more; --html FILE holds them all\n"
