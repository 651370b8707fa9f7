"""spectral_cap: after the step, the operator norm of a layer to at most a given number."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from unitygain.clip._rule import require_threshold
from unitygain.clip.max_norm import scale_down
from unitygain.probe.weights import OperatorNorm, convolution_norm, matrix_norm


def spectral_cap(
    layer: nn.Module | Tensor, limit: float, *, entering: Sequence[int] | None = None, seed: int = 0
) -> Callable[[], None]:
    """Scale a layer's weight by min(1, limit/σ_max): a projection, to be called after the step.

    Keeps the direction of the weight, every entry of which is multiplied by the same number; the gradient
    stays. A cap and no normalisation: a layer below the limit keeps its bits, where `spectral_norm` of
    torch would lift it to 1. Of a convolution σ_max is that of the map of feature maps, and not that of the
    reshaped kernel, which may be smaller by a factor of up to the root of the kernel's size: an average
    over 3 x 3 times 3 has a reshaped norm of 1 and maps with a gain of 3.

    Cost: a matrix with a side of at most 256: its singular values; otherwise at most 100 products, which
    find σ_max to 0.1 % (0.01 % for a convolution). What the estimate may be off by is added to it. A copy
    of the weight where it is scaled, for the undo.

    Args:
        layer: A module with a two-dimensional weight, a convolution, or a matrix; changed in place.
        limit: Largest operator norm.
        entering: Of a convolution the shape of what enters it, (channels, ...) or (batch, channels, ...).
        seed: Of the start vector of the estimate; no global random state is touched.

    Returns:
        What puts the weight back, bit for bit.

    Raises:
        ValueError: If the limit is not above 0, the weight is made by a parametrisation, is not finite or
            no map, or a convolution comes without the shape of what enters it.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 2, bias=False)
        >>> layer.weight.data = torch.diag(torch.tensor([4.0, 1.0]))
        >>> undo = spectral_cap(layer, 2.0)
        >>> layer.weight.data.diag()
        tensor([2.0000, 0.5000])
        >>> undo = spectral_cap(layer, 2.1)  # below the limit: nothing happens
        >>> layer.weight.data.diag()
        tensor([2.0000, 0.5000])

    References:
        Sedghi, Gupta and Long, The singular values of convolutional layers, 2019, for the norm; Gouk,
        Frank, Pfahringer and Cree, Regularisation of neural networks by enforcing Lipschitz continuity,
        2021, section 4.1, for the projection.
    """
    bound = require_threshold("limit", limit)
    if isinstance(layer, nn.Module) and is_parametrized(layer, "weight"):
        raise ValueError(
            f"the weight of this {type(layer).__name__} is made by a parametrisation, which would undo "
            "the cap; cap what it is made from, or remove it"
        )
    weight = layer if isinstance(layer, Tensor) else layer.weight
    if not isinstance(weight, Tensor) or not bool(torch.isfinite(weight).all()):
        raise ValueError(f"the weight of this {type(layer).__name__} is missing or not finite")
    found = _norm(layer, weight.detach(), entering, seed)
    largest = found.value + found.error
    factor = bound / largest if largest > bound else 1.0
    with torch.no_grad():
        return scale_down(weight, torch.tensor(factor, dtype=torch.float64, device=weight.device))


def _norm(
    layer: nn.Module | Tensor, weight: Tensor, entering: Sequence[int] | None, seed: int
) -> OperatorNorm:
    if isinstance(layer, _ConvNd):
        if entering is None:
            raise ValueError(
                f"the norm of a {type(layer).__name__} depends on the size of what enters; "
                "give its shape as entering=(channels, height, width)"
            )
        return convolution_norm(layer, tuple(entering), seed)
    if weight.ndim != 2:
        raise ValueError(
            f"the weight of this {type(layer).__name__} has shape {tuple(weight.shape)}; give a layer whose "
            "weight is a matrix, or a convolution"
        )
    return matrix_norm(weight, seed)
