"""New parameters must train: an optimizer that is an instance is given them, and forgets them on undo."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from unitygain._case import Case
from unitygain.remedies._snapshot import Undo


def hold(case: Case, parameters: Iterable[nn.Parameter], like: nn.Parameter | None = None) -> Undo:
    """Let the optimizer of a case hold new parameters; a factory is handed them by itself, later.

    Args:
        case: The case; an optimizer instance gets one more group. LBFGS, which looks at its first group
            alone, gets them there, and begins its history anew.
        parameters: The new parameters; those that it holds already are left out.
        like: A parameter whose group lends its settings (rate, weight decay); else the first group does.

    Returns:
        What takes the group and its state away again.
    """
    optimizer = case.optimizer
    if not isinstance(optimizer, torch.optim.Optimizer):
        return _nothing
    groups = optimizer.param_groups
    held = {id(parameter) for group in groups for parameter in group["params"]}
    new = [parameter for parameter in parameters if id(parameter) not in held]
    if not new:
        return _nothing
    if isinstance(optimizer, torch.optim.LBFGS):
        return _join(optimizer, new)
    mine = next((group for group in groups if any(p is like for p in group["params"])), groups[0])
    settings = {name: copy.deepcopy(value) for name, value in mine.items() if name != "params"}
    settings.pop("param_names", None)
    if "param_names" in mine:
        settings["params"] = [(f"added.{len(groups)}.{index}", p) for index, p in enumerate(new)]
    else:
        settings["params"] = new
    optimizer.add_param_group(settings)
    added = groups[-1]

    def undo() -> None:
        groups[:] = [group for group in groups if group is not added]
        for parameter in new:
            optimizer.state.pop(parameter, None)

    return undo


def _join(optimizer: torch.optim.LBFGS, new: list[nn.Parameter]) -> Undo:
    """Put parameters into the one group of LBFGS, whose history is of vectors of another length."""
    params, state = optimizer.param_groups[0]["params"], dict(optimizer.state)

    def begin(remembered: dict[Any, Any]) -> None:
        optimizer._numel_cache = None
        optimizer.state.clear()
        optimizer.state.update(remembered)

    def undo() -> None:
        added = set(map(id, new))
        params[:] = [parameter for parameter in params if id(parameter) not in added]
        begin(state)

    params.extend(new)
    begin({})
    return undo


def _nothing() -> None:
    """Undo nothing."""
