"""The steps that recurrent modules take through the data, and the Jacobian of each as an operator."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence
from torch.utils import _pytree as pytree

from unitygain._case import Case, random_states, reseed
from unitygain._types import Site
from unitygain.probe.cells import Cell, State, cells
from unitygain.probe.hooks import Hooks
from unitygain.probe.loops import Loop, Run, listen, loops
from unitygain.probe.record import Record
from unitygain.probe.trace import buffers_kept

Matrix = NDArray[np.float64]
KINDS = (nn.RNNBase, nn.RNNCellBase)
# Fewer steps than this say nothing about time; of more than this the last ones are taken.
FEWEST, MOST = 4, 1000


@dataclass(frozen=True, eq=False)
class Walk:
    """One cell's way through a sequence: the first sample, in float64, without dropout.

    Args:
        site: The module; with the cell's name where the module has several.
        cell: The cell, its weights as float64 on the CPU.
        eps: Rounding of the dtype that the module itself computes in.
        inputs: Input of every step, in the order in which the cell runs. Shape (1, features) each; for a
            `Loop`, the leaves of its arguments.
        states: The state before every step, h and for an LSTM c.
        total: Steps of the sequence, of which these are the last.
    """

    site: Site
    cell: Cell | Loop
    eps: float
    inputs: Sequence[Any]
    states: Sequence[State]
    total: int

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def size(self) -> int:
        """Numbers in the state."""
        return sum(part.numel() for part in self.states[0])

    def pull(self, step: int, columns: Matrix) -> Matrix:
        """Return Jᵀ·columns for the Jacobian of the state after `step` with respect to the one before.

        Args:
            step: Which step, 0 the first that is held.
            columns: Shape (size, count).

        Cost: one step forward and `count` backward, batched. No side effects.
        """
        with torch.enable_grad(), torch.inference_mode(False):
            state = tuple(part.detach().requires_grad_() for part in self.states[step])
            after = self._flat(self.cell.step(self.inputs[step], state)[0])
            cotangents = torch.from_numpy(np.ascontiguousarray(columns.T))
            found = torch.autograd.grad(
                after, state, cotangents, is_grads_batched=True, allow_unused=True, materialize_grads=True
            )
        return torch.cat([part.reshape(len(cotangents), -1) for part in found], dim=1).T.numpy()

    def jacobian(self, step: int) -> Matrix:
        """Return the Jacobian of one step as a matrix; costs `size` backward steps, batched."""
        return self.pull(step, np.eye(self.size)).T

    def backward(self) -> list[Callable[[Matrix], Matrix]]:
        """Return the transposed Jacobians as maps, the last step first: the way that a gradient takes."""
        return [self._map(step) for step in reversed(range(len(self)))]

    def _map(self, step: int) -> Callable[[Matrix], Matrix]:
        return lambda columns: self.pull(step, columns)

    @staticmethod
    def _flat(state: State) -> Tensor:
        return torch.cat([part.reshape(-1) for part in state])


@dataclass
class Walks:
    """What the recurrent modules of a model did in one forward pass.

    Args:
        walks: One per cell, in the order in which the modules first ran.
        skipped: Why a module is missing, by its path.
    """

    walks: list[Walk] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """A sentence on what is missing; empty where nothing is."""
        return "; ".join(f"left out: {path or '(model)'} ({why})" for path, why in self.skipped.items())


def walk(case: Case, record: Record) -> Walks:
    """Follow the first sample of the first batch through every recurrent module of the model.

    An `nn.RNN`, `nn.LSTM` or `nn.GRU` is unrolled at its first call, a packed sample at its own length. A
    cell that the model calls itself is followed from call to call as long as each is handed the state that
    the one before returned. So is a module of any other class that is handed tensors which it returned
    before, beside one that is new at each call; of modules inside of each other the outermost.

    Args:
        case: An isolated case.
        record: Its record, which holds the seed.

    Returns:
        The walks, in float64 on the CPU. In a chaotic network they part from the float32 ones after a
        while, and have the same statistics.

    Cost: one forward pass of the model and one unrolled one of its recurrent modules. No side effects.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> case = Case(nn.LSTM(2, 3), loss=lambda m, x: m(x)[0].sum(), data=[torch.ones(9, 1, 2)])
        >>> [(str(w.site), len(w), w.size) for w in walk(case, observe(case, [])).walks]
        [('(model)', 9, 6)]
    """
    found: dict[str, list[tuple[Any, Any, Any]]] = {}
    heard = listen(case.model, KINDS) if repeats(record) else {}
    modules = {path: m for path, m in case.model.named_modules() if isinstance(m, KINDS)}
    hooks = Hooks()
    with ExitStack() as stack:
        stack.enter_context(random_states())
        reseed(int(record.facts.get("seed", 0)))
        stack.enter_context(buffers_kept(case.model))
        stack.enter_context(torch.no_grad())
        stack.callback(hooks.remove)
        for path, module in modules.items():
            hooks.on_call(module, lambda *_: None, _keeper(found.setdefault(path, []), module))
        for module, ear in heard.values():
            hooks.on_call(module, lambda *_: None, ear)
        if modules or heard:
            case.compute_loss(case.batches[0])
    result = Walks()
    for path, module in modules.items():
        _follow(result, path, module, found[path])
    for path, loop, run, states in loops(heard, FEWEST):
        _looped(result, path, loop, run, states)
    return result


def repeats(record: Record) -> bool:
    """Whether some module ran often enough to be a step in time, as far as the record has seen outputs."""
    outputs = record.of("output")
    return not outputs or any(place.site.call >= FEWEST for place in outputs)


def _looped(result: Walks, path: str, loop: Loop | str, run: Run, states: list[State]) -> None:
    """Take the steps of a cell of the user's own, along the states that it gives in float64."""
    if isinstance(loop, str):
        result.skipped[path] = loop
        return
    inputs = run.steps[-MOST:]
    with random_states(), torch.no_grad():
        rolled = [states[-len(inputs)]]
        for x in inputs[:-1]:
            rolled.append(loop.step(x, rolled[-1])[0])
    one = Walk(Site(path), loop, run.eps, inputs, rolled, len(run.steps))
    try:
        one.pull(0, np.ones((one.size, 1)))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        result.skipped[path] = f"the derivative of its step cannot be taken for many directions: {reason}"
        return
    _add(result, one)


def _keeper(calls: list[tuple[Any, Any, Any]], module: nn.Module) -> Callable[..., None]:
    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if calls and isinstance(module, nn.RNNBase):
            return
        x = args[0] if args else kwargs.get("input")
        state = args[1] if len(args) > 1 else kwargs.get("hx")
        calls.append(tuple(_first(value, module) for value in (x, state, output)))  # pyright: ignore[reportArgumentType]

    return after


def _first(value: Any, module: nn.Module) -> Any:
    """The first sample, as float64 on the CPU; PackedSequence and None as they are."""
    if isinstance(value, tuple) and not isinstance(value, PackedSequence):
        return tuple(_first(part, module) for part in value)
    if not isinstance(value, Tensor):
        return value
    if isinstance(module, nn.RNNCellBase):
        return value.detach()[:1].double().cpu() if value.ndim == 2 else value.detach()[None].double().cpu()
    return value.detach().double().cpu()


def _follow(result: Walks, path: str, module: nn.Module, calls: list[tuple[Any, Any, Any]]) -> None:
    if not calls:
        result.skipped[path] = "it did not run"
    elif isinstance(module, nn.RNNBase):
        x, state, _ = calls[0]
        x = _unpacked(x, batch_first=module.batch_first) if isinstance(x, PackedSequence) else x
        _unrolled(result, path, module, x, state)
    elif isinstance(module, nn.RNNCellBase):
        _called(result, path, module, calls)
    if not any(walk.site.path == path for walk in result.walks):
        result.skipped.setdefault(path, f"fewer than {FEWEST} steps in a row")


def _unpacked(packed: PackedSequence, *, batch_first: bool) -> Tensor:
    """The first sample of a packed batch, at its own length, as float64 on the CPU."""
    padded, lengths = pad_packed_sequence(packed, batch_first=batch_first)
    own = int(lengths[0])
    return (padded[:1, :own] if batch_first else padded[:own, :1]).detach().double().cpu()


def _unrolled(result: Walks, path: str, module: nn.RNNBase, x: Tensor, state: Any) -> None:
    batched = x.ndim == 3
    x = x.transpose(0, 1) if batched and module.batch_first else x
    sequence = x[:, :1] if batched else x[:, None]
    given: State = () if state is None else (state,) if isinstance(state, Tensor) else state
    given = tuple(part[:, :1] if batched else part[:, None] for part in given)
    layers = cells(module)
    several, number = len(layers) * len(layers[0]) > 1, 0
    for layer in layers:
        outputs = []
        for cell in map(_double, layer):
            begin = tuple(part[number] for part in given) if given else cell.start(1, sequence)
            ordered = sequence.flip(0) if cell.reverse else sequence
            states, output = _run(cell, ordered, begin)
            leaf = f".({cell.name})" if several else ""
            site = Site(path, leaf=leaf)
            _add(result, Walk(site, cell, _eps(module), list(ordered), states, len(states)))
            outputs.append(output.flip(0) if cell.reverse else output)
            number += 1
        sequence = torch.cat(outputs, dim=-1)


def _run(cell: Cell, sequence: Tensor, state: State) -> tuple[list[State], Tensor]:
    states, outputs = [], []
    with torch.no_grad():
        for x in sequence:
            states.append(state)
            state = cell.step(x, state)[0]
            outputs.append(state[0])
    return states, torch.stack(outputs)


def _called(result: Walks, path: str, module: nn.RNNCellBase, calls: list[tuple[Any, Any, Any]]) -> None:
    """Take the longest run of calls in which each goes on from the state of the one before."""
    cell = _double(cells(module)[0][0])
    runs: list[tuple[list[Tensor], list[State]]] = []
    left: State | None = None
    for x, given, output in calls:
        state = cell.start(1, x) if given is None else given if isinstance(given, tuple) else (given,)
        follows = left is not None and all(map(torch.equal, left, state))
        if not follows:
            runs.append(([], []))
        runs[-1][0].append(x)
        runs[-1][1].append(state)
        left = output if isinstance(output, tuple) else (output,)
    inputs, states = max(runs, key=lambda run: len(run[0]))
    _add(result, Walk(Site(path), cell, _eps(module), inputs, states, len(inputs)))


def _add(result: Walks, one: Walk) -> None:
    numbers = pytree.tree_leaves((one.inputs[-1:], one.states[-1:]))
    finite = (bool(part.isfinite().all()) for part in numbers if isinstance(part, Tensor))
    if not all(finite):
        result.skipped[str(one.site)] = "its state is not finite"
    elif len(one) >= FEWEST:
        held = {"inputs": one.inputs[-MOST:], "states": one.states[-MOST:]}
        result.walks.append(dataclasses.replace(one, **held))


def _double(cell: Cell) -> Cell:
    parts = {
        f.name: value.detach().double().cpu()
        for f in dataclasses.fields(cell)
        if isinstance(value := getattr(cell, f.name), Tensor)
    }
    return dataclasses.replace(cell, **parts)


def _eps(module: nn.Module) -> float:
    return torch.finfo(next(module.parameters()).dtype).eps
