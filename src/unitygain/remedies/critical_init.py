"""critical_init: draw weights and biases at the critical point of the activation that follows.

The point (sigma_w², sigma_b²) of the phase diagram at which the gradient neither grows nor falls over depth.

What it changes:
    Weights of the maps that an activation follows become Gaussian with variance sigma_w²/fan_in, their biases
    Gaussian with variance sigma_b². ReLU: (2, 0); tanh: (1, 0), or (1.761, 0.05) where a bias variance of
    0.05 is asked for; GELU: (1.983, 0.173), the half-stable point, where the variance is kept too. Maps that
    no activation follows, recurrent modules, norms, embeddings and frozen parameters stay as they are.

Why it helps:
    chi_1 = sigma_w²·E φ'(z)² is the factor by which a layer multiplies the mean square of the gradient. At
    the critical point it is 1, and the variance of the signal is a fixed point at the same time, where He's
    argument looks at the signal alone.

When it does not help:
    Sigmoid, softplus and SELU have no such point without stating a bias variance, and are refused. The
    theory is of wide, plain layers: a network of width n wanders by about sqrt(5·depth/n)/2 nats around it
    whatever the point, and skip paths, norm layers and attention have another one. A half-stable point is
    left over depth: a variance below it falls towards zero. Different inputs still become alike, only more
    slowly than elsewhere.

What it costs:
    One forward and backward pass of a copy, to see what follows what; nothing per step.

References:
    Poole, Lahiri, Raghu, Sohl-Dickstein and Ganguli, "Exponential expressivity in deep neural networks
    through transient chaos" (NeurIPS 2016), section 2. Schoenholz, Gilmer, Ganguli and Sohl-Dickstein, "Deep
    Information Propagation" (ICLR 2017). Roberts, Yaida and Hanin, "The Principles of Deep Learning Theory"
    (2022), chapter 5, on half-stable points. See `unitygain.theory.critical`.
"""

import math

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._draw import biases_of, draw, find_activations, find_own_weights
from unitygain.remedies._snapshot import Undo, keep
from unitygain.theory.criticality import CriticalPoint, critical


@remedy(
    treats=("UG101", "UG102", "UG103", "UG104", "UG201", "UG202", "UG204", "UG205", "UG301"),
    changes="initial weights",
    instead_of=("rescale_weights",),
)
def critical_init(
    case: Case, *, sites: Select = None, bias_variance: float | None = None, seed: int = 0
) -> Undo:
    """Draw weights and biases at the critical point of the activation behind each map.

    Args:
        case: The case; its model's parameters are changed in place.
        sites: Which modules, as patterns of paths or a callable.
        bias_variance: sigma_b²; when left out 0 where that is critical, else the half-stable point's.
        seed: Seed of the draw.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If no chosen map has an activation behind it, or one of these has no critical point.

    Side effects:
        The chosen weights and biases, in place; a copy of them is kept for the undo.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.GELU())
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(2, 64)])
        >>> undo = critical_init(case)
        >>> round(64 * model[0].weight.square().mean().item(), 1)
        2.0
    """
    follows = find_activations(case)
    weights = [weight for weight in find_own_weights(case, sites) if weight.path in follows]
    if not weights:
        raise ValueError(f"no activation that theory knows follows the maps chosen by sites={sites!r}")
    points: dict[str, CriticalPoint] = {}
    for activation in {follows[weight.path] for weight in weights}:
        points[activation.name] = critical(activation, bias_variance)
    biases = [(bias, points[follows[w.path].name].sigma_b2) for w in weights for bias in biases_of([w])]
    undo = keep([*(weight.parameter for weight in weights), *(bias for bias, _ in biases)])
    gains = {id(w.parameter): math.sqrt(points[follows[w.path].name].sigma_w2) for w in weights}
    draw(weights, gains, "normal", seed)
    source = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for bias, variance in biases:
            bias.copy_(math.sqrt(variance) * torch.randn(bias.shape, generator=source))
    return undo
