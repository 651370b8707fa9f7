"""bypass_norm: let the signal pass normalisation layers unchanged.

Takes away what normalisation alone does to the gradient. BatchNorm before a ReLU multiplies it by about
1.21 per layer in a network without skips, whatever the weights are; the weights' own gain is what remains.

References: Yang, Pennington, Rao, Sohl-Dickstein and Schoenholz, "A Mean Field Theory of Batch
Normalization" (ICLR 2019), theorem 8.
"""

from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._snapshot import Undo, swap
from unitygain.remedies._weights import NORMS


@remedy(treats=("UG102", "UG104"))
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
