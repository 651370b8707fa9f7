"""change_precision: run under another autocast dtype, or under none.

What overflows or underflows in float16 does not in bfloat16, which has the range of float32 (and 8 bits of
precision instead of 11); without autocast neither range nor precision is short.

References: Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training" (2019, arXiv:1905.12322).
"""

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG501", "UG502", "UG901"))
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
