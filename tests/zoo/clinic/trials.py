"""Trials of the clinic: the true cure must be accepted, the tempting wrong one rejected."""

import math
import statistics
import time
import warnings
from typing import Any

from unitygain._case import Case
from unitygain._job import Task, perform
from unitygain._registry import REMEDIES
from unitygain._treat import treat
from unitygain._trial import judge_losses
from zoo.clinic.program import Call, Program, resolve

SEEDS = 3


def train_all(
    case: Case, arms: dict[str, tuple[Call, ...]], steps: int, budget: float
) -> dict[str, list[float]]:
    """Return the losses of the untreated case and of every arm, by seed, as far as the budget goes.

    As in a trial: an arm that is not better on one seed is not trained on the next.
    """
    began, losses = time.process_time(), {name: [] for name in ("untreated", *arms)}
    for index in range(SEEDS):
        for name, calls in {"untreated": (), **arms}.items():
            before = losses["untreated"][:-1] if name != "untreated" else []
            lost = any(one >= other for one, other in zip(losses[name], before, strict=False))
            if not lost and (index == 0 or time.process_time() - began < budget):
                reading = perform(case, Task(calls=calls, index=index, steps=steps))
                if reading.refused or reading.failure:
                    losses[name] = [math.nan]
                elif len(losses[name]) == index:
                    losses[name].append(reading.loss)
    return losses


def there(calls: tuple[Call, ...]) -> bool:
    """Whether all the remedies exist."""
    return bool(calls) and all(name in REMEDIES for name, _ in calls)


def try_named(program: Program, seed: int, budget: float) -> dict[str, Any]:
    """Try the true cure and the tempting wrong one; verdicts are empty where there is none to try."""
    truth = program.truth
    assert truth is not None
    case = program.case(seed)
    cure, wrong = (resolve(calls, case) for calls in (truth.cure, truth.wrong))
    arms = {name: calls for name, calls in (("cure", cure), ("wrong", wrong)) if there(calls)}
    row: dict[str, Any] = {"name": program.name, "seed": seed, "cause": truth.cause, "curable": bool(cure)}
    row |= {"cure": "" if not cure else "no such remedy", "wrong": "", "behind": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = train_all(case, arms, program.steps, budget) if arms else {}
    for name in arms:
        row[name] = verdict(losses[name], losses["untreated"])
    row["losses"] = {name: [float(f"{loss:.4g}") for loss in each] for name, each in losses.items()}
    if "cure" in arms and "wrong" in arms and row["wrong"] == "verified":
        row["behind"] = statistics.fmean(losses["cure"]) < statistics.fmean(losses["wrong"])
    return row


def verdict(treated: list[float], untreated: list[float]) -> str:
    """Return what a trial would say of these losses."""
    return "refused" if any(map(math.isnan, treated)) else judge_losses(treated, untreated, SEEDS)


def treat_by_itself(program: Program, seed: int, budget: float) -> dict[str, Any]:
    """Let `treat` choose what to try: cured where its best trial is verified."""
    truth = program.truth
    assert truth is not None
    case = program.case(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = treat(case, budget=budget)
    best = report.best
    untreated = next((trial.loss for trial in report.trials if not trial.remedies), float("nan"))
    return {
        "name": program.name,
        "seed": seed,
        "cause": truth.cause,
        "curable": bool(truth.cure),
        "cured": best is not None and best.verdict == "verified",
        "best": "" if best is None else best.name,
        "untreated loss": untreated,
        "best loss": None if best is None else best.loss,
        "trials": [f"{trial.verdict}: {trial.name} {trial.loss:.4g}" for trial in report.trials],
    }
