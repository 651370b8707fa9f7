"""The compiled CPU kernel, `gradients.c`: norm and absmax of many tensors in one pass, a product in another.

It is built when the package is installed and a C compiler is there, and lies beside this file.
"""

import ctypes
from array import array
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from unitygain.stats.layouts import Memory

LIBRARY = Path(__file__).with_name("_gradients.so")
INTERFACE = 1  # of the arguments below; a library of another one is not called
_MULTIPLIED = {torch.float32, torch.float64}
_KINDS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


@cache
def load() -> ctypes.CDLL:
    """Return the library.

    Raises:
        OSError: If it was not built here, was built for another machine or from other sources.
    """
    if not LIBRARY.exists():
        raise OSError("the kernel was not built when unitygain was installed (no C compiler?)")
    library = ctypes.CDLL(str(LIBRARY))
    try:
        interface = library.unitygain_interface()
    except AttributeError:
        interface = None
    if interface != INTERFACE:
        raise OSError(f"{LIBRARY} was built from other sources; install unitygain again")
    given = [ctypes.c_int64, *[ctypes.c_void_p] * 3, ctypes.c_int64]
    library.unitygain_reduce.argtypes = [*given, *[ctypes.c_void_p] * 2]
    if hasattr(library, "unitygain_multiply"):
        library.unitygain_multiply.argtypes = [*given, ctypes.c_void_p]
    return library


def reduce(memory: Memory) -> tuple[Float64[Tensor, " tensors"], Float64[Tensor, " tensors"]]:
    """Norm and absmax of each tensor, right to float64's rounding whatever the dtype.

    Uses as many threads as torch does; the result does not depend on their number.

    Args:
        memory: Of the tensors, from `in_memory`.
    """
    found = torch.empty(2, len(memory.dtypes), dtype=torch.float64)
    norms, tops = found
    kinds = _kinds(memory)
    failed = load().unitygain_reduce(*_given(memory, kinds), norms.data_ptr(), tops.data_ptr())
    if failed:
        raise MemoryError(f"no memory for the partial sums of {len(memory.dtypes)} tensors")
    return norms, tops


def multiplies(memory: Memory) -> bool:
    """Tell whether `multiply` takes these tensors: float32 and float64, which it multiplies as torch does."""
    return _MULTIPLIED.issuperset(memory.dtypes) and hasattr(load(), "unitygain_multiply")


def multiply(memory: Memory, factors: array) -> None:
    """Multiply each tensor by its factor, in place and in its own dtype; where it is 1 nothing is written.

    The caller tells torch that the tensors changed (`torch.autograd.graph.increment_version`).

    Args:
        memory: Of the tensors, which `multiplies`.
        factors: One for each, doubles.
    """
    kinds = _kinds(memory)
    if load().unitygain_multiply(*_given(memory, kinds), factors.buffer_info()[0]):
        raise MemoryError(f"no memory to count the pieces of {len(memory.dtypes)} tensors")


def _kinds(memory: Memory) -> array:
    dtypes = memory.dtypes
    if dtypes and dtypes.count(dtypes[0]) == len(dtypes):
        return array("i", (_KINDS[dtypes[0]],)) * len(dtypes)
    return array("i", map(_KINDS.__getitem__, dtypes))


def _given(memory: Memory, kinds: array) -> tuple[int, ...]:
    """The arguments that both functions share; what they point to lives as long as the caller's names."""
    pointers = (part.buffer_info()[0] for part in (memory.addresses, memory.lengths, kinds))
    return (len(kinds), *pointers, torch.get_num_threads())
