"""treat(case): the trials, from the findings to what works on the user's own model."""

import dataclasses
from collections.abc import Iterable
from concurrent.futures import Executor

from unitygain._arena import Arena
from unitygain._candidates import MOST_ARMS, Arm, Call, choose_arms
from unitygain._case import Case
from unitygain._crew import hired
from unitygain._diagnose import Progress, diagnose
from unitygain._job import Task
from unitygain._rehearsal import require_training
from unitygain._treatable import require_treatable
from unitygain._trial import conclude
from unitygain._types import Skipped
from unitygain.probe.sites import Select
from unitygain.report import Report

__all__ = ["treat"]

INTERRUPTED = "interrupted; what was done until then is kept"
# Where nothing is found: the commonest reason that the start of a training does not show.
SLOWER = tuple(Arm((("lower_learning_rate", {"factor": factor}),)) for factor in (0.3, 0.1))
NOTHING = "nothing was tried: no remedy is known for the causes of what was found"


def treat(
    case: Case,
    *,
    budget: float = 60.0,
    steps: int | None = None,
    seeds: int = 3,
    also: Iterable[str | Call] = (),
    executor: Executor | None = None,
    sites: Select = None,
    probes: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Diagnose `case`, try the remedies of what was found on copies of it, and rank what was seen.

    Tried are the removals of the likeliest causes and the remedies that stand for them, and then the best of
    them together whose causes differ. Where there is no finding, lower learning rates are tried. The change
    is applied to a fresh copy; theory predicts the gains, the judged numbers are measured again, the copy is
    trained for a few steps, and its loss is compared under the case's own loss. Every arm, the untreated one
    first, starts from the same seeds on the same batches in the same order. A training that is far behind
    after a third of the steps is given up; what leads on the first seed is trained on the others.

    Args:
        case: A model and one way to train it; it must declare an optimizer. A factory draws another
            initialisation for every seed. An instance is one initialisation: its seeds shift the order of
            the batches, and the report says so.
        budget: Seconds for the trials; the diagnosis comes on top. Chooses `steps`.
        steps: Steps of each training; chosen from the budget when left out.
        seeds: How many seeds a verdict takes, 3 or more for ``verified``.
        also: Further remedies to try, by name or as (name, arguments).
        executor: Any `concurrent.futures.Executor` that runs the trials, to the same numbers. A case with
            ``case.rebuild`` is built again in the worker; any other is pickled. One that cannot be runs in
            this process, and the report says so.
        sites: As in `diagnose`.
        probes: As in `diagnose`.
        seed: The first seed.
        progress: Called with (done, total, what).

    Returns:
        The report of the diagnosis with its trials: the untreated arm, then the treated ones, best first, and
        its ``conclusion``. Where no remedy is known for what was found there are no trials. ``report.best``
        is the best verified one; ``report.best.apply(case)`` applies it and returns its undo.

    Raises:
        ValueError: If the case declares no optimizer, `seeds`, `steps` or `budget` is not above 0, or no
            remedy has a name in `also`.
        CaseFailure: If the case cannot be copied, lies on several devices, gives another loss at every call
            under one seed, or raises untreated.

    Side effects:
        None on the case. Memory: one copy at a time in each process. Ctrl-C ends the trials and keeps those
        that are done.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> def make_model():
        ...     return nn.Sequential(*(m for _ in range(12) for m in (nn.Linear(16, 16), nn.ReLU())))
        >>> case = Case(make_model, loss=lambda m, x: (m(x) - x).square().mean(), data=[torch.randn(32, 16)],
        ...             optimizer=lambda p: torch.optim.Adam(p, 1e-2))
        >>> report = treat(case, steps=20, seeds=1)
        >>> report.trials[0].name, "rescale_weights" in [t.remedies[0] for t in report.trials[1:]]
        ('untreated', True)
    """
    if seeds < 1 or not budget > 0:
        raise ValueError(f"seeds is {seeds} and budget {budget}; give at least 1 seed and a budget above 0")
    require_training(case, 1 if steps is None else steps)
    also = tuple(also)
    choose_arms((), also)
    require_treatable(case, seed)
    report = diagnose(case, sites=sites, probes=probes, seed=seed, progress=progress)
    arms, beyond = choose_arms(report.findings, also)
    if not arms and any(finding.severity != "info" for finding in report.findings):
        return dataclasses.replace(report, conclusion=NOTHING)
    with hired(case, executor) as (crew, alone):
        settings = Task(seed=seed, sites=sites, probes=probes)
        say = progress or (lambda done, total, what: None)
        arena = Arena(case, crew, settings, seeds, budget, say, steps or 0, report.profiles)
        trials = tuple(arena.compare(arms or SLOWER))
    notes = [Skipped("executor", alone)] if alone else []
    notes += [Skipped("trials", INTERRUPTED)] if arena.interrupted else []
    notes += [Skipped("trials", _beyond(beyond))] if beyond else []
    return dataclasses.replace(
        report,
        trials=trials,
        skipped=(*report.skipped, *notes),
        conclusion=conclude(trials, arena.cut),
    )


def _beyond(arms: list[Arm]) -> str:
    names = ", ".join(arm.name for arm in arms)
    return f"beyond the {MOST_ARMS} likeliest changes, not tried: {names}; try one with also= (--also NAME)"
