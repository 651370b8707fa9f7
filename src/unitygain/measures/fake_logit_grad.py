"""fake_logit_grad: how hard the generator's loss pulls at the discriminator's logits."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.adversary import Verdict, closed_over, find_discriminators, judged, pull
from unitygain.probe.record import Record
from unitygain.stats import norm
from unitygain.theory.adversarial import generator_gradient

UNIT = "sum of |dL/d(logit)| over that at logits of 0"
COLUMNS = ("pull", "undecided", "bend", "logit_mean", "saturating", "non_saturating", "passed")
MOST = 1024


@measure(unit=UNIT, passes="2, and 1 from the loss to the discriminator's logits")
def fake_logit_grad(case: Case, record: Record) -> Profile | None:
    """Gradient at the discriminator's logits of generated samples, over what an undecided one would give.

    It is where the generator's gradient begins: what is small here was made small by the loss, and not on
    the way through discriminator and generator. The loss is run twice, the second time with logits of zero,
    so that its weight and its reduction cancel.

    A discriminator is a part of the model that is called so (discriminator, critic, disc, netD, D) by its
    name or class, or else a frozen part that ends in one number beside parts that learn; where the model has
    none, a module that the loss function names, by the name it has there. It counts where it is shown what
    trained parts outside of it made. Its logits are the output of its last layer, before a
    sigmoid.

    Cost: two forward passes, a backward pass through the discriminator, two from the loss to its logits.
    No side effects.

    Args:
        case: An isolated case, whose loss is the generator's.
        record: Its record.

    Returns:
        One value per call of a discriminator on generated samples; NaN where the undecided one has no
        gradient. Columns: ``pull`` and ``undecided`` (the two sums), ``bend`` (Σd²L/da² over Σ|dL/da|:
        negative where the loss is flat at its worst end, positive where it is near its best, zero where it
        is linear), ``logit_mean``, ``saturating`` and ``non_saturating`` (the value that log(1 - D) and
        -log D would have at these logits), ``passed`` (norm of dL/d(sample) over that of dL/d(logit)).
        Facts: ``variants``, the losses that the case names. None where the model has no discriminator, or
        the loss shows it nothing that was generated.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.ModuleDict({"generator": nn.Linear(2, 2), "discriminator": nn.Linear(2, 1)})
        >>> _ = nn.init.constant_(model["discriminator"].bias, -10.0)
        >>> _ = nn.init.zeros_(model["discriminator"].weight)
        >>> def saturating(m, z):
        ...     return torch.log(1 - m["discriminator"](m["generator"](z)).sigmoid()).mean()
        >>> case = Case(model, loss=saturating, data=[torch.ones(4, 2)])
        >>> profile = fake_logit_grad(case, observe(case, []))
        >>> round(profile.values[0], 8), round(profile.rows[0][5], 4)
        (9.08e-05, 1.9999)

    References:
        I. Goodfellow et al., "Generative adversarial nets" (2014), section 3. M. Arjovsky, L. Bottou,
        "Towards principled methods for training generative adversarial networks" (2017), section 2.
    """
    if not find_discriminators(case.model, closed_over(case)):
        return None
    with judged(case, record, undecided=True) as (loss, verdicts):
        undecided = [_total(pull(loss, one.logits)[0]) for one in verdicts]
    with judged(case, record) as (loss, verdicts):
        rows = [_row(loss, one, zero) for one, zero in zip(verdicts, undecided, strict=True)]
        sites = tuple(one.site for one in verdicts)
    if not sites:
        return None
    values = tuple(row[0] / row[1] if row[1] else math.nan for row in rows)
    return Profile(
        "fake_logit_grad",
        UNIT,
        sites=sites,
        values=values,
        columns=COLUMNS,
        rows=tuple(rows),
        facts={"variants": ", ".join(case.variants)},
        note=_note(rows),
    )


def _row(loss: Tensor, verdict: Verdict, undecided: float) -> tuple[float, ...]:
    slope, bend = pull(loss, verdict.logits)
    total = _total(slope)
    logits = _numbers(verdict.logits)
    sample = logits[:: max(1, len(logits) // MOST)]
    laws = [generator_gradient(float(a)) for a in sample if math.isfinite(a)]
    # Both laws have a half at logits of 0.
    saturating, other = (
        -2 * float(np.mean([getattr(law, name) for law in laws])) if laws else math.nan
        for name in ("saturating", "non_saturating")
    )
    curved = 0.0 if bend is None else float(np.sum(_numbers(bend)))
    bent = curved / total if total else math.nan
    return total, undecided, bent, float(np.mean(logits)), saturating, other, _passed(verdict, slope)


def _passed(verdict: Verdict, slope: Tensor) -> float:
    """Norm of the gradient at the sample over that at the logits."""
    before = float(norm(slope))
    if not before or not verdict.logits.requires_grad:
        return math.nan
    # At unit size, so that a small pull does not round to zero on the way.
    unit = slope / before
    (found,) = torch.autograd.grad(verdict.logits, verdict.fake, unit, retain_graph=True, allow_unused=True)
    return 0.0 if found is None else float(norm(found))


def _note(rows: list[tuple[float, ...]]) -> str:
    if all(math.isfinite(number) for row in rows for number in row):
        return ""
    return "NaN: no gradient arrives at the logits, or none at logits of zero"


def _total(slope: Tensor) -> float:
    return float(np.sum(np.abs(_numbers(slope))))


def _numbers(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().double().cpu().reshape(-1).numpy()
