"""The trials in words: what was tried, what it did to the loss and to the judged number, how sure that is."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unitygain._trial import Trial
from unitygain.report._show import number, show, show_text


@dataclass(frozen=True)
class Row:
    """One trial as inert texts.

    Args:
        verdict: Its verdict.
        name: The call of its remedies.
        loss: Loss, and how far it lies below the untreated one.
        measured: The judged number before and after, and what was predicted.
        codes: Findings that are gone, and that are left.
        cost: Time of a step over that of the untreated case.
        code: What to paste.
        note: What else is to be known.
    """

    verdict: str
    name: str
    loss: str
    measured: str
    codes: str
    cost: str
    code: str
    note: str

    def parts(self) -> Iterator[str]:
        """Yield what is known, a phrase each."""
        yield from filter(None, (self.loss, self.measured, self.codes, self.cost, self.note))


def rows_of(trials: Sequence[Trial]) -> list[Row]:
    """Return one row for each trial, in their order."""
    plain = next((trial for trial in trials if trial.verdict == "untreated"), None)
    return [_row(trial, plain) for trial in trials]


def brief(trial: Trial) -> str:
    """Return the calls of the remedies, with long lists of places counted instead of named."""
    calls = [
        f"{show(name, 60)}({', '.join(f'{show(key, 40)}={_value(value)}' for key, value in given.items())})"
        for name, given in zip(trial.remedies, trial.parameters, strict=True)
    ]
    return " + ".join(calls) or "untreated"


def _value(value: object) -> str:
    if isinstance(value, (tuple, list)) and len(value) > 1:
        return f"<{len(value)} patterns>"
    return number(value) if isinstance(value, float) else show(repr(value), 60)


def headline(trials: Sequence[Trial]) -> str:
    """Return a sentence on what came of the trials."""
    treated = [trial for trial in trials if trial.verdict != "untreated"]
    best = next((trial for trial in treated if trial.verdict == "verified"), None)
    if best is not None:
        return f"{brief(best)} works here"
    if any(trial.verdict == "leads" for trial in treated):
        return "nothing is verified yet; more seeds or steps may settle what leads"
    if all(trial.verdict == "undecided" for trial in treated):
        return "the budget ended before anything was decided"
    return "no remedy helped"


def _row(trial: Trial, plain: Trial | None) -> Row:
    return Row(
        verdict=trial.verdict,
        name=brief(trial),
        loss=_loss(trial),
        measured=_measured(trial),
        codes=_codes(trial),
        cost=_cost(trial, plain),
        code=show_text(trial.code, 4000),
        note=show_text(trial.note, 400),
    )


def _loss(trial: Trial) -> str:
    if not trial.seeds:
        return ""
    seeds = f"{trial.seeds} seed{'s' * (trial.seeds != 1)}, {trial.steps} steps"
    told = (
        f"loss {number(trial.loss)} ({seeds})" if math.isfinite(trial.loss) else f"training breaks ({seeds})"
    )
    if trial.verdict == "untreated" or not math.isfinite(trial.better):
        return told + ("; the untreated one breaks" if trial.better == math.inf else "")
    side = "lower" if trial.better > 0 else "higher"
    told += f", {side} by {number(abs(trial.better))}"
    if trial.interval is None:
        return told
    low, high = sorted(map(abs, trial.interval)) if trial.interval[0] > 0 else trial.interval
    return f"{told} ({number(low)} to {number(high)})"


def _measured(trial: Trial) -> str:
    if not trial.quantity or math.isnan(trial.after):
        return ""
    told = f"{show(trial.quantity, 60)} {number(trial.before)} -> {number(trial.after)}"
    if trial.predicted is not None:
        told += f", predicted {number(trial.predicted[0])}..{number(trial.predicted[1])}"
    return told


def _codes(trial: Trial) -> str:
    gone = f"{', '.join(show(code, 24) for code in trial.cleared)} gone" if trial.cleared else ""
    left = f"{', '.join(show(code, 24) for code in trial.left)} left" if trial.left else ""
    return ", ".join(filter(None, (gone, left)))


def _cost(trial: Trial, plain: Trial | None) -> str:
    if plain is None or trial is plain or not trial.seconds_per_step > 0 or not plain.seconds_per_step > 0:
        return ""
    return f"a step takes {trial.seconds_per_step / plain.seconds_per_step:.2g}x"
