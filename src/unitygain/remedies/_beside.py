"""The parts that let a signal pass beside a block: they travel with copies and pickles of a model."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain.remedies._ahead import read_through


def first_tensor(tree: Any) -> Tensor | None:
    """Return the first floating tensor among nested values."""
    leaves = pytree.tree_leaves(tree)
    return next((x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()), None)


def replace_first(tree: Any, new: Tensor) -> Any:
    """Return nested values with the first floating tensor replaced."""
    old = first_tensor(tree)
    return pytree.tree_map(lambda value: new if value is old else value, tree)


class AddInput:
    """A hook: what a block returns is what enters it plus a share of what it made.

    Args:
        scale: The share.
    """

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Return the output with its first tensor replaced by the sum."""
        entered, made = first_tensor((args, kwargs)), first_tensor(output)
        if entered is None or made is None or entered.shape != made.shape:
            return output
        return replace_first(output, entered + self.scale * made)


class Stream:
    """What entered the block before, held until the next one begins; copies begin without it."""

    def __init__(self) -> None:
        self.held: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tensor of a running pass behind."""
        return {"held": None}


class AddBefore:
    """A hook: what enters a layer of a chain is what entered the one before plus a share of what it made.

    Args:
        stream: Shared by the layers of the chain.
        scale: The share; None where nothing is added, at the first layer.
        holds: Whether another layer follows.
    """

    def __init__(self, stream: Stream, scale: float | None, holds: bool) -> None:
        self.stream = stream
        self.scale = scale
        self.holds = holds

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments with the first tensor replaced by the sum."""
        entered, before = first_tensor((args, kwargs)), self.stream.held
        self.stream.held = None
        if entered is None:
            return args, kwargs
        total = entered
        if before is not None and self.scale is not None and before.shape == entered.shape:
            total = before + self.scale * entered
        if self.holds:
            self.stream.held = total
        return replace_first((args, kwargs), total)


class Gated(nn.Module):
    """A block behind a highway gate: t·f(x) + (1 - t)·x with t = sigmoid(gate(x)).

    Args:
        block: The block f; all arguments are handed on.
        gate: A map from x to one logit per entry.
    """

    def __init__(self, block: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the block returns, its first tensor mixed with what entered."""
        entered = first_tensor((args, kwargs))
        output = self.block(*args, **kwargs)
        made = first_tensor(output)
        if entered is None or made is None:
            return output
        opened = torch.sigmoid(self.gate(entered))
        return replace_first(output, entered + opened * (made - entered))

    def __getattr__(self, name: str) -> Any:
        """Let the model read the block's own attributes."""
        return read_through(self, "block", name)


class Concatenated(nn.Module):
    """A block whose branch is joined to its input by a projection of both: project([x, f(x)]).

    Args:
        block: The block; all arguments are handed on.
        project: A map from twice the features to the features.
        across: The dimension of the features.
        sums: Whether the block adds x itself, which is taken off again.
    """

    def __init__(self, block: nn.Module, project: nn.Module, across: int, sums: bool) -> None:
        super().__init__()
        self.project = project
        self.block = block
        self.across = across
        self.sums = sums

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the block returns, its first tensor projected together with what entered."""
        entered = first_tensor((args, kwargs))
        output = self.block(*args, **kwargs)
        made = first_tensor(output)
        if entered is None or made is None:
            return output
        branch = made - entered if self.sums else made
        return replace_first(output, self.project(torch.cat((entered, branch), self.across)))

    def __getattr__(self, name: str) -> Any:
        """Let the model read the block's own attributes."""
        return read_through(self, "block", name)


class Summed(nn.Module):
    """A sum in the place of a map of two tensors that stand side by side.

    Args:
        width: Of each.
        across: The dimension of the features.
        scales: What each is multiplied by.
    """

    def __init__(self, width: int, across: int, scales: tuple[float, float]) -> None:
        super().__init__()
        self.width = width
        self.across = across
        self.scales = scales

    def forward(self, both: Tensor) -> Tensor:
        """Return the sum."""
        one, other = both.split(self.width, self.across)
        return self.scales[0] * one + self.scales[1] * other


class Followed(nn.Module):
    """A linear map and what was put behind it, under the map's own path.

    Args:
        held: The map.
        behind: What is applied to what it returns.
    """

    def __init__(self, held: nn.Module, behind: nn.Module) -> None:
        super().__init__()
        self.held = held
        self.behind = behind

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the map's output behind the added module."""
        return self.behind(self.held(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        """Let the model read the map's own attributes, such as its weight."""
        return read_through(self, "held", name)
