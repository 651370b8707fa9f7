"""Whether a program is what it says: the sick one trains much worse than the same without its fault."""

import math
import statistics
import warnings
from dataclasses import dataclass

import torch

from unitygain._case import Case, fresh, random_states
from unitygain._rehearsal import train
from zoo.clinic.program import Program

# A sick program closes at most half of what its well twin closes; a healthy one loses a fifth of its start.
SICK_SHARE, HEALTHY_SHARE = 0.5, 0.2


@dataclass(frozen=True)
class Trained:
    """Scores before and after training, lower is better; infinite where the training broke."""

    start: float
    end: float


def score(program: Program, case: Case) -> float:
    """Return the mean score over the batches; infinite where it is no number."""
    shown = program.score or (lambda model, batch: float(case.loss(model, batch).detach()))
    with torch.set_grad_enabled(program.score is None), case.autocast(), random_states():
        each = [shown(case.model, fresh(batch)) for batch in case.batches]
    mean = statistics.fmean(each)
    return mean if math.isfinite(mean) else math.inf


def follow(program: Program, seed: int, *, fault: bool) -> Trained:
    """Train the program once, with its fault or without it."""
    case = program.case(seed, fault=fault)
    start = score(program, case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        broken = math.isinf(train(case, program.steps, seed=seed).final)
    return Trained(start, math.inf if broken else score(program, case))


def is_sick(program: Program, seed: int) -> tuple[bool, Trained, Trained]:
    """Whether the fault costs at least half of what the well twin learns, with both trainings."""
    sick, well = follow(program, seed, fault=True), follow(program, seed, fault=False)
    learns = well.end < well.start * (1 - HEALTHY_SHARE)
    return learns and sick.end - well.end >= SICK_SHARE * (well.start - well.end), sick, well


def is_healthy(program: Program, seed: int) -> tuple[bool, Trained]:
    """Whether a healthy program loses at least a fifth of its score."""
    well = follow(program, seed, fault=False)
    return well.end < well.start - HEALTHY_SHARE * abs(well.start), well
