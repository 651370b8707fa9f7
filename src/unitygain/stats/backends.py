"""Which implementation reads the gradients: the compiled kernel where there is one, torch everywhere.

The environment variable UNITYGAIN_STATS forces one: `native` (the compiled CPU kernel) or `torch`.
"""

import logging
import os
from collections.abc import Sequence
from functools import cache

from jaxtyping import Float64
from torch import Tensor

from unitygain.stats import native, portable
from unitygain.stats.layouts import Memory

SWITCH = "UNITYGAIN_STATS"
_CHOICES = ("native", "torch")
_log = logging.getLogger("unitygain")

Found = tuple[Float64[Tensor, " tensors"], Float64[Tensor, " tensors"] | None]


def reduce(tensors: Sequence[Tensor], memory: Memory, absmax: bool) -> Found:
    """Norm and, on request, absmax of each tensor that lies in `memory`.

    Raises:
        ValueError: If the switch names no implementation.
        RuntimeError: If it names the kernel and that is not to be had.
    """
    if _uses_native(os.environ.get(SWITCH, "")):
        norms, tops = native.reduce(tensors, memory)
        return norms, tops if absmax else None
    return portable.reduce(tensors, absmax)


def _uses_native(forced: str) -> bool:
    if not forced:
        return found_native()
    if forced not in _CHOICES:
        raise ValueError(
            f"{SWITCH}={forced} names no implementation; set it to {' or '.join(_CHOICES)}, or unset it"
        )
    if forced == "torch":
        return False
    try:
        native.load()
    except OSError as reason:
        raise RuntimeError(f"{SWITCH}=native, but {reason}; unset it to read gradients in torch") from reason
    return True


@cache
def found_native() -> bool:
    """Tell whether the kernel is to be had; if not, say so in the log, once."""
    try:
        native.load()
    except OSError as reason:
        _log.info("gradients are read in torch, up to three times slower: %s", reason)
        return False
    return True
