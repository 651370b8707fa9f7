"""The tensors between the blocks of a trunk, taken from a forward pass as live points of its graph."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils import _pytree as pytree

from unitygain._types import Site
from unitygain.probe.hooks import Hooks
from unitygain.probe.leaves import in_backward, lift_one, lifted, observable, unwrap
from unitygain.probe.passes import leading_to
from unitygain.probe.record import Record

Move = Callable[[Tensor], Tensor] | None
Call = tuple[str, int]


class Junction:
    """A tensor of a live graph as it is now: what is done to it in place later does not matter.

    Args:
        tensor: A real floating tensor that requires a gradient.

    Raises:
        ValueError: If it requires no gradient or is complex.

    Side effects:
        Holds the graph, and a copy of the tensor, while it lives.
    """

    def __init__(self, tensor: Tensor) -> None:
        if not tensor.requires_grad:
            raise ValueError("the tensor requires no gradient, so nothing can be differentiated there")
        if tensor.is_complex():
            raise ValueError(f"the tensor has dtype {tensor.dtype}; only real Jacobians are computed")
        self.shape = tuple(tensor.shape)
        self.size = tensor.numel()
        self.dtype = tensor.dtype
        self.device = tensor.device
        self.edge = get_gradient_edge(tensor)
        with torch.enable_grad():
            self.copy = tensor.clone()

    def depends_on(self, other: "Junction") -> bool:
        """Whether a path of the graph leads from here back to `other`."""
        goal = other.edge.node
        # A node is younger than those it leads to; leaves have no age and are looked for everywhere.
        oldest = 0 if goal.name().endswith("AccumulateGrad") else goal._sequence_nr()
        return any(node is goal for node in leading_to([self.edge.node], oldest))


def junction_of(tensor: Tensor | None) -> Junction | None:
    """Return the tensor as a point of the graph; None where nothing can be differentiated there."""
    if tensor is None or not tensor.requires_grad or tensor.is_complex() or not tensor.ndim:
        return None
    return Junction(tensor)


class Junctions:
    """Takes the junctions of a trunk, and its model's anchor, as a forward pass goes by.

    Args:
        model: The model.
        record: Its record, which names the blocks.
        move: Replaces the anchor (see `Trace`) by another tensor of its shape.
    """

    def __init__(self, model: nn.Module, record: Record, move: Move) -> None:
        self._model = model
        self._blocks = record.blocks
        self._end = record.end
        self._move = move
        self._calls: Counter[str] = Counter()
        self._wanted = {_call(site): site for site in (*record.blocks, *filter(None, [record.end]))}
        self._entries: dict[Site, Junction] = {}
        self._exit: Junction | None = None
        self._gaps: dict[Site, str] = {}
        self.anchor: tuple[Site, Junction] | None = None
        self._held: dict[tuple[int, int], tuple[Tensor, Junction]] = {}

    def watch(self, hooks: Hooks) -> None:
        """Set hooks on the model and on the modules that are wanted."""
        modules = dict(self._model.named_modules())
        for path in dict.fromkeys(["", *(path for path, _ in self._wanted)]):
            hooks.on_call(modules[path], self._before(path), self._after(path))

    def pairs(self) -> tuple[list[tuple[Site, Junction, Junction]], dict[Site, str]]:
        """Return each block with what enters it and what enters its follower, and why blocks are missing."""
        followers = (*self._blocks[1:], self._end)
        blocks = []
        for site, follower in zip(self._blocks, followers, strict=True) if self._blocks else ():
            entry = self._entries.get(site)
            leaves = self._entries.get(follower) if follower else self._exit
            if entry is None or leaves is None:
                reasons = (self._gaps.get(s) for s in (site, follower) if s is not None)
                self._gaps[site] = next(filter(None, reasons), "no tensor with a gradient leaves it")
            elif not leaves.depends_on(entry):
                self._gaps[site] = "what enters the next block does not depend on it through the graph"
            else:
                blocks.append((site, entry, leaves))
        return blocks, {site: self._gaps[site] for site in self._blocks if site in self._gaps}

    def _before(self, path: str) -> Callable[..., Any]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if in_backward():
                return None
            self._calls[path] += 1
            replaced = None
            if not path and self._calls[path] == 1 and torch.is_grad_enabled():
                args, kwargs = replaced = self._take_input(*lifted(args, kwargs))
            site = self._wanted.get((path, self._calls[path]))
            return replaced if site is None else self._take_entry(site, args, kwargs)

        return enter

    def _take_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first = first_floating((args, kwargs))
        if first is None or first.is_complex():
            return args, kwargs
        return self._anchored(Site("", leaf="(input 0)"), first, args, kwargs)

    def _take_entry(self, site: Site, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first = first_floating((args, kwargs))
        if first is None or first.is_complex() or not torch.is_grad_enabled():
            self._gaps[site] = _why_not(first)
            return args, kwargs
        if self.anchor is None:
            args, kwargs = self._anchored(site, first, args, kwargs)
            first = first_floating((args, kwargs))
            assert first is not None
        entry = first if first.requires_grad else lift_one(first)
        self._entries[site] = self._junction(entry)
        return _replace((args, kwargs), first, entry)

    def _anchored(self, site: Site, first: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make `first` the anchor: moved if asked, and requiring a gradient."""
        anchor = first
        if self._move is not None:
            moved = self._move(first.detach())
            # A loss may differentiate by its own input, which must stay in the graph.
            anchor = first + (moved - first.detach()) if first.requires_grad else lift_one(moved)
        elif not first.requires_grad:
            anchor = lift_one(first)
        self.anchor = (site, self._junction(anchor))
        return _replace((args, kwargs), first, anchor)

    def _after(self, path: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if in_backward() or self._end is not None or not self._blocks:
                return
            if (path, self._calls[path]) == _call(self._blocks[-1]):
                first = first_floating(unwrap(output))
                if first is not None and first.requires_grad and not first.is_complex():
                    self._exit = self._junction(first)
                else:
                    self._gaps.setdefault(self._blocks[-1], _why_not(first))

        return leave

    def _junction(self, tensor: Tensor) -> Junction:
        """One junction per tensor, so that what leaves a block is what enters the next."""
        key = (id(tensor), tensor._version)
        if key not in self._held:
            # Held, so that its id is not given to another tensor.
            self._held[key] = (tensor, Junction(tensor))
        return self._held[key][1]


def _call(site: Site) -> Call:
    return site.path, site.call or 1


def first_floating(tree: Any) -> Tensor | None:
    """Return the first tensor among nested arguments that can have a gradient."""
    return next(filter(observable, pytree.tree_leaves(tree)), None)


def _replace(tree: Any, old: Tensor, new: Tensor) -> Any:
    return tree if old is new else pytree.tree_map(lambda value: new if value is old else value, tree)


def _why_not(tensor: Tensor | None) -> str:
    if tensor is None:
        return "no floating tensor passes there"
    if tensor.is_complex():
        return "it works on complex numbers"
    if not torch.is_grad_enabled():
        return (
            "it runs without a graph: under no_grad, or under checkpointing with use_reentrant=True; "
            "use_reentrant=False gives it one"
        )
    return "what leaves it requires no gradient"
