"""Trial: what was tried, what it did, and whether that is more than chance."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

from unitygain._registry import REMEDIES
from unitygain._types import Profile

Verdict = Literal["verified", "leads", "no better", "undecided", "failed", "not tried", "untreated"]
# From the best to the worst, as they are listed.
VERDICTS: tuple[Verdict, ...] = (
    *("untreated", "verified", "leads", "undecided", "no better", "failed", "not tried"),
)
# Seeds that it takes to be sure, the share of the untreated loss below which a gain is no cure, and the share
# of its first loss that a training must lose to count as one that trains.
ENOUGH, WORTH, TRAINS = 3, 0.01, 0.1
# A model without a finding is fine where it learns by itself this share of what a change lets it learn.
MOST = 0.5
# Losses that differ by more, between seeds or from the treated ones, are compared by their ratios.
SPAN = 10.0
_NONE: Mapping[str, Profile] = MappingProxyType({})


@dataclass(frozen=True)
class Trial:
    """One change tried on copies of a case: measured again, trained for a short budget, compared.

    Args:
        remedies: Names of the remedies that were applied together, in order; empty for the untreated case.
        parameters: Their arguments, one mapping for each.
        treats: Codes of the findings whose causes they take away.
        verdict: ``verified`` (all seeds trained, three or more of them apart, and the interval of `better`
            excludes no change), ``leads`` (better on every seed, too few of them, too much alike or too
            uneven to exclude chance), ``no better``,
            ``undecided`` (the budget ended first), ``failed`` or ``not tried`` (`note` says why), or
            ``untreated``.
        loss: Mean loss after the training, over the seeds, under the case's own loss; infinite if one broke.
        better: By how much that is below the untreated case's, on the same seeds.
        interval: 95 % interval of `better` over the seeds; None where one seed was trained.
        seeds: How many seeds were trained.
        steps: Steps of each training.
        seconds_per_step: Median over the seeds.
        quantity: Name of the number that was judged, and measured again on the changed model.
        before: It, before the change.
        after: It, after the change, before any training.
        predicted: Range in which theory put `after`.
        cleared: Codes that the diagnosis does not find any more.
        left: Codes that it still finds.
        code: What to paste.
        note: What else is to be known.
        changes: What changes in the model, such as ``"initial weights"``.
        first: Mean loss of the first step.
        profiles: Gains of the changed model before any training, and those that theory expects of it.
    """

    remedies: tuple[str, ...]
    parameters: tuple[Mapping[str, Any], ...]
    treats: tuple[str, ...]
    verdict: Verdict
    loss: float
    better: float = 0.0
    interval: tuple[float, float] | None = None
    seeds: int = 0
    steps: int = 0
    seconds_per_step: float = math.nan
    quantity: str = ""
    before: float = math.nan
    after: float = math.nan
    predicted: tuple[float, float] | None = None
    cleared: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    code: str = ""
    note: str = ""
    changes: str = ""
    first: float = math.nan
    profiles: Mapping[str, Profile] = field(default_factory=lambda: _NONE)

    @property
    def name(self) -> str:
        """The remedies with their arguments as they are called, joined by ``+``; ``untreated`` for none."""
        calls = [
            f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})"
            for name, given in zip(self.remedies, self.parameters, strict=True)
        ]
        return " + ".join(calls) or "untreated"

    def apply(self, case: Any) -> Callable[[], None]:
        """Apply the remedies to `case` and return what undoes them all, in reverse order.

        Raises:
            ValueError: If a remedy is unknown here, as in a report from elsewhere, or cannot be applied; the
                case is then as it was.
        """
        # By name, and only here: a trial that was read from a file needs torch when it is applied.
        import_module("unitygain.remedies")
        undos: list[Callable[[], None]] = []
        try:
            for name, given in zip(self.remedies, self.parameters, strict=True):
                if name not in REMEDIES:
                    raise ValueError(
                        f"no remedy is named {name!r}; the names are {', '.join(sorted(REMEDIES))}"
                    )
                undos.append(REMEDIES[name].apply(case, **given))
        except BaseException:
            for undo in reversed(undos):
                undo()
            raise

        def undo_all() -> None:
            for undo in reversed(undos):
                undo()

        return undo_all


def gained(treated: Sequence[float], untreated: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Return by how much the treated losses are lower on the same seeds, and its 95 % interval (Student's t).

    A training that broke has an infinite loss. Where untreated ones broke and no treated one did, the gain is
    infinite; its interval is that against the worst untreated loss that was seen in the place of those, which
    is less, and infinite where none was seen. Where untreated losses span a factor of ten, or all lie by more
    than that above the treated ones, the interval is that of the ratio, and given about their geometric
    mean. Where a treated training broke there is none, and seeds that gave the very same losses count once in
    it: they are one training.

    Example:
        >>> better, (low, high) = gained([1.0, 1.1, 0.9], [2.0, 2.2, 1.9])
        >>> round(better, 3), round(low, 3), round(high, 3)
        (1.033, 0.89, 1.177)
    """
    if not treated:
        return math.nan, None
    gains = [b - a if a != b else 0.0 for a, b in zip(treated, untreated, strict=False)]
    if all(map(math.isfinite, gains)):
        mean = math.fsum(gains) / len(gains)
    else:
        mean = math.inf if all(map(math.isfinite, treated)) else gains[0]
    pairs = _apart(treated, untreated)
    if len(pairs) < 2 or not all(map(math.isfinite, treated)):
        return mean, None
    treated, untreated = zip(*pairs, strict=True)
    seen = [loss for loss in untreated if math.isfinite(loss)]
    if not seen:
        return math.inf, (math.inf, math.inf)
    plain = [min(loss, max(seen)) for loss in untreated]
    least = min(*plain, *treated)
    if least > 0 and max(max(plain) / min(plain), min(plain) / max(treated)) > SPAN:
        low, high = _interval([math.log(b / a) for a, b in zip(treated, plain, strict=True)])
        middle = statistics.geometric_mean(plain)
        return mean, (middle * -math.expm1(-low), middle * -math.expm1(-high))
    return mean, _interval([b - a for a, b in zip(treated, plain, strict=True)])


def _apart(treated: Sequence[float], untreated: Sequence[float]) -> list[tuple[float, float]]:
    """The pairs of losses by seed, those that repeat another seed's left out."""
    return list(dict.fromkeys(zip(treated, untreated, strict=False)))


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean, by Student's t."""
    from scipy import stats

    mean, count = statistics.fmean(values), len(values)
    half = float(stats.t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return mean - half, mean + half


def judge_losses(treated: Sequence[float], untreated: Sequence[float], seeds: int) -> Verdict:
    """Return the verdict on a change from its losses and the untreated ones on the same seeds.

    Args:
        treated: Losses after the training, by seed; the training stops at the first that is no better.
        untreated: The untreated case's, as many or more.
        seeds: How many seeds were to be trained.

    Example:
        >>> judge_losses([1.0, 1.1, 0.9], [2.0, 2.2, 1.9], 3), judge_losses([1.0], [2.0], 3)
        ('verified', 'leads')
    """
    if not treated:
        return "undecided"
    pairs = list(zip(treated, untreated, strict=False))
    if not all(one < other for one, other in pairs):
        return "no better"
    better, interval = gained(treated, untreated)
    if not (better == math.inf or better > WORTH * abs(statistics.fmean(other for _, other in pairs))):
        return "no better"
    enough = len(treated) >= seeds and len(_apart(treated, untreated)) >= ENOUGH
    sure = interval is not None and interval[0] > 0 and enough
    return "verified" if sure else "leads"


def conclude(trials: Sequence[Trial], cut: str = "") -> str:
    """Return in a sentence what came of the trials.

    Args:
        trials: The untreated one first.
        cut: What ended the trials before they were done, and what was left undone.

    Example:
        >>> plain = Trial((), (), (), "untreated", 2.0, seeds=3, steps=60, first=2.3)
        >>> cured = Trial(("zero_biases",), ({},), (), "verified", 1.0, 1.0, (0.9, 1.1), 3, 60)
        >>> conclude([plain, cured])
        'zero_biases works here: loss 1 instead of 2 after 60 steps (3 seeds, lower by 0.9 to 1.1)'
    """
    plain, treated = trials[0], trials[1:]
    best = next((trial for trial in treated if trial.verdict == "verified"), None)
    if best is not None and (best.treats or not _learns(plain, best)):
        return f"{_names(best)} works here: {_gain(best, plain)}"
    if best is not None:
        return f"{_trains(plain)}; {_names(best)} does better: {_gain(best, plain)}"
    leads = [trial for trial in treated if trial.verdict == "leads"]
    if cut and (leads or any(trial.verdict == "undecided" for trial in treated)):
        return cut
    if leads:
        seeds = f"{leads[0].seeds} seed{'s' * (leads[0].seeds > 1)}"
        return f"nothing is verified: {_names(leads[0])} leads on {seeds}; {_doubt(leads[0])}"
    if treated and all(trial.verdict in {"failed", "not tried"} for trial in treated):
        return f"no remedy could be tried: {treated[0].note}"
    if plain.first - plain.loss > TRAINS * abs(plain.first):
        return f"{_trains(plain)}, and no remedy does better"
    ends = f"stays at {plain.loss:.4g}" if math.isfinite(plain.loss) else "breaks"
    return f"no remedy helped: the untreated loss {ends}, and none of {len(treated)} does better"


def _learns(plain: Trial, best: Trial) -> bool:
    """Whether the untreated training learns most of what the best one does."""
    return plain.first - plain.loss >= MOST * (plain.first - best.loss)


def _trains(plain: Trial) -> str:
    ends = f"loss {plain.first:.4g} -> {plain.loss:.4g} in {plain.steps} steps"
    return f"the plain model was fine: it trains ({ends})"


def _doubt(leading: Trial) -> str:
    """Why a change that leads is not verified."""
    if leading.seeds < ENOUGH:
        return f"a verdict takes {ENOUGH} seeds"
    if leading.interval is None or leading.interval[0] > 0:
        return (
            "seeds gave the very same losses, which are one training: give a function that draws a new model "
            "under every seed, or more batches"
        )
    return "its gain is too uneven to exclude chance"


def _names(trial: Trial) -> str:
    return " + ".join(trial.remedies)


def _gain(best: Trial, plain: Trial) -> str:
    ends = f"{plain.loss:.4g}" if math.isfinite(plain.loss) else "a training that breaks"
    told = f"loss {best.loss:.4g} instead of {ends} after {best.steps} steps ({best.seeds} seeds"
    if best.interval is None or not all(map(math.isfinite, best.interval)):
        return f"{told})"
    return f"{told}, lower by {best.interval[0]:.3g} to {best.interval[1]:.3g})"
