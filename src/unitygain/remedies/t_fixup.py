"""t_fixup: initialise a transformer so that it trains without layer normalisation and without warm-up.

What the norms did for the scale is done by the initialisation once, and what they did to Adam's first
steps is gone.

What it changes:
    All norm layers hand the signal on unchanged. Matrices of the branches are drawn from Xavier's Gaussian,
    token embeddings that train from a Gaussian of variance 1/width; then values, outputs, feed-forward maps
    and embeddings are multiplied by 0.67·N^(-1/4) for N layers. In a model with encoder and decoder the
    decoder's factor, and that of all embeddings, is (9N)^(-1/4). Biases of the branches become zero.

Why it helps:
    The gradient through a norm layer is divided by the size of its input, so that Adam's first steps, whose
    variance is not yet known, do damage that warm-up is there to avoid. Without norms, and with branches this
    small, a step of Adam changes the output by an amount that does not grow with depth.

When it does not help:
    It is a rule for Adam and full attention stacks; other norms (of queries and keys, of embeddings) go
    too. Models whose signal comes in without an embedding keep its scale. What a norm hid, such as loud
    inputs, shows. With little data or a deep stack of narrow layers `deepnorm` and Pre-LN have been found
    more robust.

What it costs:
    One forward pass of a copy; steps become a little cheaper. The draw of branches and embeddings is lost,
    and the learned scales of the norms are out of use.

References:
    Huang, Perez, Ba and Volkovs, "Improving Transformer Optimization Through Better Initialization" (ICML
    2020), section 4.
"""

import math

import torch
from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.linear_maps import NORMS
from unitygain.probe.sites import Select
from unitygain.remedies._branches import ends_of, find_branches
from unitygain.remedies._layers import biases_in, count_layers, matrices_of, sides
from unitygain.remedies._snapshot import Undo, keep, swap


class Unnormalised(nn.Identity):
    """Stands where a norm stood; torch's encoder layer compares the eps of its norms to choose its way."""

    eps = math.nan


@remedy(treats=("UG205",), changes="architecture", instead_of=("scale_branch",))
def t_fixup(case: Case, *, sites: Select = None, seed: int = 0) -> Undo:
    """Take norm layers out, and draw branches and embeddings at T-Fixup's scale.

    Args:
        case: The case; its model is changed in place.
        sites: Which branches, by the path of the module that ends one or of one that holds it.
        seed: Seed of the draw.

    Returns:
        What puts the parameters back, bit for bit, and the very same norm modules.

    Raises:
        ValueError: If no branch is found, or no norm layer.

    Side effects:
        The parameters of branches and embeddings, in place; the norm modules.

    Example:
        >>> [round(factor, 5) for factor in table(6, 6).values()]
        [0.42809, 0.36889]
    """
    found = find_branches(case, sites)
    counts, side = count_layers(found), sides(found)
    factors = table(counts["encoder"], counts["decoder"])
    tables = [
        module.weight
        for module in case.model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.weight.requires_grad
    ]
    own = dict(case.model.named_parameters())
    biases = [*biases_in(case, found), *(p for p in ends_of(case, found) if p.ndim == 1)]
    weights = [own[name] for branch in found for name in branch.weights]
    put_back = swap(
        case.model, None, lambda module: Unnormalised() if isinstance(module, NORMS) else None, "a norm layer"
    )
    restore = keep([*weights, *biases, *tables])
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for bias in biases:
            bias.zero_()
        for branch in found:
            for matrix in matrices_of(case, branch):
                deviation = math.sqrt(2 / sum(matrix.fans)) * (1.0 if matrix.asks else factors[side[branch]])
                matrix.values.copy_(deviation * torch.randn(matrix.values.shape, generator=source))
        for weight in tables:
            deviation = list(factors.values())[-1] / math.sqrt(weight.shape[1])
            weight.copy_(deviation * torch.randn(weight.shape, generator=source))

    def undo() -> None:
        restore()
        put_back()

    return undo


def table(encoder: int, decoder: int) -> dict[str, float]:
    """Return the factor by side, for so many layers; a model of one kind counts as an encoder."""
    factors = {"encoder": 0.67 * encoder**-0.25}
    return factors | ({"decoder": (9 * decoder) ** -0.25} if decoder else {})
