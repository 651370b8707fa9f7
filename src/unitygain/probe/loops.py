"""Cells of the user's own: modules that a loop hands what they returned before, as functions of one step."""

import copy
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain._case import random_states
from unitygain.probe.cells import State
from unitygain.stats import absmax


@dataclass(frozen=True, eq=False)
class Loop:
    """A module that takes its own last output, as a function of one time step.

    Args:
        kind: Its class.
        module: A copy in float64 on the CPU, without dropout.
        form: How its arguments are nested.
        taken: Where the state stands among the leaves of the arguments.
        made: Where the next state stands among the leaves of what it returns.
    """

    kind: str
    module: nn.Module
    form: pytree.TreeSpec
    taken: tuple[int, ...]
    made: tuple[int, ...]

    def step(self, x: Sequence[Any], state: State) -> tuple[State, Mapping[str, Tensor]]:
        """Return the next state.

        Args:
            x: The leaves of the arguments; those of the state are not read.
            state: What stands in their place.

        Cost: one call of the module. No side effects beyond those of its forward.
        """
        leaves = list(x)
        for place, part in zip(self.taken, state, strict=True):
            leaves[place] = part
        args, kwargs = pytree.tree_unflatten(leaves, self.form)
        returned = pytree.tree_leaves(self.module(*args, **kwargs))
        return tuple(returned[place] for place in self.made), {}


@dataclass(eq=False)
class Run:
    """Calls in a row, each of which is handed what the one before returned.

    Args:
        form: How the arguments are nested.
        links: Pairs of leaves, of the arguments and of what the call before returned, that are one tensor.
        eps: Rounding of the state's dtype.
        steps: The leaves of the arguments of each call, of the first sample, floating ones in float64.
        fresh: Whether some tensor beside the state differs from one call to the next: a step in time.
    """

    form: pytree.TreeSpec
    links: tuple[tuple[int, int], ...]
    eps: float
    steps: list[list[Any]] = field(default_factory=list)
    fresh: bool = False

    def add(self, leaves: Sequence[Any]) -> None:
        """Keep the first sample of one more call."""
        taken = [place for place, _ in self.links]
        state = leaves[taken[0]]
        batch = len(state) if state.ndim > 1 else None
        step = [_first(leaf, batch) for leaf in leaves]
        beside = [index for index in range(len(step)) if index not in taken]
        self.fresh |= bool(self.steps) and any(_differ(self.steps[-1][k], step[k]) for k in beside)
        self.steps.append(step)


class Ear:
    """Hears the calls of one module and keeps the runs in which it takes its own last output."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self._returned: list[Any] = []
        self._open = False

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Note one call; what was returned is held weakly, so that no activation lives longer for it."""
        leaves, form = pytree.tree_flatten((args, kwargs))
        links = tuple(
            (place, number)
            for place, leaf in enumerate(leaves)
            for number, last in enumerate(self._returned)
            if last is not None and last() is leaf
        )
        if not links:
            self._open = False
        else:
            if not self._open or (self.runs[-1].form, self.runs[-1].links) != (form, links):
                eps = torch.finfo(leaves[links[0][0]].dtype).eps
                self.runs.append(Run(form, links, eps))
            self.runs[-1].add(leaves)
            self._open = True
        self._returned = [
            weakref.ref(leaf) if isinstance(leaf, Tensor) and leaf.is_floating_point() else None
            for leaf in pytree.tree_leaves(output)
        ]


def listen(model: nn.Module, known: tuple[type, ...]) -> dict[str, tuple[nn.Module, Ear]]:
    """Return an ear for every module that may be a cell: it holds none of the `known` recurrent modules."""
    own = (
        (path, module)
        for path, module in model.named_modules()
        if path and not any(isinstance(part, known) for part in module.modules())
    )
    return {path: (module, Ear()) for path, module in own}


def loops(
    heard: Mapping[str, tuple[nn.Module, Ear]], least: int
) -> Iterator[tuple[str, Loop | str, Run, list[State]]]:
    """Yield the outermost modules that were steps in time, `least` or more in a row.

    Yields:
        Its path; it as a function, or the reason why it is none; its longest run; the states before each
        step of it.
    """
    found: list[str] = []
    for path, (module, ear) in heard.items():
        runs = [run for run in ear.runs if run.fresh and len(run.steps) >= least]
        if not runs or any(path.startswith(f"{outer}.") for outer in found):
            continue
        found.append(path)
        run = max(runs, key=lambda run: len(run.steps))
        taken, made = (tuple(link[side] for link in run.links) for side in (0, 1))
        states = [tuple(step[place] for place in taken) for step in run.steps]
        with random_states(), torch.no_grad():
            loop = _attempt(module, run, taken, made, states)
        yield path, loop, run, states


def _checked(
    module: nn.Module, run: Run, taken: tuple[int, ...], made: tuple[int, ...], states: list[State]
) -> Loop | str:
    """The function, where it gives the states that were seen: exactly the module's, but for rounding."""
    twin = copy.deepcopy(module).double().cpu().requires_grad_(False)
    noisy = False
    for part in twin.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            noisy |= part.training and part.p > 0
            part.eval()
    loop = Loop(type(module).__name__, twin, run.form, taken, made)
    for index in (0, len(states) - 2):
        again = loop.step(run.steps[index], states[index])[0]
        for mine, seen in zip(again, states[index + 1], strict=True):
            if mine.shape != seen.shape:
                return f"its state changes from {tuple(seen.shape)} to {tuple(mine.shape)}"
            if not noisy and not float(absmax(mine - seen)) <= run.eps**0.5 * float(absmax(seen)):
                return "the same call gives another state when it is made again"
    return loop


def _attempt(
    module: nn.Module, run: Run, taken: tuple[int, ...], made: tuple[int, ...], states: list[State]
) -> Loop | str:
    try:
        return _checked(module, run, taken, made, states)
    except Exception as error:
        return f"it cannot be run on one sample alone: {type(error).__name__}: {error}".splitlines()[0]


def _first(leaf: Any, batch: int | None) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    own = leaf.detach()
    own = own[:1] if batch is not None and own.ndim and len(own) == batch else own
    dtype = torch.float64 if own.is_floating_point() else own.dtype
    return own.to("cpu", dtype, copy=True)


def _differ(before: Any, now: Any) -> bool:
    both = isinstance(before, Tensor) and isinstance(now, Tensor)
    return both and (before.shape != now.shape or not torch.equal(before, now))
