"""weight_spectral_norm: the operator norm of every weight matrix."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record
from unitygain.probe.trace import buffers_kept
from unitygain.probe.weights import matrices, matrix_norm

UNIT = "largest norm of W x over norm of x"
NOTE = "NaN where the weight is not finite"


@measure(unit=UNIT, passes="0; up to 200 products with each matrix")
def weight_spectral_norm(case: Case, record: Record) -> Profile | None:
    """Largest singular value of every two-dimensional weight.

    Parametrised weights are taken as the module uses them. Lookup tables (embeddings) and elementwise scales
    multiply no signal and are left out. Convolutions have `conv_operator_norm`.

    Cost: a singular value decomposition where a side is at most 256, else up to 200 products of the matrix
    with a vector. No pass of the model, no side effects.

    Args:
        case: An isolated case.
        record: Its record.

    Returns:
        One value per module, or per parameter where a module has several; `error` is the distance within
        which a singular value lies, at most 1e-3 of the value unless the steps ran out. Labels are module
        types. None where the model has no such weight.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> layer = nn.Linear(2, 2)
        >>> layer.weight.data = torch.tensor([[0.0, 3.0], [1.0, 0.0]])
        >>> case = Case(layer, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> [round(value, 6) for value in weight_spectral_norm(case, observe(case, [])).values]
        [3.0]
    """
    seed = int(record.facts.get("seed", 0))
    with buffers_kept(case.model):
        found = [(site, kind, matrix_norm(weight, seed)) for site, kind, weight in matrices(case.model)]
    if not found:
        return None
    return Profile(
        "weight_spectral_norm",
        UNIT,
        sites=tuple(site for site, _, _ in found),
        values=tuple(norm.value for _, _, norm in found),
        error=tuple(norm.error for _, _, norm in found),
        labels=tuple(kind for _, kind, _ in found),
        note="" if all(math.isfinite(norm.value) for _, _, norm in found) else NOTE,
    )
