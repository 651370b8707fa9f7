"""The Jacobian of the whole trunk as the product of its blocks, each at its own scale."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unitygain.probe.operators import JacobianOperator, LinearOperator, generator
from unitygain.probe.trace import TracedBlock
from unitygain.stats import norm

AGREE = 1e-2


class Product:
    """The product of operators in the order in which they are applied, each divided by its gain.

    The gains are those along one random vector, so that no product under- or overflows however long
    the chain is.

    Args:
        factors: The operators, first applied first.
        seed: Seed of the random vector.

    Cost: one Jᵀ·u of every factor at once, then one of each per product.
    """

    def __init__(self, factors: Sequence[LinearOperator], seed: int) -> None:
        self.shape = (factors[-1].shape[0], factors[0].shape[1])
        self.dtype = factors[0].dtype
        self.device = factors[0].device
        self._factors = factors
        self._gains: list[float] = []
        source = generator(self.device, seed)
        u = torch.randn(self.shape[0], generator=source, dtype=factors[-1].dtype, device=self.device)
        self.probe = u / norm(u).to(u.dtype)
        u = self.probe
        for factor in reversed(factors):
            u = factor.rmatvec(u)
            gain = float(norm(u))
            # A gain of zero or infinity is no scale; it then shows in every product.
            self._gains.append(gain if 0 < gain < math.inf else 1.0)
            u = u / self._gains[-1]
        self.landed = u
        self._gains.reverse()

    @property
    def log10_scale(self) -> float:
        """log10 of what the products must be multiplied with."""
        return math.fsum(map(math.log10, self._gains))

    def matvec(self, v: Tensor) -> Tensor:
        """Return the scaled product times v."""
        for factor, gain in zip(self._factors, self._gains, strict=True):
            v = factor.matvec(v.to(factor.dtype)) / gain
        return v

    def rmatvec(self, u: Tensor) -> Tensor:
        """Return the transpose of the scaled product times u."""
        for factor, gain in zip(reversed(self._factors), reversed(self._gains), strict=True):
            u = factor.rmatvec(u.to(factor.dtype)) / gain
        return u.to(self.dtype)


@dataclass(frozen=True)
class Chain:
    """The Jacobian of the trunk: operator times 10**log10_scale.

    Args:
        operator: The scaled operator.
        log10_scale: Logarithm of the scale.
        factors: The blocks' Jacobians, first applied first; empty where their product is not the
            Jacobian of the trunk, because something passes around the blocks.
    """

    operator: LinearOperator
    log10_scale: float
    factors: tuple[JacobianOperator, ...]

    @property
    def parts(self) -> tuple[JacobianOperator, ...]:
        """The Jacobians of which the operator is made."""
        direct = (self.operator,) if isinstance(self.operator, JacobianOperator) else ()
        return self.factors or direct

    @property
    def note(self) -> str:
        """A sentence on what was taken; empty where it is the product of the blocks."""
        if self.factors:
            return ""
        return "something passes around the blocks, so the product of their Jacobians is not the trunk's"


def chain_of(blocks: Sequence[TracedBlock], seed: int) -> Chain:
    """Return the Jacobian of what leaves the last block with respect to what enters the first.

    The product of the blocks is taken if it agrees with the direct backward pass along one random
    vector to one percent, which any path around a block that matters does not. Where the direct pass
    leaves float32's range, there is nothing to compare with and the product is taken.

    Cost: two backward passes through the trunk.
    """
    direct = JacobianOperator(blocks[-1].exit, blocks[0].entry)
    factors = tuple(block.jacobian() for block in blocks)
    fits = all(a.exit.size == b.entry.size for a, b in itertools.pairwise(blocks))
    if not fits:
        return Chain(direct, 0.0, ())
    product = Product(factors, seed)
    through = direct.rmatvec(product.probe)
    size = float(norm(through))
    comparable = torch.finfo(through.dtype).tiny / torch.finfo(through.dtype).eps < size < math.inf
    there = product.landed * (10.0 ** min(max(product.log10_scale, -300.0), 300.0))
    if comparable and float(norm(through - there)) > AGREE * size:
        return Chain(direct, 0.0, ())
    return Chain(product, product.log10_scale, factors)
