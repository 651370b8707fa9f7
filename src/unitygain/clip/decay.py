"""How fast weight decay shrinks weights: steps to a spectral radius, and what an optimizer really does."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unitygain.stats import absmax, rms
from unitygain.theory import steps_to_radius

# Where the optimizers of torch keep the mean of squared gradients that they divide by.
_SECOND_MOMENTS = ("exp_avg_sq", "square_avg")


def steps_to_spectral_radius(
    weight: Tensor, learning_rate: float, weight_decay: float, target: float = 1.0
) -> int:
    """Return after how many steps of decay alone the spectral radius of `weight` is at or below `target`.

    An upper bound of patience: the gradient may help or hinder. The decay is decoupled, or that of plain
    SGD; for another optimizer see `effective_decay`.

    Cost: the eigenvalues of the weight, n³.

    Args:
        weight: A square matrix, such as a recurrent weight; of a rectangular one cap the norm instead.
        learning_rate: η.
        weight_decay: λ.
        target: Spectral radius to come down to.

    Raises:
        ValueError: If the weight is not square or not finite, or nothing decays.

    Example:
        >>> import torch
        >>> steps_to_spectral_radius(1.2 * torch.eye(3), learning_rate=0.1, weight_decay=0.1)
        19

    References:
        W ← (1 - ηλ)·W: Loshchilov and Hutter, Decoupled weight decay regularization, 2019, eq. 1.
    """
    if weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}; a spectral radius needs a square matrix, "
            "spectral_cap bounds the norm of any other"
        )
    size = float(absmax(weight))
    if not 0 < size < float("inf"):
        raise ValueError(f"the largest entry of weight is {size:g}; give a finite weight that is not zero")
    radius = size * float(absmax(torch.linalg.eigvals(weight.detach().double() / size)))
    return steps_to_radius(radius, target, learning_rate, weight_decay) if radius > 0 else 0


@dataclass(frozen=True)
class Decay:
    """What weight decay does to one parameter.

    Args:
        place: Number of the parameter group, and of the parameter in it.
        declared: η·λ, the fraction of the weight that is said to go at every step.
        effective: The fraction that does go, from the optimizer's state now; NaN before the first step.
        coupled: Whether λθ is added to the gradient and then rescaled with it.
        why: A sentence.
    """

    place: tuple[int, int]
    declared: float
    effective: float
    coupled: bool
    why: str

    def __str__(self) -> str:
        group, number = self.place
        kind = "coupled" if self.coupled else "decoupled"
        return (
            f"parameter {number} of group {group}: {kind}, {self.effective:.3g} per step "
            f"where {self.declared:.3g} is declared; {self.why}"
        )


def effective_decay(optimizer: torch.optim.Optimizer) -> tuple[Decay, ...]:
    """Return what the weight decay of an optimizer really does, for every parameter that it decays.

    `torch.optim.Adam(weight_decay=...)` adds λθ to the gradient and divides the sum by √v: a weight with
    large gradients decays less than one with small ones, and none by η·λ. The effective decay is the
    component of that step along the weight, η·λ·Σθ²/(√v̂ + ε) over Σθ², at the v of now. AdamW decays by
    η·λ. SGD adds λθ as well, but divides by nothing: its decay is η·λ, over 1 - μ with momentum μ.

    A clip stands between backward and step and so never cuts λθ, which the optimizer adds later. A loop
    that adds λθ to the gradient by itself and then clips cuts the decay by the clip's coefficient.

    Cost: two passes over the weights. Reads only; waits for the device.

    Args:
        optimizer: SGD, Adam, AdamW, NAdam, RAdam or RMSprop of torch, or one with the same state.

    Returns:
        One entry for each parameter with a weight decay above 0.

    Example:
        >>> import torch
        >>> w = torch.ones(2, requires_grad=True)
        >>> adam = torch.optim.Adam([w], lr=0.1, weight_decay=0.01)
        >>> w.grad = torch.full((2,), 99.99)
        >>> adam.step()
        >>> (found,) = effective_decay(adam)
        >>> found.coupled, round(found.declared / found.effective)
        (True, 100)

    References:
        Loshchilov and Hutter, Decoupled weight decay regularization, 2019, proposition 2.
    """
    return tuple(
        _decay(optimizer, group, parameter, (number, place))
        for number, group in enumerate(optimizer.param_groups)
        for place, parameter in enumerate(group["params"])
        if group.get("weight_decay", 0) > 0
    )


def _decay(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: nn.Parameter, place: tuple[int, int]
) -> Decay:
    declared = float(group["lr"]) * float(group["weight_decay"])
    name = type(optimizer).__name__
    if group.get("decoupled_weight_decay") or name in {"AdamW", "Muon", "Adafactor"}:
        return Decay(place, declared, declared, False, f"{name} multiplies the weight by 1 - η·λ")
    if name == "SGD":
        momentum = float(group.get("momentum", 0)) if not group.get("dampening") else 0.0
        effective = declared / (1 - momentum)
        why = "SGD adds λθ to the gradient, which is the same" + (" over 1 - momentum" if momentum else "")
        return Decay(place, declared, effective, False, why)
    shrunk = _component(optimizer.state.get(parameter, {}), group, parameter)
    why = f"{name} divides λθ by the root of the mean squared gradient; for η·λ use its decoupled form"
    return Decay(place, declared, declared * shrunk, True, why)


def _component(state: dict[str, Any], group: dict[str, Any], parameter: nn.Parameter) -> float:
    """Return Σθ²/(√v̂ + ε) over Σθ²; NaN where there is no second moment yet."""
    moment = next((state[key] for key in _SECOND_MOMENTS if key in state), None)
    if moment is None:
        return float("nan")
    if "betas" in group:
        moment = moment / (1 - group["betas"][1] ** float(state["step"]))
    weight = parameter.detach()
    divided = weight.abs() / (moment.sqrt() + group["eps"]).sqrt()
    return float((rms(divided) / rms(weight)) ** 2)
