"""The largest singular values of a batch whose samples do not mix: one basis each, all in step."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unitygain.probe.golub_kahan import CHECK_EVERY, DENSE_CHECKS, SingularValues, good
from unitygain.probe.operators import JacobianOperator, generator
from unitygain.stats import norm

Matrix = NDArray[np.float64]


def golub_kahan_by_sample(
    jacobian: JacobianOperator, count: int, *, steps: int, tolerance: float = 1e-6, seed: int = 0
) -> SingularValues:
    """Find the `count` largest singular values of a batch of samples that do not mix.

    The Jacobian of such a batch is block diagonal, its singular values are those of the blocks. A basis per
    sample keeps them apart: the products are those of the whole batch, but each sample needs only the steps
    of its own few values among the first, not of all samples' values in one crowd, and a value that
    several samples share is seen in each.

    Args:
        jacobian: With a `sample_axis`.
        count: How many values; fewer come back where the Jacobian is smaller.
        steps: At most this many steps.
        tolerance: Stop when the error of each of the first `count` is below this times its value, or at the
            operator's rounding, and no other value with its error reaches among them.
        seed: Seed of the starts.

    Returns:
        Values with their errors, as `golub_kahan`; NaN where a product is NaN or infinite.

    Cost: 2 products per step, and 8·steps·(rows + columns) flops per step.

    Example:
        >>> import torch
        >>> x = torch.ones(2, 3, requires_grad=True)
        >>> jacobian = JacobianOperator(x * torch.tensor([3.0, 2.0, 1.0]), x)
        >>> [round(value, 5) for value in golub_kahan_by_sample(jacobian, 3, steps=3).values]
        [3.0, 3.0, 2.0]

    References:
        As `unitygain.probe.golub_kahan`.
    """
    there, back, (rows, columns) = _folded(jacobian)
    if rows < columns:
        rows, columns, there, back = columns, rows, back, there
    samples, limit = jacobian.samples(), min(steps, columns)
    source = generator(jacobian.device, seed)
    left, right = (_Bases(samples, limit, size, jacobian, source) for size in (rows, columns))
    small, v = np.zeros((samples, limit, limit)), right.draw(range(samples))
    for step in range(limit):
        beta, remainder = _extend(small, step, v, left, right, there, back)
        if not (np.isfinite(small).all() and np.isfinite(beta).all()):
            lost = (np.nan,) * min(count, samples * columns)
            return SingularValues(lost, lost, step + 1)
        last = step + 1 == limit
        if last or step < DENSE_CHECKS or step % CHECK_EVERY == 0:
            found, apart = _first(small[:, : step + 1, : step + 1], beta, count, jacobian.dtype)
            if last or (len(found.values) == count and apart and good(found, tolerance, jacobian.dtype)):
                return found
        v = right.following(remainder, beta, small, jacobian.dtype)
    raise AssertionError("the loop returns at its last step")


def _folded(
    jacobian: JacobianOperator,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], tuple[int, int]]:
    """The products as maps of (samples, numbers), and how many numbers a sample has at each end."""
    axis, samples = jacobian.sample_axis, jacobian.samples()
    assert axis is not None
    (rows, columns) = (torch.stack([jacobian.sample(i)[end] for i in range(samples)]) for end in (0, 1))
    places = [part.to(jacobian.device) for part in (rows, columns)]

    def through(
        product: Callable[[Tensor], Tensor], enter: Tensor, leave: Tensor
    ) -> Callable[[Tensor], Tensor]:
        def apply(x: Tensor) -> Tensor:
            if axis == 0:
                return product(x.reshape(-1)).view(samples, -1)
            flat = torch.empty_like(x.reshape(-1))
            flat[enter] = x
            return product(flat)[leave]

        return apply

    there = through(jacobian.matvec, places[1], places[0])
    return there, through(jacobian.rmatvec, places[0], places[1]), (rows.shape[1], columns.shape[1])


def _extend(
    small: Matrix,
    step: int,
    v: Tensor,
    left: "_Bases",
    right: "_Bases",
    there: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
) -> tuple[Matrix, Tensor]:
    """Add one column to every R; return the lengths of what lies outside the right bases, and that."""
    right.append(v)
    coefficients, remainder = left.split(there(v))
    small[:, :step, step] = coefficients
    alpha = _lengths(remainder)
    left.append(left.following(remainder, alpha, small, v.dtype))
    small[:, step, step] = np.where(left.fresh, 0.0, alpha)
    _, remainder = right.split(back(left.rows[:, step]))
    return _lengths(remainder), remainder


def _first(small: Matrix, beta: Matrix, count: int, dtype: torch.dtype) -> tuple[SingularValues, bool]:
    """The first values of all samples together, and whether no other reaches among them."""
    vectors, values, _ = np.linalg.svd(small)
    errors = np.maximum(
        beta[:, None] * np.abs(vectors[:, -1]), torch.finfo(dtype).eps * np.max(values)
    ).ravel()
    values = values.ravel()
    order = np.argsort(-values, kind="stable")
    chosen, others = order[:count], order[count:]
    apart = bool((values[others] + errors[others] <= values[chosen[-1]] + errors[chosen[-1]]).all())
    found, within = values[chosen].tolist(), errors[chosen].tolist()
    return SingularValues(tuple(found), tuple(within), small.shape[1]), apart


def _lengths(x: Tensor) -> Matrix:
    return torch.stack([norm(row) for row in x]).cpu().numpy()


class _Bases:
    """Orthonormal rows for every sample, in memory for `limit` of them."""

    def __init__(
        self, samples: int, limit: int, size: int, jacobian: JacobianOperator, source: torch.Generator
    ) -> None:
        self.rows = torch.empty(samples, limit, size, dtype=jacobian.dtype, device=jacobian.device)
        self.fresh = np.zeros(samples, dtype=bool)
        self._source, self._count = source, 0

    def split(self, x: Tensor) -> tuple[Matrix, Tensor]:
        """Return the coefficients of `x` in the bases and what lies outside (Gram-Schmidt, twice)."""
        # As rows, which torch multiplies ten times as fast as columns.
        bases, x = self.rows[:, : self._count], x[:, None]
        first = x @ bases.mT
        x = torch.baddbmm(x, first, bases, alpha=-1)
        second = x @ bases.mT
        x = torch.baddbmm(x, second, bases, alpha=-1)
        return (first.double() + second.double())[:, 0].cpu().numpy(), x[:, 0]

    def append(self, units: Tensor) -> None:
        """Add a row to every basis."""
        self.rows[:, self._count] = units
        self._count += 1

    def following(self, remainder: Tensor, lengths: Matrix, small: Matrix, dtype: torch.dtype) -> Tensor:
        """Return the remainders at unit length; new directions where a space is exhausted (`fresh`)."""
        self.fresh = lengths <= torch.finfo(dtype).eps * np.max(np.abs(small), axis=(1, 2))
        safe = torch.from_numpy(np.where(self.fresh, 1.0, lengths)).to(remainder)
        units = remainder / safe[:, None]
        if self.fresh.any():
            ended = np.flatnonzero(self.fresh).tolist()
            units[ended] = self.draw(ended)
        return units

    def draw(self, samples: "range | list[int]") -> Tensor:
        """Return random unit vectors orthogonal to the bases of these samples."""
        shape = (self.rows.shape[0], self.rows.shape[2])
        x = torch.randn(shape, generator=self._source, dtype=self.rows.dtype, device=self.rows.device)
        for _ in range(2):
            x = self.split(x)[1]
            x = x / torch.from_numpy(_lengths(x)).to(x)[:, None]
        return x[list(samples)]
