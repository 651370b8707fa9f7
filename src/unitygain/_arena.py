"""The arena: changes to a case compared on the same seeds, batches and steps."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from unitygain._candidates import Arm, pairs_of
from unitygain._case import Case, CaseFailure
from unitygain._crew import Away, Here
from unitygain._diagnose import Progress
from unitygain._job import GAINS, Reading, Task, fresh_subject
from unitygain._outcome import ONE, Outcome, left_of, rank
from unitygain._registry import MEASURES, RULES
from unitygain._rehearsal import train
from unitygain._trial import Trial
from unitygain._types import Profile

# Fewer steps than these say nothing about training, more are not needed to rank.
FEWEST_STEPS, MOST_STEPS = 10, 200
# The share of the budget that is planned: three steps do not tell to the second what all will take.
SAFE = 0.8
# Where a training on the first seed may be given up, as a share of its steps: it is, where it has gained less
# than this share of what the untreated case has, and its loss is worse by this share of it at least.
# Trainings of fewer than three times the least steps are never given up.
RUNG, LEAST, BEHIND, WORSE = 3, 5, 0.5, 0.05
# Changes that lead on the first seed and are trained on the others.
FINALISTS = 3
DEPTH = ("backward_gain", "forward_gain", "rms_gain")


@dataclass
class Arena:
    """Where the arms meet: the same seeds, batches and steps for all.

    Args:
        case: The case, which stays as it is.
        crew: Who does the jobs.
        settings: A task with the first seed, the choice of sites and the number of probes.
        seeds: Seeds that a verdict takes.
        budget: Seconds.
        say: Progress, called with (done, total, what).
        steps: Steps of each training; 0 chooses by the budget.
        before: Profiles of the untreated case, against which a prediction is held.
        interrupted: Whether Ctrl-C ended it.
    """

    case: Case
    crew: Here | Away
    settings: Task
    seeds: int
    budget: float
    say: Progress
    steps: int = 0
    before: Mapping[str, Profile] = field(default_factory=dict)
    interrupted: bool = False

    def __post_init__(self) -> None:
        self._begun = time.monotonic()
        self._deadline = self._begun + self.budget
        self._done = self._asked = 0

    def compare(self, arms: Sequence[Arm]) -> list[Trial]:
        """Try every arm and return its trials, the untreated one first, then by verdict and loss."""
        untreated, tried = self._open(Arm()), [self._open(arm) for arm in arms]
        try:
            self._measure(tried)
            tried.sort(key=lambda outcome: self._hopeless(outcome))
            self.steps = self.steps or self._affordable(sum(not outcome.over for outcome in tried))
            self._seed(0, [untreated], must=1)
            self._rounds(untreated, tried)
            helped = [o for o in sorted(tried, key=_by_first_loss) if self._ahead(o, untreated)]
            pairs = [self._open(pair) for pair in pairs_of([outcome.arm for outcome in helped])]
            tried += pairs
            self._measure(pairs)
            self._rounds(untreated, pairs)
        except KeyboardInterrupt:
            self.interrupted = True
        self.say(self._asked, self._asked, "done")
        rows = [outcome.trial(untreated, self.seeds, self.steps) for outcome in tried]
        return [untreated.trial(untreated, self.seeds, self.steps), *sorted(rows, key=rank)]

    def _open(self, arm: Arm) -> Outcome:
        return Outcome(arm, note="" if self.case.factory else ONE)

    @property
    def cut(self) -> str:
        """What ended the trials before they were done, and what to give instead; empty where nothing did."""
        told = f"{self._done} of {max(self._asked, 1)} trainings of {self.steps} steps were done"
        if self.interrupted:
            return f"interrupted: {told}" if self.steps else "interrupted before anything was trained"
        if self._done >= self._asked:
            return ""
        need = (time.monotonic() - self._begun) * self._asked / max(1, self._done)
        return (
            f"budget too small for a verdict: {told} in {self.budget:.3g} s; give about {_spell(1.3 * need)}"
        )

    def _affordable(self, arms: int) -> int:
        """Return how many steps of every arm and seed the budget pays for, measured on three steps."""
        subject = fresh_subject(self.case, self.settings.seed, 0)
        started = time.monotonic()
        train(subject, 3, seed=self.settings.seed)
        each = (time.monotonic() - started) / 3
        later = (self.seeds - 1) * (min(arms, FINALISTS) + 1)
        trainings = (arms + 1 + later) / self.crew.workers
        paid = (self._deadline - time.monotonic()) / max(each * trainings, 1e-9)
        return max(FEWEST_STEPS, min(MOST_STEPS, int(SAFE * paid)))

    def _measure(self, outcomes: list[Outcome]) -> None:
        """Predict what each change does, then measure what was judged again, before any training."""
        tasks = [self._measuring(outcome.arm) for outcome in outcomes]
        about, half = self._about(outcomes, "measuring"), (time.monotonic() + self._deadline) / 2
        for index, reading in self.crew.run(tasks, half, about):
            outcomes[index].measured = reading
            outcomes[index].left = left_of(outcomes[index].arm, reading.profiles)
        # Chance is asked, at its cost, only where a gain is still judged.
        again = [outcome for outcome in outcomes if outcome.left and not outcome.over]
        asked = [replace(self._measuring(outcome.arm), chance=True) for outcome in again]
        asked = [replace(task, measures=_everything(o.arm)) for task, o in zip(asked, again, strict=True)]
        for index, reading in self.crew.run(asked, self._deadline, self._about(again, "measuring")):
            again[index].left = left_of(again[index].arm, reading.profiles)

    def _measuring(self, arm: Arm) -> Task:
        rules = [RULES[code] for code in arm.codes]
        free = {name for rule in rules for name in rule.wants if not MEASURES[name].active}
        names = {*GAINS, *free, *(name for rule in rules for name in rule.needs)}
        names |= {finding.quantity for finding in arm.findings[:1]}
        return replace(self.settings, calls=arm.calls, measures=tuple(sorted(names)))

    def _hopeless(self, outcome: Outcome) -> bool:
        """Whether theory expects a gain over the trunk farther from unity than it was: it comes last."""
        finding = next(iter(outcome.arm.findings), None)
        if finding is None or finding.quantity not in DEPTH:
            return False
        then, now = _loop(outcome.measured.profiles), _loop(self.before)
        return abs(then) > abs(now)

    def _rounds(self, untreated: Outcome, outcomes: list[Outcome]) -> None:
        """Train on the first seed; those that lead are trained on the others, a seed at a time."""
        open_ones = [outcome for outcome in outcomes if not outcome.over]
        must = int(len(untreated.losses) == 1 and self.crew.workers == 1)
        self._seed(0, open_ones, untreated.readings[0], must=must)
        leading = [o for o in sorted(open_ones, key=_by_first_loss) if self._ahead(o, untreated)]
        for outcome in leading[FINALISTS:]:
            outcome.note = f"set aside: {FINALISTS} others lead by more on the first seed"
        finalists = leading[:FINALISTS]
        for index in range(1, self.seeds):
            if not finalists:
                return
            self._seed(index, ([untreated] if len(untreated.losses) <= index else []) + finalists)
            # Losses are compared seed by seed: what missed one is out; where the untreated case did, all are.
            for outcome in finalists:
                del outcome.readings[len(untreated.losses) :]
            trained = [outcome for outcome in finalists if len(outcome.losses) > index]
            finalists = [outcome for outcome in trained if self._ahead(outcome, untreated)]

    def _ahead(self, outcome: Outcome, untreated: Outcome) -> bool:
        """Whether it is better on every seed that was trained, and has been trained."""
        pairs = zip(outcome.losses, untreated.losses, strict=False)
        return not outcome.over and bool(outcome.losses) and all(one < other for one, other in pairs)

    def _seed(self, index: int, outcomes: list[Outcome], plain: Reading | None = None, must: int = 0) -> None:
        """Train the arms on one seed; the first `must` of them also where the time is over."""
        rung = self.steps // RUNG if self.steps >= RUNG * LEAST else 0
        bar = _bar(plain) if plain is not None else math.inf
        tasks = [
            replace(self.settings, calls=o.arm.calls, index=index, steps=self.steps, rung=rung, bar=bar)
            for o in outcomes
        ]
        self._asked += len(tasks)
        for first, last, deadline in ((0, must, math.inf), (must, len(tasks), self._deadline)):
            some = outcomes[first:last]
            about = self._about(some, "training", index)
            for place, reading in self.crew.run(tasks[first:last], deadline, about):
                self._take(some[place], reading, rung)

    def _take(self, outcome: Outcome, reading: Reading, rung: int) -> None:
        self._done += 1
        if reading.failure and not outcome.arm.calls:
            raise CaseFailure(reading.failure)
        if reading.failure or reading.refused:
            outcome.measured = replace(outcome.measured, failure=reading.failure, refused=reading.refused)
            return
        outcome.readings.append(reading)
        if math.isnan(reading.loss):
            outcome.given_up = True
            outcome.note = (
                f"given up after {rung} of {self.steps} steps: far behind the untreated case by then"
            )

    def _about(self, outcomes: Sequence[Outcome], doing: str, index: int = 0) -> Callable[[int], None]:
        where = f", seed {self.settings.seed + index}" if doing == "training" else ""
        total = max(self._asked, 1)
        return lambda place: self.say(
            min(self._done, total - 1), total, f"{doing} {outcomes[place].arm.name}{where}"
        )


def _bar(plain: Reading) -> float:
    """The loss above which a training is far behind the untreated one at its rung; infinite where none is."""
    if not math.isfinite(plain.rung) or not math.isfinite(plain.first):
        return math.inf
    return plain.rung + max(BEHIND * (plain.first - plain.rung), WORSE * abs(plain.rung))


def _everything(arm: Arm) -> tuple[str, ...]:
    rules = [RULES[code] for code in arm.codes]
    return tuple(sorted({*GAINS, *(name for rule in rules for name in (*rule.needs, *rule.wants))}))


def _loop(profiles: Mapping[str, Profile]) -> float:
    """The gain over the trunk that theory expects, in decibels; NaN where it does not cover every block."""
    profile = profiles.get("predicted_gain")
    if profile is None or profile.facts.get("predicted") != profile.facts.get("depth"):
        return math.nan
    return float(profile.facts["loop_db"])


def _by_first_loss(outcome: Outcome) -> float:
    return outcome.first_loss


def _spell(seconds: float) -> str:
    """A budget, rounded up, as it is given in Python and on the command line."""
    if seconds <= 60:
        tens = 10 * math.ceil(seconds / 10)
        return f"budget={tens} (--budget {tens}s)"
    minutes = math.ceil(seconds / 60)
    return f"budget={60 * minutes} (--budget {minutes}m)"
