"""The trials in the terminal: a sentence on what came of them, then two or three lines for each."""

import textwrap
from collections.abc import Sequence

from unitygain.report._show import show_text
from unitygain.report._staging import Line
from unitygain.report._trials import HEADS, Row

_INDENT = 13
_NUMBERS = slice(2, None)


def trials_lines(conclusion: str, rows: Sequence[Row], width: int) -> list[Line]:
    """Return the lines as (text, style) pieces.

    Args:
        conclusion: What came of the trials.
        rows: One for each trial; none where nothing was tried.
        width: Columns of the terminal.
    """
    first, *rest = _wrapped(f"trials: {conclusion}", width, 2) if conclusion else ["trials"]
    head, _, tail = first.partition(": ")
    lines: list[Line] = [[(head + ":" * bool(tail), "bold"), (f" {tail}" if tail else "", "")]]
    lines += [[(line, "")] for line in rest]
    if not rows:
        return lines
    table = [HEADS[_NUMBERS], *(row.cells()[_NUMBERS] for row in rows)]
    kept = [k for k in range(len(table[0])) if any(cells[k] for cells in table[1:])]
    widths = [max(len(cells[k]) for cells in table) for k in kept]
    lines.append([(_line(table[0], kept, widths), "dim")])
    for row, cells in zip(rows, table[1:], strict=True):
        lines.append([
            (f"  {row.verdict:<10}", row.verdict),
            (f" {row.name}" * (row.name != row.verdict), ""),
        ])
        if any(cells):
            lines.append([(_line(cells, kept, widths), "")])
        lines += [[(line, "dim")] for line in _wrapped("; ".join(row.details), width, _INDENT, _INDENT)]
    if any("(" in row.gain for row in rows):
        note = "gains are backward, before any training; in brackets what theory expects of a random gradient"
        lines += [[(line, "dim")] for line in _wrapped(note, width, 2, 2)]
    return lines


def _line(cells: Sequence[str], kept: Sequence[int], widths: Sequence[int]) -> str:
    shown = "  ".join(f"{cells[k]:<{width}}" for k, width in zip(kept, widths, strict=True))
    return f"{' ' * _INDENT}{shown}".rstrip()


def _wrapped(text: str, width: int, indent: int, first: int = 0) -> list[str]:
    plain = " ".join(show_text(text).split())
    return textwrap.wrap(plain, width, initial_indent=" " * first, subsequent_indent=" " * indent)
