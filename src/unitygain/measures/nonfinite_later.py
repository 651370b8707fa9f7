"""nonfinite_later: the first of the other drawn batches whose loss or gradient is not finite, and why."""

import math

import torch

from unitygain._case import Case, fresh, random_states, reseed
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.measures._origin import describe_origin
from unitygain.probe.nonfinite import find_origin
from unitygain.probe.record import Record
from unitygain.probe.trace import buffers_kept
from unitygain.stats import rms

UNIT = "1 at the first operation with finite inputs and a result that is not"


@measure(unit=UNIT, passes="1 per further batch that is drawn")
def nonfinite_later(case: Case, record: Record) -> Profile | None:
    """The first operation that makes an infinity or a NaN in a batch that comes after the first.

    Most of a diagnosis looks at one batch. A root of zero, a row without labels or a constant sample may be
    in another one, and the first step on that ends the training. Every further drawn batch is run once, at
    the weights as they are.

    Cost: one forward and backward pass per further batch; one more on a copy where a number is not finite. No
    side effects.

    Args:
        case: An isolated case.
        record: Its record, for the seed.

    Returns:
        As `nonfinite_origin`, with the fact ``batch``, its index. None where all are finite.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> case = Case(nn.Linear(1, 1, bias=False), loss=lambda m, x: m(x).square().sum().sqrt(),
        ...             data=[torch.ones(2, 1), torch.zeros(2, 1)])
        >>> facts = nonfinite_later(case, observe(case, [])).facts
        >>> facts["batch"], facts["operation"]
        (1.0, 'SqrtBackward0 (div)')
    """
    seed = int(record.facts.get("seed", 0))
    index = next((k for k in range(1, len(case.batches)) if not _finite(case, k, seed)), None)
    origin = find_origin(case, seed, index) if index is not None else None
    if origin is None or index is None:
        return None
    return describe_origin(origin, "nonfinite_later", UNIT, batch=float(index))


def _finite(case: Case, index: int, seed: int) -> bool:
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    with random_states(), torch.enable_grad(), buffers_kept(case.model):
        reseed(seed)
        loss = case.compute_loss(fresh(case.batches[index]))
        if not math.isfinite(float(loss.detach())) or not loss.requires_grad:
            return not loss.requires_grad
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return all(math.isfinite(float(rms(gradient))) for gradient in found if gradient is not None)
