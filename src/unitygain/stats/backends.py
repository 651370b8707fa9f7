"""Which implementation reads the gradients: the compiled kernel where there is one, torch everywhere.

The environment variable UNITYGAIN_STATS forces one: `native`, the compiled CPU kernel; `torch`; or `triton`,
the CUDA kernel, which nothing else chooses until it has been measured on a device.
"""

import logging
import os
from array import array
from collections.abc import Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from unitygain.stats import native, portable
from unitygain.stats.layouts import Memory
from unitygain.stats.portable import Found

SWITCH = "UNITYGAIN_STATS"
_CHOICES = ("", "native", "torch", "triton")
_log = logging.getLogger("unitygain")


def reduce(tensors: Sequence[Tensor], memory: Memory, absmax: bool) -> Found:
    """Norm and, on request, absmax of each tensor that lies in `memory`.

    Raises:
        ValueError: If the switch names no implementation.
        RuntimeError: If it names one that is not to be had.
    """
    forced = _forced()
    if forced == "triton" and tensors and os.environ.get("TRITON_INTERPRET") == "1":
        return _triton().reduce(tensors, absmax)
    if forced == "native":
        _require_native()
    if forced == "torch" or not found_native():
        return portable.reduce(tensors, absmax)
    norms, tops = native.reduce(memory)
    return norms, tops if absmax else None


def multiply(tensors: Sequence[Tensor], memory: Memory, factors: Sequence[float]) -> bool:
    """Multiply each tensor in `memory` by its factor in one call, if the kernel is to be had and takes them.

    Each entry becomes what torch would make of it, bit for bit, in its own dtype.

    Returns:
        Whether it did; if not, nothing was written.

    Raises:
        As `reduce`.
    """
    forced = _forced()
    if forced == "native":
        _require_native()
    if forced in ("torch", "triton") or not found_native() or not native.multiplies(memory):
        return False
    changed = [tensor for tensor, factor in zip(tensors, factors, strict=True) if factor != 1]
    native.multiply(memory, array("d", factors))
    torch.autograd.graph.increment_version(changed)
    return True


def reduce_on_device(tensors: Sequence[Tensor], absmax: bool) -> Found:
    """Norm and, on request, absmax of each of some contiguous, real tensors on one accelerator.

    Raises:
        As `reduce`.
    """
    if _forced() == "triton" and tensors[0].device.type == "cuda":
        return _triton().reduce(tensors, absmax)
    return portable.reduce_without_waiting(tensors, absmax)


@cache
def found_native() -> bool:
    """Tell whether the kernel is to be had; if not, say so in the log, once."""
    try:
        native.load()
    except OSError as reason:
        _log.info("gradients are read in torch, up to three times slower: %s", reason)
        return False
    return True


def _forced() -> str:
    name = os.environ.get(SWITCH, "")
    if name not in _CHOICES:
        raise ValueError(f"{SWITCH}={name} names no implementation; use native, torch or triton, or unset it")
    return name


def _require_native() -> None:
    try:
        native.load()
    except OSError as reason:
        raise RuntimeError(f"{SWITCH}=native, but {reason}; unset it to read gradients in torch") from reason


def _triton() -> ModuleType:
    try:
        from unitygain.stats import triton_kernel
    except ImportError as reason:
        raise RuntimeError(
            f"{SWITCH}=triton, but {reason}; install triton, or unset it to read gradients in torch"
        ) from reason
    return triton_kernel
