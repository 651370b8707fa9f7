"""first_steps: what the case's own first steps do to the loss, and what smaller ones would."""

import math
import time

from unitygain._case import Case, random_states, reseed
from unitygain._registry import measure
from unitygain._rehearsal import mean_loss, rehearse, train
from unitygain._types import Profile, Site
from unitygain.probe.record import Record
from unitygain.probe.trace import Gap

UNIT = "mean loss over the drawn batches after the first steps"
COLUMNS = ("before", "after", "at_a_tenth", "at_a_hundredth")
STEPS, PATIENCE, LONGEST = 8, 24, 72
# A fall by this share of the loss is learning; where there is none smaller rates are tried, and one is where
# the loss falls by less than that of a training which is well under way.
FALLS, WELL = 0.02, 0.3
RATES = (0.1, 0.01)
# A copy with its optimizer's state takes four times the memory of the parameters.
MOST_PARAMETERS, MOST_SECONDS, MOST_SECONDS_LONGEST = 64_000_000, 20.0, 30.0
FORWARDS_PER_STEP = 3.5


@measure(
    unit=UNIT,
    passes="8 training steps; 16 where the loss falls little, up to 224 where it falls more at a lower rate",
)
def first_steps(case: Case, record: Record) -> Profile | None:
    """Mean loss before and after the first training steps, and after as many at smaller learning rates.

    Copies are trained as the case declares it: its optimizer, precision, clip and schedule, on the drawn
    batches in their order and again from the first. Where eight steps lower the loss by 30 % that is all, and
    where they lower it by 2 % and no less than at a tenth of the rate. Otherwise twenty-four are taken at the
    case's rate and at a tenth, and unless they lower the loss by 2 % at a hundredth. Where they do, but less
    than at a tenth, seventy-two are taken at both. Where those would take over half a minute, what lowers the
    loss by 2 % is left alone. All arms see the same batches and random numbers.

    Cost: 8 training steps, at most 224, and memory for a copy of the model, its gradients and its
    optimizer's state. No side effects.

    Args:
        case: An isolated case.
        record: Its record, for the seed.

    Returns:
        The loss after the steps at the model; infinite where it is not finite. Columns of the one row:
        ``before``, ``after``, ``at_a_tenth``, ``at_a_hundredth`` (NaN where not tried). Facts: ``steps``, and
        ``highest``, the largest loss of a step. None where the case declares no optimizer, or a step of its
        own, whose loss need not fall (as that of a game).

    Raises:
        Gap: If the model has more than 64 million parameters, eight steps would take more than twenty
            seconds, or the case cannot be copied.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 1)],
        ...             optimizer=lambda p: torch.optim.SGD(p, 1.5))
        >>> profile = first_steps(case, observe(case, []))
        >>> profile.values[0] > 1e6, [value < 0.1 for value in profile.rows[0]]
        (True, [False, False, True, False])
    """
    if case.optimizer is None or case.step is not None:
        return None
    if sum(parameter.numel() for parameter in case.model.parameters()) > MOST_PARAMETERS:
        raise Gap(f"training steps on a copy of more than {MOST_PARAMETERS:,} parameters are left to treat")
    seed = int(record.facts.get("seed", 0))
    before, each = _loss_before(case, seed)
    longer = 2 * LONGEST * each <= MOST_SECONDS_LONGEST
    steps, own, others = STEPS, rehearse(case, STEPS, seed=seed), []
    if not falls(before, own.final) or (longer and _is_behind(case, before, own.final, seed)):
        steps, own = PATIENCE, rehearse(case, PATIENCE, seed=seed)
        rates = RATES[:1] if falls(before, own.final) else RATES
        others = [_at(case, rate, PATIENCE, seed) for rate in rates if longer or len(rates) > 1]
        if len(rates) == 1 and others and others[0] < own.final:
            steps, own = LONGEST, rehearse(case, LONGEST, seed=seed)
            others = [_at(case, rates[0], LONGEST, seed)]
    others += [math.nan] * (len(RATES) - len(others))
    after = own.final
    return Profile(
        "first_steps",
        UNIT,
        (Site(""),),
        (after,),
        columns=COLUMNS,
        rows=((before, after, *others),),
        facts={"steps": float(steps), "highest": max(own.losses, default=math.nan)},
        note="NaN: not tried",
    )


def falls(before: float, after: float, share: float = FALLS) -> bool:
    """Whether the loss fell by a notable share of itself."""
    return before - after >= share * abs(before)


def _is_behind(case: Case, before: float, after: float, seed: int) -> bool:
    """Whether the first steps lower the loss by little, and by less than at a tenth of the rate."""
    return not falls(before, after, WELL) and _at(case, RATES[0], STEPS, seed) < after


def _loss_before(case: Case, seed: int) -> tuple[float, float]:
    """Return the mean loss of a copy, in which forward passes may change buffers, and a step's seconds."""
    with random_states():
        try:
            twin = case.copy()
        except Exception as error:
            raise Gap(f"the case could not be copied ({type(error).__name__}: {error})") from error
        reseed(seed)
        started = time.perf_counter()
        before = mean_loss(twin)
    each = FORWARDS_PER_STEP * (time.perf_counter() - started) / len(twin.batches)
    if STEPS * each > MOST_SECONDS:
        raise Gap(f"{STEPS} training steps would take about {STEPS * each:.0f} s; treat takes them")
    return before, each


def _at(case: Case, rate: float, steps: int, seed: int) -> float:
    """Return the loss after the steps at a share of the learning rate."""
    with random_states():
        twin = case.copy()
    optimizer = twin.build_optimizer()
    assert optimizer is not None
    for group in optimizer.param_groups:
        group.update({name: rate * group[name] for name in ("lr", "initial_lr") if name in group})
    twin.optimizer = optimizer
    return train(twin, steps, seed=seed).final
