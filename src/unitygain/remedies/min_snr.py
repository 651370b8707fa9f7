"""min_snr: train a diffusion model on the loss that the case declares with bounded weights.

The weight of a sample's error is cut where the signal-to-noise ratio is large. Only the user's loss knows
what the model predicts and how it is weighed now: it is the variant named ``min_snr``.

What it changes:
    The loss of the case, for ``case.variants["min_snr"]``.

Why it helps:
    At the first times the signal-to-noise ratio is 10,000, and an error of the sample that is weighed by it
    has nearly all of the gradient: the model learns the last touch of the noise and nothing else. Cut at 5
    the times share the gradient, and their gradients stop pulling against each other.

When it does not help:
    A loss that predicts the noise with a weight of one is bounded already. The weights of the variational
    bound are meant where likelihood is what counts. A model that is behind at the first times alone, after
    training, gets less of the gradient there.

What it costs:
    Nothing per step; the variant has to be written: ``weight = theory.min_snr_weights(schedule, 5.0,
    target)[t]`` for each sample.

References:
    Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (ICCV 2023), section 3.4,
    equations for the three predictions.
"""

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo
from unitygain.remedies._variants import put_variant

VARIANT = "min_snr"


@remedy(treats=("UG705",), changes="loss", instead_of=("swap_loss",))
def min_snr(case: Case) -> Undo:
    """Put the declared loss ``min_snr`` in the place of the case's loss.

    Args:
        case: The case; its loss function is replaced.

    Returns:
        What gives the case its own loss function back.

    Raises:
        ValueError: If the case declares no variant of that name.

    Side effects:
        ``case.loss``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> case = Case(nn.Linear(1, 1), loss=lambda m, x: 9 + 0 * m(x).sum(), data=[torch.ones(1, 1)],
        ...             variants={"min_snr": lambda m, x: 5 + 0 * m(x).sum()})
        >>> undo = min_snr(case)
        >>> case.compute_loss(case.batches[0]).item()
        5.0
    """
    return put_variant(
        case,
        VARIANT,
        "give Case(variants={'min_snr': loss}), whose weights are "
        "theory.min_snr_weights(schedule, gamma=5.0, target='epsilon', 'x0' or 'v')[t]",
    )
