"""The one place that writes to gradients: what the rules of a chain decided, and no more than that."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from unitygain.clip._gradients import Gradients
from unitygain.clip._rule import Bend, Decision
from unitygain.stats import backends, each_tensor_once, gradient_stats
from unitygain.stats.layouts import in_memory
from unitygain.stats.pairs import alignment, cosines
from unitygain.stats.shards import is_sharded

_multiply_each = torch._foreach_mul_  # pyright: ignore[reportPrivateImportUsage]
_SIXTEEN_BITS = (torch.float16, torch.bfloat16)
# What these are multiplied in; all others in float32.
_WIDE = {torch.float64, torch.complex128}
_SMALLEST_NORMAL = {dtype: torch.finfo(dtype).smallest_normal for dtype in (torch.float32, torch.float64)}


class Application:
    """The gradients of a step while a chain changes them.

    Factors wait until the end, or until a rule reads entries, and are then written in one multiplication.
    Nothing is written to a gradient that stays as it is; on an accelerator, where looking would wait for
    the device, it is multiplied by exactly 1. If a gradient is not finite nothing is written at all (there:
    multiplied by 1).

    Args:
        seen: The gradients as they came.
        bends: How many rules of the chain change entries.

    Attributes:
        seen: The gradients as the next rule sees them.
        cosines: Cosine of each tensor to the gradient that came.
        fired: Whether anything changed.
    """

    def __init__(self, seen: Gradients, bends: int) -> None:
        self.seen = seen
        self.cosines = torch.ones_like(seen.norm)
        self.fired = torch.zeros((), dtype=torch.bool, device=seen.norm.device)
        self._looks = seen.norm.device.type == "cpu"
        self._waiting: Tensor | None = None
        self._bends = bends
        self._came: dict[int, Tensor] = {}

    def take(self, decision: Decision) -> None:
        """Count a decision in: factors wait, a change of entries is made."""
        if isinstance(decision, Bend):
            self.write()
            self._bend(replace(decision, fires=decision.fires & self.seen.finite))
            return
        factors = torch.where(self.seen.finite, decision, 1.0)
        self._waiting = factors if self._waiting is None else self._waiting * factors
        self.fired = self.fired | (factors != 1).any()
        seen = self.seen
        absmax = None if seen.absmax is None else seen.absmax * factors
        self.seen = replace(seen, norm=seen.norm * factors, absmax=absmax)

    def write(self) -> None:
        """Multiply the gradients by the factors that wait."""
        factors, self._waiting = self._waiting, None
        count = len(self.seen.parameters)
        if factors is None or not count:
            return
        if not self._looks:
            multiply_unseen(self._written(factors), factors)
        elif factors.ndim == 0:
            if (factor := factors.item()) != 1:
                gradients = self._written(factors)
                multiply(gradients, [factor] * len(gradients))
        elif (known := factors.tolist()).count(1.0) < count:
            multiply(self._written(factors), known)

    def _written(self, factors: Tensor) -> list[Tensor]:
        """Return the gradients that the factors are written to, no tensor twice."""
        if factors.ndim:
            self._separate()
        return each_tensor_once([self.seen.gradient(i) for i in range(len(self.seen.parameters))])

    def _separate(self) -> None:
        """Give a parameter whose gradient is another's too a copy, so that each is changed by itself."""
        found: set[int] = set()
        for index, parameter in enumerate(self.seen.parameters):
            gradient = self.seen.gradient(index)
            if id(gradient) in found:
                parameter.grad = gradient.clone()
            found.add(id(gradient))

    def _bend(self, bend: Bend) -> None:
        self._bends -= 1
        self.fired = self.fired | bend.fires.any()
        chosen = list(range(len(self.seen.parameters)))
        if self._looks:
            fires = bend.fires.tolist()
            chosen = [i for i in chosen if fires[i]]
        if not chosen:
            return
        self._separate()
        after = {i: self._change(i, bend) for i in chosen}
        gradients = [self.seen.gradient(i) for i in after]
        stats = gradient_stats(gradients, absmax=self.seen.absmax is not None)
        self.seen = replace(
            self.seen,
            norm=_replaced(self.seen.norm, after, stats.norm),
            absmax=None if stats.absmax is None else _replaced(self.seen.absmax, after, stats.absmax),
        )
        turned = cosines(list(after.values()), gradients).to(self.cosines.device, non_blocking=True)
        # A tensor that was cut to nothing, or held nothing, has no angle and adds nothing to the whole.
        self.cosines = _replaced(self.cosines, after, torch.where(turned.isnan(), 1.0, turned))

    def _change(self, index: int, bend: Bend) -> Float64[Tensor, "5"]:
        """Write the new entries of a gradient, and return how it stands to the one that came."""
        gradient = self.seen.gradient(index)
        if is_sharded(gradient) and any(place.is_partial() for place in gradient.placements):  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(
                "a gradient is a DTensor of partial sums, whose entries no rank knows; redistribute it first"
            )
        came = self._came.get(index)
        if came is None:
            came = gradient.clone()
        new = bend.change(index)
        if not self._looks:
            new = torch.where(bend.fires[index].to(new.device), new, own_piece(gradient))
        own_piece(gradient).copy_(new)
        if self._bends:
            self._came[index] = came
        return alignment(came, gradient)


def multiply(gradients: Sequence[Tensor], factors: Sequence[float]) -> None:
    """Multiply gradients in place, those whose factor is not 1 alone.

    The last come first: of what was just read for its norm, they are still in the cache.

    A 0-dim tensor keeps the factor's digits, where `torch._foreach_mul_` rounds a Python number to the
    dtype of a 16-bit gradient first; one of the gradients' own dtype takes a third of the time.
    """
    memory = in_memory(gradients)
    plain = memory is not None
    least = min((factor for factor in factors if factor), default=1.0)
    if plain and least >= _SMALLEST_NORMAL[torch.float32] and backends.multiply(gradients, memory, factors):
        return
    together: dict[tuple[float, torch.dtype], list[Tensor]] = {}
    for gradient, factor in zip(reversed(gradients), reversed(factors), strict=True):
        if factor == 1:
            continue
        dtype = torch.float64 if gradient.dtype in _WIDE else torch.float32
        fits = factor == 0 or factor >= _SMALLEST_NORMAL[dtype]
        if fits and (plain or (gradient.layout is torch.strided and not is_sharded(gradient))):
            together.setdefault((factor, dtype), []).append(gradient)
        else:
            for part in (factor,) if fits else _split(factor):
                own_piece(gradient).mul_(part)
    for (factor, dtype), alike in together.items():
        _multiply_each(alike, torch.tensor(factor, dtype=dtype))


def multiply_unseen(gradients: Sequence[Tensor], factors: Float64[Tensor, "..."]) -> None:
    """Multiply gradients in place by factors that nobody looks at: no device is waited for."""
    plain = [g for g in gradients if g.layout is torch.strided and not is_sharded(g)]
    together = factors.ndim == 0 and len(plain) == len(gradients)
    if together and len({(g.device, g.dtype) for g in plain}) == 1 and plain[0].dtype not in _SIXTEEN_BITS:
        _multiply_each(plain, factors.to(plain[0].device, non_blocking=True))
        return
    for gradient, factor in zip(gradients, factors.expand(len(gradients)).unbind(), strict=True):
        piece = own_piece(gradient)
        factor = factor.to(piece.device, non_blocking=True)
        if piece.dtype in _SIXTEEN_BITS:
            piece.copy_(piece.float() * factor)
        else:
            piece.mul_(factor)


def own_piece(gradient: Tensor) -> Tensor:
    """Return the memory of a gradient that lies on this rank."""
    return gradient.to_local() if is_sharded(gradient) else gradient  # pyright: ignore[reportAttributeAccessIssue]


def _replaced(numbers: Tensor | None, after: dict[int, Tensor], new: Tensor) -> Tensor:
    assert numbers is not None, "absmax is either read always or never"
    new = new.to(numbers.device, non_blocking=True)
    if len(after) == numbers.numel():
        return new
    index = torch.tensor(list(after)).to(numbers.device, non_blocking=True)
    return numbers.index_copy(0, index, new)


def _split(factor: float) -> tuple[float, float]:
    """Two factors with the same product, the first a power of two."""
    _, exponent = math.frexp(factor)
    half = math.ldexp(1.0, exponent // 2)
    return half, factor / half
