"""use_adamw: train with AdamW in the place of SGD.

AdamW divides the gradient of every entry by its own size, so that layers whose gradients differ by powers of
ten take steps of the same length.

What it changes:
    The optimizer. The groups stay, with the ratios of their learning rates and with the decay per step that
    they had, with what momentum built up of it. The old optimizer is kept and untouched.

Why it helps:
    A step of SGD is proportional to the gradient: where depth takes 60 dB from it, the first layers move a
    thousandth of what the last ones do. The first step of Adam is the learning rate in every entry, whatever
    the gradient.

When it does not help:
    The division makes steps equal and brings no information back: a gradient that is mostly rounding, or the
    same for all inputs, is then followed at full length. Scale-freedom ends at eps: below about 1e-8 the step
    shrinks with the gradient again, and below the smallest number of the dtype there is none (UG503). Growth
    over depth in the forward pass stays. Where SGD trains well it often ends lower.

What it costs:
    Two numbers per parameter, and the tuning of another learning rate.

References:
    Kingma and Ba, "Adam" (ICLR 2015), section 2.1, on the size of the step. Loshchilov and Hutter, "Decoupled
    Weight Decay Regularization" (ICLR 2019), algorithm 2.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG101", "UG602"), changes="optimizer", instead_of=("lower_learning_rate", "rescale_weights"))
def use_adamw(case: Case, *, rate: float = 1e-3, eps: float = 1e-8) -> Undo:
    """Put AdamW over the same groups in the place of the case's SGD.

    Args:
        case: The case; it declares SGD, as an instance or a factory.
        rate: Learning rate of the first group; the others keep their ratio to it.
        eps: Gradients far below it take no equal steps any more.

    Returns:
        What gives the case its own optimizer back, with its state.

    Raises:
        ValueError: If `rate` or `eps` is no positive number, the case declares no optimizer, or its
            optimizer is another one than SGD.

    Side effects:
        ``case.optimizer``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        >>> case = Case(layer, loss=lambda m, x: m(x).sum(), data=[], optimizer=optimizer)
        >>> undo = use_adamw(case)
        >>> type(case.optimizer).__name__
        'AdamW'
        >>> undo()
        >>> case.optimizer is optimizer
        True
    """
    if not (0 < rate < math.inf and 0 < eps < math.inf):
        raise ValueError(f"rate is {rate} and eps {eps}; give positive numbers, such as 1e-3 and 1e-8")
    given = case.optimizer
    if given is None:
        raise ValueError("the case declares no optimizer; pass optimizer= to put AdamW in its place")

    def build(parameters: Any) -> torch.optim.Optimizer:
        return _adamw(given(parameters), rate, eps)

    built = given if isinstance(given, torch.optim.Optimizer) else given(case.model.parameters())
    replaced = _adamw(built, rate, eps)
    case.optimizer = replaced if built is given else build

    def undo() -> None:
        case.optimizer = given

    return undo


def _adamw(optimizer: torch.optim.Optimizer, rate: float, eps: float) -> torch.optim.AdamW:
    """Return AdamW over the groups of an SGD, with the same decay per step."""
    if not isinstance(optimizer, torch.optim.SGD):
        raise ValueError(
            f"the optimizer is {type(optimizer).__name__}, not SGD, whose step is as small as the gradient"
        )
    first = float(optimizer.param_groups[0]["lr"])
    groups = []
    for group in optimizer.param_groups:
        own = rate * float(group["lr"]) / first if first else rate
        decay = _built_up(group) * float(group["lr"]) * float(group["weight_decay"]) / own if own else 0.0
        groups.append({"params": group["params"], "lr": own, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=rate, eps=eps, weight_decay=0.0)


def _built_up(group: Mapping[str, Any]) -> float:
    """What SGD's momentum makes of a gradient that stays, such as that of its weight decay."""
    momentum = float(group["momentum"])
    return (1 - float(group["dampening"])) / (1 - momentum) if 0 < momentum < 1 else 1.0
