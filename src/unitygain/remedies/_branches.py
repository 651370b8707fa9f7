"""Finds the branches that a model adds to its stream, in the graph of one forward pass."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain._case import Case
from unitygain.probe.hooks import Hooks
from unitygain.probe.isolate import isolated
from unitygain.probe.sites import Select, selects

# What a scale passes through unchanged, what it passes through if it is positive, and what holds parameters.
PASSES = re.compile(
    r"(Mul|Div|Add|NativeDropout|View|UnsafeView|Reshape\w*|Transpose|Permute|T|Squeeze|Unsqueeze|Clone|ToCopy"
    r"|Alias|Slice|Select)Backward\d*"
)
KINKED = re.compile(r"(Relu|LeakyRelu|Threshold|Prelu)Backward\d*")
SHAPES = re.compile(r"(T|Transpose|Permute|View|UnsafeView|ToCopy|Unsqueeze|Slice|Split|Select)Backward\d*")
LINEAR = re.compile(r"(Addmm|Mm|Bmm|Linear|Convolution\w*)Backward\d*")
NORMALISES = re.compile(r".*(Norm|Rsqrt).*")
Node = Any


@dataclass(frozen=True)
class Branch:
    """A branch F of x + F(x).

    Args:
        end: Names of the parameters in which the branch is linear: weight and bias of its last map, or of
            the norm layer or scale behind that.
        weights: Names of the weights of all its linear maps, first to last.
        maps: Linear maps on its longest way.
        bent: Whether an activation stands between the last map and the sum: it passes a positive scale only.
        normalised: Whether a norm layer is inside.
        norm: Names of the parameters of the norm layer that alone reads the sum (Post-LN).
        post: Whether there is such a norm layer.
    """

    end: tuple[str, ...]
    weights: tuple[str, ...]
    maps: int
    bent: bool
    normalised: bool
    norm: tuple[str, ...]
    post: bool

    @property
    def path(self) -> str:
        """Path of the module that ends it."""
        return self.end[0].rpartition(".")[0]


@dataclass
class _Graph:
    """The nodes of a graph in forward order, what reads each of them, and the names of parameters."""

    names: Mapping[int, str]
    nodes: list[Node] = field(default_factory=list)
    readers: dict[Node, list[Node]] = field(default_factory=lambda: defaultdict(list))

    def grow(self, end: Node) -> None:
        known, open_ = {end}, [end]
        while open_:
            node = open_.pop()
            self.nodes.append(node)
            for source, _ in node.next_functions:
                if source is None:
                    continue
                self.readers[source].append(node)
                if source not in known:
                    known.add(source)
                    open_.append(source)
        self.nodes.sort(key=lambda node: node._sequence_nr())

    def parameters(self, node: Node) -> list[str]:
        """Names of the parameters that a node reads itself, or reshaped."""
        found = (self._leaf(source) for source, _ in node.next_functions)
        return [name for name in found if name]

    def _leaf(self, node: Node) -> str:
        while node is not None and SHAPES.fullmatch(node.name()):
            node = node.next_functions[0][0]
        variable = getattr(node, "variable", None)
        return self.names.get(id(variable), "") if variable is not None else ""


def find_branches(case: Case, sites: Select = None) -> list[Branch]:
    """Return the branches whose sum with the stream that enters them is seen in the graph, in forward order.

    A sum counts where one of its two terms was made from the other: a projected shortcut is none. Branches
    that hold another branch are left out for it.

    Args:
        case: The case; a copy of it runs forward once.
        sites: Which, by the path of the module that ends it or of one that holds that module.

    Raises:
        ValueError: If there is none.
    """
    with isolated(case) as (twin, _):
        names = {id(parameter): name for name, parameter in twin.model.named_parameters()}
        graph = _Graph(names)
        graph.grow(_run(twin).grad_fn)
        found = list(_branches(graph))
        graph.readers.clear()
        while graph.nodes:
            # From its end: a long graph that goes at once overflows the stack.
            graph.nodes.pop()
    chosen = [branch for branch in found if _chosen(case.model, branch, sites)]
    if not chosen:
        raise ValueError(
            f"no residual branch that ends in a map is found in the modules chosen by sites={sites!r}: "
            "no sum of a tensor and what was made from it"
        )
    return chosen


def ends_of(case: Case, branches: Iterable[Branch]) -> list[nn.Parameter]:
    """Return the parameters that the branches end with, in order."""
    own = dict(case.model.named_parameters())
    return [own[name] for branch in branches for name in branch.end]


def require_straight(branches: Iterable[Branch]) -> None:
    """Refuse branches that cannot start at zero.

    Raises:
        ValueError: If an activation stands behind the last map of one.
    """
    for branch in branches:
        if branch.bent:
            raise ValueError(
                f"the branch that ends in {branch.path} has an activation behind its last map: at zero it "
                "would have no gradient; use gpt2_residual_scale"
            )


def _run(case: Case) -> Tensor:
    """The loss of the first batch, with a graph from the model's own floating inputs on."""

    def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
        def own(value: Any) -> Any:
            plain = isinstance(value, Tensor) and value.is_floating_point() and not value.requires_grad
            return value.detach().clone().requires_grad_() if plain else value

        return pytree.tree_map(own, (args, kwargs))

    hooks = Hooks()
    hooks.on_call(case.model, enter, lambda *_: None)
    try:
        loss = case.compute_loss(case.batches[0])
    finally:
        hooks.remove()
    if loss.grad_fn is None:
        raise ValueError("the loss has no gradient; check for detach() or no_grad() in the model or the loss")
    return loss


def _branches(graph: _Graph) -> Iterator[Branch]:
    taken: set[Node] = set()
    ends: set[tuple[str, ...]] = set()
    for node in graph.nodes:
        if not node.name().startswith("AddBackward") or len(node.next_functions) != 2:
            continue
        (one, _), (other, _) = node.next_functions
        if one is None or other is None or graph.parameters(node):
            continue
        for stream, branch in ((one, other), (other, one)):
            inside = _between(stream, branch)
            if inside is None:
                continue
            end, bent = _end(graph, branch, stream)
            if end and end not in ends and not taken & inside:
                ends.add(end)
                taken.add(node)
                yield _describe(graph, node, inside, end, bent)
            break


def _between(stream: Node, branch: Node) -> set[Node] | None:
    """The nodes from the branch's end back to the stream; None where the branch was not made from it."""
    known, open_, since, met = {branch}, [branch], stream._sequence_nr(), False
    while open_:
        for source, _ in open_.pop().next_functions:
            met |= source is stream
            if source is None or source is stream or source in known or hasattr(source, "variable"):
                continue
            if hasattr(stream, "variable") or source._sequence_nr() > since:
                known.add(source)
                open_.append(source)
    return known if met else None


def _end(graph: _Graph, node: Node, stream: Node) -> tuple[tuple[str, ...], bool]:
    """The parameters that the branch ends with, and whether an activation stands behind them."""
    bias: list[str] = []
    bent = False
    while node is not None and node is not stream:
        own, name = graph.parameters(node), node.name()
        if own and not name.startswith("AddBackward"):
            return tuple(sorted({*own, *bias}, key=lambda n: "bias" in n.rpartition(".")[2])), bent
        if not (PASSES.fullmatch(name) or KINKED.fullmatch(name)):
            break
        bent |= bool(KINKED.fullmatch(name))
        bias += own
        sources = [s for s, _ in node.next_functions if s is not None and not graph._leaf(s)]
        node = sources[0] if len(sources) == 1 else None
    return (), bent


def _describe(graph: _Graph, node: Node, inside: set[Node], end: tuple[str, ...], bent: bool) -> Branch:
    longest: dict[Node, int] = {}
    weights: list[str] = []
    for one in sorted(inside, key=lambda n: n._sequence_nr()):
        before = max((longest.get(source, 0) for source, _ in one.next_functions), default=0)
        own = [name for name in graph.parameters(one) if "bias" not in name.rpartition(".")[2]]
        linear = bool(own) and bool(LINEAR.fullmatch(one.name()))
        weights += own if linear else []
        longest[one] = before + linear
    normalised = any(NORMALISES.fullmatch(one.name()) for one in inside)
    unique = tuple(dict.fromkeys(weights))
    return Branch(end, unique, max(longest.values()), bent, normalised, *_post(graph, node))


def _post(graph: _Graph, node: Node) -> tuple[tuple[str, ...], bool]:
    """The parameters of the norm layer that reads the sum alone, and whether there is one."""
    readers = graph.readers[node]
    while len(readers) == 1 and PASSES.fullmatch(readers[0].name()) and not graph.parameters(readers[0]):
        readers = graph.readers[readers[0]]
    named = [reader for reader in readers if NORMALISES.fullmatch(reader.name())]
    return tuple(graph.parameters(named[0])) if named else (), bool(named) and named == readers


def _chosen(model: nn.Module, branch: Branch, sites: Select) -> bool:
    parts = branch.path.split(".")
    paths = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return any(selects(sites, path, model.get_submodule(path)) for path in paths)
