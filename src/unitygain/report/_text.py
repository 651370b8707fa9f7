"""The report as text: findings as a linter prints them, a gain-staging chart, and what was skipped."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unitygain._types import NOT_JUDGED, Cause, Finding, Skipped
from unitygain.report._show import number, places, probability, show, show_text
from unitygain.report._staging import Line, staging_lines
from unitygain.report._trials import rows_of
from unitygain.report._trials_text import trials_lines

if TYPE_CHECKING:
    from unitygain.report._report import Report

WIDTH = 100
_NARROWEST = 60
_SKIPS = 12
_STYLES = {
    "error": "1;31", "warning": "1;33", "info": "1;34", "bold": "1", "dim": "2", "code": "36",
    "verified": "32", "leads": "33", "no better": "35", "failed": "31", "undecided": "2", "untreated": "2",
    "not tried": "2",
    "confirmed": "32", "refuted": "35", "not tested": "2", "loss": "33", "gain": "34", "fine": "1;32",
}  # fmt: skip


def render_text(report: "Report", color: bool = False, width: int = WIDTH) -> str:
    """Return the report as text.

    Args:
        report: What to print.
        color: Whether to add terminal colours. Names are escaped first, so that none can add its own.
        width: Columns of the terminal; less than 60 is taken as 60.
    """
    width = max(width, _NARROWEST)
    blocks = [_head(report, width)]
    blocks += [_finding(finding, width) for finding in report.findings]
    backward = report.profiles.get("backward_gain")
    if backward is not None and len(backward):
        forward, theory = map(report.profiles.get, ("forward_gain", "predicted_gain"))
        blocks.append(staging_lines(backward, forward, width, theory))
    if report.trials or report.conclusion:
        rows = rows_of(report.trials, report.profiles)
        blocks.append(trials_lines(report.conclusion, rows, width))
    if report.skipped:
        blocks.append(_skipped(report, width))
    blocks.append(_summary(report, width))
    return "\n\n".join("\n".join(_paint(line, color) for line in block) for block in blocks if block)


def _paint(line: Line, color: bool) -> str:
    if not color:
        return "".join(text for text, _ in line).rstrip()
    return "".join(f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style else text for text, style in line)


def _wrap(text: str, width: int, indent: str, first: str | None = None) -> list[str]:
    lines = []
    for paragraph in show_text(text).splitlines() or [""]:
        begin = indent if first is None or lines else first
        lines += textwrap.wrap(paragraph, width, initial_indent=begin, subsequent_indent=indent) or [begin]
    return lines


def _head(report: "Report", width: int) -> list[Line]:
    case = report.case
    units = {
        "parameters": "{} parameters",
        "torch": "torch {}",
        "seed": "seed {}",
        "loss": "loss {}",
        "device": "on {}",
    }
    words = [
        units.get(key, "{}").format(number(value))
        for key, value in case.items()
        if key in units or key == "dtype"
    ]
    others = [f"{show(key, 40)}: {number(value)}" for key, value in case.items()
              if key not in units and key not in ("name", "dtype")]  # fmt: skip
    name = show(case.get("name") or "a model")
    lines: list[Line] = [[("unitygain", "dim"), ("  ", ""), (name, "bold")]]
    for words_of_line in (words, others):
        lines += [[(line, "dim")] for line in _wrap(", ".join(words_of_line), width, "  ") if words_of_line]
    return lines


def _finding(finding: Finding, width: int) -> list[Line]:
    code, name, where = show(finding.code, 24), show(finding.name, 60), places(finding.sites)
    title: Line = [(f"{code} {finding.severity:<8}", finding.severity), (f" {name}", "bold")]
    lines = [title]
    if len(code) + len(name) + len(where) + 12 <= width:
        title.append((f"  {where}", "dim"))
    else:
        lines += [[(line, "dim")] for line in _wrap(where, width, "  ")]
    lines += [[(line, "")] for line in _wrap(finding.message, width, "  ")]
    lines += [[(line, "dim")] for line in _wrap(evidence(finding), width, "  ")]
    for index, cause in enumerate(finding.causes):
        lines += _cause(cause, index, finding.value, width)
    if finding.fix:
        lines.append([("  fix:", "bold")])
        lines += [[(f"    {line}", "code")] for line in show_text(finding.fix).splitlines()]
    lines.append([(f"  why: unitygain explain {show(finding.code, 24)}", "dim")])
    return lines


def evidence(finding: Finding) -> str:
    """Return the judged number with its bounds in one phrase."""
    judged = f"{show(finding.quantity, 60)}{'.' + show(finding.fact, 60) if finding.fact else ''}"
    words = [f"{judged} = {number(finding.value)}"]
    if finding.interval:
        words.append(f"interval {number(finding.interval[0])}..{number(finding.interval[1])}")
    words.append(f"threshold {number(finding.threshold)}")
    if finding.expected is not None:
        words.append(f"expected {number(finding.expected)}")
    if finding.p_value is not None:
        p = probability(finding.p_value, finding.evidence.get("p_least"))
        words.append(f"p {p}" if p.startswith("<") else f"p = {p}")
    words += [f"{show(key, 60)}: {number(value)}" for key, value in finding.evidence.items()]
    return "; ".join(words)


def outcome(cause: Cause, value: float) -> str:
    """Return what the removal of a cause showed, such as ``confirmed: 0.41 -> 1 predicted 0.9..1.1``."""
    words = cause.status
    if cause.measured is not None:
        words += f": {number(value)} -> {number(cause.measured)}"
    if cause.predicted:
        words += f" predicted {number(cause.predicted[0])}..{number(cause.predicted[1])}"
    return words


def letter(index: int) -> str:
    """Return ``a``, ``b``, ... and from the 27th on the number."""
    return chr(ord("a") + index) if index < 26 else str(index + 1)


def _cause(cause: Cause, index: int, value: float, width: int) -> list[Line]:
    lines: list[Line] = [[(line, "")] for line in _wrap(cause.text, width, "      ", f"  ({letter(index)}) ")]
    seen = outcome(cause, value) + (f"; {cause.note}" if cause.note else "")
    lines += [[(line, cause.status)] for line in _wrap(f"[{show_text(seen)}]", width, "      ")]
    return lines


def _skipped(report: "Report", width: int) -> list[Line]:
    lines: list[Line] = [[("not looked at", "bold")]]
    others, silent = split_skipped(report.skipped)
    shown = [f"{show(item.what)}: {show_text(item.reason, 400)}" for item in others[:_SKIPS]]
    if len(others) > _SKIPS:
        shown.append(f"and {len(others) - _SKIPS} more, all of them in the JSON")
    if silent:
        shown.append(": ".join(silent))
    for words in shown:
        lines += [[(line, "dim")] for line in _wrap(words, width, "  ")]
    return lines


def split_skipped(skipped: Sequence[Skipped]) -> tuple[list[Skipped], tuple[str, str] | None]:
    """Return what was skipped, and in two phrases all rules that had nothing to judge, if any."""
    silent = [item for item in skipped if item.reason.startswith(NOT_JUDGED)]
    if not silent:
        return list(skipped), None
    codes: dict[str, list[str]] = {}
    for item in silent:
        codes.setdefault(item.reason.removeprefix(NOT_JUDGED), []).append(show(item.what, 24))
    phrases = [f"{', '.join(some)} ({show_text(reason, 400)})" for reason, some in codes.items()]
    others = [item for item in skipped if item not in silent]
    return others, (f"{len(silent)} rule{'s' * (len(silent) > 1)} not judged", "; ".join(phrases))


def unseen(skipped: Sequence[Skipped]) -> list[str]:
    """Return how many things were not looked at and how many rules not judged, a phrase each."""
    others, silent = split_skipped(skipped)
    return [*([f"{len(others)} not looked at"] if others else []), *([silent[0]] if silent else [])]


def _summary(report: "Report", width: int) -> list[Line]:
    count = len(report.profiles)
    looked = f" from {count} profile{'s' * (count != 1)} in {duration(report.seconds)}"
    looked = ", ".join([looked, *unseen(report.skipped)])
    count, style = report.count(), report.worst or "fine"
    if len(count) + len(looked) <= width:
        return [[(count, style), (looked, "")]]
    return [[(count, style)], [(looked.strip(), "")]]


def duration(seconds: float) -> str:
    """Return a wall time in words."""
    return f"{seconds:.1f} s" if math.isfinite(seconds) else "unknown time"
