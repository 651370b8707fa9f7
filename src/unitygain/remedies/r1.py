"""r1: add half of gamma times the squared slope of the discriminator at real samples to its loss.

For the case of a discriminator: its loss shows it real samples, which are tensors of the batch.

What it changes:
    The loss of the case, by the penalty. The model stays as it is.

Why it helps:
    A discriminator that separates the data perfectly can become as steep and as sure as it likes, and gives
    the generator no gradient. At the equilibrium its slope on the data is zero; the penalty pulls it there
    and makes training near it converge.

When it does not help:
    A gamma too large leaves the discriminator no slope and the generator no direction; one too small does
    nothing. It says nothing about the slope far from the data, where the first generated samples lie.
    Attention kernels without a second derivative stand in its way. A game whose losses are only known to the
    case's own step must add it there.

What it costs:
    One more forward and a double backward pass through the discriminator per step.

References:
    Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?" (ICML 2018),
    equation 9.
"""

import math

import torch
from torch import Tensor

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._game import Shown, penalise, slopes
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG704",), changes="loss", instead_of=("swap_loss",))
def r1(case: Case, *, gamma: float = 10.0) -> Undo:
    """Add gamma/2 · E‖∇D(x)‖² over real samples to the loss, D being the logits.

    Args:
        case: The case of a discriminator; its loss is wrapped.
        gamma: Weight of the penalty.

    Returns:
        What gives the case its own loss back.

    Raises:
        ValueError: If gamma is no positive number, no part of the model is called a discriminator, or the
            loss shows it no tensor of the batch.

    Side effects:
        ``case.loss``. Runs the loss once on a copy.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.ModuleDict({"critic": nn.Linear(1, 1)})
        >>> _ = nn.init.constant_(model["critic"].weight, 3.0)
        >>> case = Case(model, loss=lambda m, x: 0 * m["critic"](x).sum(), data=[torch.ones(4, 1)])
        >>> undo = r1(case, gamma=10.0)  # 10/2 · 3²
        >>> case.compute_loss(case.batches[0]).item()
        45.0
    """
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma is {gamma}; give a positive number, such as 10.0")

    def penalty(shown: list[Shown]) -> Tensor:
        total = torch.zeros(())
        for call in (call for call in shown if call.real):
            sample = call.sample.detach().requires_grad_()
            slope = slopes(call.logits(sample), sample).flatten()
            total = total.to(slope) + gamma / 2 * torch.dot(slope, slope) / len(sample)
        return total

    return penalise(case, penalty, fakes=False)
