"""sigma_reparam: make each matrix a learned number times itself over its largest singular value.

The matrix turns, its scale is one number that starts at `gamma` and trains like any other. Query, key and
value of a packed map have one number each.

What it changes:
    The chosen matrices are computed from the old parameters, and from one new parameter each, which the
    optimizer gets as well.

Why it helps:
    The logits of attention are bounded by the product of the norms of query and key maps. Without a bound
    they grow until the softmax chooses one token and its gradient is gone; with this one they grow only as
    fast as a single number learns. Transformers without warm-up or weight decay train so that collapse
    otherwise.

When it does not help:
    It changes what the model computes at once: trained weights lose their scale, and a deep stack of maps of
    norm 1, most of whose directions are below, passes less signal. In front of a normalisation the number has
    no effect. Logits that are large because what enters is large stay so: that is for a norm on queries and
    keys.

What it costs:
    Two matrix-vector products per matrix and forward pass, one parameter per matrix. After training the
    product can be stored as one matrix.

References:
    Zhai et al., "Stabilizing Transformer Training by Preventing Attention Entropy Collapse" (ICML 2023),
    section 3, equation 3.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import Weight
from unitygain.probe.sites import Select
from unitygain.remedies._parametrise import choose_weights, parametrise
from unitygain.remedies._snapshot import Undo


class SigmaReparam(nn.Module):
    """gamma/sigma(W)·W for each of the equal parts in which the rows of W lie."""

    left: Tensor

    def __init__(self, weight: Tensor, gamma: float, parts: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((parts, 1, 1), gamma, dtype=weight.dtype, device=weight.device))
        stacked = weight.detach().to(_wide(weight)).unflatten(0, (parts, -1))
        found = torch.linalg.svd(stacked, full_matrices=False)
        self.register_buffer("left", found.U[..., 0])

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight that the module uses; in training the estimate of sigma follows."""
        with torch.autocast(weight.device.type, enabled=False):
            stacked = weight.to(_wide(weight)).unflatten(0, (len(self.left), -1))
            if self.training:
                self._iterate(stacked.detach())
            right = F.normalize(torch.einsum("pij,pi->pj", stacked.detach(), self.left), dim=-1)
            sigma = torch.einsum("pi,pij,pj->p", self.left, stacked, right)
            made = self.gamma.to(sigma.dtype) / sigma.clamp(min=1e-12)[:, None, None] * stacked
        return made.flatten(0, 1).to(weight.dtype)

    def _iterate(self, stacked: Tensor) -> None:
        """One step of power iteration; the vector of the step before lives on in its graph."""
        right = F.normalize(torch.einsum("pij,pi->pj", stacked, self.left), dim=-1)
        self.left = F.normalize(torch.einsum("pij,pj->pi", stacked, right), dim=-1)


def _wide(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)


@remedy(treats=("UG701", "UG702"), changes="parametrisation", instead_of=("calm_attention",))
def sigma_reparam(case: Case, *, sites: Select = None, gamma: float = 1.0) -> Undo:
    """Parametrise the chosen matrices as gamma/sigma(W)·W with a gamma that is learned.

    Args:
        case: The case; its model is changed in place.
        sites: Which modules, or single parameters, by path; all matrices of linear maps when left out.
        gamma: The norm that each starts with.

    Returns:
        What puts modules and parameters back, bit for bit.

    Raises:
        ValueError: If no matrix is chosen, or `gamma` is no positive number.

    Side effects:
        Classes and parameters of the chosen modules; an optimizer instance gets one more group. Costs a
        singular value decomposition of each matrix at once.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.MultiheadAttention(4, 2)
        >>> case = Case(model, loss=lambda m, x: m(x, x, x)[0].sum(), data=[torch.ones(3, 1, 4)])
        >>> undo = sigma_reparam(case, sites="", gamma=2.0)
        >>> [round(torch.linalg.matrix_norm(part, 2).item(), 4) for part in model.in_proj_weight.chunk(3)]
        [2.0, 2.0, 2.0]
    """
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma is {gamma}; give a positive number, such as 1.0")
    everywhere = "*" if sites is None else sites
    weights = choose_weights(
        case.model, everywhere, lambda w: w.parameter.ndim == 2, "matrix of a linear map"
    )

    def register(weight: Weight) -> None:
        parts = 3 if weight.name == "in_proj_weight" else 1
        made = SigmaReparam(weight.parameter, gamma, parts)
        parametrize.register_parametrization(weight.module, weight.name, made)

    return parametrise(case, weights, register)
