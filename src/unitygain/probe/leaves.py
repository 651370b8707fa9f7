"""The tensors among a module's arguments and outputs, and those that are lifted to require a gradient."""

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def observable(value: Any) -> bool:
    """Whether `value` is a tensor that can have a gradient."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def lifted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Replace floating tensors that need no gradient by copies that do."""

    def lift(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point() and not value.requires_grad:
            return lift_one(value)
        return value

    return pytree.tree_map(lift, (args, kwargs))


def lift_one(value: Tensor) -> Tensor:
    """Return a copy of a tensor that requires a gradient."""
    # A clone of the leaf, so that the model may still write into its input.
    return value.detach().clone().requires_grad_().clone()


def unwrap(output: Any) -> Any:
    """Open what pytree does not know: dataclasses and objects with the mapping interface of outputs."""
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
    mapping: Any = output
    return dict(mapping) if hasattr(output, "keys") and hasattr(output, "__getitem__") else output


def in_backward() -> bool:
    """Whether autograd is running: a checkpoint's recomputation calls the same modules again."""
    task = getattr(torch._C, "_current_graph_task_id", None)
    return task is not None and task() != -1
