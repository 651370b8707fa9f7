"""The trials as rows: what was tried, what it did to loss and gains, how sure that is, what it costs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unitygain._trial import Trial
from unitygain._types import Profile
from unitygain.report._show import number, show, show_text, signed

Spell = Callable[[float], str]
HEADS = ("verdict", "remedy", "loss", "lower by (95 %)", "gain/block", "trunk dB", "slope dB", "step")


@dataclass(frozen=True)
class Row:
    """One trial as inert texts.

    Args:
        verdict: Its verdict.
        name: The call of its remedies.
        loss: Loss after the training.
        lower: How far that lies below the untreated one, with its interval.
        gain: Backward gain per block; with that of theory behind it where theory expects one.
        loop: The same over the trunk, in decibels.
        slope: Its slope per block, in decibels.
        cost: Time of a step over that of the untreated case.
        details: What else is known, a phrase each.
        code: What to paste.
    """

    verdict: str
    name: str
    loss: str
    lower: str
    gain: str
    loop: str
    slope: str
    cost: str
    details: tuple[str, ...]
    code: str

    def cells(self) -> tuple[str, ...]:
        """Return the texts under `HEADS`."""
        return (self.verdict, self.name, self.loss, self.lower, self.gain, self.loop, self.slope, self.cost)


def rows_of(trials: Sequence[Trial], profiles: Mapping[str, Profile]) -> list[Row]:
    """Return one row for each trial, in their order.

    Args:
        trials: The trials, the untreated one first.
        profiles: Those of the untreated case, which its row shows.
    """
    plain = next((trial for trial in trials if trial.verdict == "untreated"), None)
    return [_row(trial, plain, profiles if trial is plain else trial.profiles) for trial in trials]


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


def _row(trial: Trial, plain: Trial | None, profiles: Mapping[str, Profile]) -> Row:
    details = (_trained(trial), _changes(trial), _measured(trial), _codes(trial), show_text(trial.note, 400))
    return Row(
        verdict=trial.verdict,
        name=brief(trial),
        loss=_loss(trial),
        lower=_lower(trial),
        gain=_beside(profiles, "gain_per_block", _ratio),
        loop=_beside(profiles, "loop_db", signed),
        slope=_fact(profiles.get("backward_gain"), "slope_db", signed),
        cost=_cost(trial, plain),
        details=tuple(filter(None, details)),
        code=show_text(trial.code, 4000),
    )


def _loss(trial: Trial) -> str:
    if not trial.seeds:
        return ""
    return number(trial.loss) if math.isfinite(trial.loss) else "breaks"


def _lower(trial: Trial) -> str:
    if trial.verdict == "untreated" or not trial.seeds or math.isnan(trial.better):
        return ""
    if not math.isfinite(trial.better):
        return "the other breaks" if trial.better > 0 else ""
    told = f"{trial.better:.3g}"
    if trial.interval is None:
        return told
    return f"{told} ({trial.interval[0]:.3g} to {trial.interval[1]:.3g})"


def _trained(trial: Trial) -> str:
    if not trial.seeds:
        return ""
    return f"{trial.seeds} seed{'s' * (trial.seeds != 1)} of {trial.steps} steps"


def _changes(trial: Trial) -> str:
    return f"changes {show(trial.changes, 80)}" if trial.changes else ""


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
    if plain is None or not trial.seconds_per_step > 0 or not plain.seconds_per_step > 0:
        return ""
    return f"{trial.seconds_per_step / plain.seconds_per_step:.2g}x"


def _beside(profiles: Mapping[str, Profile], fact: str, spell: Spell) -> str:
    """A fact of the measured gain, and in brackets the one that theory expects of every block."""
    told = _fact(profiles.get("backward_gain"), fact, spell)
    theory = profiles.get("predicted_gain")
    if not told or theory is None or theory.facts.get("predicted") != theory.facts.get("depth"):
        return told
    return f"{told} ({_fact(theory, fact, spell)})"


def _ratio(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else number(value)


def _fact(profile: Profile | None, fact: str, spell: Spell) -> str:
    value = profile.facts.get(fact) if profile is not None else None
    return spell(value) if isinstance(value, (int, float)) else ""
