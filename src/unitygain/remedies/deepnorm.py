"""deepnorm: initialise a Post-LN transformer as DeepNet does, with the stream weighted above the branches.

The stream of such a block counts alpha times, its branches start beta times as large as Xavier's.

What it changes:
    Values, outputs and feed-forward maps of every branch are drawn from Xavier's Gaussian with gain beta,
    queries and keys with gain 1; biases of the branches become zero. DeepNorm's stream, LN(alpha·x + F(x)),
    is made by dividing the last map of each branch by alpha: LN(x + F(x)/alpha) is the same, since a norm
    takes every common factor away (up to its eps). The architecture stays.

    | | alpha | beta |
    |---|---|---|
    | encoder or decoder alone, N layers | (2N)^(1/4) | (8N)^(-1/4) |
    | encoder of N beside a decoder of M | 0.81·(N^4·M)^(1/16) | 0.87·(N^4·M)^(-1/16) |
    | the decoder of M | (3M)^(1/4) | (12M)^(-1/4) |

Why it helps:
    In a Post-LN block the norm behind each sum divides the stream as well, by sqrt(2) where branch and
    stream are of one size, so that what enters at the bottom is lost over depth and tokens become alike. A
    heavier stream passes through; and a step changes the output by an amount that depth does not multiply.

When it does not help:
    Pre-LN blocks have no norm behind the sum and are refused. The division by alpha is exact for the
    function at the start only: a step of size h on a map that was divided acts like one of alpha·h on
    DeepNet's, which matters for tens of layers. Logits of attention that are too large stay so, at gain 1.

What it costs:
    One forward pass of a copy; nothing per step. The draw of the branches is lost.

References:
    Wang, Ma, Dong, Huang, Zhang and Wei, "DeepNet: Scaling Transformers to 1,000 Layers" (2022), section 4.4
    and figure 2.
"""

import math

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._branches import ends_of, find_branches
from unitygain.remedies._layers import biases_in, count_layers, matrices_of, require_post_norm, sides
from unitygain.remedies._snapshot import Undo, keep


@remedy(treats=("UG205",), changes="initial weights", instead_of=("scale_branch",))
def deepnorm(case: Case, *, sites: Select = None, seed: int = 0) -> Undo:
    """Draw the branches of a Post-LN transformer with gain beta, and divide their ends by alpha.

    Args:
        case: The case; parameters are changed in place.
        sites: Which branches, by the path of the module that ends one or of one that holds it.
        seed: Seed of the draw.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If no branch is found, or no norm layer stands behind the sum with one.

    Side effects:
        The parameters of the branches, in place.

    Example:
        >>> [round(number, 4) for number in table(100, 0)["encoder"]]
        [3.7606, 0.188]
    """
    found = find_branches(case, sites)
    require_post_norm(found, "DeepNorm")
    counts = count_layers(found)
    numbers, side = table(counts["encoder"], counts["decoder"]), sides(found)
    own = dict(case.model.named_parameters())
    biases, ends = biases_in(case, found), ends_of(case, found)
    undo = keep([*(own[name] for branch in found for name in branch.weights), *biases, *ends])
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for bias in biases:
            bias.zero_()
        for branch in found:
            alpha, beta = numbers[side[branch]]
            for matrix in matrices_of(case, branch):
                deviation = (1.0 if matrix.asks else beta) * math.sqrt(2 / sum(matrix.fans))
                matrix.values.copy_(deviation * torch.randn(matrix.values.shape, generator=source))
            for parameter in ends_of(case, [branch]):
                parameter.div_(alpha)
    return undo


def table(encoder: int, decoder: int) -> dict[str, tuple[float, float]]:
    """Return (alpha, beta) by side, for so many layers; a model of one kind counts as an encoder."""
    if not decoder:
        return {"encoder": ((2 * encoder) ** 0.25, (8 * encoder) ** -0.25)}
    both = (encoder**4 * decoder) ** (1 / 16)
    return {
        "encoder": (0.81 * both, 0.87 / both),
        "decoder": ((3 * decoder) ** 0.25, (12 * decoder) ** -0.25),
    }
