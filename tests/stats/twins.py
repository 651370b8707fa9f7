"""Naive twins in float64, entry by entry, and a maker of tensors of every dtype, layout and magnitude."""

import itertools
import math
import warnings

import torch
from torch import Tensor

FLOATS = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex128,
    torch.complex64,
)
LAYOUTS = ("strided", "transposed", "sliced", "expanded", "channels last", "coo", "csr", "nested")


def listed(tensor: Tensor) -> list[float | complex]:
    """Every entry as a Python number."""
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.detach().to(wide).reshape(-1).tolist()


def twin_norm(numbers: list[float | complex]) -> tuple[float, float]:
    """Norm as (length, scale), so that the scale may be the largest float64."""
    parts = [part for number in numbers for part in (complex(number).real, complex(number).imag)]
    scale = max(map(abs, parts), default=0.0)
    if scale == 0:
        return 0.0, 1.0
    return math.sqrt(math.fsum((part / scale) ** 2 for part in parts)), scale


def twin_rms(numbers: list[float | complex]) -> float:
    length, scale = twin_norm(numbers)
    return length / math.sqrt(len(numbers)) * scale if numbers else math.nan


def twin_token_cosine(samples: list[list[list[float]]]) -> float:
    per_sample = []
    for tokens in samples:
        cosines = []
        for one, other in itertools.permutations([t for t in tokens if any(t) and len(t) > 1], 2):
            dot = math.fsum(a * b for a, b in zip(one, other, strict=True))
            cosines.append(dot / math.hypot(*one) / math.hypot(*other))
        if cosines:
            per_sample.append(math.fsum(cosines) / len(cosines))
    return math.fsum(per_sample) / len(per_sample) if per_sample else math.nan


def twin_effective_rank(matrix: Tensor) -> float:
    sigma = torch.linalg.svdvals(matrix.double())
    shares = [s for s in (sigma / sigma.sum()).tolist() if s > 0]
    return math.exp(-math.fsum(p * math.log(p) for p in shares)) / min(matrix.shape)


def make(
    dtype: torch.dtype, shape: tuple[int, ...], layout: str, low: float, high: float, zeros: float, seed: int
) -> Tensor | None:
    """A tensor whose non-zero entries are normal numbers of the dtype, from low to high of its exponents.

    Returns None where the layout does not exist for the dtype or shape.
    """
    draw = torch.Generator().manual_seed(seed)
    real = dtype.to_real() if dtype.is_complex else dtype
    parts = [_real(real, shape, low, high, zeros, draw) for _ in range(2 if dtype.is_complex else 1)]
    dense = torch.complex(*parts) if dtype.is_complex else parts[0]
    return lay_out(dense, layout)


def _real(
    dtype: torch.dtype, shape: tuple[int, ...], low: float, high: float, zeros: float, draw: torch.Generator
) -> Tensor:
    info = torch.finfo(dtype)
    bottom, top = math.log2(info.smallest_normal), math.log2(info.max)
    place = torch.rand(shape, generator=draw, dtype=torch.float64)
    exponent = bottom + (top - bottom) * (low + (high - low) * place)
    size = torch.exp2(exponent).clamp(info.smallest_normal, info.max)
    sign = torch.randint(0, 2, shape, generator=draw) * 2 - 1
    keep = torch.rand(shape, generator=draw) >= zeros
    return (size * sign * keep).to(dtype)


def lay_out(dense: Tensor, layout: str) -> Tensor | None:
    """The same kind of numbers in another layout; None where that does not exist."""
    narrow = dense.is_floating_point() and dense.element_size() == 1
    if layout == "transposed":
        return dense.transpose(0, -1) if dense.ndim > 1 else None
    if layout == "sliced":
        return dense[..., ::2] if dense.ndim else None
    if layout == "expanded":
        return dense.unsqueeze(-1).expand(*dense.shape, 3)
    if layout == "channels last":
        return dense.to(memory_format=torch.channels_last) if dense.ndim == 4 and not narrow else None
    if layout == "coo":
        return None if narrow or dense.ndim == 0 else uncoalesced(dense)
    if layout == "csr":
        return None if narrow or dense.ndim != 2 else quietly_csr(dense)
    if layout == "nested":
        return None if narrow or dense.ndim < 2 or dense.shape[0] < 2 or 0 in dense.shape else ragged(dense)
    return dense


def uncoalesced(dense: Tensor) -> Tensor:
    """A COO tensor with the entries of `dense`, each written as itself and as 0, which adds exactly."""
    sparse = dense.to_sparse()
    places, values = sparse.indices(), sparse.values()
    values = torch.cat([values, torch.zeros_like(values)])
    return torch.sparse_coo_tensor(places.repeat(1, 2), values, dense.shape, check_invariants=True)


def quietly_csr(dense: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dense.to_sparse_csr()


def ragged(dense: Tensor) -> Tensor:
    """A nested tensor whose last sample is one shorter than the others."""
    samples = list(dense.unbind())
    samples[-1] = samples[-1][1:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor(samples, layout=torch.jagged if dense.ndim > 1 else torch.strided)


def samples_of(tensor: Tensor) -> list[float | complex]:
    """`listed` for a nested tensor too."""
    if tensor.is_nested:
        return [number for part in tensor.unbind() for number in listed(part)]
    return listed(tensor)
