"""transient_growth: how far a gradient on its way back through time grows before it decays."""

import math
from collections.abc import Callable, Iterable

import numpy as np

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record
from unitygain.probe.steps import Matrix, Walk, walk
from unitygain.theory.nonnormal import henrici_departure, kreiss_constant, numerical_abscissa

UNIT = "largest norm of a product of consecutive step Jacobians"
WINDOW = 256
# States above this size take matrices too large for a singular value decomposition per step.
LARGEST = 256
# Kreiss' constant takes hundreds of decompositions: a coarse grid, on small states.
GRID, SMALL = 8, 64
COLUMNS = (
    "at_steps",
    "one_step",
    "non_normality",
    "numerical_abscissa",
    "kreiss_lower_bound",
    "spectral_radius",
)
NOTE = (
    "at_steps, one_step: of the products that end at the last step; the rest is of the last step's Jacobian. "
    "spectral_radius is of eigenvalues, all else of singular values or of quadratic forms"
)


@measure(unit=UNIT, passes="one Jᵀ·u per number in the state and step, batched; at most 256 steps")
def transient_growth(case: Case, record: Record) -> Profile | None:
    """Largest singular value that a product of the last k step Jacobians reaches, over all k up to 256.

    Eigenvalues below 1 say that a gradient dies out in the end. Where eigenvectors are far from orthogonal
    it can grow by any factor before, and that is what a sequence of finite length sees.

    Cost: one forward pass of the model, one unrolled one, and per step a batched backward pass of as many
    rows as the state has numbers; a decomposition at the steps that may set a new maximum. Computed in
    float64 for the first sample of the first batch. No side effects.

    Args:
        case: An isolated case.
        record: Its record.

    Returns:
        One value per cell, at least 1 (no step at all). Columns: ``at_steps``, the k of the maximum;
        ``one_step``, the norm of the last step's Jacobian J; ``non_normality``, Henrici's departure over
        ‖J‖_F, 0 for a normal matrix and at most 1; ``numerical_abscissa`` of J; ``kreiss_lower_bound``, NaN
        above 64 numbers in the state or a spectral radius of 1; ``spectral_radius`` of J, no singular
        value. Labels are kinds of cells. None where no recurrent module runs four steps with a state of at
        most 256 numbers.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> rnn = nn.RNN(2, 2, nonlinearity="relu", bias=False)
        >>> _ = rnn.weight_hh_l0.data.copy_(torch.tensor([[0.9, 10.0], [0.0, 0.9]]))
        >>> _ = rnn.weight_ih_l0.data.copy_(torch.eye(2))
        >>> case = Case(rnn, loss=lambda m, x: m(x)[0].sum(), data=[torch.ones(40, 1, 2)])
        >>> profile = transient_growth(case, observe(case, []))
        >>> round(profile.values[0], 2), profile.rows[0][0], round(profile.rows[0][5], 6)
        (38.75, 9.0, 0.9)

    References:
        L. Trefethen, M. Embree, Spectra and pseudospectra (2005), chapters 14 and 18. P. Henrici, Numer.
        Math. 4 (1962).
    """
    walks = walk(case, record)
    small = [one for one in walks.walks if one.size <= LARGEST]
    large = [f"left out: {one.site} (a state of {one.size})" for one in walks.walks if one.size > LARGEST]
    if not small:
        return None
    found = [_peak(one) for one in small]
    return Profile(
        "transient_growth",
        UNIT,
        sites=tuple(one.site for one in small),
        values=tuple(value for value, _ in found),
        columns=COLUMNS,
        rows=tuple((float(at), *_last(one)) for one, (_, at) in zip(small, found, strict=True)),
        labels=tuple(one.cell.kind for one in small),
        note="; ".join(filter(None, [NOTE, walks.note, *large])),
    )


def _peak(walked: Walk) -> tuple[float, int]:
    return largest_product(walked.backward()[:WINDOW], walked.size)


def largest_product(factors: Iterable[Callable[[Matrix], Matrix]], size: int) -> tuple[float, int]:
    """Return the largest norm of a product of the first k factors, and its k; 1 at 0 where none is larger."""
    product, largest, at = np.eye(size), 1.0, 0
    for k, apply in enumerate(factors, start=1):
        product = apply(product)
        bound = float(np.linalg.norm(product))
        if not bound < 1e150:
            return bound, k
        # The Frobenius norm bounds the largest singular value: no decomposition where it cannot win.
        value = float(np.linalg.norm(product, 2)) if bound > largest else 0.0
        if value > largest:
            largest, at = value, k
    return largest, at


def _last(walked: Walk) -> tuple[float, ...]:
    jacobian = walked.jacobian(len(walked) - 1)
    radius = float(np.abs(np.linalg.eigvals(jacobian)).max())
    whole = float(np.linalg.norm(jacobian))
    kreiss = math.nan
    if len(jacobian) <= SMALL and radius < 1:
        kreiss = kreiss_constant(jacobian, GRID, GRID)
    return (
        float(np.linalg.norm(jacobian, 2)),
        henrici_departure(jacobian) / whole if whole else 0.0,
        numerical_abscissa(jacobian),
        kreiss,
        radius,
    )
