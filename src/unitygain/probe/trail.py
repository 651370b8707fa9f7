"""Trail: remembers which memory an operation wrote, so that what becomes of its result can be told."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from unitygain.probe.sites import Call

# A tensor's memory, which may be freed; None where there is none.
Memory = StorageWeakRef | None


@dataclass(eq=False)
class Seen:
    """One operation that was watched.

    Args:
        signal: ``softmax``, ``activation``, ``gate``, ``norm`` or ``loss``.
        operation: Name of the operation, such as ``relu``.
        call: The module call whose forward was running; None outside of the model.
        like: A description of the tensor: its shape and dtype.
        numbers: The reduced numbers by statistic.
        kind: What it turned out to be, such as ``attention``.
        follows: Path of the last module with a weight matrix that had run.
        whole: Whether it stands for its module call: it is named by the module alone.
        calls_before: How many module calls had ended when it ran.
        arguments: Of an activation, its arguments beside the input: positional ones, and pairs by name.
    """

    signal: str
    operation: str
    call: Call | None
    like: tuple[tuple[int, ...], str]
    numbers: dict[str, Tensor | float] = field(default_factory=dict)
    kind: str = ""
    follows: str = ""
    whole: bool = False
    calls_before: int = 0
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Origin:
    """Where the content of a piece of memory comes from.

    Args:
        kind: ``softmax``, ``activation`` or ``log_probability``.
        seen: The operation that made it, if it is reported.
        source: The memory that the operation read; by a reference, so that its number is not given again.
        facts: What is to be known further on.
    """

    kind: str
    seen: Seen | None = None
    source: Memory = None
    facts: dict[str, Any] = field(default_factory=dict)


class Trail:
    """Origins by memory: a view shares its memory and so its origin, and what is freed is forgotten."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, Origin]] = {}

    def mark(self, tensor: Tensor, origin: Origin) -> None:
        """Say where the content of a tensor comes from."""
        storage = _storage(tensor)
        if storage is not None:
            # The weak reference keeps the number from being given to other memory.
            self._known[storage._cdata] = (StorageWeakRef(storage), origin)

    def origin(self, value: Any) -> Origin | None:
        """Return where the content of a tensor comes from, if that is known."""
        entry = self._known.get(key(value))
        return entry[1] if entry is not None and not entry[0].expired() else None


def refer(value: Any) -> Memory:
    """Return a reference to the memory of a tensor, which does not keep it; None for anything else."""
    storage = _storage(value)
    return None if storage is None else StorageWeakRef(storage)


def is_at(memory: Memory, value: Any) -> bool:
    """Whether a tensor lives in the memory that is referred to."""
    return memory is not None and memory.cdata == key(value)


def key(value: Any) -> int:
    """Return a number that names the memory of a tensor while it lives; 0 for anything else."""
    storage = _storage(value)
    return 0 if storage is None else storage._cdata


def _storage(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return None
    try:
        return value.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None
