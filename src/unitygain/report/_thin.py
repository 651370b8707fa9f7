"""Fewer points for a picture: every stretch keeps its smallest and its largest value, never a mean."""

import math
from collections.abc import Sequence

POINTS = 1200


def keep(series: Sequence[Sequence[float]], count: int, limit: int = POINTS) -> list[int]:
    """Return the indices to draw: all of them up to `limit`, else each stretch's extremes and first gap.

    Args:
        series: Values that share the indices; each keeps its own extremes.
        count: How many indices there are.
        limit: About how many to return.

    Example:
        >>> spike = [0.0] * 5000 + [9.0] + [0.0] * 5000
        >>> kept = keep([spike], len(spike), limit=100)
        >>> 5000 in kept, len(kept) <= 100
        (True, True)
    """
    if count <= limit or not series:
        return list(range(count))
    stretches = max(1, (limit - 2) // (3 * len(series)))
    size = math.ceil(count / stretches)
    kept = {0, count - 1}
    for start in range(0, count, size):
        stop = min(start + size, count)
        for values in series:
            kept |= _extremes(values, start, stop)
    return sorted(kept)


def _extremes(values: Sequence[float], start: int, stop: int) -> set[int]:
    finite = [k for k in range(start, stop) if math.isfinite(values[k])]
    gap = next((k for k in range(start, stop) if not math.isfinite(values[k])), None)
    kept = set() if gap is None else {gap}
    if finite:
        kept |= {min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)}
    return kept


def merge(rows: Sequence[Sequence[float]], limit: int) -> tuple[list[list[float]], int]:
    """Return at most `limit` rows, each the entrywise farthest from zero of its stretch, and the stretch.

    A value that is not finite is farther than every other.
    """
    size = max(1, math.ceil(len(rows) / limit))
    merged = [_farthest(rows[start : start + size]) for start in range(0, len(rows), size)]
    return merged, size


def _farthest(rows: Sequence[Sequence[float]]) -> list[float]:
    def distance(value: float) -> float:
        return abs(value) if math.isfinite(value) else math.inf

    return [max(column, key=distance) for column in zip(*rows, strict=False)]
