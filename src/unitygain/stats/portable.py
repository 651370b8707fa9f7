"""Norm and absmax of many tensors in torch alone, on every CPU; on accelerators without waiting for them."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from unitygain.stats.layouts import Entries
from unitygain.stats.scale import absmax_on_cpu, local_absmax, local_norm, norm_on_cpu

# Tensors up to this length are copied together: one operation on each costs more than reading them.
_SHORT = 1024
# A copy of at most 32 Ki entries, which stays in the cache and for which torch wakes no second thread.
_TOGETHER = 31 * 1024

Found = tuple[Float64[Tensor, " tensors"], Float64[Tensor, " tensors"] | None]


def reduce(tensors: Sequence[Tensor], absmax: bool) -> Found:
    """Norm and, on request, absmax of each of many tensors on the CPU, right to 1e-6.

    Args:
        tensors: Contiguous and real.
        absmax: Whether to find it, for two thirds of the norm's cost on top.
    """
    lengths = [tensor.numel() for tensor in tensors]
    rows = np.zeros((2 if absmax else 1, len(tensors)))
    for block in _blocks(lengths):
        # NaN, infinities and a norm beyond float64 are answers here, not faults to warn of.
        with np.errstate(over="ignore", invalid="ignore"):
            rows[:, block] = _read_together(
                [tensors[row] for row in block], [lengths[row] for row in block], absmax
            )
    for row, length in enumerate(lengths):
        if length > _SHORT:
            values = tensors[row].detach().view(-1)
            size, scale = norm_on_cpu(values)
            rows[0, row] = size * scale
            if absmax:
                rows[1, row] = absmax_on_cpu(values)
    norms, *tops = torch.from_numpy(rows)
    return norms, tops[0] if absmax else None


def reduce_without_waiting(tensors: Sequence[Tensor], absmax: bool) -> Found:
    """Norm and, on request, absmax of each of many tensors on an accelerator.

    Squares are summed in float64 from the start: whether a quick sum left the range, only the device knows.

    Args:
        tensors: Contiguous, real and on one device; at least one.
        absmax: Whether to find it, at the cost of one more pass.
    """
    parts = [Entries(tensor.detach().view(-1), tensor.numel(), 1, ()) for tensor in tensors]
    narrow = [part.values for part in parts if part.values.dtype is not torch.float64]
    # A private name of torch, and the only one that reads many tensors with few launches.
    quick = iter(torch._foreach_norm(narrow, 2.0, dtype=torch.float64) if narrow else ())  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    norms = []
    for part in parts:
        if part.values.dtype is torch.float64:
            size, scale = local_norm(part)
            norms.append(size * scale)
        else:
            norms.append(next(quick))
    return torch.stack(norms), torch.stack(list(map(local_absmax, parts))) if absmax else None


def _blocks(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the rows of the short tensors, so many at a time that a copy of them stays small."""
    block: list[int] = []
    held = 0
    for row, length in enumerate(lengths):
        if 0 < length <= _SHORT:
            block.append(row)
            held += length
            if held > _TOGETHER:
                yield block
                block, held = [], 0
    if block:
        yield block


def _read_together(tensors: Sequence[Tensor], lengths: Sequence[int], absmax: bool) -> np.ndarray:
    """Return a row of norms and, on request, one of absmax, from one float64 copy of all entries."""
    flat = torch.cat([tensor.view(-1) if tensor.dim() != 1 else tensor for tensor in tensors])
    wide = flat.dtype is torch.float64
    numbers = flat.detach().double().numpy()
    starts = np.cumsum([0, *lengths[:-1]])
    tops = np.maximum.reduceat(np.abs(numbers), starts) if absmax or wide else None
    if not wide or tops is None:
        norms = np.sqrt(np.add.reduceat(np.square(numbers), starts))
    else:
        # Squares of float64 may leave its range; of numbers divided by a power of two near the largest, not.
        exponents = np.frexp(np.where(np.isfinite(tops), tops, 0.0))[1]
        squares = np.square(np.ldexp(numbers, -np.repeat(exponents, lengths)))
        norms = np.ldexp(np.sqrt(np.add.reduceat(squares, starts)), exponents)
    return np.stack([norms, tops]) if absmax and tops is not None else norms[None]
