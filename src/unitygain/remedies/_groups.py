"""Multiplies numbers of an optimizer's groups, in an optimizer that is there or in what a factory builds."""

from typing import Any

import torch

from unitygain._case import Case
from unitygain.remedies._snapshot import Undo


def scale_groups(case: Case, names: tuple[str, ...], factor: float) -> Undo:
    """Multiply the options of these names in every group that has them; return what puts them back.

    Args:
        case: The case; an optimizer instance is changed in place, a factory is wrapped.
        names: Of the options, such as ``"lr"``.
        factor: What they are multiplied by.

    Raises:
        ValueError: If the case declares no optimizer.
    """
    given = case.optimizer
    if given is None:
        raise ValueError(f"the case declares no optimizer; pass optimizer=, whose {names[0]} is to change")
    if isinstance(given, torch.optim.Optimizer):
        return _scale(given, names, factor)

    def scaled(parameters: Any) -> torch.optim.Optimizer:
        optimizer = given(parameters)
        _scale(optimizer, names, factor)
        return optimizer

    def undo() -> None:
        case.optimizer = given

    case.optimizer = scaled
    return undo


def _scale(optimizer: torch.optim.Optimizer, names: tuple[str, ...], factor: float) -> Undo:
    before = [{name: group[name] for name in names if name in group} for group in optimizer.param_groups]
    for group, options in zip(optimizer.param_groups, before, strict=True):
        group.update({name: value * factor for name, value in options.items()})

    def undo() -> None:
        for group, options in zip(optimizer.param_groups, before, strict=True):
            group.update(options)

    return undo
