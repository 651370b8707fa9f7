"""Finds the sites of a model from the calls of one forward pass: leaf calls, and the repeated trunk."""

import fnmatch
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from unitygain._types import Site

Select = str | Sequence[str] | Callable[[str, nn.Module], bool] | None
HALF = 0.5
STEPS = 8
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(eq=False)
class Call:
    """One call of a module in a forward pass.

    Tensors are named by serial numbers, so that "the same tensor" can be asked after the pass. `turn` counts
    the passes of the module: it goes up with a call on what does not come of its own last output.
    """

    path: str
    module: nn.Module
    parent: "Call | None"
    number: int
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    turn: int = 0
    children: list["Call"] = field(default_factory=list)

    @property
    def leaf(self) -> bool:
        """Whether no module was called inside, but for those that make its own weights."""
        return all(makes_weight(child.path) for child in self.children)


def name_calls(calls: Iterable[Call]) -> dict[Call, Site]:
    """Name every call: the path, with the number of the call where a module ran more than once."""
    calls = list(calls)
    times = Counter(call.path for call in calls)
    return {call: Site(call.path, call.number if times[call.path] > 1 else 0) for call in calls}


def selects(select: Select, path: str, module: nn.Module) -> bool:
    """Whether a pattern, a list of patterns or a callable takes the module at `path`."""
    if select is None:
        return True
    if callable(select):
        return bool(select(path, module))
    patterns = [select] if isinstance(select, str) else select
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def holds_weight(module: nn.Module) -> bool:
    """Whether the module itself holds a matrix or a kernel, or what a parametrisation makes one of."""
    own = [*module.parameters(recurse=False)]
    if is_parametrized(module):
        own += [p for made in module.parametrizations.values() for p in made.parameters(recurse=False)]  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return any(parameter.ndim >= 2 for parameter in own)


def makes_weight(path: str) -> bool:
    """Whether the module at `path` makes a weight (a parametrisation of torch) and no signal passes it."""
    return "parametrizations" in path.split(".")


@dataclass(frozen=True)
class Trunk:
    """The repeated part of a model.

    Args:
        blocks: Its calls, in forward order; empty where nothing repeats.
        end: The bare layer of the same kind that follows it as the head, whose input leaves the trunk.
    """

    blocks: tuple[Call, ...] = ()
    end: Call | None = None


def find_trunk(calls: Sequence[Call], usual: Callable[[Call], bool] = lambda call: True) -> Trunk:
    """Find the repeated trunk among `calls`.

    Modules are of one kind when class and structure agree. A candidate is a kind with two calls or
    more, no call inside another of the same kind. Kinds that hold half of the parameters of the largest
    candidate compete: those whose calls feed each other (each output is the next one's input) come
    first, then modules with parts before bare layers, then the longest chain, then the outermost. Of several
    passes through one model (see `Passes`) one is taken, the last of the longest.

    Args:
        calls: Calls in the order in which they began.
        usual: Whether a call's gradient comes the usual way; a pass through such calls is preferred.

    Returns:
        The calls of the winning kind, and the head that was set apart from them.
    """
    chains = _candidates(calls, usual)
    if not chains:
        return Trunk()
    weight = {id(chain): _parameters(chain) for chain in chains}
    most = max(weight.values())
    eligible = [chain for chain in chains if weight[id(chain)] >= HALF * most] if most else chains
    best = max(eligible, key=_preference)
    if not best[0].leaf:
        return Trunk(tuple(best))
    kind = _kind(best[0].module)
    after = iter(calls[calls.index(best[-1]) + 1 :])
    turn = best[-1].turn
    return Trunk(tuple(best), next((c for c in after if _kind(c.module) == kind and c.turn == turn), None))


def _preference(chain: list[Call]) -> tuple[bool, bool, bool, int, int]:
    first = chain[0]
    return _chained(chain), not first.leaf, type(first.module) not in CONTAINERS, len(chain), -_depth(first)


def _candidates(calls: Sequence[Call], usual: Callable[[Call], bool]) -> list[list[Call]]:
    groups: dict[object, list[Call]] = defaultdict(list)
    kinds: dict[int, object] = {}
    timed = _timed(calls)
    for call in calls:
        if call.path and call not in timed:
            kind = kinds.setdefault(id(call.module), _kind(call.module))
            if not _inside(call, kind, kinds):
                groups[kind].append(call)
    chains = [_without_head(_one_pass(group, usual)) for group in groups.values()]
    return [c for c in chains if len(c) >= 2 and trains(c[0].module) and not is_recurrence(c)]


def _timed(calls: Sequence[Call]) -> set[Call]:
    """Return the calls of bare layers that are steps in time of a recurrence written by hand.

    Those of a layer that runs again and again; and of every layer that runs again in one call of a module
    which loops: in which a bare layer goes on from what it made itself. What a step reads off there feeds no
    later one, as an output or a query, so that a pass of its own seems to begin with each.
    """
    leaves = [call for call in calls if call.leaf]
    often = {call.path for call in leaves if call.number >= STEPS}
    again = Counter((call.parent, call.path) for call in leaves)
    on = Counter((call.parent, call.path, call.turn) for call in leaves if holds_weight(call.module))
    looping = {parent for (parent, _, _), times in on.items() if times > 1}
    return {
        call
        for call in leaves
        if call.path in often or (call.parent in looping and again[call.parent, call.path] > 1)
    }


def _one_pass(group: list[Call], usual: Callable[[Call], bool]) -> list[Call]:
    """Return the calls of one pass: what leaves the last block of a pass does not enter the next pass."""
    passes: dict[int, list[Call]] = defaultdict(list)
    for call in group:
        passes[call.turn].append(call)
    return max(
        passes.values(), key=lambda one: (len(one) > 1 and all(map(usual, one)), len(one), one[0].turn)
    )


def is_recurrence(chain: Sequence[Call]) -> bool:
    """Whether the calls are one module's over time rather than layers that share their weights.

    A bare layer that is called again is taken for a step in time; so is a module that is handed a new
    tensor, beside what the call before made, at each call.
    """
    if len(chain) < 2 or any(call.module is not chain[0].module for call in chain):
        return False
    made = {serial for call in chain for serial in call.outputs}
    fresh = [set(call.inputs) - made for call in chain[1:]]
    return chain[0].leaf or any(a and b and a != b for a, b in itertools.pairwise(fresh))


def _kind(module: nn.Module) -> object:
    """A module's class; for a pure container, the kinds of its parts. The sizes of layers do not count."""
    # A parametrised module has a class of its own.
    kind = type_before_parametrizations(module)
    return (kind, tuple(map(_kind, module.children()))) if kind in CONTAINERS else kind


def _inside(call: Call, kind: object, kinds: dict[int, object]) -> bool:
    above = call.parent
    while above is not None:
        if kinds.get(id(above.module)) == kind:
            return True
        above = above.parent
    return False


def _without_head(chain: list[Call]) -> list[Call]:
    """Drop a bare layer at the very end that changes the width: the head is no part of the trunk."""
    if len(chain) > 2 and chain[-1].leaf:
        shapes = [tuple(p.shape) for p in chain[-1].module.parameters(recurse=False)][:1]
        before = [tuple(p.shape) for p in chain[-2].module.parameters(recurse=False)][:1]
        if shapes and before and shapes[0][:1] != before[0][:1]:
            return chain[:-1]
    return chain


def trains(module: nn.Module) -> bool:
    """Whether a module has parameters: no other can be part of the trunk."""
    return any(True for _ in module.parameters())


def _chained(chain: list[Call]) -> bool:
    links = sum(bool(a.outputs) and a.outputs[0] in b.inputs for a, b in itertools.pairwise(chain))
    return links >= HALF * (len(chain) - 1)


def _parameters(chain: list[Call]) -> int:
    modules = {id(call.module): call.module for call in chain}.values()
    return sum(p.numel() for module in modules for p in module.parameters())


def _depth(call: Call) -> int:
    depth = 0
    while call.parent is not None:
        call, depth = call.parent, depth + 1
    return depth
