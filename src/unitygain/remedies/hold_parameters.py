"""hold_parameters: give the optimizer the trainable parameters that it does not hold.

They join in a group of their own, so that every group that is there stays as it is.

What it changes:
    The optimizer, which gets one more group with those parameters and the options of its first group.

Why it helps:
    A step moves what the optimizer holds. Layers that were put in, replaced or unfrozen after it was built
    get a gradient at every backward pass and stay at their start.

When it does not help:
    Parameters that another optimizer holds, which the case does not declare (the other player of a game),
    would be moved by both. What was left out on purpose, as a fixed random projection, is better frozen. An
    optimizer over another model altogether (before a copy or a conversion) needs to be built again: its old
    parameters stay in it.

What it costs:
    The optimizer's state for the parameters, and their part of the step.

References:
    The behaviour of add_param_group is in PyTorch's documentation of torch.optim.Optimizer.
"""

import fnmatch
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG604",), changes="optimizer")
def hold_parameters(case: Case, *, names: str = "*") -> Undo:
    """Add the trainable parameters whose name matches `names` to the optimizer, in a group of their own.

    Args:
        case: The case; an optimizer instance is changed in place, a factory is wrapped.
        names: A parameter's name, or a pattern.

    Returns:
        What takes the group and its state out again.

    Raises:
        ValueError: If the case declares no optimizer, it holds all of them already, or it takes no further
            group.

    Side effects:
        ``case.optimizer``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        >>> optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[], optimizer=optimizer)
        >>> undo = hold_parameters(case)
        >>> [len(group["params"]) for group in optimizer.param_groups]
        [2, 2]
        >>> undo()
        >>> [len(group["params"]) for group in optimizer.param_groups]
        [2]
    """
    given = case.optimizer
    if given is None:
        raise ValueError("the case declares no optimizer; pass optimizer=, which is to hold the parameters")
    if isinstance(given, torch.optim.Optimizer):
        return _add(given, case.model, names)
    _add(given(case.model.parameters()), case.model, names)

    def build(parameters: Iterable[Any]) -> torch.optim.Optimizer:
        optimizer = given(parameters)
        _add(optimizer, case.model, names)
        return optimizer

    def undo() -> None:
        case.optimizer = given

    case.optimizer = build
    return undo


def _add(optimizer: torch.optim.Optimizer, model: nn.Module, names: str) -> Undo:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in held and fnmatch.fnmatchcase(name, names)
    ]
    if not missing:
        raise ValueError(f"the optimizer holds every trainable parameter that is named {names!r}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("LBFGS takes no further group; build it over all parameters")
    options = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    try:
        optimizer.add_param_group({**options, "params": missing})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{type(optimizer).__name__} takes no further group ({error}); build it over all parameters"
        ) from error
    added = optimizer.param_groups[-1]

    def undo() -> None:
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group is not added]
        for parameter in missing:
            optimizer.state.pop(parameter, None)

    return undo
