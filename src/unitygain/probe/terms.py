"""The terms of a loss that have lost their gradient: the graph of a sum does not show what was cut off."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from unitygain.probe.leaves import in_backward, observable
from unitygain.probe.trail import key
from unitygain.stats import mean

DERIVATIVE, VALUE = "derivative", "value"
_ADD = frozenset({"add", "sub", "rsub"})
_SUMS = _ADD | {"stack", "cat"}
_SCALES = frozenset({"mul", "div"})
_LINEAR = _SUMS | _SCALES | {"mean", "sum", "nansum", "neg", "clone", "_to_copy", "view", "_unsafe_view"}
_LINEAR |= {"reshape", "squeeze", "unsqueeze", "expand", "permute", "transpose", "t", "select", "slice"}
# Losses per sample or per token are followed; whole images are none.
_MOST = 1 << 16
_ROOTS = 16
# A tensor that is written with so many numbers may be a list of losses.
_FEW = 16


@dataclass(eq=False)
class _Mark:
    """What is known of memory that was computed from a parameter.

    Args:
        kind: How it was cut off where it has no gradient: as a derivative without a graph, or as a value.
        roots: The memory that it is a sum or a multiple of, itself included.
        met: How many operations took it, without its gradient, beside something that has one.
    """

    kind: str
    roots: frozenset[int]
    met: int = 0


@dataclass(frozen=True, eq=False)
class _Term:
    """A summand: its entries, what it was when it was added, and how it was cut off (empty: it was not)."""

    values: Tensor
    mark: _Mark | None
    cut: str


class Terms(TorchDispatchMode):
    """Follows what is computed from parameters, and the sums in which some terms have lost their gradient.

    It is active while its context is open, which is to hold the loss and no backward pass of it. A term that
    is a constant, or made from data alone, is none that lost anything. A stop-gradient inside a term (a
    target, a weight, a straight-through estimator) is no cut term: only what reaches the loss by sums and
    constant factors alone is one. Nor is what a differentiable term holds, too, as the largest logit that is
    taken out of a log-sum-exp and added again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._marks: dict[int, tuple[StorageWeakRef, _Mark]] = {}
        self._sums: dict[tuple[int, tuple[int, ...]], tuple[_Term, ...]] = {}
        self._numbers: dict[float, _Mark] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        full = func._schema.name.partition("::")[2]
        name = full.rstrip("_")
        taken = list(_tensors(args))
        if in_backward():
            out = func(*args, **kwargs)
            # Without create_graph, gradients are computed with grad mode off.
            self._note(out, _Mark(VALUE if torch.is_grad_enabled() else DERIVATIVE, frozenset()), taken, full)
            return out
        marks = [self._mark(tensor) for tensor in taken]
        terms = self._terms(name, args, kwargs, taken) if name in _LINEAR and torch.is_grad_enabled() else ()
        self._meet(taken, marks)
        written = (key(taken[0]), tuple(taken[0].shape)) if full != name and taken else None
        out = func(*args, **kwargs)
        if written is not None:
            self._sums.pop(written, None)
        if any(marks):
            self._note(out, _joined(name, taken, marks), taken, full)
        if terms and isinstance(out, Tensor):
            self._sums[key(out), tuple(out.shape)] = terms
        if name == "_local_scalar_dense" and marks[0] is not None and _is_telling(out):
            self._numbers[float(out)] = _Mark(VALUE, marks[0].roots)
        elif name == "lift_fresh" and self._numbers and taken[0].numel() <= _FEW and observable(taken[0]):
            self._written(out)
        return out

    def read(self, loss: Tensor) -> dict[str, float | str]:
        """Return what share of the loss has lost its gradient, and how.

        Args:
            loss: The loss.

        Returns:
            ``cut_share``: the size of the terms without a gradient over the sum of all terms' sizes, 0 where
            there is none; ``cut_by``: ``derivative`` where it was computed by `torch.autograd.grad` without a
            graph of its own, ``value`` where it was detached, empty where there is none.
        """
        terms = self._sums.get((key(loss), tuple(loss.shape)), ())
        alive = frozenset[int]().union(*(t.mark.roots for t in terms if not t.cut and t.mark))
        cut = [term for term in terms if term.cut and term.mark]
        if not cut or any(t.mark and (t.mark.roots & alive or t.mark.met > 1) for t in cut):
            return {"cut_share": 0.0, "cut_by": ""}
        with _disable_current_modes():
            sizes = [abs(float(mean(term.values))) for term in terms]
        lost = sum(size for term, size in zip(terms, sizes, strict=True) if term.cut)
        largest = max(zip(terms, sizes, strict=True), key=lambda pair: bool(pair[0].cut) * pair[1])[0]
        return {"cut_share": lost / sum(sizes) if sum(sizes) > 0 else 0.0, "cut_by": largest.cut}

    def _mark(self, tensor: Tensor) -> _Mark | None:
        place = key(tensor)
        entry = self._marks.get(place)
        if entry is not None and not entry[0].expired():
            return entry[1]
        if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
            return _Mark(VALUE, frozenset())
        return None

    def _note(self, out: Any, mark: _Mark, taken: list[Tensor], full: str) -> None:
        own = set() if full.endswith("_") else {key(tensor) for tensor in taken}
        for tensor in _tensors((out,)):
            place = key(tensor)
            known = place in self._marks and not self._marks[place][0].expired()
            # A view has its memory's mark.
            if not place or not observable(tensor) or (known and place in own):
                continue
            # The weak reference keeps the number from being given to other memory.
            there = StorageWeakRef(tensor.untyped_storage())
            self._marks[place] = (there, _Mark(mark.kind, mark.roots | {place}))

    def _written(self, out: Tensor) -> None:
        """A new tensor that holds a number read off a tensor is that number still."""
        with _disable_current_modes():
            numbers = out.flatten().tolist()
        mark = next((self._numbers[number] for number in numbers if number in self._numbers), None)
        if mark is not None:
            self._marks[key(out)] = (StorageWeakRef(out.untyped_storage()), mark)

    @staticmethod
    def _meet(taken: list[Tensor], marks: list[_Mark | None]) -> None:
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in taken):
            for tensor, mark in zip(taken, marks, strict=True):
                if mark is not None and not tensor.requires_grad:
                    mark.met += 1

    def _terms(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], taken: list[Tensor]
    ) -> tuple[_Term, ...]:
        """Return the terms of the operation's result, if some of them have no gradient and others do."""
        with_gradient = [tensor for tensor in taken if tensor.requires_grad]
        if not with_gradient or max(tensor.numel() for tensor in taken) > _MOST:
            return ()
        if name in _SCALES and (
            len(with_gradient) > 1 or (name == "div" and args[0] is not with_gradient[0])
        ):
            return ()
        number = self._number(args) if name in _SUMS else None
        summands = with_gradient if name in _SCALES else taken
        # Other watches shall see the operations of the case alone.
        with _disable_current_modes():
            found = [(tensor, term) for tensor in summands for term in self._summands(tensor)]
        if number is None and not any(term.cut for _, term in found):
            return ()
        operation = getattr(torch.ops.aten, name)
        with _disable_current_modes(), torch.no_grad():
            terms = [
                _Term(operation(*_only(name, args, tensor, term.values), **kwargs), term.mark, term.cut)
                for tensor, term in found
            ]
            if number is not None:
                values = operation(torch.zeros_like(args[0]), args[1], **kwargs)
                terms.append(_Term(values, number, number.kind))
        return tuple(terms)

    def _summands(self, tensor: Tensor) -> tuple[_Term, ...]:
        mark = self._mark(tensor)
        if not tensor.requires_grad:
            return (_Term(tensor, mark, mark.kind),) if mark is not None and observable(tensor) else ()
        known = self._sums.get((key(tensor), tuple(tensor.shape)))
        return known or (_Term(tensor.detach(), mark, ""),)

    def _number(self, args: tuple[Any, ...]) -> _Mark | None:
        return self._numbers.get(args[1]) if len(args) > 1 and isinstance(args[1], float) else None


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _joined(name: str, taken: list[Tensor], marks: list[_Mark | None]) -> _Mark:
    """What is known of the result of an operation from what it was given."""
    found = [(tensor, mark) for tensor, mark in zip(taken, marks, strict=True) if mark is not None]
    derived = any(mark.kind == DERIVATIVE and not tensor.requires_grad for tensor, mark in found)
    roots = (
        frozenset[int]().union(*(mark.roots for _, mark in found)) if name in _LINEAR else frozenset[int]()
    )
    return _Mark(DERIVATIVE if derived else VALUE, roots if len(roots) <= _ROOTS else frozenset())


def _only(name: str, args: tuple[Any, ...], one: Tensor, values: Tensor) -> tuple[Any, ...]:
    """Return the arguments with `values` in the place of one tensor, and zeros for what is added to it."""
    # The first occurrence alone: a tensor that is added to itself is taken once and once again.
    first = True

    def put(value: Any) -> Any:
        nonlocal first
        if value is one and first:
            first = False
            return values
        if isinstance(value, Tensor):
            return value if name in _SCALES else torch.zeros_like(value)
        return value

    new = pytree.tree_map(put, args)
    return (new[0], 0, *new[2:]) if name in _ADD and not isinstance(new[1], Tensor) else new


def _is_telling(value: Any) -> bool:
    """Whether a number has digits enough that no other one is taken for it."""
    return isinstance(value, float) and value != round(value, 3)
