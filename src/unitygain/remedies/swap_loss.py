"""swap_loss: train with another loss that the case declares by name.

The alternatives are the user's own: ``Case(..., variants={"non_saturating": loss})``, each with the arguments
of the loss. It tells what a loss does to the gradient from what the model does to it.

What it changes:
    The loss of the case.

Why it helps:
    log(1 - D) has a slope of D at the logit: where a discriminator is sure, the generator learns nothing, and
    -log D gives it a slope of nearly 1 there. A diffusion loss whose weight grows without bound at low noise
    learns from a few times alone; a bounded weight shares the gradient among all.

When it does not help:
    Another loss has another minimum: one that trains is not yet one that means the same. Against a
    discriminator that has learned everything, -log D gives a gradient that is large and says little. Values
    of two losses cannot be compared; trials compare the case's own.

What it costs:
    Nothing per step, where the losses cost the same.

References:
    Goodfellow et al., "Generative adversarial nets" (NeurIPS 2014), section 3, on -log D in the place of
    log(1 - D). Arjovsky, Chintala and Bottou, "Wasserstein generative adversarial networks" (ICML 2017). Hang
    et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (ICCV 2023), on bounded weights.
"""

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo
from unitygain.remedies._variants import put_variant


@remedy(treats=("UG704", "UG705"), changes="loss")
def swap_loss(case: Case, *, variant: str) -> Undo:
    """Put the declared loss `variant` in the place of the case's loss.

    Args:
        case: The case; its loss function is replaced.
        variant: A name in ``case.variants``.

    Returns:
        What gives the case its own loss function back.

    Raises:
        ValueError: If the case declares no variant of that name.

    Side effects:
        ``case.loss``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> case = Case(nn.Linear(1, 1), loss=lambda m, x: 0 * m(x).sum(), data=[torch.ones(1, 1)],
        ...             variants={"one": lambda m, x: 1 + 0 * m(x).sum()})
        >>> undo = swap_loss(case, variant="one")
        >>> case.compute_loss(case.batches[0]).item()
        1.0
    """
    return put_variant(case, variant, "give Case(variants={name: loss})")
