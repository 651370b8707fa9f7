"""Ledger: the tensors of a pass, each reduced once for all the places at which it is seen."""

import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from unitygain.probe.hooks import Hooks
from unitygain.stats import STATISTICS

View = Callable[[Tensor], Tensor] | None
UNSEEN = torch.empty(0)


class Ledger:
    """The tensors of a pass, each reduced once for all the places at which it is seen."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._alive: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._observed: dict[tuple[int, int, bool], int] = {}
        self._next = 0
        self.forward: list[dict[str, Tensor]] = []
        self.backward: list[dict[str, Tensor]] = []
        self.described: list[tuple[tuple[int, ...], str, bool]] = []
        self.differentiated: set[int] = set()

    def serial(self, tensor: Tensor) -> int:
        """Return the number of this very tensor object; a new one gets the next number."""
        known = self._alive.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        self._next += 1
        self._alive[id(tensor)] = (weakref.ref(tensor), self._next)
        return self._next

    def observe(
        self,
        tensor: Tensor,
        wanted: Iterable[str],
        wanted_grad: Iterable[str],
        view: View,
    ) -> int:
        """Reduce `tensor` now and its gradient later; return the row that holds the numbers."""
        key = (self.serial(tensor), tensor._version, view is not None)
        row = self._observed.setdefault(key, len(self.forward))
        if row == len(self.forward):
            self.forward.append({})
            self.backward.append({})
            self.described.append((tuple(tensor.shape), dtype_name(tensor), tensor.requires_grad))
        reduce(tensor, wanted, self.forward[row], view)
        self.watch_gradient(row, tensor, wanted_grad, view)
        return row

    def watch_gradient(self, row: int, tensor: Tensor, wanted: Iterable[str], view: View) -> None:
        """Reduce the gradient of `tensor` into `row` when it arrives."""
        kept = self.backward[row]
        missing = [name for name in wanted if name not in kept]
        if missing and tensor.requires_grad:
            kept.update(dict.fromkeys(missing, UNSEEN))

            def arrived(gradient: Tensor) -> None:
                if torch.is_grad_enabled():
                    # The gradient is given a graph, as a penalty on slopes needs it.
                    self.differentiated.add(row)
                reduce(gradient, missing, kept, view, again=True)

            self._hooks.on_gradient(tensor, arrived)


def reduce(
    tensor: Tensor,
    wanted: Iterable[str],
    kept: dict[str, Tensor],
    view: View,
    *,
    again: bool = False,
) -> None:
    """Add each wanted statistic of `tensor` to `kept`; one that is there stays, unless `again`.

    A tensor on meta has no numbers, and none is added.
    """
    missing = [name for name in wanted if again or name not in kept]
    if not missing or tensor.is_meta:
        return
    # The operation watch would see every step of our own arithmetic.
    with torch.no_grad(), _disable_current_modes():
        for name in missing:
            whole = tensor.detach()
            kept[name] = STATISTICS[name](whole if view is None else view(whole))


def dtype_name(tensor: Tensor) -> str:
    """Return the dtype's name without the ``torch.`` prefix."""
    return str(tensor.dtype).removeprefix("torch.")
