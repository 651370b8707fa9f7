"""Norm and absmax of many tensors on a CUDA device in two launches per dtype, written in Triton.

Used where UNITYGAIN_STATS=triton asks for it. It was run in Triton's interpreter only: what it costs on a
device is not known. With TRITON_INTERPRET=1 it reads CPU tensors.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from unitygain.stats import portable

_PIECE, _BLOCK = 16384, 2048
_ENTRIES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


def reduce(tensors: Sequence[Tensor], absmax: bool) -> portable.Found:
    """Norm and, on request, absmax of each of many tensors, without waiting for the device.

    Exact to float64's rounding; every run adds in the same order. Tensors of float64, whose squares do not
    fit into any wider number, are read by torch.

    Args:
        tensors: Contiguous, real and on one device; at least one.
        absmax: Whether to return it; it is found in any case.
    """
    device = tensors[0].device
    norms = torch.empty(len(tensors), dtype=torch.float64, device=device)
    tops = torch.empty_like(norms)
    for dtype in {tensor.dtype: None for tensor in tensors}:
        rows = [row for row, tensor in enumerate(tensors) if tensor.dtype is dtype]
        alike = [tensors[row] for row in rows]
        read = _read_alike if dtype in _ENTRIES else _read_float64
        index = torch.tensor(rows).to(device, non_blocking=True)
        for whole, part in zip((norms, tops), read(alike), strict=True):
            whole.index_copy_(0, index, part)
    return norms, tops if absmax else None


def _read_alike(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Norm and absmax of tensors of one dtype of at most 32 bits."""
    count, device = len(tensors), tensors[0].device
    lengths = torch.tensor([tensor.numel() for tensor in tensors])
    pieces = (lengths + _PIECE - 1) // _PIECE
    firsts = torch.cat([torch.zeros(1, dtype=torch.int64), pieces.cumsum(0)])
    owners = torch.repeat_interleave(torch.arange(count), pieces)
    addresses = torch.tensor([tensor.data_ptr() for tensor in tensors])
    # One copy to the device for all four tables.
    tables = torch.cat([addresses, lengths, firsts, owners]).to(device, non_blocking=True)
    sizes = [count, count, count + 1, len(owners)]
    squares = torch.empty(len(owners), dtype=torch.float64, device=device)
    bits = torch.empty(len(owners), dtype=torch.int32, device=device)
    norms = torch.empty(count, dtype=torch.float64, device=device)
    tops = torch.empty(count, dtype=torch.int32, device=device)
    read: Any = _read
    combine: Any = _combine
    with torch.cuda.device_of(tensors[0]):
        if len(owners):
            entry = _ENTRIES[tensors[0].dtype]
            read[len(owners),](*tables.split(sizes), squares, bits, ENTRY=entry, PIECE=_PIECE, BLOCK=_BLOCK)
        combine[count,](tables.split(sizes)[2], squares, bits, norms, tops, BLOCK=_BLOCK)
    return norms, tops.view(torch.float32).double()


def _read_float64(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    norms, tops = portable.reduce_without_waiting(tensors, absmax=True)
    assert tops is not None, "it was asked for"
    return norms, tops


@triton.jit
def _read(
    addresses,
    lengths,
    firsts,
    owners,
    squares,
    bits,
    ENTRY: tl.constexpr,
    PIECE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum of squares and largest magnitude, as bits of a float32, of one piece of a tensor."""
    piece = tl.program_id(0)
    tensor = tl.load(owners + piece)
    memory = tl.load(addresses + tensor).to(tl.pointer_type(ENTRY))
    length = tl.load(lengths + tensor)
    start = (piece - tl.load(firsts + tensor)) * PIECE
    total = tl.zeros((BLOCK,), tl.float64)
    top = tl.zeros((BLOCK,), tl.int32)
    for offset in range(0, PIECE, BLOCK):
        at = start + offset + tl.arange(0, BLOCK)
        number = tl.load(memory + at, mask=at < length, other=0.0).to(tl.float32)
        wide = number.to(tl.float64)
        total += wide * wide
        # As integers, infinity is above every number and NaN above infinity; tl.maximum may drop a NaN.
        top = tl.maximum(top, number.to(tl.int32, bitcast=True) & 0x7FFFFFFF)
    tl.store(squares + piece, tl.sum(total))
    tl.store(bits + piece, tl.max(top))


@triton.jit
def _combine(firsts, squares, bits, norms, tops, BLOCK: tl.constexpr):
    """Norm and largest magnitude of one tensor from those of its pieces."""
    tensor = tl.program_id(0)
    end = tl.load(firsts + tensor + 1)
    total = tl.zeros((BLOCK,), tl.float64)
    top = tl.zeros((BLOCK,), tl.int32)
    for first in range(tl.load(firsts + tensor), end, BLOCK):
        at = first + tl.arange(0, BLOCK)
        total += tl.load(squares + at, mask=at < end, other=0.0)
        top = tl.maximum(top, tl.load(bits + at, mask=at < end, other=0))
    tl.store(norms + tensor, tl.sqrt(tl.sum(total)))
    tl.store(tops + tensor, tl.max(top))
