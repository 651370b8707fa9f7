"""Evidence that a module can be inverted: it says so, or the pattern of its Jacobian shows it."""

import inspect

import numpy as np
from numpy.typing import NDArray
from torch import nn

Matrix = NDArray[np.float64]

METHODS = ("inverse", "_inverse", "reverse", "invert", "inv")
ARGUMENTS = ("inverse", "reverse", "invert", "rev")


def declares_inverse(module: nn.Module) -> bool:
    """Whether the module's class has an inverse as a method, or its forward an argument that asks for it.

    Example:
        >>> class Shift(nn.Module):
        ...     def forward(self, x, reverse=False):
        ...         return x - 1 if reverse else x + 1
        >>> declares_inverse(Shift()), declares_inverse(nn.Linear(2, 2))
        (True, False)
    """
    if any(callable(getattr(type(module), name, None)) for name in METHODS):
        return True
    try:
        named = inspect.signature(type(module).forward).parameters
    except (TypeError, ValueError):
        return False
    return any(name in named for name in ARGUMENTS)


def is_triangular(matrix: Matrix) -> bool:
    """Whether rows and columns can be put in an order in which a square matrix is triangular, no zero on it.

    That is what a coupling layer or an autoregressive one has: each number that leaves depends on one that
    enters by itself, and on others that have been found by then. Entries count by being zero or not.

    Cost: as many rounds as the longest such chain, each a pass over the matrix.

    Example:
        >>> is_triangular(np.array([[0.0, 1.0], [2.0, 5.0]])), is_triangular(np.ones((2, 2)))
        (True, False)
    """
    if matrix.shape[0] != matrix.shape[1]:
        return False
    left = matrix != 0
    rows = np.arange(len(left))
    while len(rows):
        single = np.sum(left[rows], axis=1) == 1
        columns = left[rows[single]].argmax(axis=1)
        if not len(columns) or len(np.unique(columns)) < len(columns):
            return False
        left[:, columns] = False
        rows = rows[~single]
    return True


def is_monomial(matrix: Matrix) -> bool:
    """Whether every row and column has one entry that is not zero: a permutation with scales."""
    some = matrix != 0
    return all(bool((np.sum(some, axis=axis) == 1).all()) for axis in (0, 1))
