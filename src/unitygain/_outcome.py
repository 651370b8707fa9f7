"""Outcome: what an arm has shown so far, and the trial that it amounts to."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from unitygain._candidates import Arm
from unitygain._diagnose import judge
from unitygain._job import FACTS, GAINS, Reading
from unitygain._registry import RULES
from unitygain._trial import VERDICTS, Trial, Verdict, gained, judge_losses
from unitygain._types import Finding, Profile

ONE = "one initialisation, batches in other orders"


@dataclass
class Outcome:
    """What an arm has shown so far: what was measured before training, and a reading per seed."""

    arm: Arm
    readings: list[Reading] = field(default_factory=list)
    measured: Reading = field(default_factory=Reading)
    left: tuple[str, ...] = ()
    note: str = ""
    given_up: bool = False

    @property
    def losses(self) -> list[float]:
        """Losses by seed, without a training that was given up."""
        return [reading.loss for reading in self.readings if not math.isnan(reading.loss)]

    @property
    def over(self) -> bool:
        """Whether nothing more is to be done with it."""
        return self.given_up or bool(self.measured.refused or self.measured.failure)

    @property
    def first_loss(self) -> float:
        """The loss on the first seed, infinite where there is none."""
        return self.losses[0] if self.losses else math.inf

    def trial(self, untreated: "Outcome", seeds: int, steps: int) -> Trial:
        """Return the row: what was measured, and what the losses allow to be said beside the untreated ones.

        Args:
            untreated: What it is compared with, or the very same.
            seeds: Seeds that were to be trained.
            steps: Steps that were to be taken.
        """
        arm, readings, profiles = self.arm, self.readings, self.measured.profiles
        losses = self.losses or [reading.rung for reading in readings]
        against = untreated.losses if self.losses else [reading.rung for reading in untreated.readings]
        better, interval = gained(losses, against)
        finding = next(iter(arm.findings), None)
        return Trial(
            remedies=tuple(name for name, _ in arm.calls),
            parameters=tuple(given for _, given in arm.calls),
            treats=arm.codes,
            verdict=self._verdict(untreated, seeds),
            loss=_mean(losses),
            better=better,
            interval=interval,
            seeds=len(readings),
            steps=max((reading.steps for reading in readings), default=steps),
            seconds_per_step=statistics.median(r.seconds for r in readings) if readings else math.nan,
            quantity="" if finding is None else ".".join(filter(None, (finding.quantity, finding.fact))),
            before=math.nan if finding is None else finding.value,
            after=math.nan if finding is None else _reread(finding, profiles),
            predicted=arm.predicted,
            cleared=tuple(code for code in arm.codes if code not in self.left and _judged(code, profiles)),
            left=self.left,
            code=arm.code,
            note=self.measured.failure or self.measured.refused or self.note,
            changes=arm.changes,
            first=_mean([reading.first for reading in readings]),
            profiles={name: _short(profiles[name]) for name in GAINS if name in profiles},
        )

    def _verdict(self, untreated: "Outcome", seeds: int) -> Verdict:
        if self is untreated:
            return "untreated"
        if self.measured.failure:
            return "failed"
        if self.measured.refused:
            return "not tried"
        return "no better" if self.given_up else judge_losses(self.losses, untreated.losses, seeds)


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def left_of(arm: Arm, profiles: Mapping[str, Profile]) -> tuple[str, ...]:
    """Return the codes of the arm that are still found, not counting notes."""
    grave = {f.code for f in judge(profiles, [RULES[code] for code in arm.codes]) if f.severity != "info"}
    return tuple(code for code in arm.codes if code in grave)


def _judged(code: str, profiles: Mapping[str, Profile]) -> bool:
    return all(name in profiles for name in RULES[code].needs)


def _short(profile: Profile) -> Profile:
    """The gains alone: a trial keeps no more than its row and its chart show."""
    facts = {key: profile.facts[key] for key in FACTS if key in profile.facts}
    return Profile(profile.name, profile.unit, profile.sites, profile.values, facts=facts)


def rank(trial: Trial) -> tuple[int, float]:
    """Return what trials are sorted by: the verdict, then the loss."""
    return VERDICTS.index(trial.verdict), trial.loss if not math.isnan(trial.loss) else math.inf


def _reread(finding: Finding, profiles: Mapping[str, Profile]) -> float:
    try:
        return finding.reread(profiles)
    except KeyError:
        return math.nan
