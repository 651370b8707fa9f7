"""Operator norms of the weights of a live model: matrices, and convolutions as the maps that they are."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from unitygain._types import Site
from unitygain.probe.columns import singular_values
from unitygain.probe.golub_kahan import golub_kahan
from unitygain.probe.one_sided import dense_values
from unitygain.probe.operators import JacobianOperator

EXACT_SIDE = 256
STEPS = 100
TOLERANCE = 1e-3
# The singular values of a convolution often come in close pairs, of groups and of opposite frequencies,
# which a coarse tolerance does not tell apart.
FINE_TOLERANCE = 1e-4
EXACT_ROWS = 512
# Entries of a feature map beyond which a convolution is measured on a part of it, and the work (in
# multiplications) beyond which no singular values are taken at every frequency.
MAP_ENTRIES = 1 << 20
PART_SIDE = 32
BASIS_ENTRIES = 1 << 25
SPECTRUM_WORK = 4e9
NO_MAPS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class OperatorNorm:
    """The largest singular value of a linear map.

    Args:
        value: Lower estimate.
        error: A singular value lies within this distance.
        method: How it was found, as a few words.
        certificate: A number that the norm does not exceed; NaN where none was computed.
        reshaped: Norm of a convolution's kernel reshaped to a matrix, which is not its norm.
    """

    value: float
    error: float
    method: str
    certificate: float = math.nan
    reshaped: float = math.nan

    @property
    def upper(self) -> float:
        """The certificate if there is one, else value plus error."""
        return self.value + self.error if math.isnan(self.certificate) else self.certificate


class MatrixOperator:
    """A matrix as an operator, in at least float32."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.dtype = self._matrix.dtype
        self.device = matrix.device

    def matvec(self, v: Tensor) -> Tensor:
        """Return A·v."""
        return self._matrix @ v

    def rmatvec(self, u: Tensor) -> Tensor:
        """Return Aᵀ·u."""
        return u @ self._matrix


def matrices(model: nn.Module) -> Iterator[tuple[Site, str, Tensor]]:
    """Yield (site, module type, matrix) of every two-dimensional weight that multiplies a signal.

    Parametrised weights come as the module uses them. Lookup tables and elementwise scales are no such
    matrices. Run it inside `buffers_kept`: reading a weight may advance its parametrisation.
    """
    for path, module in model.named_modules():
        if isinstance(module, NO_MAPS) or ".parametrizations" in f".{path}":
            continue
        for name in _weight_names(module):
            weight = getattr(module, name, None)
            if isinstance(weight, Tensor) and weight.ndim == 2 and _is_plain(weight):
                where = path if name == "weight" else f"{path}.{name}".lstrip(".")
                yield Site(where), type(module).__name__, weight.detach()


def convolutions(model: nn.Module) -> dict[str, _ConvNd]:
    """Return the convolutions of a model by path, those without shape excepted."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _ConvNd)
        # Reading the weight would advance a parametrisation, and a lazy one has no shape yet.
        and not any(is_lazy(p) for p in module._parameters.values() if p is not None)
    }


def matrix_norm(matrix: Tensor, seed: int) -> OperatorNorm:
    """Return the norm of a matrix: exactly where a side is at most 256, else by Golub-Kahan to 0.1 %.

    Cost: at most 100 products with the matrix and its transpose.
    """
    if min(matrix.shape) <= EXACT_SIDE:
        singular = singular_values(_small_side(matrix.double()))
        value = float(singular[0]) if len(singular) else 0.0
        return OperatorNorm(value, value * torch.finfo(torch.float64).eps * max(matrix.shape), "exact")
    found = golub_kahan(MatrixOperator(matrix), 1, steps=STEPS, tolerance=TOLERANCE, seed=seed)
    return OperatorNorm(found.values[0], found.errors[0], f"Golub-Kahan, {found.steps} steps")


def convolution_norm(module: _ConvNd, entering: tuple[int, ...], seed: int) -> OperatorNorm:
    """Return the norm of a convolution as a map of feature maps of the size that it was given.

    With circular padding and stride 1 it is exact: the largest singular value of the kernel's transfer
    matrix over all frequencies. Otherwise it is that of the convolution's own matrix where that has at most
    512 rows, else it comes from Golub-Kahan on the convolution itself, to 0.01 %. With zero padding a
    certificate stands beside it: the map is a part of the circular convolution on a grid larger by the
    kernel's reach, whatever the stride, so its norm cannot be larger.

    Args:
        module: A convolution or transposed convolution.
        entering: Shape of the tensor that entered it.
        seed: Seed of the start vector.

    References:
        H. Sedghi, V. Gupta, P. Long, "The singular values of convolutional layers", ICLR 2019,
        theorem 6.
    """
    sides = entering[-len(module.kernel_size) :]
    kernel = module.weight.detach()
    reshaped = matrix_norm(kernel.reshape(kernel.shape[0], -1), seed).value
    if _is_circular(module, sides):
        exact = _transfer_norm(module, kernel, sides)
        if exact is not None:
            error = exact * torch.finfo(torch.float64).eps * kernel.numel()
            return OperatorNorm(exact, error, "circular, exact", exact + error, reshaped)
    part, method = _part(module, sides)
    source = torch.zeros(1, module.in_channels, *part, dtype=kernel.dtype, device=kernel.device)
    source.requires_grad_()
    with torch.enable_grad():
        # Not through __call__: hooks on the module are the user's.
        target = type(module).forward(module, source)
    operator = JacobianOperator(target, source)
    bound = _certificate(module, kernel, sides, tuple(target.shape[2:]), part)
    if operator.shape[0] <= EXACT_ROWS:
        values, error = dense_values(operator, 1)
        return OperatorNorm(values[0], error, f"{method}, exact", bound, reshaped)
    steps = max(STEPS // 10, min(STEPS, BASIS_ENTRIES // max(operator.shape)))
    found = golub_kahan(operator, 1, steps=steps, tolerance=FINE_TOLERANCE, seed=seed)
    return OperatorNorm(found.values[0], found.errors[0], method, bound, reshaped)


def _weight_names(module: nn.Module) -> list[str]:
    """Names of the weights as the module uses them: without the parts of which a normalised one is made."""
    made = getattr(module, "parametrizations", {})
    plain = [name for name in module._parameters if not name.endswith("_g")]
    names = [name.removesuffix("_orig").removesuffix("_v") for name in plain]
    return [name for name in dict.fromkeys([*names, *made]) if "weight" in name]


def _is_plain(weight: Tensor) -> bool:
    return not is_lazy(weight) and weight.layout is torch.strided and weight.is_floating_point()


def _small_side(matrix: Tensor) -> Tensor:
    """Return a triangle with the same singular values where the matrix is long."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return torch.linalg.qr(tall, mode="r").R if tall.shape[0] > 2 * tall.shape[1] else tall


def _is_circular(module: _ConvNd, sides: tuple[int, ...]) -> bool:
    if module.padding_mode != "circular" or isinstance(module, _ConvTransposeNd):
        return False
    kept = module.padding == "same" or all(
        2 * pad == reach for pad, reach in zip(module.padding, _reach(module), strict=True)
    )
    return kept and all(stride == 1 for stride in module.stride)


def _reach(module: _ConvNd) -> tuple[int, ...]:
    return tuple(d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True))


def _certificate(
    module: _ConvNd, kernel: Tensor, inside: tuple[int, ...], outside: tuple[int, ...], part: tuple[int, ...]
) -> float:
    if module.padding_mode != "zeros":
        return math.nan
    sides = inside
    if isinstance(module, _ConvTransposeNd):
        # It is the transpose of the convolution from its output to its input.
        if part != inside:
            return math.nan
        sides = outside
    grid = tuple(side + reach for side, reach in zip(sides, _reach(module), strict=True))
    bound = _transfer_norm(module, kernel, grid)
    return math.nan if bound is None else bound * (1 + torch.finfo(torch.float64).eps * kernel.numel())


def _transfer_norm(module: _ConvNd, kernel: Tensor, grid: tuple[int, ...]) -> float | None:
    """Largest singular value of the transfer matrices on a circular grid; None where it is too much work."""
    groups = module.groups
    rows, columns = kernel.shape[0] // groups, kernel.shape[1]
    frequencies = groups * math.prod(grid[:-1]) * (grid[-1] // 2 + 1)
    if frequencies * min(rows, columns) ** 2 * max(rows, columns) * 8 > SPECTRUM_WORK:
        return None
    placed = torch.zeros(*kernel.shape[:2], math.prod(grid), dtype=torch.float64, device=kernel.device)
    placed.index_add_(2, _positions(module, grid).to(kernel.device), kernel.double().flatten(2))
    spectrum = torch.fft.rfftn(placed.view(*kernel.shape[:2], *grid), dim=tuple(range(2, 2 + len(grid))))
    transfer = spectrum.flatten(2).permute(2, 0, 1).reshape(-1, groups, rows, columns)
    return float(singular_values(transfer)[..., 0].reshape(-1).topk(1).values)


def _positions(module: _ConvNd, grid: tuple[int, ...]) -> Tensor:
    """Flat positions of the kernel's entries on the grid, wrapped around where it is larger."""
    flat = torch.zeros(1, dtype=torch.long)
    for size, dilation, side in zip(module.kernel_size, module.dilation, grid, strict=True):
        flat = (flat[:, None] * side + (torch.arange(size) * dilation) % side).reshape(-1)
    return flat


def _part(module: _ConvNd, sides: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """Return the size to measure at, smaller where the feature map is too large to hold many of it."""
    label = (
        f"{module.padding_mode}, stride {'x'.join(map(str, module.stride))}, at {'x'.join(map(str, sides))}"
    )
    if max(module.in_channels, module.out_channels) * math.prod(sides) <= MAP_ENTRIES:
        return sides, label
    part = tuple(min(side, PART_SIDE) for side in sides)
    return part, f"{label}; measured at {'x'.join(map(str, part))}, a lower estimate"
