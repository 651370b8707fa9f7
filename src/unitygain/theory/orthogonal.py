"""Q·R by products of matrices instead of one column after the other.

In torch, whose products made the columns: a second library's threads would wait for the same cores. It is
imported when used, since most of the theory does without.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Matrix = NDArray[np.float64]
# Columns of a panel. As few columns as a panel, and numbers near the ends of the range whose squares leave
# it, are left to Householder's reflections.
PANEL, SQUARES = 128, (1e-60, 1e60)
# Random directions in which QᵀQ - 1 is measured, and how far that may be below its norm: for a defect of
# rank one, below a tenth with a probability of 2e-7 (chi-square of eight degrees of freedom below 0.08).
DIRECTIONS, SAFETY = 8, 10.0


def orthogonalise(image: Matrix, tolerance: float) -> tuple[Matrix, Matrix]:
    """Return orthonormal columns Q of image = Q·R, and the absolute diagonal of R.

    A panel of columns is freed of the panels before it, and of itself by the Cholesky factor of its Gram
    matrix. That squares the condition of the panel, not of the whole: columns in the order of their sizes,
    which is the order that repeated orthogonalisations bring about, may span more than one panel could. The
    defect of QᵀQ is measured in random directions. Above the tolerance a second pass takes it out; where it
    stays, or a Gram matrix is not definite, the whole is decomposed by reflections. What is returned is
    as near to Q·R = image as with these.

    Args:
        image: Finite columns, shape (n, count), count at most n.
        tolerance: Norm of QᵀQ - 1, which is the error of the logarithms of the diagonal that it may cause.

    Returns:
        Q, shape (n, count), and the absolute diagonal, shape (count,).

    Cost: 2·n·count² flops, nearly all in products of matrices; twice that for a second pass.

    Example:
        >>> import numpy as np
        >>> columns, sizes = orthogonalise(np.diag([3.0, -0.1]), 1e-6)
        >>> np.abs(columns).tolist(), sizes.round(12).tolist()
        ([[1.0, 0.0], [0.0, 1.0]], [3.0, 0.1])

    References:
        Cholesky's factor, twice: Y. Yamamoto, Y. Nakatsukasa, Y. Yanagisawa, T. Fukaya, Electron. Trans.
        Numer. Anal. 44 (2015). Panels: A. Stathopoulos, K. Wu, SIAM J. Sci. Comput. 23 (2002).
    """
    import torch

    peak = float(np.abs(image).max())
    given = torch.from_numpy(np.ascontiguousarray(image))
    if image.shape[1] > PANEL and SQUARES[0] < peak < SQUARES[1]:
        columns, sizes = given, torch.ones(image.shape[1], dtype=torch.float64)
        for _ in range(2):
            try:
                columns, again = _by_panels(columns)
            except RuntimeError:
                break
            sizes = sizes * again
            if SAFETY * _defect(columns) <= tolerance:
                return columns.numpy(), sizes.numpy()
    columns, triangle = torch.linalg.qr(given)
    return columns.numpy(), triangle.diagonal().abs().numpy()


def _by_panels(image: "Tensor") -> tuple["Tensor", "Tensor"]:
    import torch

    columns, sizes = torch.empty_like(image), torch.empty(image.shape[1], dtype=torch.float64)
    for start in range(0, image.shape[1], PANEL):
        panel, before = slice(start, start + PANEL), columns[:, :start]
        block = image[:, panel]
        if start:
            block = block - before @ (before.mT @ block)
        triangle = torch.linalg.cholesky(block.mT @ block, upper=True)
        columns[:, panel] = torch.linalg.solve_triangular(triangle, block, upper=True, left=False)
        sizes[panel] = triangle.diagonal()
    return columns, sizes


def _defect(columns: "Tensor") -> float:
    """Estimate the Frobenius norm of QᵀQ - 1."""
    import torch

    drawn = np.random.default_rng(0).standard_normal((columns.shape[1], DIRECTIONS))
    directions = torch.from_numpy(drawn)
    return float(torch.linalg.norm(columns.mT @ (columns @ directions) - directions)) / DIRECTIONS**0.5
