"""The Jacobian between two tensors of one live graph, as an operator: J·v and Jᵀ·u without the matrix."""

import math
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unitygain.probe.junctions import Junction
from unitygain.stats import norm


class NoDoubleBackward(RuntimeError):
    """A product J·v was asked of a graph whose backward pass cannot be differentiated."""


class LinearOperator(Protocol):
    """What the estimators need of an operator; vectors are flat."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def matvec(self, v: Tensor) -> Tensor:
        """Return A·v."""
        ...

    def rmatvec(self, u: Tensor) -> Tensor:
        """Return Aᵀ·u."""
        ...


class JacobianOperator:
    """The Jacobian of one tensor with respect to another, both flattened, over the whole batch.

    Jᵀ·u is one backward pass from `output` to `input`, which skips all parameters. J·v differentiates
    that backward pass with respect to its cotangent, on the same graph, so that both see the same
    dropout masks and batch statistics. Vectors are float32, or float64 where one of the two is.

    Args:
        output: The tensor that is differentiated.
        input: The tensor with respect to which.

    Raises:
        ValueError: If one of them requires no gradient or is complex.

    Side effects:
        Keeps the graph alive; writes no gradient.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> jacobian = JacobianOperator(x[:2] * x[1:], x)
        >>> jacobian.rmatvec(torch.tensor([1.0, 0.0])).tolist()
        [2.0, 1.0, 0.0]
        >>> jacobian.matvec(torch.tensor([1.0, 0.0, 0.0])).tolist()
        [2.0, 0.0]

    References:
        J·v from two backward passes: J. Townsend, "A new trick for calculating Jacobian vector
        products" (2017).
    """

    def __init__(self, output: Tensor | Junction, input: Tensor | Junction) -> None:
        self._output = output if isinstance(output, Junction) else Junction(output)
        self._input = input if isinstance(input, Junction) else Junction(input)
        self.shape = (self._output.size, self._input.size)
        wider = torch.promote_types(self._output.dtype, self._input.dtype)
        self.dtype = torch.promote_types(wider, torch.float32)
        self.device = self._input.device
        self.applications = 0

    def rmatvec(self, u: Float[Tensor, " out"]) -> Float[Tensor, " in"]:
        """Return Jᵀ·u: one backward pass from output to input."""
        self.applications += 1
        shaped = u.to(self._output.device, self._output.dtype).view(self._output.shape)
        (found,) = torch.autograd.grad(
            self._output.copy, self._input.edge, shaped, retain_graph=True, allow_unused=True
        )
        return self._flat(found, self.shape[1])

    def matvec(self, v: Float[Tensor, " in"]) -> Float[Tensor, " out"]:
        """Return J·v: one backward pass through the backward pass.

        Raises:
            NoDoubleBackward: If an operation inside has no derivative of its backward pass.
        """
        self.applications += 1
        cotangent, transposed = self._transposed
        if transposed is None:
            return torch.zeros(self.shape[0], dtype=self.dtype, device=self.device)
        try:
            (found,) = torch.autograd.grad(
                transposed, cotangent, v.to(transposed).view(self._input.shape), retain_graph=True
            )
        except RuntimeError as error:
            raise NoDoubleBackward(f"J·v cannot be had: {str(error).splitlines()[0]}") from error
        return self._flat(found, self.shape[0])

    @cached_property
    def double_backward(self) -> bool:
        """Whether J·v is there and right, found by trying: ⟨Jᵀp, v⟩ must equal ⟨p, p⟩ for p = J·v.

        A backward pass that is there but detached somewhere inside gives a J·v that lacks a part; the
        test tells, to half of the dtype's digits.
        """
        v = _random(self.shape[1], self, seed=0)
        try:
            p = self.matvec(v)
        except NoDoubleBackward:
            return False
        q = self.rmatvec(p)
        precision = max(torch.finfo(self._output.dtype).eps, torch.finfo(self._input.dtype).eps)
        slack = precision**0.5 * float(norm(q) * norm(v))
        return abs(_dot(q, v) - _dot(p, p)) <= slack or not bool(torch.isfinite(p).all())

    @cached_property
    def sample_axis(self) -> int | None:
        """The axis (0 or 1) along which samples do not mix; None where the batch is coupled.

        Found by trying: a cotangent at a random half of the indices must reach that half alone, for two such
        halves and what they leave; the first and the last index are always apart. Where one pair alone mixes,
        it is missed once in four, and each further pair makes that four times as rare.
        """
        return next((axis for axis in (0, 1) if self._separates(axis)), None)

    @property
    def coupled(self) -> bool:
        """Whether the samples of the batch mix, as under batch normalisation in train mode."""
        return self.sample_axis is None

    @property
    def batch_note(self) -> str:
        """A sentence on whether the samples of the batch mix."""
        if self.coupled:
            return "the batch is coupled: samples mix, as under batch normalisation in train mode"
        return "the samples of the batch do not mix"

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the flat positions (in output, in input) of one sample; needs a `sample_axis`."""
        axis = self.sample_axis
        assert axis is not None
        return tuple(
            torch.arange(end.size).view(end.shape).select(axis, index).reshape(-1)
            for end in (self._output, self._input)
        )  # pyright: ignore[reportReturnType]

    def samples(self) -> int:
        """Return how many samples there are along the sample axis; 1 where the batch is coupled."""
        return 1 if self.sample_axis is None else self._output.shape[self.sample_axis]

    def materialise(self, rows: Sequence[int] | Tensor | None = None) -> Float64[Tensor, "rows in"]:
        """Return the matrix, or some of its rows, on the CPU: one backward pass per row, batched if possible.

        Args:
            rows: Positions in the flat output; all when left out.
        """
        wanted = torch.arange(self.shape[0]) if rows is None else torch.as_tensor(rows)
        parts = [self._rows(part) for part in wanted.split(64) if len(part)]
        return torch.cat(parts) if parts else torch.zeros(0, self.shape[1], dtype=torch.float64)

    def _rows(self, positions: Tensor) -> Tensor:
        units = torch.zeros(len(positions), self.shape[0], dtype=self._output.dtype)
        units[torch.arange(len(positions)), positions] = 1
        units = units.to(self._output.device)
        try:
            with warnings.catch_warnings():
                # A warning here says that torch runs the rows one by one, which the loop does as well.
                warnings.simplefilter("error")
                (found,) = torch.autograd.grad(
                    self._output.copy,
                    self._input.edge,
                    units.view(-1, *self._output.shape),
                    retain_graph=True,
                    allow_unused=True,
                    is_grads_batched=True,
                )
        except (RuntimeError, UserWarning):
            return torch.stack([self.rmatvec(unit.to(self.dtype)).double().cpu() for unit in units])
        self.applications += len(positions)
        return self._flat(found, len(positions) * self.shape[1]).view(len(positions), -1).double().cpu()

    @cached_property
    def _transposed(self) -> tuple[Tensor, Tensor | None]:
        """A cotangent and Jᵀ of it, with a graph between them; None where the two are not connected."""
        with torch.enable_grad():
            # Zeros that stand above the output in the graph: autograd looks for a leaf in all that the model
            # computed before this block, which in a deep model costs more than the product.
            nowhere = torch.zeros((), dtype=torch.bool, device=self._output.device)
            cotangent = torch.where(nowhere, self._output.copy, 0.0)
            (transposed,) = torch.autograd.grad(
                self._output.copy, self._input.edge, cotangent, create_graph=True, allow_unused=True
            )
        self.applications += 1
        return cotangent, transposed

    def _separates(self, axis: int) -> bool:
        ends = (self._output.shape, self._input.shape)
        if any(len(shape) <= axis for shape in ends) or ends[0][axis] != ends[1][axis]:
            return False
        size = ends[0][axis]
        return size == 1 or all(self._reaches_only(axis, part, size) for part in _parts(size))

    def _reaches_only(self, axis: int, part: Tensor, size: int) -> bool:
        inside, outside = (torch.arange(size)[mask].to(self.device) for mask in (part, ~part))
        random = _random(self.shape[0], self, seed=1).view(self._output.shape)
        u = torch.zeros_like(random).index_copy(axis, inside, random.index_select(axis, inside))
        found = torch.nan_to_num(self.rmatvec(u.view(-1))).view(self._input.shape)
        return not bool(found.index_select(axis, outside).any())

    def _flat(self, found: Tensor | None, size: int) -> Tensor:
        if found is None:
            return torch.zeros(size, dtype=self.dtype, device=self.device)
        return found.detach().reshape(-1).to(self.device, self.dtype)


def _parts(size: int) -> list[Tensor]:
    """Masks of two halves with the first index and without the last, and of what they leave."""
    source = torch.Generator().manual_seed(size)
    halves = []
    for _ in range(2 if size > 4 else 1):
        half = torch.zeros(size, dtype=torch.bool)
        half[1 + torch.randperm(size - 2, generator=source)[: (size - 1) // 2]] = True
        half[0] = True
        halves += [half, ~half]
    return halves


def generator(device: torch.device, seed: int) -> torch.Generator:
    """Return a random number generator of its own, so that the global one is not used."""
    return torch.Generator(device).manual_seed(seed)


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of the angle between two tensors; NaN where one is zero or not finite."""
    lengths = float(norm(a)), float(norm(b))
    if not all(0 < length < math.inf for length in lengths):
        return math.nan
    return _dot(a.detach().reshape(-1) / lengths[0], b.detach().reshape(-1) / lengths[1])


def _random(size: int, operator: LinearOperator, seed: int) -> Tensor:
    source = generator(operator.device, seed)
    return torch.randn(size, generator=source, dtype=operator.dtype, device=operator.device)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.double(), b.double()))
