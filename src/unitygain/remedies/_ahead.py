"""The parts that put a norm in front of a branch: they travel with copies and pickles of a model."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain.probe.wiring import Where


class NormAhead(nn.Module):
    """Stands where a norm stood, hands the sum on as it is, and holds the norm for the branch.

    Args:
        norm: The norm, which is applied to what the branch reads.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.held = norm

    def forward(self, total: Tensor) -> Tensor:
        """Return `total`."""
        return total

    def __getattr__(self, name: str) -> Any:
        """Let the user's code read the norm's own attributes, such as its weight."""
        return read_through(self, "held", name)


class Closed(nn.Module):
    """The last block of a stream, and the norm that what leaves it needs.

    Args:
        norm: The last norm.
        block: The block; all of its arguments are handed on.
    """

    def __init__(self, norm: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.held = norm
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the block returns, its first floating tensor normalised."""
        output = self.block(*args, **kwargs)
        leaves, spec = pytree.tree_flatten(output)
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                leaves[place] = self.held(leaf)
                break
        return pytree.tree_unflatten(leaves, spec)

    def __getattr__(self, name: str) -> Any:
        """Let the model read the block's own attributes."""
        return read_through(self, "block", name)


class ReadNormed:
    """A hook: a module of the branch reads the normalised stream.

    Args:
        ahead: Holds the norm.
        where: Which arguments are the stream.
    """

    def __init__(self, ahead: NormAhead, where: tuple[Where, ...]) -> None:
        self.ahead = ahead
        self.where = where

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments with the stream normalised, one tensor once."""
        done: dict[int, Tensor] = {}
        given: dict[Where, Any] = {**dict(enumerate(args)), **kwargs}
        for place in self.where:
            value = given.get(place)
            if isinstance(value, Tensor):
                if id(value) not in done:
                    done[id(value)] = self.ahead.held(value)
                given[place] = done[id(value)]
        return tuple(given[index] for index in range(len(args))), {name: given[name] for name in kwargs}


def read_through(outer: nn.Module, name_of_inner: str, name: str) -> Any:
    """Return an attribute of `outer`, or else of the module that it holds."""
    try:
        return nn.Module.__getattr__(outer, name)
    except AttributeError:
        inner = outer.__dict__.get("_modules", {}).get(name_of_inner)
        if inner is None:
            raise
        return getattr(inner, name)


def fresh_norm(norm: nn.Module) -> nn.Module:
    """Return a new norm of the same kind and size, with unit scale and no shift."""
    new = copy.deepcopy(norm)
    for hooks in (new._forward_hooks, new._forward_pre_hooks):
        hooks.clear()
    reset = getattr(new, "reset_parameters", None)
    if callable(reset):
        reset()
        return new
    with torch.no_grad():
        for name, parameter in new.named_parameters():
            if name in {"weight", "bias"}:
                parameter.fill_(1.0 if name == "weight" else 0.0)
    return new
