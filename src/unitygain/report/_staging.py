"""The gain-staging chart of the terminal: backward gain per block in dB as bars, with its running sum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unitygain._types import Profile
from unitygain.report._show import decibel, short_labels, show, signed

ROWS = 24
_LEAST_SCALE = 3.0
Line = list[tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """One line of the chart: a block, or several neighbours; decibels per block and summed from the loss."""

    label: str
    back: float
    total: float
    ahead: float | None
    theory: float | None = None


def staging_lines(
    backward: Profile, forward: Profile | None, width: int, theory: Profile | None = None
) -> list[Line]:
    """Return the chart's lines as (text, style) pieces; empty for a profile without sites.

    Args:
        backward: Gains of the blocks.
        forward: Their forward gains.
        width: Columns of the terminal.
        theory: Their expected gains.
    """
    if not len(backward):
        return []
    rows, size = group(backward, forward, theory)
    label = max(5, min(24, max(len(row.label) for row in rows)))
    half = max(6, min(16, (width - label - (45 if theory else 36)) // 2))
    finite = [abs(row.back) for row in rows if math.isfinite(row.back)]
    scale = max([_LEAST_SCALE, *finite])
    ahead = any(row.ahead is not None for row in rows)
    expected = any(row.theory is not None for row in rows)
    first = f"  {'block':<{label}}  {f'-{scale:.0f} dB':<{half}}0{f'+{scale:.0f} dB':>{half}}"
    heads = f"{'backward':>11}{'summed':>10}" + (f"{'forward':>10}" if ahead else "")
    heads += f"{'theory':>9}" if expected else ""
    lines: list[Line] = [
        [
            (
                "gain per block in dB (bars: backward, from the bottom up)",
                "bold",
            )
        ]
    ]
    lines.append([(first + heads, "dim")])
    lines += [_row(row, label, half, scale, (ahead, expected)) for row in rows]
    if size > 1:
        lines.append([(f"  {len(backward)} blocks, {size} to a row: the rows show means per block", "dim")])
    if expected:
        lines.append([("  theory: what a random gradient would have; backward is that of the loss", "dim")])
    return lines


def group(backward: Profile, forward: Profile | None, theory: Profile | None = None) -> tuple[list[Row], int]:
    """Return at most 24 rows in forward order, and how many blocks each of them stands for."""
    size = math.ceil(len(backward) / ROWS)
    back = [decibel(value) for value in backward.values]
    names = short_labels(backward.sites, 24)
    ahead = {site: decibel(value) for site, value in forward.items()} if forward else {}
    expected = {site: decibel(value) for site, value in theory.finite()} if theory else {}
    running = 0.0
    sums: list[float] = []
    for value in reversed(back):
        running += value
        sums.append(running)
    sums.reverse()
    rows = []
    for start in range(0, len(back), size):
        stop = min(start + size, len(back))
        label = names[start] if size == 1 else f"{names[start]}..{names[stop - 1]}"
        beside = (
            _mean([more[site] for site in backward.sites[start:stop] if site in more])
            for more in (ahead, expected)
        )
        rows.append(Row(show(label, 24), sum(back[start:stop]) / (stop - start), sums[start], *beside))
    return rows, size


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _row(row: Row, label: int, half: int, scale: float, shown: tuple[bool, bool]) -> Line:
    left, right = bar(row.back, half, scale)
    style = "loss" if row.back < 0 else "gain"
    more = f"{'' if row.ahead is None else signed(row.ahead):>10}" if shown[0] else ""
    more += f"{'' if row.theory is None else signed(row.theory):>9}" if shown[1] else ""
    return [
        (f"  {row.label:<{label}}  ", ""),
        (left, style),
        ("│", "dim"),
        (right, style),
        (f"{signed(row.back):>11}{signed(row.total):>10}{more}", ""),
    ]


def bar(value: float, half: int, scale: float) -> tuple[str, str]:
    """Return the two halves of a bar around zero; a value that is not finite is written out instead."""
    if math.isnan(value):
        return "NaN".rjust(half), " " * half
    if math.isinf(value):
        word = "<<< " if value < 0 else " >>>"
        return (word.rjust(half), " " * half) if value < 0 else (" " * half, word.ljust(half))
    steps = round(abs(value) / scale * half * 2)
    full, rest = divmod(min(steps, half * 2), 2)
    if value < 0:
        return ("▐" * rest + "█" * full).rjust(half), " " * half
    return " " * half, ("█" * full + "▌" * rest).ljust(half)
