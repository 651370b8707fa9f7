"""Rehearsal: a short, seeded training of a copy of a Case; what threshold searches and trials are made of."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Batch, Case, CaseFailure, fresh, random_states, reseed
from unitygain.probe.hooks import uncompiled

Clip = Callable[[Iterable[nn.Parameter]], Any]
Watch = Callable[[int, float], Any]


@dataclass(frozen=True)
class Rehearsal:
    """What a short training did.

    Args:
        losses: The loss of every step, taken before the step.
        final: Mean loss over all drawn batches after the last step; infinite where it is not finite.
        stopped: Why it ended before its last step; empty where it did not.
    """

    losses: tuple[float, ...]
    final: float
    stopped: str = ""

    @property
    def steps(self) -> int:
        """Steps that were taken or begun."""
        return len(self.losses)


def rehearse(
    case: Case, steps: int, *, seed: int = 0, clip: Clip | None = None, watch: Watch | None = None
) -> Rehearsal:
    """Train a copy of `case` for a few steps on its drawn batches, in their order and again from the first.

    A plain step is zero_grad, loss, backward, clip, optimizer step, schedule step, under the case's precision
    (float16 with a gradient scaler, whose gradients are unscaled before the clip). A case with its own step
    takes that one instead; it must call ``case.clip`` for a clip to take part. An optimizer that needs a
    closure (LBFGS) gets the first three as one.

    Args:
        case: Declares a loss, data and an optimizer; it is not changed.
        steps: How many steps to take.
        seed: Seed of the random numbers that the training draws (dropout).
        clip: What clips the gradient, in place of ``case.clip``.
        watch: Called with (step, loss) after every step; a true return value ends the rehearsal.

    Returns:
        The losses; a loss that is not finite ends the rehearsal.

    Raises:
        ValueError: If `steps` is below 1 or the case declares no optimizer.
        CaseFailure: If the case cannot be copied or its own code raises.

    Cost: `steps` training steps, one forward pass per drawn batch, and memory for one copy of the model,
    its gradients and its optimizer's state. Random states are afterwards what they were.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 1)],
        ...             optimizer=lambda p: torch.optim.SGD(p, 0.25))
        >>> rehearse(case, 3)
        Rehearsal(losses=(1.0, 0.25, 0.0625), final=0.015625, stopped='')
    """
    require_training(case, steps)
    with random_states():
        try:
            twin = case.copy()
        except Exception as error:
            raise CaseFailure(
                f"the case cannot be copied, so nothing can be tried on it: {type(error).__name__}: {error}; "
                "give a function that returns a new model"
            ) from error
    twin.clip = clip or case.clip
    return train(twin, steps, seed=seed, watch=watch)


def require_training(case: Case, steps: int) -> None:
    """Refuse a case that cannot be trained, and a number of steps that is none; ValueError."""
    if steps < 1:
        raise ValueError(f"steps is {steps}; take at least 1")
    if case.optimizer is None:
        raise ValueError(
            "the case declares no optimizer, so nothing can be trained; give Case(optimizer=...)"
        )


def train(case: Case, steps: int, *, seed: int = 0, watch: Watch | None = None) -> Rehearsal:
    """Train `case` itself as `rehearse` trains a copy; random states are afterwards what they were."""
    require_training(case, steps)
    with random_states(), torch.inference_mode(False), torch.enable_grad(), uncompiled():
        reseed(seed)
        return _train(case, steps, watch)


def _train(twin: Case, steps: int, watch: Watch | None) -> Rehearsal:
    step = _own_step(twin) if twin.step is not None else _plain_step(twin)
    losses: list[float] = []
    for number, (index, batch) in enumerate(
        itertools.islice(itertools.cycle(enumerate(twin.batches)), steps)
    ):
        try:
            loss = float(step(batch))
        except CaseFailure:
            raise
        except Exception as error:
            raise CaseFailure.during(error, "", index) from error
        losses.append(loss)
        if not math.isfinite(loss):
            return Rehearsal(tuple(losses), math.inf, f"the loss is {loss} at step {number}")
        if watch is not None and watch(number, loss):
            return Rehearsal(tuple(losses), mean_loss(twin), f"ended by its watch at step {number}")
    return Rehearsal(tuple(losses), mean_loss(twin))


def _own_step(twin: Case) -> Callable[[Batch], Tensor]:
    assert twin.step is not None
    twin.optimizer = twin.build_optimizer()
    own = twin.step
    return lambda batch: torch.as_tensor(own(twin, fresh(batch))).detach()


def _plain_step(twin: Case) -> Callable[[Batch], Tensor]:
    optimizer = twin.build_optimizer()
    assert optimizer is not None
    twin.optimizer = optimizer
    schedule = twin.schedule(optimizer) if twin.schedule is not None else None
    scaler = torch.amp.GradScaler(twin.device.type, enabled=twin.precision == "float16")

    def evaluate(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        loss = twin.compute_loss(batch)
        scaler.scale(loss).backward()
        if twin.clip is not None:
            scaler.unscale_(optimizer)
            twin.clip(twin.model.parameters())
        return loss.detach()

    def step(batch: Batch) -> Tensor:
        if _needs_closure(optimizer):
            loss = optimizer.step(lambda: evaluate(batch))  # pyright: ignore[reportCallIssue, reportArgumentType]
        else:
            loss = evaluate(batch)
            scaler.step(optimizer)
            scaler.update()
        if schedule is not None:
            schedule.step()
        return loss  # pyright: ignore[reportReturnType]

    return step


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer evaluates the loss itself, several times a step, as LBFGS does."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def mean_loss(case: Case) -> float:
    """Return the mean loss over the drawn batches, read without gradients; infinite where one is not finite.

    A loss that differentiates the model by its own input raises there, and is read with gradients.
    """
    try:
        with torch.no_grad():
            losses = _read_losses(case)
    except RuntimeError:
        with torch.enable_grad():
            losses = _read_losses(case)
    return math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.inf


def _read_losses(case: Case) -> list[float]:
    return [float(case.compute_loss(batch).detach()) for batch in case.batches]
