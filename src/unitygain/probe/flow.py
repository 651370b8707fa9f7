"""Gradient flow inside a block: what reaches every unit, what passes through it, and what goes past it."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._types import Site
from unitygain.probe.hooks import Hooks
from unitygain.probe.ledger import dtype_name
from unitygain.probe.record import Place, Record
from unitygain.probe.sites import Call, Trunk, holds_weight
from unitygain.probe.trail import Seen
from unitygain.stats import norm

STATISTICS = ("total", "through", "past", "out", "inlet")
MOST_NODES = 2000
Edge = tuple[Any, int]


@dataclass(eq=False)
class _Inlet:
    """A tensor that units of one block read: its gradient, and the part that comes through those units."""

    number: int
    edges: int = 0
    through: Tensor | None = None
    numbers: dict[str, Tensor] = field(default_factory=dict)

    def passed(self, gradient: Tensor | None) -> None:
        """Add what one unit hands back."""
        if gradient is not None:
            self.through = gradient if self.through is None else self.through + gradient

    def arrived(self, gradient: Tensor | None) -> None:
        """Take the sum of everything, once every reader has handed back its part."""
        if gradient is not None and self.through is not None and gradient.shape == self.through.shape:
            self.numbers = {"total": norm(gradient), "through": norm(self.through)}
            self.numbers["past"] = norm(gradient - self.through)
        self.through = None


@dataclass(eq=False)
class _Unit:
    call: Call
    block: Call
    kind: str
    inlet: _Inlet = field(default_factory=lambda: _Inlet(0))
    out: dict[str, Tensor] = field(default_factory=dict)


class Flow:
    """Follows the gradient through the units of every block: leaf modules, and attention as a whole.

    Units are found once the model has run. Hooks on the nodes of the autograd graph then tell the gradient
    that one reader of a tensor hands back from the sum over all its readers.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._inlets: dict[Call, tuple[Edge, int, str, tuple[int, ...]]] = {}
        self._outlets: dict[Call, Edge] = {}
        self._units: list[_Unit] = []

    def entered(self, call: Call, tensor: Tensor) -> None:
        """Note the tensor that enters a module call."""
        if tensor.grad_fn is not None:
            edge = (tensor.grad_fn, tensor.output_nr)
            self._inlets[call] = (edge, _next_node(), dtype_name(tensor), tuple(tensor.shape))

    def left(self, call: Call, tensor: Tensor) -> None:
        """Note the tensor that leaves a module call."""
        if tensor.grad_fn is not None:
            self._outlets[call] = (tensor.grad_fn, tensor.output_nr)

    def settle(self, calls: Sequence[Call], trunk: Trunk, seen: Iterable[Seen]) -> None:
        """Set the hooks at the units of the trunk, now that it is known; forget the rest."""
        seen = list(seen)
        attention = {s.call for s in seen if s.signal == "softmax" and s.kind == "attention"}
        attention |= {call for call in calls if isinstance(call.module, nn.MultiheadAttention)}
        activations = {s.call for s in seen if s.signal == "activation" and s.whole}
        bare = defaultdict(list)
        for one in seen:
            if one.signal == "activation" and not one.whole:
                bare[one.call].append(one.follows)
        for block, inside in _segments(calls, trunk):
            inlets: dict[Edge, _Inlet] = {}
            walls: set[Any] = set()
            for call in _units(inside, attention):
                if call not in self._inlets or call not in self._outlets:
                    continue
                edge, since, _, _ = self._inlets[call]
                self._lead_in(edge, block, _opening(call, block, bare), inlets, walls)
                readers = _readers(self._outlets[call][0], edge, since)
                kind = _kind(call, attention, activations)
                self._watch(_Unit(call, block, kind), edge, readers, self._outlets[call], inlets)
                walls.add(self._outlets[call][0])
        self._outlets.clear()

    def _lead_in(
        self, edge: Edge, block: Call, kind: str, inlets: dict[Edge, _Inlet], walls: set[Any]
    ) -> None:
        """Take what a block does to its entry before any module reads it, a functional relu say, as a unit.

        Without it nothing reads the entry of a block that begins so, and no skip path starts there.
        """
        if block not in self._inlets or edge in inlets or edge[0] in walls or edge == self._inlets[block][0]:
            return
        entry, since, _, _ = self._inlets[block]
        self._watch(_Unit(block, block, kind), entry, _readers(edge[0], entry, since, walls), edge, inlets)

    def _watch(
        self, unit: _Unit, edge: Edge, readers: Sequence[Edge], out: Edge, inlets: dict[Edge, _Inlet]
    ) -> None:
        if not readers:
            return
        inlet = inlets.get(edge)
        if inlet is None:
            inlet = inlets[edge] = _Inlet(len(inlets))
            self._hooks.on_arrival(*edge, inlet.arrived)
        for node, index in readers:
            self._hooks.on_passing(node, index, inlet.passed)
        unit.inlet = inlet
        self._hooks.on_arrival(*out, _keep(unit))
        self._units.append(unit)

    def forget(self) -> None:
        """Let the graph go, from its end: a node that Python has seen frees those before it by recursion.

        So a deep graph that goes at once overflows the stack; call this when nothing else holds it.
        """
        while self._inlets:
            self._inlets.popitem()

    def complete(self, record: Record, sites: Mapping[Call, Site]) -> Record:
        """Return the record with the units that a gradient came through; each one's note is its block."""
        places: list[Place] = []
        values: dict[str, dict[Site, tuple[float, ...]]] = defaultdict(dict)
        blocks = set(record.blocks)
        for unit in self._units:
            numbers = {**unit.inlet.numbers, **unit.out}
            if len(numbers) != len(STATISTICS) - 1 or sites[unit.block] not in blocks:
                continue
            _, _, dtype, shape = self._inlets[unit.call]
            site = sites[unit.call]
            places.append(Place(site, "flow", unit.kind, shape, dtype, str(sites[unit.block])))
            for name, number in numbers.items():
                values[f"flow.{name}"][site] = (float(number),)
            values["flow.inlet"][site] = (float(unit.inlet.number),)
        return replace(record, places=(*record.places, *places), values={**record.values, **values})


def _keep(unit: _Unit) -> Callable[[Tensor | None], None]:
    def keep(gradient: Tensor | None) -> None:
        if gradient is not None:
            unit.out["out"] = norm(gradient)

    return keep


def _segments(calls: Sequence[Call], trunk: Trunk) -> Iterator[tuple[Call, Sequence[Call]]]:
    """Every block with the calls from its beginning to the next one's; the last ends with itself."""
    order = {call: index for index, call in enumerate(calls)}
    followers = (*trunk.blocks[1:], trunk.end)
    for block, follower in zip(trunk.blocks, followers, strict=True) if trunk.blocks else ():
        until = order[follower] if follower is not None else len(calls)
        inside = calls[order[block] : until]
        yield block, inside if follower is not None else [c for c in inside if _within(c, block)]


def _within(call: Call | None, block: Call) -> bool:
    while call is not None and call is not block:
        call = call.parent
    return call is block


def _units(calls: Iterable[Call], attention: set[Call | None]) -> list[Call]:
    """Leaf calls, and calls that attend as a whole."""
    units: list[Call] = []
    taken: set[Call] = set()
    for call in calls:
        if call.parent in taken:
            taken.add(call)
        elif call.leaf or call in attention:
            units.append(call)
            taken.add(call)
    return units


def _kind(call: Call, attention: set[Call | None], activations: set[Call | None]) -> str:
    if call in attention:
        return "attention"
    if re.search("norm", type(call.module).__name__, re.IGNORECASE):
        return "normalisation"
    if call in activations:
        return "activation"
    return "weights" if holds_weight(call.module) else "other"


def _opening(call: Call, block: Call, bare: Mapping[Call | None, Sequence[str]]) -> str:
    """What a block does before `call`: an activation if one without a module follows none of its weights."""
    around = call.parent
    while around is not None:
        if any(not follows.startswith(f"{block.path}.") for follows in bare.get(around, ())):
            return "activation"
        around = around.parent if around is not block else None
    return "other"


def _readers(start: Any, inlet: Edge, since: int, walls: Set[Any] = frozenset()) -> list[Edge]:
    """The places of the graph between a call's output and its input that read the input itself.

    None where a node of `walls` is met on the way: then the output is no function of the input alone.
    """
    found: list[Edge] = []
    known, open_ = {start}, [start]
    while open_ and len(known) < MOST_NODES:
        node = open_.pop()
        for index, (source, number) in enumerate(node.next_functions):
            if (source, number) == inlet:
                found.append((node, index))
            elif source in walls:
                return []
            elif source is not None and source not in known and source._sequence_nr() >= since:
                known.add(source)
                open_.append(source)
    # Given up, some readers are unknown, and a part would be taken for the whole.
    return [] if open_ else found


def _next_node() -> int:
    return torch.autograd._get_sequence_nr()  # pyright: ignore[reportPrivateImportUsage]
