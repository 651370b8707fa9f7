"""Modules that run inside a custom autograd function, as under a re-entrant checkpoint."""

import sys
from types import FrameType

import torch
from torch.autograd.function import FunctionCtx

FORWARD = "forward"


def inside_function() -> bool:
    """Whether the code that runs now was called by the forward pass of a custom autograd function.

    There is no graph there; the function's backward pass makes one, as a re-entrant checkpoint's does when it
    runs its modules again. Autograd asks for that only where a tensor that the function was handed requires a
    gradient: what the modules hold is not asked.

    Cost: a look at the callers, and none with gradients on.

    Example:
        >>> from torch.utils.checkpoint import checkpoint
        >>> x = torch.ones(1, requires_grad=True)
        >>> seen = []
        >>> for reentrant in (True, False):
        ...     _ = checkpoint(lambda x: seen.append(inside_function()) or 2 * x, x, use_reentrant=reentrant)
        >>> seen
        [True, False]
    """
    frame = None if torch.is_grad_enabled() else sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == FORWARD and isinstance(_first_argument(frame), FunctionCtx):
            return True
        frame = frame.f_back
    return False


def _first_argument(frame: FrameType) -> object:
    return frame.f_locals.get(frame.f_code.co_varnames[0]) if frame.f_code.co_argcount else None
