"""Three numbers on one ruler: what a chain of blocks may, will and can at worst do to a signal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unitygain.report._show import number, power
from unitygain.report._svg import HALF

_EDGE, _LINE, _HEIGHT = 24, 62, 96
_TONES = {"bound": "c6", "typical": "back", "worst": "c1"}


@dataclass(frozen=True)
class Ruler:
    """The three numbers in words, and their marks on a common logarithmic axis."""

    rows: tuple[tuple[str, str, str, str], ...]
    svg: Markup


def ruler(numbers: Sequence[tuple[str, float, str]]) -> Ruler | None:
    """Return the picture of (name, log10, meaning) entries, or None without any."""
    if not numbers:
        return None
    rows = tuple((name, _factor(value), meaning, _TONES[name]) for name, value, meaning in numbers)
    finite = [(name, value) for name, value, _ in numbers if math.isfinite(value)]
    low = math.floor(min([0.0, *(value for _, value in finite)]) - 0.5)
    high = math.ceil(max([0.0, *(value for _, value in finite)]) + 0.5)

    def at(value: float) -> float:
        return round(_EDGE + (value - low) / (high - low) * (HALF - 2 * _EDGE), 1)

    step = max(1, math.ceil((high - low) / 8))
    pieces = [
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _EDGE, HALF - _EDGE, _LINE, _LINE
        )
    ]
    pieces += [
        Markup(
            '<line class="axis" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>'
            '<text class="x" x="{0}" y="{3}">{4}</text>'
        ).format(at(tick), _LINE, _LINE + 5, _LINE + 22, power(tick))
        for tick in range(math.ceil(low / step) * step, high + 1, step)
    ]
    pieces.append(Markup('<line class="unity" x1="{0}" x2="{0}" y1="14" y2="{1}"/>').format(at(0.0), _LINE))
    for place, (name, value) in enumerate(finite):
        pieces.append(
            Markup(
                '<path class="pin {}" d="M{} {}V{}"/><circle class="pin {}" cx="{}" cy="{}" r="5"/>'
            ).format(
                _TONES[name], at(value), _LINE, 46 - 12 * place, _TONES[name], at(value), 46 - 12 * place
            )
        )
    svg = Markup('<svg viewBox="0 0 {} {}" aria-hidden="true">{}</svg>').format(
        HALF, _HEIGHT, Markup("").join(pieces)
    )
    return Ruler(rows, svg)


def _factor(log10: float) -> str:
    if not math.isfinite(log10):
        return number(log10)
    if -2 <= log10 < 4:
        return f"{10**log10:.3g}"
    exponent = math.floor(log10)
    return f"{10 ** (log10 - exponent):.1f}·{power(exponent)}"
