"""gradient_penalty: pull the slope of a critic towards 1 between real and generated samples (WGAN-GP).

For the case of a discriminator: its loss shows it real samples, which are tensors of the batch, and generated
ones of the same shape.

What it changes:
    The loss of the case, by the penalty. The model stays as it is.

Why it helps:
    The best critic of the Wasserstein distance has slope 1 almost everywhere between the two distributions:
    it gives the generator a gradient of the same length wherever its samples are, where a discriminator that
    is sure gives none.

When it does not help:
    It belongs to a loss that is linear in the critic's value; with a saturating one the saturation stays
    (swap_loss). BatchNorm in the critic makes samples depend on each other, for which the slope of one is not
    defined: use LayerNorm. Attention kernels without a second derivative stand in its way. A game whose
    losses are only known to the case's own step must add it there.

What it costs:
    One more forward and a double backward pass through the critic per step; the original trains it five times
    per step of the generator.

References:
    Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville, "Improved Training of Wasserstein GANs" (NeurIPS
    2017), equation 3.
"""

import math

import torch
from torch import Tensor

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._game import Shown, penalise, slopes
from unitygain.remedies._snapshot import Undo

# Under the root, whose slope at zero is infinite.
TINY = 1e-12


@remedy(treats=("UG704",), changes="loss", instead_of=("swap_loss",))
def gradient_penalty(case: Case, *, weight: float = 10.0) -> Undo:
    """Add weight · E(‖∇D(x)‖ - 1)² at random points between real and generated samples to the loss.

    Args:
        case: The case of a discriminator; its loss is wrapped.
        weight: Weight of the penalty.

    Returns:
        What gives the case its own loss back.

    Raises:
        ValueError: If the weight is no positive number, no part of the model is called a discriminator, or
            the loss does not show it both kinds of samples.

    Side effects:
        ``case.loss``, which draws random numbers. Runs the loss once on a copy.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.ModuleDict({"critic": nn.Linear(1, 1)})
        >>> _ = nn.init.constant_(model["critic"].weight, 3.0)
        >>> case = Case(model, loss=lambda m, x: 0 * (m["critic"](x) + m["critic"](x - 5)).sum(),
        ...             data=[torch.ones(4, 1)])
        >>> undo = gradient_penalty(case)  # 10 · (3 - 1)²
        >>> round(case.compute_loss(case.batches[0]).item(), 4)
        40.0
    """
    if not 0 < weight < math.inf:
        raise ValueError(f"weight is {weight}; give a positive number, such as 10.0")

    def penalty(shown: list[Shown]) -> Tensor:
        real = next(call for call in shown if call.real)
        fake = next((c for c in shown if not c.real and c.sample.shape == real.sample.shape), None)
        if fake is None:
            raise ValueError(
                "no generated sample has the shape of the real ones; the penalty lies between them"
            )
        shape = (len(real.sample), *(1,) * (real.sample.ndim - 1))
        part = torch.rand(shape, dtype=real.sample.dtype, device=real.sample.device)
        between = torch.lerp(fake.sample.detach(), real.sample.detach(), part).requires_grad_()
        rows = slopes(real.logits(between), between)
        excess = (torch.einsum("bi,bi->b", rows, rows) + TINY).sqrt() - 1
        return weight * torch.dot(excess, excess) / len(excess)

    return penalise(case, penalty, fakes=True)
