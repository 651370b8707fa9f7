"""update_ratio: how far one true step of the optimizer moves every parameter."""

import inspect
import math
from collections.abc import Callable

import torch

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.record import Record
from unitygain.probe.trace import Gap
from unitygain.stats import rms

UNIT = "rms(update) over rms(parameter), one optimizer step"
ZEROS = "parameters that are all zero have no ratio and are left out"


@measure(
    unit=UNIT, needs=("parameter.rms", "parameter_grad.rms"), passes="0; the case's own step where it has one"
)
def update_ratio(case: Case, record: Record) -> Profile | None:
    """Root mean square of one optimizer step over that of the parameter, from the optimizer itself.

    The step is taken on a copy with the gradient of the pass: clipped by the case's clip, at the learning
    rate that the case's schedule starts with; a case with its own step takes that. An optimizer that was
    handed over with state continues from it; a new one takes its first step, in which Adam moves every
    entry by the learning rate.

    Cost: one optimizer step, and memory for a copy of the parameters, gradients and optimizer state.
    No side effects on the case.

    Args:
        case: Its model holds the gradients of the pass.
        record: A record with `parameter.rms`.

    Returns:
        One value per parameter that the step moved or could have moved (trainable and in the optimizer),
        in the model's order; infinite where a parameter of zeros was moved. Labels are dtypes. Facts:
        ``optimizer``, ``learning_rate`` (of the first group), ``median``, ``scheduled`` (1 where a schedule
        chose the rate), ``clipped`` (norm of the gradient after the case's clip over that before it; 1
        without a clip, NaN where the case's own step was taken). None where the case declares no optimizer.

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
    before = {name: parameter.detach().clone() for name, parameter in twin.model.named_parameters()}
    optimizer, note, clipped = _step(case, twin)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    ratios = {}
    for name, parameter in twin.model.named_parameters():
        size = float(rms(before[name]))
        if parameter.requires_grad and id(parameter) in held and size:
            ratios[name] = float(rms(parameter.detach() - before[name])) / size
    if not ratios:
        return None
    finite = sorted(value for value in ratios.values() if math.isfinite(value))
    facts: dict[str, float | str] = {"median": finite[len(finite) // 2] if finite else math.nan}
    facts |= {"optimizer": type(optimizer).__name__, "learning_rate": float(optimizer.param_groups[0]["lr"])}
    facts |= {"scheduled": float(case.schedule is not None), "clipped": clipped}
    labels = record.labels("parameter")
    sites = tuple(Site(name) for name in ratios)
    return Profile(
        "update_ratio",
        UNIT,
        sites,
        tuple(ratios.values()),
        labels=tuple(labels.get(site, "") for site in sites),
        facts=facts,
        note=note,
    )


def _step(case: Case, twin: Case) -> tuple[torch.optim.Optimizer, str, float]:
    """Take one step on the copy; return its optimizer, a sentence on what was done, what the clip left."""
    optimizer = twin.build_optimizer()
    assert optimizer is not None
    twin.optimizer = optimizer
    if case.schedule is not None:
        case.schedule(optimizer)
    if case.step is not None:
        case.step(twin, twin.batches[0])
        return optimizer, f"{ZEROS}; the case's own step was taken", math.nan
    for parameter, original in zip(twin.model.parameters(), case.model.parameters(), strict=True):
        parameter.grad = None if original.grad is None else original.grad.detach().clone()
    whole = _length(twin)
    if case.clip is not None:
        case.clip(twin.model.parameters())
    left = _length(twin) / whole if whole else 1.0
    if "closure" in _needed(optimizer.step):
        raise Gap(
            f"{type(optimizer).__name__}.step needs a closure; declare the step: "
            "Case(..., step=lambda case, batch: ...)"
        )
    optimizer.step()
    clipped = "clipped as the case declares" if case.clip is not None else "no clip is declared"
    scheduled = "" if case.schedule is not None else ", no schedule is declared"
    return optimizer, f"{ZEROS}; {clipped}{scheduled}", left


def _length(case: Case) -> float:
    """Norm of all gradients together."""
    gradients = [p.grad for p in case.model.parameters() if p.grad is not None and not p.grad.is_sparse]
    return math.hypot(*(float(rms(gradient)) * math.sqrt(gradient.numel()) for gradient in gradients))


def _needed(function: Callable[..., object]) -> set[str]:
    """Return the names of the arguments without a default."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.default is parameter.empty}
