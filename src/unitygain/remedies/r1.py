"""r1: add half of gamma times the squared slope of the discriminator at real samples to its loss.

For the case of a discriminator: its loss shows it real samples, which are tensors of the batch.

What it changes:
    The loss of the case, by the penalty. The model stays as it is. With every=16, lazily, the loss has it at
    one step of sixteen alone, sixteen times as large; each pass of a diagnosis counts as a step.

Why it helps:
    A discriminator that separates the data perfectly can become as steep and as sure as it likes, and gives
    the generator no gradient. At the equilibrium its slope on the data is zero; the penalty pulls it there
    and makes training near it converge.

When it does not help:
    A gamma too large leaves the discriminator no slope and the generator no direction; one too small does
    nothing. It says nothing about the slope far from the data, where the first generated samples lie.
    Attention kernels without a second derivative stand in its way. Lazily it comes in blows: at a rate near
    the largest that trains, one that is sixteen times as large is too much. Steps are counted by backward
    passes, of which accumulated gradients have several a step. A game whose losses are only known to the
    case's own step must add it there.

What it costs:
    One more forward and a double backward pass through the discriminator per step; with `every`, at those
    steps only.

References:
    Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?" (ICML 2018),
    equation 9. Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (CVPR 2020), section
    3.1, on the lazy one.
"""

import math

import torch
from torch import Tensor

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._game import Shown, penalise, slopes
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG704",), changes="loss", instead_of=("swap_loss",))
def r1(case: Case, *, gamma: float = 10.0, every: int = 1) -> Undo:
    """Add gamma/2 · E‖∇D(x)‖² over real samples to the loss, D being the logits.

    Args:
        case: The case of a discriminator; its loss is wrapped.
        gamma: Weight of the penalty.
        every: Of how many steps one pays it, that many times as large; each copy of the model begins with it.

    Returns:
        What gives the case its own loss back.

    Raises:
        ValueError: If gamma is no positive number, `every` below 1, no part of the model is called a
            discriminator, or the loss shows it no tensor of the batch.

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
    if every < 1:
        raise ValueError(f"every is {every}; give 1 for a penalty at every step, or 16, say")

    def penalty(shown: list[Shown]) -> Tensor:
        total = torch.zeros(())
        for call in (call for call in shown if call.real):
            sample = call.sample.detach().requires_grad_()
            slope = slopes(call.logits(sample), sample).flatten()
            total = total.to(slope) + every * gamma / 2 * torch.dot(slope, slope) / len(sample)
        return total

    return penalise(case, penalty, fakes=False, every=every)
