"""Attention weights on their way: from a product of queries and keys, over a softmax, to the values."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unitygain.probe.leaves import observable
from unitygain.probe.trail import Origin, Trail, key
from unitygain.stats.operations import sums_along

if TYPE_CHECKING:
    from unitygain.probe.ops import Watch

STATISTICS = ("contracted", "dim", "summed", "queries", "sum_least", "sum_most")
_SOFTMAX = frozenset({"_softmax", "_safe_softmax"})
_PRODUCTS = frozenset({"bmm", "baddbmm", "mm", "addmm"})
# What leaves scores scores: a scale, a bias, a mask, a cap.
_ON_SCORES = frozenset({"div", "mul", "add", "sub", "neg", "masked_fill", "where", "tanh", "clamp"})
_COPIES = frozenset({"_to_copy", "clone", "masked_fill", "nan_to_num", "native_dropout"})
OPERATIONS = _SOFTMAX | _PRODUCTS | _ON_SCORES | _COPIES
# Size and stride of a dimension; a view keeps both, in whatever order.
Axis = tuple[int, int]


class Scores:
    """Follows products of two things that are learnt to a softmax, and its result to the next product."""

    def __init__(self) -> None:
        self._trail = Trail()

    def watch(self, into: "Watch", name: str, args: Sequence[Any], out: Any) -> None:
        """Note in the watch over which dimension of a softmax a product sums."""
        if not into.wanted.get("softmax"):
            return
        if name in _SOFTMAX:
            self._softmax(into, args, out)
        elif name in _PRODUCTS:
            left, right = (args[-2], args[-1]) if len(args) == 2 else args[1:3]
            self._multiplied(left, -1)
            self._multiplied(right, -2)
            if all(is_learnt(side) and not into.is_parameter(side) for side in (left, right)):
                self._trail.mark(out, Origin("scores"))
        else:
            self._follow(name, args, out)

    def _softmax(self, into: "Watch", args: Sequence[Any], out: Tensor) -> None:
        origin, made = self._trail.origin(args[0]), into.trail.origin(out)
        if origin is None or origin.kind != "scores" or made is None or out.ndim < 2:
            return
        axes = tuple(zip(out.shape, out.stride(), strict=True))
        facts = {"axes": axes, "dim": args[1] % out.ndim}
        self._trail.mark(out, Origin("weights", made.seen, facts=facts))

    def _follow(self, name: str, args: Sequence[Any], out: Any) -> None:
        made = out[0] if isinstance(out, tuple) else out
        for tensor in [value for value in args if isinstance(value, Tensor)]:
            origin = self._trail.origin(tensor)
            if origin is None or origin.kind == "lost":
                continue
            others = [value for value in args if isinstance(value, Tensor) and value is not tensor]
            if origin.kind == "scores" and name in _ON_SCORES | _COPIES and made.numel() == tensor.numel():
                self._trail.mark(made, origin)
            elif origin.kind == "weights" and made.shape == tensor.shape and _keeps(name, others):
                axes = tuple(_moved(axis, tensor, made) for axis in origin.facts["axes"])
                self._trail.mark(made, dataclasses.replace(origin, facts={**origin.facts, "axes": axes}))
            elif origin.kind == "weights" and key(made) == key(tensor):
                self._trail.mark(made, Origin("lost"))

    def _multiplied(self, weights: Any, contracted: int) -> None:
        """Read one side of a product, of which that dimension is summed over."""
        origin = self._trail.origin(weights)
        if origin is None or origin.kind != "weights" or origin.seen is None:
            return
        numbers, (dim, axes) = origin.seen.numbers, (origin.facts["dim"], origin.facts["axes"])
        summed, free = (_place(weights, side, axes) for side in (contracted, -3 - contracted))
        # Weights that are read both ways are attention one of these ways.
        if summed is None or numbers.get("contracted") == 1:
            return
        if summed == dim:
            numbers |= dict(zip(STATISTICS, (1.0, dim, dim, 0.0, 1.0, 1.0), strict=True))
        elif weights.shape[-1] == weights.shape[-2]:
            sums = sums_along(weights.detach(), contracted).unbind()
            numbers |= dict(zip(STATISTICS, (0.0, dim, summed, float(free == dim), *sums), strict=True))


def is_learnt(value: Any) -> bool:
    """Whether a tensor has a gradient to come; any has where none is kept."""
    return observable(value) and (value.requires_grad or not torch.is_grad_enabled())


def _keeps(name: str, others: list[Tensor]) -> bool:
    """Whether weights are still those of their softmax: a number or a mask changes no axis, a divisor may."""
    if name in _COPIES:
        return True
    learnt = any(is_learnt(other) for other in others if other.numel() > 1)
    several = any(other.numel() > 1 for other in others)
    return name in {"mul", "div", "add"} and not (learnt if name == "mul" else several)


def _moved(axis: Axis, before: Tensor, after: Tensor) -> Axis:
    """Return where a dimension lies in a copy; one that a view has joined to another lies nowhere."""
    for place, own in enumerate(zip(before.shape, before.stride(), strict=True)):
        if own == axis:
            return axis[0], after.stride(place)
    return axis[0], -1


def _place(weights: Tensor, side: int, axes: Sequence[Axis]) -> int | None:
    """Return which dimension of the softmax a dimension of the product is; None where it is none alone."""
    own = (weights.shape[side], weights.stride(side))
    found = [place for place, axis in enumerate(axes) if axis == own and own[0] > 1]
    return found[0] if len(found) == 1 else None
