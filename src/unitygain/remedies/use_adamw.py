"""use_adamw: train with AdamW in the place of SGD, or of Adam whose weight decay is in its gradient.

AdamW divides the gradient of every entry by its own size, so that layers whose gradients differ by powers of
ten take steps of the same length, and shrinks the weights beside that step.

What it changes:
    The optimizer. The groups stay, with the ratios of their learning rates. In the place of SGD the decay per
    step stays, with what momentum built up of it. In the place of Adam, Adamax, NAdam, RAdam and RMSprop the
    rate, the betas, eps and the number of the decay stay (RMSprop's momentum becomes the first beta, and what
    it builds up goes into the rate; centring is left). Running means begin anew. The old optimizer is kept
    and untouched.

Why it helps:
    A step of SGD is proportional to the gradient: where depth takes 60 dB from it, the first layers move a
    thousandth of what the last ones do. The first step of Adam is the learning rate in every entry, whatever
    the gradient. That holds for a decay in the gradient too: where it outweighs the loss (UG609), every
    weight goes towards zero by the whole learning rate per step. Beside the step the same decay takes the
    rate times itself, 0.0005 for 0.5 at 1e-3.

When it does not help:
    The division makes steps equal and brings no information back: a gradient that is mostly rounding, or the
    same for all inputs, is then followed at full length. Scale-freedom ends at eps: below about 1e-8 the step
    shrinks with the gradient again, and below the smallest number of the dtype there is none (UG503). Growth
    over depth in the forward pass stays. Where SGD trains well it often ends lower. A decay of SGD that
    outweighs the gradient takes as much beside the step: lower_weight_decay. A small decay that Adam divided
    by small gradients all but goes away: where it was wanted, tune it again.

What it costs:
    In the place of SGD two numbers per parameter, and the tuning of another learning rate; else nothing.

References:
    Kingma and Ba, "Adam" (ICLR 2015), section 2.1, on the size of the step. Loshchilov and Hutter, "Decoupled
    Weight Decay Regularization" (ICLR 2019), algorithm 2 and propositions 1 and 2.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo

# Optimizers that add their decay to the gradient and divide the sum by its own size.
DIVIDES = {"Adam", "Adamax", "NAdam", "RAdam", "RMSprop"}
SAME = ("betas", "amsgrad", "maximize")


@remedy(
    treats=("UG101", "UG602", "UG609"),
    changes="optimizer",
    instead_of=("lower_learning_rate", "rescale_weights", "lower_weight_decay"),
)
def use_adamw(case: Case, *, rate: float | None = None, eps: float | None = None) -> Undo:
    """Put AdamW over the same groups in the place of the case's SGD, or of its Adam with weight decay.

    Args:
        case: The case; it declares SGD, or Adam, Adamax, NAdam, RAdam or RMSprop with weight decay, as an
            instance or a factory.
        rate: Learning rate of the first group; the others keep their ratio to it. When left out it is 1e-3
            in the place of SGD, and in the place of the others what it was.
        eps: Gradients far below it take no equal steps any more. When left out it is what it was, and 1e-8
            in the place of SGD.

    Returns:
        What gives the case its own optimizer back, with its state.

    Raises:
        ValueError: If `rate` or `eps` is no positive number, the case declares no optimizer, or its optimizer
            is another one, has no weight decay to take out of the gradient, or has it beside the step.

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
    for name, value in (("rate", rate), ("eps", eps)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(
                f"{name} is {value}; give a positive number, such as 1e-3 for rate, 1e-8 for eps"
            )
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


def _adamw(optimizer: torch.optim.Optimizer, rate: float | None, eps: float | None) -> torch.optim.AdamW:
    """Return AdamW over the groups of an optimizer."""
    plain = isinstance(optimizer, torch.optim.SGD)
    if not plain:
        _require_coupled(optimizer)
    groups = [dict(group) for group in optimizer.param_groups]
    start = (1e-3 if plain else _length(groups[0])) if rate is None else rate
    first = _length(groups[0])
    made = []
    for group in groups:
        own = start * _length(group) / first if first else start
        decay = float(group["weight_decay"])
        if plain:
            decay = _built_up(group) * float(group["lr"]) * decay / own if own else 0.0
        new = {
            "params": group["params"],
            "lr": own,
            "weight_decay": decay,
            "eps": eps or group.get("eps", 1e-8),
        }
        made.append(new | _averages(group))
    return torch.optim.AdamW(made, lr=start, weight_decay=0.0)


def _require_coupled(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer in whose place AdamW is no remedy, with the reason."""
    name, groups = type(optimizer).__name__, optimizer.param_groups
    if name == "AdamW" or any(group.get("decoupled_weight_decay") for group in groups):
        raise ValueError(
            f"the weight decay of {name} stands beside the step already; lower_weight_decay changes it"
        )
    if name not in DIVIDES:
        raise ValueError(
            f"the optimizer is {name}; AdamW goes in the place of SGD, and of Adam, Adamax, NAdam, RAdam and "
            "RMSprop where they have a weight decay"
        )
    if not any(group.get("weight_decay") for group in groups):
        raise ValueError(
            f"the optimizer is {name}, not SGD, whose step is as small as the gradient, and it has no weight "
            "decay to be taken out of the gradient"
        )


def _averages(group: Mapping[str, Any]) -> dict[str, Any]:
    """What AdamW keeps of an optimizer of its family; RMSprop is one whose means are not corrected."""
    kept = {name: group[name] for name in SAME if name in group}
    return kept | ({"betas": (float(group["momentum"]), float(group["alpha"]))} if "alpha" in group else {})


def _length(group: Mapping[str, Any]) -> float:
    """The learning rate of a group, with what RMSprop's momentum makes of steps that stay."""
    return float(group["lr"]) * (_built_up(group) if "alpha" in group else 1.0)


def _built_up(group: Mapping[str, Any]) -> float:
    """What momentum makes of a gradient that stays, such as that of SGD's weight decay."""
    momentum = float(group["momentum"])
    return (1 - float(group.get("dampening", 0.0))) / (1 - momentum) if 0 < momentum < 1 else 1.0
