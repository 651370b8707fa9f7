"""nonfinite_origin: the first operation that makes an infinity or a NaN."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.measures._origin import describe_origin
from unitygain.probe.nonfinite import find_origin
from unitygain.probe.record import Record

UNIT = "1 at the first operation with finite inputs and a result that is not"
KEYS = ("output.frac_nonfinite", "grad.frac_nonfinite", "parameter_grad.frac_nonfinite")
NEEDS = (*KEYS, "parameter_grad.rms")


@measure(
    unit=UNIT, needs=NEEDS, passes="0, or 1 more pass where a number is not finite, or zeros may hide one"
)
def nonfinite_origin(case: Case, record: Record) -> Profile | None:
    """The first operation, forward then backward, that makes an infinity or a NaN from finite numbers.

    Runs only where the pass showed a loss, output or gradient that is not finite; and where float16 is used
    and half of the gradients are exactly zero, since what is divided by an infinity is zero and leaves no
    other trace. A batch or a parameter that was not finite to begin with is named itself.

    Cost: nothing, or one forward and backward pass on a copy with two looks at every tensor. No side
    effects on the case.

    Args:
        case: Runs once more, on a copy.
        record: A record with `output.frac_nonfinite`, `grad.frac_nonfinite`,
            `parameter_grad.frac_nonfinite` and `parameter_grad.rms`.

    Returns:
        1 at the module that was running, at ``(input k)`` or at a parameter; the label is the operation.
        Facts: ``operation``, ``direction`` (``forward`` or ``backward``), ``line``, the user's file and
        line for an operation of the forward pass, ``kind`` (``NaN`` or ``infinity``) and ``dtype``; ``then``
        where the infinity did no harm before that operation made a NaN of it, and ``fed`` of 1 where a NaN
        was made of an infinity that nothing computed. None where all is finite, or the extra pass was.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain._registry import MEASURES
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Linear(4, 1)
        >>> case = Case(model, loss=lambda m, x: (m(x) * 0).log().mean(), data=[torch.ones(2, 4)])
        >>> facts = nonfinite_origin(case, observe(case, MEASURES["nonfinite_origin"].needs)).facts
        >>> facts["operation"], facts["direction"]
        ('log', 'forward')
    """
    sick = not math.isfinite(float(record.facts.get("loss", 0.0)))
    sick = sick or any(n[0] > 0 for key in KEYS for n in record.values.get(key, {}).values())
    if not sick and not _may_hide(record):
        return None
    origin = find_origin(case, int(record.facts.get("seed", 0)), int(record.facts.get("batch", 0)))
    if origin is None:
        return None
    return describe_origin(origin, "nonfinite_origin", UNIT)


def _may_hide(record: Record) -> bool:
    """Whether an infinity may have ended in zeros: where the dtype is short and the gradients are lost."""
    gradients = [values[0] for values in record.values.get("parameter_grad.rms", {}).values()]
    lost = sum(value == 0 for value in gradients)
    return 0 < len(gradients) <= 2 * lost and any(p.dtype == "float16" for p in record.of("output"))
