"""change_precision: run under another autocast dtype, or under none.

The default goes from float16 to bfloat16, which has the range of float32.

What it changes:
    The dtype that the case declares for autocast. Parameters, optimizer and data stay.

Why it helps:
    float16 ends at 65504 above and at 6e-8 below. What overflows or underflows there does neither in
    bfloat16, whose exponent has the 8 bits of float32; without autocast neither range nor precision is short.

When it does not help:
    bfloat16 has 8 bits of precision where float16 has 11: sums and weights whose last bits matter are worse
    off, and an update of less than 1/256 of a weight that is itself bfloat16 is lost (UG602). A gradient that
    leaves the range of float32 as well has another cause, such as depth (UG101, UG102). A model whose
    parameters are float16 declares no autocast; its dtype is its own.

What it costs:
    Nothing where the hardware has bfloat16; without it, or without autocast, a step costs a multiple.

References:
    Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training" (2019, arXiv:1905.12322).
"""

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG501", "UG502", "UG901"), changes="precision", instead_of=("loss_scale",))
def change_precision(case: Case, *, precision: str | None = "bfloat16") -> Undo:
    """Give the case another autocast dtype.

    Args:
        case: The case; it must declare a precision.
        precision: Name of the dtype, or None for the model's own.

    Returns:
        What puts the declared precision back.

    Raises:
        ValueError: If the case declares no precision (its model has the narrow dtype itself), or the name
            is no dtype's.

    Side effects:
        ``case.precision``.

    Example:
        >>> from torch import nn
        >>> case = Case(nn.Linear(1, 1), loss=lambda m, x: m(x).sum(), data=[], precision="float16")
        >>> undo = change_precision(case)
        >>> case.precision
        'bfloat16'
    """
    if case.precision is None:
        raise ValueError("the case declares no precision; its dtype is the model's own, which stays")
    if precision is not None and not isinstance(getattr(torch, precision, None), torch.dtype):
        raise ValueError(f"precision {precision!r} names no dtype; use 'float16', 'bfloat16' or None")
    given = case.precision
    case.precision = precision

    def undo() -> None:
        case.precision = given

    return undo
