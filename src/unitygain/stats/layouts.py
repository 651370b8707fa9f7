"""Every entry of a tensor as one contiguous run of numbers, whatever its layout, dtype and strides."""

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor

from unitygain.stats.shards import Groups, gather, is_sharded, local_piece, whole

# A block of float64 that stays in a CPU's second-level cache; accelerators want few launches instead.
CPU_BLOCK = 1 << 16
_DEVICE_BLOCK = 1 << 24
_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
_REAL = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_NATIVE = (*_REAL, torch.complex128, torch.complex64)
_PLAIN = {Tensor, torch.nn.Parameter}
_IS_CPU, _DTYPE = attrgetter("is_cpu"), attrgetter("dtype")


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of a tensor that lie on this rank, in no particular order.

    Args:
        values: The stored entries, shape (n,), contiguous, floating or complex.
        total: Number of entries of the whole tensor, implicit zeros and other ranks' included.
        times: How often each stored entry stands in the tensor (more than once if it was expanded).
        groups: Process groups that hold the other entries.
    """

    values: Tensor
    total: int
    times: int
    groups: Groups

    def blocks(self) -> Iterator[Tensor]:
        """Yield the values piece by piece, so that a conversion never copies the whole tensor."""
        on_cpu = self.values.device.type == "cpu"
        if self.values.numel():
            yield from self.values.split(CPU_BLOCK if on_cpu else _DEVICE_BLOCK)

    def gather(self, *numbers: Tensor) -> Tensor:
        """Return the numbers of all ranks that hold a piece, shape (pieces, len(numbers))."""
        return gather(torch.stack(numbers), self.groups)

    def constant(self, value: float) -> Tensor:
        """Return `value` as a 0-dim float64 tensor on the device of the values."""
        return torch.full((), value, dtype=torch.float64, device=self.values.device)


def reduction(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Run `function` without a graph."""

    @wraps(function)
    def reduced(tensor: Tensor) -> Tensor:
        with torch.no_grad():
            return function(tensor)

    return reduced


def entries(tensor: Tensor) -> Entries:
    """Read a tensor of any layout as a run of entries.

    Sparse tensors are coalesced, their implicit zeros count in `total`. Dense memory in any order of
    dimensions (transposed, channels last) and expanded dimensions are read in place; other strided views
    and nested tensors are copied once.
    """
    tensor = tensor.detach()
    groups: Groups = ()
    total = None if tensor.is_nested else tensor.numel()
    if is_sharded(tensor):
        tensor, groups = local_piece(tensor)
    values, times = _in_one_run(_native(_stored(tensor)))
    return Entries(values, values.numel() if total is None else total, times, groups)


class Memory(NamedTuple):
    """Where the entries of tensors lie, each in one run, how many they are, and of which dtype."""

    addresses: array
    lengths: array
    dtypes: list[torch.dtype]


def in_memory(tensors: Sequence[Tensor]) -> Memory | None:
    """Return where each tensor lies in this process's memory, if all are to be read there as real numbers.

    None where one lies on another device, is sparse, complex, sharded or a strided view. All are asked at
    once, since that takes 0.2 µs per tensor where `entries` takes three.
    """
    dtypes = list(map(_DTYPE, tensors))
    if not (_PLAIN.issuperset(set(map(type, tensors))) and _REAL.issuperset(set(dtypes))):
        return None
    try:
        # Without an accelerator there is no other device whose address could be taken for one of ours.
        if torch.accelerator.is_available() and not all(map(_IS_CPU, tensors)):
            return None
        if not all(map(Tensor.is_contiguous, tensors)):
            return None
        addresses = list(map(Tensor.data_ptr, tensors))
    except RuntimeError:  # compressed and opaque layouts know neither their strides nor an address
        return None
    lengths = list(map(Tensor.numel, tensors))
    if 0 in addresses and any(n and not a for n, a in zip(lengths, addresses, strict=True)):
        return None  # meta tensors, and zeros that no memory holds
    return Memory(array("Q", addresses), array("q", lengths), dtypes)


def dense(tensor: Tensor) -> Tensor:
    """Return the tensor with its dimensions, on this rank, strided, floating or complex.

    A DTensor is gathered and a sparse tensor filled in, so this is for statistics that need the
    dimensions. A nested tensor is padded with zeros.
    """
    tensor = tensor.detach()
    if is_sharded(tensor):
        tensor = whole(tensor)
    if tensor.is_nested:
        return _native(torch.nested.to_padded_tensor(tensor, 0.0))
    return _native(tensor if tensor.layout is torch.strided else tensor.to_dense())


def magnitude(values: Tensor) -> Tensor:
    """Return |x| in float64, without squaring: torch's own abs of a complex64 of 1e-38 squares it."""
    if values.is_complex():
        parts = torch.view_as_real(values.resolve_conj()).double()
        return torch.hypot(parts[..., 0], parts[..., 1])
    return values.double().abs()


def sample_stride(count: int, limit: int) -> int:
    """Return the smallest step that reads at most `limit` of `count` entries and has no divisor in common.

    A step prime to the count is prime to every dimension, so no column is always or never read.
    """
    stride = max(1, math.ceil(count / limit))
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


def _stored(tensor: Tensor) -> Tensor:
    if tensor.is_nested:
        return torch.cat([part.reshape(-1) for part in tensor.unbind()])
    if tensor.layout is torch.sparse_coo:
        return tensor.coalesce().values()
    if tensor.layout in _COMPRESSED:
        # Without detach, view_as_real of the values asks the sparse tensor for its strides and raises.
        return tensor.values().detach()
    if tensor.layout is not torch.strided:
        return tensor.to_dense()
    return tensor.dequantize() if tensor.is_quantized else tensor


def _native(tensor: Tensor) -> Tensor:
    """Convert, exactly, what few kernels take: integers and bool to float64, eight-bit floats to float32."""
    if tensor.device.type == "mps":
        tensor = tensor.cpu()
    if tensor.dtype in _NATIVE:
        return tensor
    if tensor.dtype is torch.complex32:
        return tensor.to(torch.complex64)
    return tensor.to(torch.float32 if tensor.is_floating_point() else torch.float64)


def _in_one_run(tensor: Tensor) -> tuple[Tensor, int]:
    """Return the distinct entries of a strided tensor as a 1-D contiguous run, and their multiplicity."""
    if tensor.is_contiguous() or tensor.numel() == 0:
        return _resolved(tensor.reshape(-1)), 1
    expanded = [stride == 0 for stride in tensor.stride()]
    times = math.prod(size for size, again in zip(tensor.shape, expanded, strict=True) if again)
    tensor = tensor[tuple(0 if again else slice(None) for again in expanded)]
    outer_first = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    return _resolved(tensor.permute(outer_first).reshape(-1).contiguous()), times


def _resolved(values: Tensor) -> Tensor:
    return values.resolve_conj().resolve_neg()


def covers(tensor: Tensor, part: Tensor) -> bool:
    """Whether every entry of `part` is one of `tensor`, whose memory it shares."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    if part.dtype != tensor.dtype:
        return False
    seen = torch.zeros(size, dtype=torch.bool)
    seen.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).fill_(True)
    return bool(seen.as_strided(part.shape, part.stride(), part.storage_offset()).all())
