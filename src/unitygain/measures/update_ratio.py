"""update_ratio: how far one true step of the optimizer moves every parameter."""

import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.measures._ahead import (
    Schedule,
    damping,
    gather,
    length,
    look_ahead,
    mending,
    read_betas,
    state_before,
)
from unitygain.measures._own_step import share_kept, take_own_step
from unitygain.probe.record import Record
from unitygain.probe.trace import Gap
from unitygain.stats import frac_zero, rms

UNIT = "rms(update) over rms(parameter), one optimizer step"
ZEROS = "parameters that are all zero have no ratio and are left out"


@measure(
    unit=UNIT,
    needs=("parameter.rms", "parameter_grad.rms"),
    passes="0; the case's own step twice where it has one",
)
def update_ratio(case: Case, record: Record) -> Profile | None:
    """Root mean square of one optimizer step over that of the parameter, from the optimizer itself.

    The step is taken on a copy with the gradient of the pass: clipped by the case's clip, at the learning
    rate that the case's schedule starts with. A case with its own step takes that, again until its optimizer
    steps where it adds up several batches. An optimizer that was handed over with state continues from it; a
    new one takes its first step, in which Adam moves every entry by the learning rate.

    Where the optimizer has an epsilon the step is taken once more without it, and a schedule is stepped a
    thousand times ahead, on its own.

    Cost: two optimizer steps, or two of the case's own, and memory for two copies of the parameters, one of
    the gradients, two of the optimizer's state. No side effects on the case.

    Args:
        case: Its model holds the gradients of the pass.
        record: A record with `parameter.rms`.

    Returns:
        One value per parameter that the step moved or could have moved (trainable and in the optimizer),
        in the model's order; infinite or NaN where the step made it so. Labels are dtypes. Facts:
        ``optimizer``, ``learning_rate`` (of the first group), ``median``, ``scheduled`` (1 where a schedule
        chose the rate), ``clipped`` (norm of the gradient after the case's clip over that before it; 1
        without a clip), ``lost`` (of the entries with a gradient, those that the step left as they are),
        ``damped`` (norm of the step over that of one with an epsilon of next to nothing; NaN without one),
        ``broken`` (how many parameters are not finite after the step, and then the smallest ``eps`` of the
        groups and ``mended``, 1 where with one of 1e-4 all are), ``momentum`` and ``built_up`` (of SGD and
        RMSprop: the largest of the groups, and the step that a gradient which stays comes to with it, over
        the first one; 1 where the optimizer has state; else NaN), ``beta1``, ``beta2`` and ``beta_ratio``
        (where the optimizer is like Adam by its state, and of the group where β1²/sqrt(β2) is largest; else
        NaN) and of the schedule's first thousand
        rates, NaN where it does not say, ``full_steps`` (how many at the largest they add up to), ``rise``
        (the largest over the first), ``granted`` (the largest over the optimizer's own rate, where it does
        not come last or is held for the second half), ``given`` (that rate) and ``squared`` (1 where the
        largest is its square, else 0); the case's own step leaves ``damped`` and those of the schedule NaN,
        and tells ``carried`` and ``handed``: the norm of the gradient before the clip, and at the
        optimizer's step, over that of the loss's own, and ``kept``: the share of what the step before left in
        the gradient that a second one adds its own to. None where the case declares no optimizer.

    Raises:
        Gap: If the model and its optimizer cannot be copied, or the optimizer's step needs what this
            one does not give, such as the closure of LBFGS.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Linear(1, 1, bias=False)
        >>> sgd = torch.optim.SGD([nn.init.ones_(model.weight)], 0.1)
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 1)], optimizer=sgd)
        >>> round(update_ratio(case, observe(case, ["parameter.rms"])).values[0], 6)
        0.1
    """
    if case.optimizer is None:
        return None
    try:
        twin = case.copy()
    except Exception as error:
        raise Gap(
            f"model and optimizer could not be copied, and a step is only taken on a copy "
            f"({type(error).__name__}: {error})"
        ) from error
    before = {name: parameter.detach() for name, parameter in case.model.named_parameters()}
    optimizer, note, more = _step(case, twin, before)
    if not more.ratios:
        return None
    finite = sorted(value for value in more.ratios.values() if math.isfinite(value))
    facts: dict[str, float | str] = {"median": finite[len(finite) // 2] if finite else math.nan}
    facts |= {"optimizer": type(optimizer).__name__}
    facts |= {"scheduled": float(case.schedule is not None), **more.facts}
    labels = record.labels("parameter")
    sites = tuple(Site(name) for name in more.ratios)
    return Profile(
        "update_ratio",
        UNIT,
        sites,
        tuple(more.ratios.values()),
        labels=tuple(labels.get(site, "") for site in sites),
        facts=facts,
        note=note,
    )


class _Taken(NamedTuple):
    """What a step did: the ratios by name, and facts."""

    ratios: dict[str, float]
    facts: dict[str, float]


def _step(case: Case, twin: Case, before: dict[str, Tensor]) -> tuple[torch.optim.Optimizer, str, _Taken]:
    """Take one step on the copy; return its optimizer, a sentence on what was done, and what came of it."""
    optimizer = twin.build_optimizer()
    assert optimizer is not None
    twin.optimizer = optimizer
    schedule = case.schedule(optimizer) if case.schedule is not None else None
    rate = float(optimizer.param_groups[0]["lr"])
    unknown = dict.fromkeys(("clipped", "carried", "handed", "kept", "damped"), math.nan)
    facts = {"learning_rate": rate, **unknown, **Schedule()._asdict()}
    facts |= gather(optimizer)._asdict()
    if case.step is not None:
        facts |= take_own_step(case, twin, optimizer)
        facts |= read_betas(optimizer)._asdict()
        taken = _read(twin, optimizer, before, facts)
        taken.facts["kept"] = share_kept(case, twin, optimizer, facts)
        return optimizer, f"{ZEROS}; the case's own step was taken", taken
    for parameter, original in zip(twin.model.parameters(), case.model.parameters(), strict=True):
        parameter.grad = None if original.grad is None else original.grad.detach().clone()
    whole = _gradient_norm(twin)
    if case.clip is not None:
        case.clip(twin.model.parameters())
    facts["clipped"] = _gradient_norm(twin) / whole if whole else 1.0
    if "closure" in _needed(optimizer.step):
        raise Gap(
            f"{type(optimizer).__name__}.step needs a closure; declare the step: "
            "Case(..., step=lambda case, batch: ...)"
        )
    state = state_before(optimizer)
    optimizer.step()
    facts |= read_betas(optimizer)._asdict()
    taken = _read(twin, optimizer, before, facts)
    taken.facts["damped"] = damping(optimizer, state, twin.model, before)
    if taken.facts["broken"]:
        taken.facts.update(mending(optimizer, state, twin.model, before))
    if schedule is not None:
        taken.facts.update(look_ahead(schedule, optimizer)._asdict())
    clipped = "clipped as the case declares" if case.clip is not None else "no clip is declared"
    scheduled = "" if case.schedule is not None else ", no schedule is declared"
    return optimizer, f"{ZEROS}; {clipped}{scheduled}", taken


def _read(
    twin: Case, optimizer: torch.optim.Optimizer, before: dict[str, Tensor], facts: dict[str, float]
) -> _Taken:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    ratios, asked, stayed = {}, 0.0, 0.0
    for name, parameter in twin.model.named_parameters():
        size = float(rms(before[name]))
        if not (parameter.requires_grad and id(parameter) in held and size):
            continue
        ratios[name] = float(rms(parameter.detach() - before[name])) / size
        if parameter.grad is not None and not parameter.grad.is_sparse:
            moved = (parameter.grad == 0) | (parameter.detach() != before[name])
            asked += parameter.numel() * (1 - float(frac_zero(parameter.grad)))
            stayed += parameter.numel() * float(frac_zero(moved.to(torch.float32)))
    broken = sum(not math.isfinite(ratio) for ratio in ratios.values())
    return _Taken(ratios, {**facts, "lost": stayed / asked if asked else math.nan, "broken": float(broken)})


def _gradient_norm(case: Case) -> float:
    """Norm of all gradients together."""
    gradients = [p.grad for p in case.model.parameters() if p.grad is not None and not p.grad.is_sparse]
    return length(gradients)


def _needed(function: Callable[..., object]) -> set[str]:
    """Return the names of the arguments without a default."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.default is parameter.empty}
