"""One job of the trials: a change to a fresh copy of a case, measured or trained, in numbers alone."""

import copy
import gc
import inspect
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from unitygain._candidates import Call
from unitygain._case import Batch, Case, CaseFailure, fresh, random_states, reseed
from unitygain._diagnose import measure_all
from unitygain._registry import MEASURES, REMEDIES
from unitygain._rehearsal import Rehearsal, mean_loss, train
from unitygain._types import Profile
from unitygain.probe.hooks import Hooks, uncompiled
from unitygain.probe.sites import Select

# Facts of a gain that a trial keeps; the profile of the diagnosis has them all.
FACTS = ("gain_per_block", "loop_db", "slope_db", "slope_db_low", "slope_db_high", "depth", "predicted")
GAINS = ("forward_gain", "backward_gain", "predicted_gain")
READS = (
    "the loss itself reads what this changes in the batches (as its targets, say), so that losses before and "
    "after it cannot be compared; scale the data by hand and treat that case"
)
# Bytes of parameters from which a copy is not left to the next collection.
LARGE = 2**20
# A training seeds and puts back the random states of its process: one at a time in each.
ALONE = threading.RLock()


@dataclass(frozen=True)
class Task:
    """What is to be done; everything in it can be sent to another process.

    Args:
        calls: The remedies with their arguments, in order; none is the untreated case.
        index: Which seed, counted from 0.
        seed: The first seed.
        steps: Steps of the training; 0 measures instead.
        rung: Steps after which the training may end early; 0 never.
        bar: It does where its mean loss over the last batches before the rung lies above this.
        measures: What is measured, before any training.
        sites: The choice of sites.
        probes: Random vectors per block.
        chance: Whether gains are also measured with the weights in random places.
    """

    calls: tuple[Call, ...] = ()
    index: int = 0
    seed: int = 0
    steps: int = 0
    rung: int = 0
    bar: float = math.inf
    measures: tuple[str, ...] = ()
    sites: Select = None
    probes: int = 8
    chance: bool = False


@dataclass(frozen=True)
class Reading:
    """What a job brings back.

    Args:
        loss: Under the case's own loss after the training; infinite where it broke, NaN where it was ended at
            its rung or nothing was trained.
        first: Loss of the first step.
        rung: Mean loss before the rung; NaN where the change trains on another loss.
        steps: Steps that were taken.
        seconds: Per step.
        profiles: What was measured.
        refused: Why the change does not apply to this case.
        failure: What went wrong.
    """

    loss: float = math.nan
    first: float = math.nan
    rung: float = math.nan
    steps: int = 0
    seconds: float = math.nan
    profiles: dict[str, Profile] = field(default_factory=dict)
    refused: str = ""
    failure: str = ""


def perform(case: Case, task: Task) -> Reading:
    """Do one job on a fresh copy of `case`; what a change raises is in the reading.

    Raises:
        Exception: What the untreated case raises.

    Side effects:
        None on the case. Memory for one copy of the model, and what its training takes.
    """
    with ALONE:
        reading = _perform(case, task)
        if sum(parameter.nbytes for parameter in case.model.parameters()) >= LARGE:
            # Probes and optimizers refer to themselves: their model is let go by a collection alone.
            gc.collect()
        return reading


def _perform(case: Case, task: Task) -> Reading:
    try:
        subject = fresh_subject(case, task.seed, task.index)
        held = subject.batches
        refused = _apply(subject, task)
        if task.steps and not refused and subject.batches is not held:
            refused = _incomparable(case, subject, held, task.seed)
        if refused:
            return Reading(refused=refused)
        return _train(case, subject, task) if task.steps else _measure(subject, task)
    except Exception as error:
        if not task.calls:
            raise
        return Reading(failure=_told(error))


def fresh_subject(case: Case, seed: int, index: int) -> Case:
    """Return a case of its own for the seed of that index.

    A factory draws another initialisation for every index above 0; 0 is the model that was diagnosed, which
    was drawn under the case's own seed. An instance is copied with its optimizer, and the order of the
    batches is shifted.
    """
    if case.factory is not None and not hasattr(case.optimizer, "param_groups"):
        twin = copy.copy(case)
        twin._model = case.build(case.seed + seed + index) if index else copy.deepcopy(case.model)
        twin._batches = case.batches
        return twin
    twin = case.copy()
    shift = index % len(case.batches)
    twin._batches = case.batches[shift:] + case.batches[:shift]
    return twin


def _apply(subject: Case, task: Task) -> str:
    """Apply the changes and return why they do not fit this case, if they do not."""
    with random_states():
        reseed(task.seed + task.index)
        for name, given in task.calls:
            try:
                REMEDIES[name].apply(subject, **_drawn(name, given, task.index))
            except ValueError as error:
                return f"{name}: {error}" if len(task.calls) > 1 else str(error)
    return ""


def _drawn(name: str, given: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return the arguments, with another seed for every training: weights drawn once would be one sample."""
    parameters = inspect.signature(REMEDIES[name].apply).parameters
    seed = {"seed": int(given.get("seed", 0)) + index} if "seed" in parameters else {}
    return {**given, **seed}


def _incomparable(case: Case, subject: Case, held: tuple[Batch, ...], seed: int) -> str:
    """Say so where the loss itself reads what a change did to the batches, as targets for instance.

    The loss is asked on both with the model's outputs held fixed: what differs then is not the model's doing.
    """
    twin, made = subject.copy(), list[Any]()
    twin.loss = case.loss

    def ask(batch: Batch, change: Callable[[Any], Any]) -> float:
        hooks = Hooks()
        hooks.change_output(twin.model, lambda module, args, kwargs, output: change(output))
        try:
            reseed(seed)
            return float(twin.compute_loss(batch).detach())
        finally:
            hooks.remove()

    with random_states(), torch.inference_mode(False), torch.enable_grad(), uncompiled():
        before = ask(held[0], lambda output: made.append(fresh(output)))
        try:
            after = ask(subject.batches[0], lambda output: fresh(made.pop(0)))
        except Exception:  # A loss that differentiates the model by its own input has no graph to do it with.
            return ""
    same = math.isclose(before, after, rel_tol=1e-6) or math.isnan(before)
    return "" if same else READS


def _train(case: Case, subject: Case, task: Task) -> Reading:
    seed, count = task.seed + task.index, len(case.batches)
    same = subject.loss is case.loss and subject.step is case.step
    seen: list[float] = []

    def watch(step: int, loss: float) -> bool:
        seen.append(loss)
        return step + 1 == task.rung and same and _recent(seen, count) > task.bar

    # What a case's own step returns need not be its loss.
    first = None if subject.step is None else _read_loss(case, subject, seed)
    started = time.perf_counter()
    done = train(subject, task.steps, seed=seed, watch=watch if task.rung else None)
    each = (time.perf_counter() - started) / done.steps
    rung = _recent(list(done.losses[: task.rung]), count) if same and task.rung else math.nan
    loss = _own_loss(case, subject, done, task, seed)
    return Reading(loss, done.losses[0] if first is None else first, rung, done.steps, each)


def _recent(losses: list[float], count: int) -> float:
    """Mean of the losses since each batch was last seen."""
    last = losses[-count:]
    return math.fsum(last) / len(last) if last and all(map(math.isfinite, last)) else math.inf


def _own_loss(case: Case, subject: Case, done: Rehearsal, task: Task, seed: int) -> float:
    """The loss that is compared: not a number where the training was given up, infinite where it broke."""
    if done.steps < task.steps and math.isfinite(done.final):
        return math.nan
    if not math.isfinite(done.final):
        return math.inf
    return _read_loss(case, subject, seed)


def _read_loss(case: Case, subject: Case, seed: int) -> float:
    """The loss that the case itself declares, in full precision: a change may have replaced both."""
    twin = copy.copy(subject)
    twin.loss, twin.precision = case.loss, None
    with random_states():
        reseed(seed)
        return mean_loss(twin)


def _measure(subject: Case, task: Task) -> Reading:
    chosen = [MEASURES[name] for name in MEASURES if name in task.measures]
    with random_states(), torch.inference_mode(False), torch.enable_grad(), uncompiled():
        reseed(task.seed)
        profiles, _, _ = measure_all(
            subject, task.sites, task.probes, task.seed, lambda *_: None, chosen, chance=task.chance
        )
    return Reading(profiles={name: plain(profile) for name, profile in profiles.items()})


def plain(profile: Profile) -> Profile:
    """Return the profile with facts that can be pickled."""
    return replace(profile, facts=dict(profile.facts))


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, CaseFailure) else f"{type(error).__name__}: {error}"
