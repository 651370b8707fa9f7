"""treat(case): the trials, from the findings to what works on the user's own model."""

import dataclasses
import time
from collections.abc import Sequence

from unitygain._arena import PAIRS, Arena, Arm, silent
from unitygain._case import Case
from unitygain._diagnose import Progress, diagnose
from unitygain._registry import REMEDIES
from unitygain._rehearsal import require_training
from unitygain._types import Finding, Skipped
from unitygain.probe.sites import Select
from unitygain.report import Report

__all__ = ["treat"]

# Causes of one finding that are tried.
CAUSES = 2
INTERRUPTED = "interrupted; what was done until then is kept"


def treat(
    case: Case,
    *,
    budget: float = 60.0,
    steps: int | None = None,
    seeds: int = 3,
    sites: Select = None,
    probes: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Diagnose `case`, try the remedies of what was found on copies of it, and rank what was seen.

    Every arm, the untreated one first, starts from the same seed on the same batches in the same order: the
    change is applied to a fresh copy, the judged numbers are measured again, the copy is trained for a few
    steps, and its loss is compared under the case's own loss. A remedy that does better on the first seed is
    trained on the others. The two best that treat different findings are also tried together.

    Args:
        case: A model and one way to train it; it must declare an optimizer. A factory draws another
            initialisation for every seed. An instance is one initialisation: its seeds shift the order of
            the batches, and the report says so.
        budget: Seconds for the training of all arms; the diagnosis comes on top. Chooses `steps`.
        steps: Steps of each training; chosen from the budget when left out.
        seeds: How many seeds a verdict takes, 3 or more for ``verified``.
        sites: As in `diagnose`.
        probes: As in `diagnose`.
        seed: The first seed.
        progress: Called with (done, total, what).

    Returns:
        The report of the diagnosis with its trials: the untreated arm, then the treated ones, best first.
        Without a finding that has a remedy there are no trials. ``report.best`` is the best verified one;
        ``report.best.apply(case)`` applies it and returns its undo.

    Raises:
        ValueError: If the case declares no optimizer, or `seeds`, `steps` or `budget` is not above 0.
        CaseFailure: If the case's own code raises in the diagnosis or untreated.

    Side effects:
        None on the case. Memory: one copy at a time. Ctrl-C ends the trials and keeps those that are done.

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
    report = diagnose(case, sites=sites, probes=probes, seed=seed, progress=progress)
    arms = choose_arms(report.findings)
    if not arms:
        return report
    arena = Arena(case, sites, probes, seed, seeds, time.monotonic() + budget, progress or silent)
    arena.steps = steps or arena.affordable(len(arms) + 1 + PAIRS)
    trials = tuple(arena.compare(arms))
    skipped = (*report.skipped, Skipped("trials", INTERRUPTED)) if arena.interrupted else report.skipped
    return dataclasses.replace(report, trials=trials, skipped=skipped)


def choose_arms(findings: Sequence[Finding]) -> list[Arm]:
    """Return what to try: the likeliest causes of every finding that have a remedy, each change once.

    A cause that its removal refuted is left out; a change that several findings name treats them all.
    """
    arms: dict[str, Arm] = {}
    for finding in findings:
        tried = [cause for cause in finding.causes if cause.remedy in REMEDIES and cause.status != "refuted"]
        for cause in tried[:CAUSES]:
            call = (str(cause.remedy), dict(cause.parameters))
            code = finding.fix if cause is finding.causes[0] else ""
            arm = arms.setdefault(repr(call), Arm((call,), (), cause.predicted, code))
            arms[repr(call)] = dataclasses.replace(arm, findings=(*arm.findings, finding))
    return list(arms.values())
