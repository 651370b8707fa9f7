"""How fast weight decay shrinks weights: steps to a spectral radius, and what an optimizer really does."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unitygain.stats import absmax, rms
from unitygain.theory import steps_to_radius

# What shrinks the weight by η·λ besides its step, whatever its groups say.
_BESIDE = {"AdamW", "Adafactor", "AdamWScheduleFree", "Lion", "Muon"}
_AS_IT_IS = {"SGD", "ASGD"}
_BY_ITS_SIZE = {"Adagrad", "Adam", "Adamax", "NAdam", "RAdam", "RMSprop"}


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
        coupled: Whether λθ is added to the gradient, so that what becomes of the sum becomes of it.
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

    Coupled decay adds λθ to the gradient. `torch.optim.Adam(weight_decay=...)` divides the sum by √v: a
    weight with large gradients decays less than one with small ones, and none by η·λ. The effective decay is
    the component of that step along the weight, η·λ·Σθ²/(√v̂ + ε) over Σθ², at the v of now; a clip that
    cuts every gradient to a hundredth makes √v small, and this decay up to a hundred times larger.
    `torch.optim.SGD` divides by nothing: its decay is η·λ, over 1 - μ with momentum μ. AdamW, decoupled,
    decays by η·λ.

    A clip stands between backward and step and so never cuts λθ, which the optimizer adds later. A loss or
    a loop that adds λθ to the gradient by itself is not seen here: `added_decay` finds it, and what the
    clip leaves of it.

    Cost: two passes over the weights. Reads only; waits for the device.

    Args:
        optimizer: SGD, ASGD, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam or RMSprop of torch, or one with
            Adam's state.

    Returns:
        One entry for each parameter with a weight decay above 0. The effective decay is NaN before the
        first step of an optimizer that divides, and where what it does is not known; `why` says which.

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


def follow(optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: Tensor) -> tuple[float, str]:
    """Return what a step takes of a weight θ for λθ in its gradient, over η·λ, and why, in words.

    Momentum has built up. NaN before the first step of an optimizer that divides, and where it is not known.
    """
    name, kinds = type(optimizer).__name__, {kind.__name__ for kind in type(optimizer).__mro__}
    if kinds & _AS_IT_IS:
        momentum = float(group.get("momentum", 0))
        built_up = (1 - float(group.get("dampening", 0))) / (1 - momentum) if 0 < momentum < 1 else 1.0
        why = f"{name} divides it by nothing, whatever the clip did to the gradient"
        return built_up, why + (f", and momentum makes it {built_up:.3g} times as much" if momentum else "")
    weight, state = parameter.detach(), optimizer.state.get(parameter, {})
    divisor = _divisor(state, group, kinds)
    divides = f"{name} divides it by the size of the gradient"
    if divisor is None:
        unknown = f"what {name} makes of it is not known here"
        return math.nan, f"{divides}, and has taken no step" if kinds & _BY_ITS_SIZE else unknown
    shrunk = float((rms(weight.abs() / divisor.sqrt()) / rms(weight)) ** 2)
    return shrunk, f"{divides}; AdamW takes η·λ"


def _decay(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: Tensor, place: tuple[int, int]
) -> Decay:
    declared = float(group["lr"]) * float(group["weight_decay"])
    name = type(optimizer).__name__
    if group.get("decoupled_weight_decay") or name in _BESIDE:
        return Decay(place, declared, declared, False, f"{name} multiplies the weight by 1 - η·λ")
    kept, why = follow(optimizer, group, parameter)
    return Decay(place, declared, declared * kept, True, f"λθ is added to the gradient: {why}")


def _divisor(state: dict[str, Any], group: dict[str, Any], kinds: set[str]) -> Tensor | None:
    """Return what the optimizer divides every entry of the gradient by; None where it has none yet."""
    step = float(state.get("step", 0))
    if "exp_avg_sq" in state and "betas" in group:
        mean = state.get("max_exp_avg_sq", state["exp_avg_sq"]) / (1 - group["betas"][1] ** step)
        root = mean.sqrt() + group["eps"]
        return _rectified(root, step, group["betas"][1]) if "RAdam" in kinds else root
    if "RMSprop" in kinds and "square_avg" in state:
        centre = state["grad_avg"].square() if "grad_avg" in state else 0.0
        return ((state["square_avg"] - centre).sqrt() + group["eps"]) * (1 - group["momentum"])
    if "Adagrad" in kinds and step:
        return (state["sum"].sqrt() + group["eps"]) * (1 + (step - 1) * group["lr_decay"])
    if "Adamax" in kinds and "exp_inf" in state:
        return state["exp_inf"]
    return None


def _rectified(root: Tensor, step: float, beta: float) -> Tensor:
    """Divide by RAdam's factor; in its first steps, of too short a mean, it divides by nothing."""
    limit = 2 / (1 - beta) - 1
    length = limit - 2 * step * beta**step / (1 - beta**step)
    if length <= 5:
        return torch.ones_like(root)
    return root / math.sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length))
