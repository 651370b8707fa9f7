"""Which calls of a module go on from what it made before, and which begin another pass of the model."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

# What ran without a graph leaves no way to follow.
UNKNOWN: frozenset[int] = frozenset()


def leading_to(starts: Iterable[Any], oldest: int) -> Iterator[Any]:
    """Yield the `starts` and the nodes of the graph that they lead to, none older than `oldest`."""
    ahead = list(starts)
    seen = set(ahead)
    while ahead:
        node = ahead.pop()
        yield node
        for below, _ in node.next_functions:
            if below is not None and below not in seen and below._sequence_nr() >= oldest:
                seen.add(below)
                ahead.append(below)


def age(tensor: Tensor) -> int | None:
    """Return the age of the node of the graph that made a tensor; None for a leaf."""
    return None if tensor.grad_fn is None else tensor.grad_fn._sequence_nr()


class Passes:
    """Counts, for each module, how often it began anew: on what does not come of its own last output.

    A contrastive loss runs its encoder twice, a critic is asked of real and generated samples, a penalty asks
    it again in between: what leaves the last block of one pass is not what enters the first of the next. A
    block that shares its weights over depth, or a cell over time, goes on from what it made itself.
    """

    def __init__(self) -> None:
        self._turns: dict[str, int] = defaultdict(int)
        self._made: dict[str, tuple[frozenset[int], bool]] = {}

    def enter(self, path: str, tensors: Sequence[Tensor]) -> int:
        """Return in which pass of the module at `path` a call with these arguments is, 0 for the first."""
        if path in self._made and not self._goes_on(*self._made[path], tensors):
            self._turns[path] += 1
        return self._turns[path]

    def leave(self, path: str, tensors: Iterable[Tensor]) -> None:
        """Note what the call returned, by the ages of its nodes, so that no graph lives longer for it."""
        nodes = (tensor.grad_fn for tensor in tensors)
        ages = frozenset(node._sequence_nr() for node in nodes if node is not None)
        self._made[path] = ages, torch.is_grad_enabled()

    @staticmethod
    def _goes_on(made: frozenset[int], with_graph: bool, tensors: Sequence[Tensor]) -> bool:
        if made == UNKNOWN:
            # Under no_grad all along, as checkpoints run, or frozen: nothing is known, and no gradient comes.
            return with_graph or not torch.is_grad_enabled()
        oldest = min(made)
        # A node is younger than those that it leads to; leaves have no age, and lead nowhere.
        starts = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
        return any(node._sequence_nr() in made for node in leading_to(starts, oldest))
