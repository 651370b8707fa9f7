"""The compiled CPU kernel, `gradients.c`: norm and absmax of many tensors in one pass over memory.

It is built when the package is installed and a C compiler is there, and lies beside this file.
"""

import ctypes
from array import array
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from unitygain.stats.layouts import Memory

LIBRARY = Path(__file__).with_name("_gradients.so")
INTERFACE = 1  # of the arguments below; a library of another one is not called
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
    library.unitygain_reduce.argtypes = [
        ctypes.c_int64,
        *[ctypes.c_void_p] * 3,
        ctypes.c_int64,
        *[ctypes.c_void_p] * 2,
    ]
    return library


def reduce(
    tensors: Sequence[Tensor], memory: Memory
) -> tuple[Float64[Tensor, " tensors"], Float64[Tensor, " tensors"]]:
    """Norm and absmax of each tensor, right to float64's rounding whatever the dtype.

    Uses as many threads as torch does; the result does not depend on their number.

    Args:
        tensors: What lies there.
        memory: Of these tensors, from `in_memory`.
    """
    count = len(tensors)
    where = array("Q", memory.addresses)
    lengths = array("q", map(Tensor.numel, tensors))
    kinds = array("i", map(_KINDS.__getitem__, memory.dtypes))
    found = torch.empty(2, count, dtype=torch.float64)
    norms, tops = found
    pointers = (part.buffer_info()[0] for part in (where, lengths, kinds))
    failed = load().unitygain_reduce(
        count, *pointers, torch.get_num_threads(), norms.data_ptr(), tops.data_ptr()
    )
    if failed:
        raise MemoryError(f"no memory for the partial sums of {count} tensors")
    return norms, tops
