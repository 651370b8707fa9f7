"""logit_grad_absmax: how hard the loss pulls at the prediction, before any journey through the model."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.measures._loss import main_loss
from unitygain.probe.record import Record

UNIT = "largest |p - y|"


@measure(unit=UNIT, needs=("loss.absmax", "loss.expected", "loss.classes", "loss.rows"))
def logit_grad_absmax(case: Case, record: Record) -> Profile | None:
    """Largest |p - y|: the loss's gradient with respect to the logits, before averaging over the rows.

    For a cross-entropy, with softmax or sigmoid, p is the probability that actually enters it and y the
    target, so that the value is at most 1: a gradient that is small at the logits (or large further down)
    is told from a small gradient of the loss. For a squared error it is the largest residual, without bound.

    Cost: one pass over the rows of the loss. No side effects.

    Args:
        case: Not used.
        record: A record with `loss.absmax`, `loss.expected`, `loss.classes` and `loss.rows`.

    Returns:
        One value at the model, for the loss operation with most rows. Facts: ``kind``, ``loss``,
        ``initial_loss_expected``, ``classes``, ``rows``. None where no known loss operation was seen.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain._registry import MEASURES
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Linear(4, 2)
        >>> _ = [nn.init.zeros_(parameter) for parameter in model.parameters()]
        >>> loss = lambda m, x: nn.functional.cross_entropy(m(x), torch.tensor([0, 1]))
        >>> case = Case(model, loss=loss, data=[torch.ones(2, 4)])
        >>> profile = logit_grad_absmax(case, observe(case, MEASURES["logit_grad_absmax"].needs))
        >>> round(profile.values[0], 6)
        0.5
    """
    main = main_loss(record)
    if main is None:
        return None
    facts: dict[str, float | str] = {"kind": record.labels("loss")[main], "loss": record.facts["loss"]}
    for fact, key in (("initial_loss_expected", "expected"), ("classes", "classes"), ("rows", "rows")):
        facts[fact] = record.values[f"loss.{key}"][main][0]
    value = record.values["loss.absmax"][main][0]
    note = "" if math.isfinite(value) else "the loss is given a number that is not finite"
    return Profile("logit_grad_absmax", UNIT, (Site(""),), (value,), facts=facts, note=note)
