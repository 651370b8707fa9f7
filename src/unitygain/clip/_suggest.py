"""Which threshold? A grid of them is rehearsed; the safe band is what trains as well as the best."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from unitygain._case import Case
from unitygain._rehearsal import Rehearsal, rehearse
from unitygain.clip._bar import Progress, told
from unitygain.clip.by_global_norm import by_global_norm
from unitygain.stats import gradient_stats, with_gradient

# A clip that cuts fewer steps than these hardly ever acts; one that cuts more sets the step size.
FEWEST_CLIPPED, MOST_CLIPPED = 0.01, 0.1


@dataclass(frozen=True)
class Tried:
    """One threshold, rehearsed.

    Args:
        threshold: The largest global gradient norm that was let through; infinite without a clip.
        loss: Mean loss over the drawn batches afterwards; infinite where the training broke.
        clipped: Fraction of the steps that were clipped.
        safe: Whether the loss reached the goal.
    """

    threshold: float
    loss: float
    clipped: float
    safe: bool


@dataclass(frozen=True)
class Suggestion:
    """The threshold to use, the band in which it lies, and all that was tried.

    Args:
        threshold: Global gradient norm to clip at; None where no threshold reached the goal.
        band: Lowest and highest threshold of the contiguous safe band around it: 0 or infinity where the band
            is open towards thresholds that were not tried.
        tried: Every rehearsal, by rising threshold; the last is without a clip.
        start: Loss of the first step.
        goal: Loss at or below which a rehearsal counts as safe.
        steps: Steps of each rehearsal.
        reason: A sentence on why this threshold.
    """

    threshold: float | None
    band: tuple[float, float] | None
    tried: tuple[Tried, ...]
    start: float
    goal: float
    steps: int
    reason: str

    def __str__(self) -> str:
        """Return the sentence, and a line for every threshold."""
        lines = [self.reason, f"{'threshold':>11} {'clipped':>8} {'loss':>10}"]
        for one in self.tried:
            name = "none" if math.isinf(one.threshold) else f"{one.threshold:.4g}"
            loss = f"{one.loss:.4g}" if math.isfinite(one.loss) else "not finite"
            share = one.loss / self.start if self.start > 0 else math.nan
            bar = "█" * round(24 * min(max(share, 0.0), 1.0)) if math.isfinite(share) else ""
            mark = "safe" if one.safe else "    "
            lines.append(f"{name:>11} {one.clipped:>8.0%} {loss:>10} {mark} {bar}".rstrip())
        return "\n".join(lines)


def suggest(
    case: Case,
    *,
    steps: int = 100,
    points: int = 24,
    goal: float | None = None,
    slack: float = 0.1,
    between: tuple[float, float] | None = None,
    edge: float = 0.05,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Suggestion:
    """Find the band of thresholds for the global gradient norm at which `case` trains, by trying them.

    The case is trained once without a clip, then at every threshold of a logarithmic grid, each time from the
    same weights, on the same batches, with the same seed. Safe is what reaches the goal. The proposal is the
    95th percentile of the gradient norms without a clip, or, where that training failed, the threshold with
    the lowest loss. The safe band is the contiguous one around the proposal; its edges are bisected. Safe
    thresholds beyond a gap are no part of it: between them training fails for some. Of the band the middle
    one of those that clip 1 to 10 % of the steps is suggested; if there is none, that with the lowest loss.

    What is safe for `steps` steps from one initialisation need not be safe for a whole training.

    Args:
        case: Declares an optimizer. A case with its own step must call ``case.clip`` in it.
        steps: Steps of each rehearsal.
        points: Thresholds on the grid.
        goal: Loss that counts as safe. Left out: nine tenths (1 - `slack`) of the way from the first loss to
            the best one seen.
        slack: Share of the best improvement that a safe rehearsal may miss.
        between: Lowest and highest threshold of the grid. Left out: from 1e-4 of the typical norm to above
            the largest.
        edge: Relative precision of the band's edges.
        seed: Seed of the random numbers that training draws.
        progress: True shows a bar on stderr; a function is called with (done, total, what) before every
            rehearsal.

    Returns:
        The suggestion; prints as a table.

    Raises:
        ValueError: If an argument is out of its range, the case declares no optimizer, or its own step never
            calls ``case.clip``.
        CaseFailure: If the case's own code raises.

    Cost: `points` + 1 rehearsals and up to about 16 for the edges, one after the other; memory for one copy.
    No side effects on the case.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 10.0)
        >>> case = Case(model, loss=lambda m, x: m(x).pow(4).sum() / 4, data=[torch.ones(1, 1)],
        ...             optimizer=lambda p: torch.optim.SGD(p, 0.1))
        >>> found = suggest(case, steps=30, points=6, goal=0.5**4 / 4)
        >>> 137 < found.band[1] < (10 + 20**0.5) / 0.1
        True

    References:
        The closed form of the example's upper edge, (10 + √20)/0.1: the first step lands on the cycle of
        period two at -√20.
    """
    if points < 3 or steps < 2:
        raise ValueError(f"points is {points} and steps {steps}; use at least 3 points of at least 2 steps")
    if not 0 < slack < 1 or not 0 < edge < 1:
        raise ValueError(f"slack is {slack} and edge {edge}; give both between 0 and 1")
    with told(progress) as tell:
        search = _Search(case, steps, seed, tell, points + 1)
        grid, start = _scan(search, points, between)
        best = min(run.final for run in search.runs.values())
        goal = best + slack * (start - best) if goal is None else goal
        return _judge(search, grid, start, goal, edge)


def _scan(search: "_Search", points: int, between: tuple[float, float] | None) -> tuple[list[float], float]:
    """Rehearse without a clip and at every point of the grid; return the grid and the first loss."""
    free = search.run(math.inf)
    if not search.norms:
        raise ValueError(
            "the case's own step never called case.clip; call case.clip(parameters) between backward and step"
        )
    low, high = between or _span(search.norms, math.isfinite(free.final))
    if not 0 < low < high < math.inf:
        raise ValueError(f"between is {low:.4g} to {high:.4g}; give 0 < lowest < highest < infinity")
    grid = [float(c) for c in np.geomspace(low, high, points)]
    for threshold in grid:
        search.run(threshold)
    return grid, free.losses[0]


class _Search:
    """Rehearsals by threshold, each run once."""

    def __init__(self, case: Case, steps: int, seed: int, progress: Progress, total: int) -> None:
        self.case, self.steps, self.seed = case, steps, seed
        self.progress, self.total = progress, total
        self.runs: dict[float, Rehearsal] = {}
        self.clipped: dict[float, float] = {}
        self.norms: list[float] = []

    def run(self, threshold: float) -> Rehearsal:
        if threshold in self.runs:
            return self.runs[threshold]
        self.total = max(self.total, len(self.runs) + 1)
        free = math.isinf(threshold)
        self.progress(len(self.runs), self.total, "no clip" if free else f"threshold {threshold:.3g}")
        clip = None if free else by_global_norm(threshold)
        norms: list[float] = []

        def cut(parameters: Iterable[nn.Parameter]) -> None:
            held = with_gradient(parameters)
            norms.append(float(gradient_stats(p.grad for p in held if p.grad is not None).total_norm()))
            if clip is not None:
                clip(held)

        self.runs[threshold] = rehearse(self.case, self.steps, seed=self.seed, clip=cut)
        self.norms = self.norms or [norm for norm in norms if math.isfinite(norm) and norm > 0]
        self.clipped[threshold] = sum(norm > threshold for norm in norms) / max(len(norms), 1)
        return self.runs[threshold]


def _span(norms: Sequence[float], whole: bool) -> tuple[float, float]:
    """Range of the grid: far below the typical norm, and above every norm of a training that held."""
    low, high = min(norms[0], float(np.median(norms))), max(norms) if whole else norms[0]
    return 1e-4 * low, 10 * high


def _judge(search: _Search, grid: Sequence[float], start: float, goal: float, edge: float) -> Suggestion:
    def safe(threshold: float) -> bool:
        return search.run(threshold).final <= goal

    good = [safe(threshold) for threshold in grid]
    free = safe(math.inf)
    threshold, band, beyond = None, None, 0
    if any(good):
        first, last = _contiguous(good, _anchor(search, grid, good, free))
        low = _edge(safe, grid[first], grid[first - 1], edge) if first else 0.0
        high = _edge(safe, grid[last], grid[last + 1], edge) if last + 1 < len(grid) else math.inf
        threshold, band = _choice(search, grid[first : last + 1]), (low, high)
        beyond = sum(good) - (last + 1 - first)
    reason = _reason(search, threshold, band, free, goal)
    if beyond:
        reason += f"; {beyond} more safe thresholds lie beyond a gap in which training fails"
    runs = sorted(search.runs.items())
    tried = tuple(Tried(c, run.final, search.clipped[c], run.final <= goal) for c, run in runs)
    return Suggestion(threshold, band, tried, start, goal, search.steps, reason)


def _anchor(search: _Search, grid: Sequence[float], good: Sequence[bool], free: bool) -> int:
    """The safe point of the grid that the band is grown from."""
    safe = [k for k, fine in enumerate(good) if fine]
    if free:
        wanted = float(np.quantile(search.norms, 0.95))
        return min(safe, key=lambda k: abs(math.log(grid[k] / wanted)))
    return min(safe, key=lambda k: search.run(grid[k]).final)


def _choice(search: _Search, band: Sequence[float]) -> float:
    """The middle one of the thresholds that clip a few of the steps; else the one with the lowest loss."""
    few = [c for c in band if FEWEST_CLIPPED <= search.clipped[c] <= MOST_CLIPPED]
    return few[len(few) // 2] if few else min(band, key=lambda c: search.run(c).final)


def _contiguous(good: Sequence[bool], at: int) -> tuple[int, int]:
    first = last = at
    while first > 0 and good[first - 1]:
        first -= 1
    while last + 1 < len(good) and good[last + 1]:
        last += 1
    return first, last


def _edge(safe: Callable[[float], bool], inside: float, outside: float, precision: float) -> float:
    """Bisect on the logarithm between a safe threshold and one that is not; return the safe side."""
    while abs(math.log(outside / inside)) > precision:
        middle = math.sqrt(inside * outside)
        inside, outside = (middle, outside) if safe(middle) else (inside, middle)
    return inside


def _reason(
    search: _Search,
    threshold: float | None,
    band: tuple[float, float] | None,
    free: bool,
    goal: float,
) -> str:
    reached = f"a loss of {goal:.4g} in {search.steps} steps"
    if threshold is None or band is None:
        best = min(run.final for run in search.runs.values())
        if free:
            return f"no clip: every threshold slows the training, which reaches {reached} without one"
        return f"no threshold reaches {reached}; the best was {best:.4g}: clipping is no cure here"
    own = f"clip at {threshold:.4g}, which cuts {search.clipped[threshold]:.0%} of the steps"
    also = "so does training without a clip" if free else "training without a clip does not"
    return f"{own}: thresholds {_words(band)} reach {reached}; {also}"


def _words(band: tuple[float, float]) -> str:
    low, high = (f"{value:.4g}" for value in band)
    if math.isinf(band[1]):
        return f"from {low} upwards" if band[0] else "of any height"
    return f"from {low} to {high}" if band[0] else f"up to {high}"
