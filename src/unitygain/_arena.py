"""The arena: changes to a case compared on the same seeds, batches and steps."""

import copy
import itertools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unitygain._case import Case, random_states, reseed
from unitygain._diagnose import Progress, judge, measure_all
from unitygain._registry import MEASURES, REMEDIES, RULES
from unitygain._rehearsal import mean_loss, train
from unitygain._trial import VERDICTS, Trial, Verdict, gained, judge_losses
from unitygain._types import Finding, Profile
from unitygain.probe.isolate import isolated
from unitygain.probe.sites import Select

# Fewer steps than these say nothing about training, more are not needed to rank.
FEWEST_STEPS, MOST_STEPS = 10, 200
# Combinations of two that are tried.
PAIRS = 1


@dataclass(frozen=True)
class Arm:
    """A change to be tried.

    Args:
        calls: (remedy, arguments) in order; none is the untreated case.
        findings: What it treats.
        predicted: Range in which theory puts the first finding's number afterwards.
        code: What to paste.
    """

    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    findings: tuple[Finding, ...] = ()
    predicted: tuple[float, float] | None = None
    code: str = ""

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of the findings, each once."""
        return tuple(dict.fromkeys(finding.code for finding in self.findings))

    def joined(self, other: "Arm") -> "Arm":
        """This change and another one after it."""
        code = "\n".join(filter(None, (self.code, other.code)))
        return Arm(self.calls + other.calls, self.findings + other.findings, self.predicted, code)


@dataclass
class Outcome:
    """What an arm has shown so far: losses by seed, and the numbers measured before training."""

    arm: Arm
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    after: float = math.nan
    left: tuple[str, ...] = ()
    failure: str = ""


@dataclass
class Arena:
    """Where the arms meet: the same seeds, batches and steps for all.

    Args:
        case: The case, which stays as it is.
        sites: The choice of sites of its diagnosis.
        probes: Random vectors per block.
        seed: The first seed.
        seeds: Seeds that a verdict takes.
        deadline: When the budget ends, on the monotonic clock.
        say: Progress, called with (done, total, what).
        steps: Steps of each training.
        interrupted: Whether Ctrl-C ended it.
    """

    case: Case
    sites: Select
    probes: int
    seed: int
    seeds: int
    deadline: float
    say: Progress
    steps: int = FEWEST_STEPS
    interrupted: bool = False

    def affordable(self, arms: int) -> int:
        """Return how many steps of every arm and seed the budget pays for, measured on three steps."""
        started = time.monotonic()
        train(self.subject(Arm(), 0), 3)
        each = (time.monotonic() - started) / 3
        paid = (self.deadline - time.monotonic()) / max(each * arms * self.seeds, 1e-9)
        return max(FEWEST_STEPS, min(MOST_STEPS, int(paid)))

    def compare(self, arms: Sequence[Arm]) -> list[Trial]:
        """Train every arm and return its trials, the untreated one first, then by verdict and loss."""
        untreated, tried = Outcome(Arm()), [Outcome(arm) for arm in arms]
        total = (len(arms) + 1 + PAIRS) * self.seeds
        try:
            self._all_seeds(untreated, untreated, total)
            for outcome in tried:
                self._first(outcome, total)
            for outcome in sorted(tried, key=_first_loss):
                self._all_seeds(outcome, untreated, total)
            for pair in _pairs(tried, untreated):
                outcome = Outcome(pair)
                tried.append(outcome)
                self._first(outcome, total)
                self._all_seeds(outcome, untreated, total)
        except KeyboardInterrupt:
            self.interrupted = True
        if not untreated.losses:
            return []
        self.say(total, total, "done")
        rows = [self._trial(outcome, untreated) for outcome in tried]
        return [self._trial(untreated, untreated), *sorted(rows, key=_rank)]

    def subject(self, arm: Arm, index: int) -> Case:
        """Return a fresh case for the seed of that index, with the change applied."""
        case = self.case
        if case.factory is not None and (
            case.optimizer is None or not hasattr(case.optimizer, "param_groups")
        ):
            twin = copy.copy(case)
            twin._model = case.build(self.seed + index) if index else copy.deepcopy(case.model)
            twin._batches = case.batches
        else:
            twin = case.copy()
            shift = index % len(case.batches)
            twin._batches = case.batches[shift:] + case.batches[:shift]
        for name, given in arm.calls:
            REMEDIES[name].apply(twin, **given)
        return twin

    def _first(self, outcome: Outcome, total: int) -> None:
        """Measure the changed model again, and train it on the first seed."""
        try:
            self._remeasure(outcome)
            self._train(outcome, 0, total)
        except Exception as error:
            outcome.failure = f"{type(error).__name__}: {error}"

    def _all_seeds(self, outcome: Outcome, untreated: Outcome, total: int) -> None:
        """Train on the seeds that are missing, as long as there is time and hope."""
        while len(outcome.losses) < self.seeds and not outcome.failure:
            begun = bool(outcome.losses) and outcome is not untreated
            if begun and not outcome.losses[-1] < untreated.losses[len(outcome.losses) - 1]:
                return
            if untreated.losses and time.monotonic() > self.deadline:
                return
            self._train(outcome, len(outcome.losses), total)

    def _train(self, outcome: Outcome, index: int, total: int) -> None:
        name = " + ".join(name for name, _ in outcome.arm.calls) or "untreated"
        self.say(min(total - 1, index), total, f"training {name}, seed {self.seed + index}")
        subject = self.subject(outcome.arm, index)
        started = time.monotonic()
        rehearsal = train(subject, self.steps, seed=self.seed + index)
        outcome.seconds.append((time.monotonic() - started) / rehearsal.steps)
        broke = math.isinf(rehearsal.final)
        outcome.losses.append(math.inf if broke else self._own_loss(subject, index))

    def _own_loss(self, subject: Case, index: int) -> float:
        """The loss that the case itself declares, which a change may have replaced for its training."""
        subject.loss = self.case.loss
        with random_states():
            reseed(self.seed + index)
            return mean_loss(subject)

    def _remeasure(self, outcome: Outcome) -> None:
        """Measure what was judged on the changed model, before any training."""
        first, codes = outcome.arm.findings[0], outcome.arm.codes
        rules = [RULES[code] for code in codes]
        names = {first.quantity, *(name for rule in rules for name in (*rule.needs, *rule.wants))}
        with isolated(self.subject(outcome.arm, 0), self.seed) as (subject, _):
            chosen = [MEASURES[name] for name in MEASURES if name in names]
            profiles, _, _ = measure_all(subject, self.sites, self.probes, self.seed, silent, chosen)
        outcome.after = _reread(first, profiles)
        grave = [f.code for f in judge(profiles, rules) if f.severity != "info"]
        outcome.left = tuple(code for code in codes if code in grave)

    def _trial(self, outcome: Outcome, untreated: Outcome) -> Trial:
        arm, losses = outcome.arm, outcome.losses
        better, interval = gained(losses, untreated.losses)
        first = arm.findings[0] if arm.findings else None
        loss = statistics.fmean(losses) if losses else math.nan
        return Trial(
            remedies=tuple(name for name, _ in arm.calls),
            parameters=tuple(given for _, given in arm.calls),
            treats=arm.codes,
            verdict=self._verdict(outcome, untreated),
            loss=loss,
            better=better,
            interval=interval,
            seeds=len(losses),
            steps=self.steps,
            seconds_per_step=statistics.median(outcome.seconds) if outcome.seconds else math.nan,
            quantity="" if first is None else ".".join(filter(None, (first.quantity, first.fact))),
            before=math.nan if first is None else first.value,
            after=outcome.after,
            predicted=arm.predicted,
            cleared=tuple(code for code in arm.codes if code not in outcome.left and not outcome.failure),
            left=outcome.left,
            code=arm.code,
            note=outcome.failure
            or ("" if self.case.factory else "one initialisation, batches in other orders"),
        )

    def _verdict(self, outcome: Outcome, untreated: Outcome) -> Verdict:
        if outcome is untreated:
            return "untreated"
        if outcome.failure:
            return "failed"
        return judge_losses(outcome.losses, untreated.losses, self.seeds)


def _pairs(tried: Sequence[Outcome], untreated: Outcome) -> list[Arm]:
    """The best changes that treat different findings, two and two."""
    helped = [o for o in sorted(tried, key=_first_loss) if o.losses and o.losses[0] < untreated.losses[0]]
    apart = (
        one.arm.joined(other.arm)
        for one, other in itertools.combinations(helped, 2)
        if not set(one.arm.codes) & set(other.arm.codes)
    )
    return list(itertools.islice(apart, PAIRS))


def _first_loss(outcome: Outcome) -> float:
    return outcome.losses[0] if outcome.losses else math.inf


def _rank(trial: Trial) -> tuple[int, float]:
    return VERDICTS.index(trial.verdict), trial.loss if not math.isnan(trial.loss) else math.inf


def _reread(finding: Finding, profiles: Mapping[str, Profile]) -> float:
    try:
        return finding.reread(profiles)
    except KeyError:
        return math.nan


def silent(done: int, total: int, what: str) -> None:
    """Show no progress."""
