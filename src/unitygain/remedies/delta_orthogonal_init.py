"""delta_orthogonal_init: make every convolution an orthogonal map of the channels at the kernel's centre.

A delta in space times an orthogonal matrix of the channels: a convolution that only turns the channels at
each place, so that no frequency is stretched more than another.

What it changes:
    The weights of nn.Conv1d, Conv2d and Conv3d that train: an orthogonal matrix, drawn for each group, in
    the centre of the kernel and zero everywhere else, times the gain of the activation that follows; their
    biases become zero. Where there are more outputs than inputs the mean square is kept, as in
    `orthogonal_init`.

Why it helps:
    It is the convolution that keeps the norm of every input exactly (for stride 1 and as many outputs as
    inputs, whatever the padding and the size of the image). An orthogonal kernel, reshaped to a matrix, does
    not: its singular values as a map range from near 0 to sqrt(kernel size). Networks of ten thousand plain
    tanh layers train from it.

When it does not help:
    Fewer outputs than inputs lose directions, and a stride skips positions. With ReLU the gain per layer is
    right and the spread is not gone, as for `orthogonal_init`. The receptive field does not grow at the
    start: edges of the kernel have to be learned from zero. Behind BatchNorm the gain does nothing.

What it costs:
    A QR decomposition per group, and one pass of a copy to see what follows what; nothing per step.

References:
    Xiao, Bahri, Sohl-Dickstein, Schoenholz and Pennington, "Dynamical Isometry and a Mean Field Theory of
    CNNs: How to Train 10,000-Layer Vanilla Convolutional Neural Networks" (ICML 2018), algorithm 1.
"""

import math

import torch
from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._draw import (
    biases_of,
    find_activations,
    find_own_weights,
    sample,
    stacked,
    unit_gain,
)
from unitygain.remedies._snapshot import Undo, keep

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@remedy(
    treats=("UG101", "UG103", "UG204", "UG205", "UG301"),
    changes="initial weights",
    instead_of=("rescale_weights",),
)
def delta_orthogonal_init(
    case: Case, *, sites: Select = None, gain: float | None = None, seed: int = 0
) -> Undo:
    """Draw convolutions as orthogonal maps of the channels, and set their biases to zero.

    Args:
        case: The case; its model's parameters are changed in place.
        sites: Which modules, as patterns of paths or a callable.
        gain: The gain of all of them; that of the activation that follows each when left out.
        seed: Seed of the draw.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If no convolution that trains was chosen, or `gain` is no positive number.

    Side effects:
        The chosen weights and biases, in place; a copy of them is kept for the undo.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Conv2d(4, 4, 3, padding=1)
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.randn(1, 4, 5, 5)])
        >>> undo = delta_orthogonal_init(case)
        >>> x = torch.randn(1, 4, 9, 9)
        >>> torch.allclose(model(x).norm(), x.norm())
        True
    """
    if gain is not None and not (gain > 0 and math.isfinite(gain)):
        raise ValueError(f"gain is {gain}; give a positive number, such as 1.0 or 2 ** 0.5")
    weights = [w for w in find_own_weights(case, sites) if isinstance(w.module, CONVOLUTIONS)]
    if not weights:
        raise ValueError(f"no convolution is chosen by sites={sites!r}; for linear maps use orthogonal_init")
    follows = {} if gain is not None else find_activations(case)
    biases = biases_of(weights)
    undo = keep([*(weight.parameter for weight in weights), *biases])
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in weights:
            own = unit_gain(follows.get(weight.path)) if gain is None else gain
            for part in stacked(weight):
                centre = (..., *(size // 2 for size in part.shape[2:]))
                # As many products as there are inputs: the kernel's other entries are zero.
                deviation = own / math.sqrt(part.shape[1])
                matrix = sample(tuple(part.shape[:2]), deviation, "orthogonal", source, part.dtype)
                part.zero_()
                part[centre] = matrix.to(part)
        for bias in biases:
            bias.zero_()
    return undo
