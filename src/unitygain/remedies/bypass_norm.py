"""bypass_norm: let the signal pass normalisation layers unchanged.

Takes away what normalisation alone does to the gradient; the gain of the weights is what remains.

What it changes:
    Identities stand in the places of the chosen normalisation modules. Their parameters train no more, and
    come back with the undo.

Why it helps:
    BatchNorm before a ReLU multiplies the gradient by about 1.21 per layer in a network without skips,
    whatever the weights are: 50 layers of it are a factor of 14,000. Without the norm the gain is that of the
    weights, which an initialisation can set to 1.

When it does not help:
    It shows a cause; it is rarely what to keep. The weights behind a norm had no scale to keep until now, so
    that without it the signal may grow or die with depth: set their gain first (rescale_weights). A skip path
    around each block cures the same growth and keeps the norm. In a Pre-LN transformer the norms are what
    holds the stream, and taking them away makes it worse. A norm over one number, which puts out its bias
    whatever comes in, is the exception: without it the layers before it learn.

What it costs:
    Nothing per step; a little is saved. Larger learning rates, which normalisation allows, no longer train.

References:
    Yang, Pennington, Rao, Sohl-Dickstein and Schoenholz, "A Mean Field Theory of Batch Normalization" (ICLR
    2019), theorem 8.
"""

from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import NORMS
from unitygain.probe.sites import Select
from unitygain.remedies._snapshot import Undo, swap


@remedy(treats=("UG102", "UG104", "UG206"), changes="architecture")
def bypass_norm(case: Case, *, sites: Select = None) -> Undo:
    """Put an identity in the place of normalisation modules.

    Args:
        case: The case; its model gets identities in the places of the chosen modules.
        sites: Which module paths.

    Returns:
        What puts the very same modules back.

    Raises:
        ValueError: If there is no normalisation module among the chosen.

    Side effects:
        The model's submodules; no parameter is touched.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> undo = bypass_norm(case)
        >>> type(model[1]).__name__
        'Identity'
    """

    def make(module: nn.Module) -> nn.Module | None:
        return nn.Identity() if isinstance(module, NORMS) else None

    return swap(case.model, sites, make, "a normalisation")
