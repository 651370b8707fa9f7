"""Detours: what the blocks before have made of the very tensor that enters the present one."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from unitygain.probe.trail import key


class Detours:
    """Tensors by which what enters a block goes on past it, as queries and keys past the map of the values.

    A gain of that block, from what enters to what leaves, has these ways in it; its own operations do not.
    """

    def __init__(self) -> None:
        self._made: dict[int, StorageWeakRef] = {}

    def turn(
        self,
        entering: int | None,
        known: Mapping[int, tuple[StorageWeakRef, int]],
        reads: Sequence[Sequence[int]],
    ) -> None:
        """Begin another block.

        Args:
            entering: Which value of the block before enters it: 0 for what entered that, None for another.
            known: The values of the block before, by the key of their memory.
            reads: For each of its operations, in order, which values it read; the k-th made value k.
        """
        if entering != 0:
            self._made.clear()
        if entering is None:
            return
        after = {entering}
        for number, read in enumerate(reads, 1):
            if after.intersection(read):
                after.add(number)
        after.remove(entering)
        self._made |= {place: ref for place, (ref, number) in known.items() if number in after}

    def holds(self, tensor: Tensor) -> bool:
        """Return whether the tensor's memory is one of them."""
        found = self._made.get(key(tensor))
        return found is not None and not found.expired()

    def follow(self, made: Sequence[Any]) -> None:
        """Add the tensors among what an operation made of one of them."""
        for tensor in made:
            if isinstance(tensor, Tensor) and key(tensor):
                self._made[key(tensor)] = StorageWeakRef(tensor.untyped_storage())
