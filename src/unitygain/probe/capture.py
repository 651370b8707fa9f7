"""Probe: watches one forward and backward pass of a live model and leaves no trace on it."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from unitygain.probe.assemble import GRADIENT, Sighting, assemble, junctions, read_wanted
from unitygain.probe.flow import Flow
from unitygain.probe.hooks import Hooks, takes_hooks, uncompiled
from unitygain.probe.leaves import in_backward, lifted, observable, unwrap
from unitygain.probe.ledger import Ledger, View, dtype_name, reduce
from unitygain.probe.ops import OPERATIONS, Watch
from unitygain.probe.passes import Passes, age
from unitygain.probe.record import Record
from unitygain.probe.recurrent import KINDS
from unitygain.probe.sites import Call, Select, Trunk, find_trunk, makes_weight, name_calls, selects, trains

DEFAULT = ("output.rms", "output.frac_nonfinite", "grad.rms", "parameter.rms", "parameter_grad.rms")
JUNCTION = ("entry", "exit")
# Taken at the trunk alone, not wherever a block might begin; their tensors are kept until the model has run.
COSTLY = frozenset({"token_cosine", "effective_rank"})
SETTLED = 8


class Probe:
    """Context manager that watches a model and brings back a Record.

    Everything that ran inside the ``with`` is recorded (compiled code runs uncompiled there); a module
    that runs again in the same pass is recorded call by call. Nothing stays on the model afterwards,
    also after an exception.

    Args:
        model: The model to watch.
        collect: What to reduce, as ``signal.statistic`` (see docs/architecture.md).
        sites: Patterns or a callable ``(path, module) -> bool`` that choose the modules to report.
        inputs: Replace floating inputs of the model that need no gradient by copies that do, so that
            the gradient with respect to the input is seen.

    Raises:
        TypeError: If `model` is no nn.Module.
        ValueError: If `collect` names no known statistic.

    Side effects:
        Hooks on modules and tensors while the context is open. Consumes no random numbers, changes no
        gradient, runs no pass of its own. Costs one reduction per tensor and statistic. For signals inside
        operations (softmax, activation, gate, loss) every operation passes through Python meanwhile, and
        for softmax fused attention runs as its parts.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
        >>> with Probe(model) as probe:
        ...     model(torch.ones(2, 4)).sum().backward()
        >>> [str(place.site) for place in probe.record().of("output")]
        ['0', '1', '2']
    """

    def __init__(
        self,
        model: nn.Module,
        collect: Iterable[str] = DEFAULT,
        *,
        sites: Select = None,
        inputs: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is a {type(model).__name__}; give an nn.Module")
        self._model = model
        self._wanted = read_wanted(collect)
        self._select = sites
        self._inputs = inputs
        self._recurrent = any(isinstance(module, KINDS) for module in model.modules())
        self._hooks = Hooks()
        self._open = ExitStack()
        self._ledger = Ledger(self._hooks)
        self._passes = Passes()
        self.output_age: int | None = None
        self._sighting = Sighting()
        self._stack: list[Call] = []
        self._outermost = 0
        self._by_path: dict[str, list[Call]] = defaultdict(list)
        self._waiting: dict[int, tuple[Tensor, int]] = {}
        inside = {signal: names for signal, names in self._wanted.items() if signal in OPERATIONS}
        self._flow = Flow(self._hooks) if self._wanted.get("flow") else None
        stack = self._stack  # Not the probe, which holds its watch.
        self._watch = Watch(inside, lambda: stack[-1] if stack else None) if inside else None

    def __enter__(self) -> "Probe":
        with ExitStack() as open_:
            open_.enter_context(uncompiled())
            open_.callback(self._hooks.remove)
            for path, module in self._model.named_modules():
                if makes_weight(path):
                    continue
                before, after = self._before(path), self._after(path)
                self._hooks.on_call(module, self._quietly(before), self._quietly(after))
                if not takes_hooks(module):
                    self._sighting.skipped[path or "(model)"] = "TorchScript takes no hooks"
            if self._watch is not None:
                open_.enter_context(self._watch)
            # Closed in __exit__; or here, where one of these raised.
            self._open = open_.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()
        self._stack.clear()
        self._waiting.clear()

    @property
    def innermost(self) -> str:
        """Path of the module whose forward is running, or was when an exception left it; else empty."""
        return self._stack[-1].path if self._stack else ""

    @property
    def cut(self) -> str:
        """Why no gradient passes the model's output, as far as its dtype tells; else empty."""
        return self._sighting.skipped.get("output of (model)", "")

    def note(self, **facts: float | str) -> None:
        """Add scalars of the pass, such as the loss, to the record."""
        self._sighting.facts.update(facts)

    def record(self) -> Record:
        """Return what was seen so far.

        Raises:
            RuntimeError: If no module of the model was called.
        """
        if not self._sighting.calls:
            raise RuntimeError(
                "the probe saw no call of the model; run the forward pass inside the with block"
            )
        record = assemble(self._model, self._sighting, self._ledger, self._wanted, self._select)
        sites = name_calls(self._sighting.calls)
        if self._watch is not None:
            record = self._watch.complete(record, sites, self._select)
        return record if self._flow is None else self._flow.complete(record, sites)

    def forget(self) -> None:
        """Let go of the model, and of the graph, which must have no other holder (see `Flow.forget`)."""
        self._sighting.forget()
        if self._flow is not None:
            self._flow.forget()

    def _quietly(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Keep what a hook computes from the operation watch."""
        if self._watch is None:
            return hook
        paused = self._watch.paused

        def quiet(*args: Any) -> Any:
            with paused():
                return hook(*args)

        return quiet

    def _before(self, path: str) -> Callable[..., Any]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if in_backward():
                return None
            outermost, replaced = not self._stack, None
            given = [observable(t) and t.is_leaf for t in pytree.tree_leaves((args, kwargs))]
            if outermost and self._inputs and torch.is_grad_enabled():
                args, kwargs = replaced = lifted(args, kwargs)
                self._sighting.lifted |= any(given)
            call = self._begin(path, module)
            leaves = pytree.tree_leaves((args, kwargs))
            tensors = [t for t in leaves if observable(t)]
            call.inputs = tuple(self._ledger.serial(t) for t in tensors)
            call.turn = self._passes.enter(path, tensors)
            raw = (t for t, own in zip(leaves, given, strict=True) if outermost and own)
            for index, tensor in enumerate(raw):
                self._see("input", call, f"(input {index})", tensor)
                if tensor.ndim == 3 and not self._recurrent:
                    self._see("sequence", call, f"(input {index})", tensor, _second_axis_first)
            if tensors:
                self._see("entry", call, "", tensors[0])
                if self._flow is not None:
                    self._flow.entered(call, tensors[0])
            if isinstance(module, nn.RNNBase) and tensors:
                self._see_sequence(module, call, args, tensors[0])
            return replaced

        return enter

    def _begin(self, path: str, module: nn.Module) -> Call:
        parent = self._stack[-1] if self._stack else None
        call = Call(path, module, parent, len(self._by_path[path]) + 1)
        self._by_path[path].append(call)
        self._stack.append(call)
        self._sighting.began(call)
        return call

    def _after(self, path: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if in_backward():
                self._see_again(path, output)
                return
            # A call that raised and was caught by the model left its entry behind.
            while self._stack and self._stack[-1].module is not module:
                self._stack.pop()
            if not self._stack:
                return
            call = self._stack.pop()
            if call.parent is not None:
                call.parent.children.append(call)
            kept = self._floating(path, output)
            call.outputs = tuple(self._ledger.serial(tensor) for _, tensor in kept)
            self._passes.leave(path, (tensor for _, tensor in kept))
            if call.leaf:
                for index, (key, tensor) in enumerate(kept):
                    self._see("output", call, key if index else "", tensor)
            if kept:
                self._see("exit", call, "", kept[0][1])
                if self._flow is not None:
                    self._flow.left(call, kept[0][1])
            if kept and call.parent is None:
                self._see("logits", call, "", kept[0][1])
                self.output_age = age(kept[0][1])
            if self._watch is not None:
                self._watch.left(call, args, output)
            if call.parent is None:
                self._outermost += 1
                # Each looks at all calls so far; a loss that calls parts of the model one by one makes many.
                if self._outermost <= SETTLED:
                    self.settle()

        return leave

    def _floating(self, path: str, output: Any) -> list[tuple[str, Tensor]]:
        """The floating leaves of an output by key; others are noted as skipped."""
        leaves = [(pytree.keystr(key), value) for key, value in pytree.tree_leaves_with_path(unwrap(output))]
        for key, value in leaves:
            name = " ".join(["output", *filter(None, [key]), "of", path or "(model)"])
            if isinstance(value, Tensor) and not observable(value):
                self._sighting.skipped[name] = f"dtype {dtype_name(value)} has no gradient"
            elif value is not None and not isinstance(value, (Tensor, int, float, bool, str)):
                self._sighting.skipped[name] = f"a {type(value).__name__} is not searched for tensors"
        return [(key, value) for key, value in leaves if observable(value)]

    def _see_again(self, path: str, output: Any) -> None:
        """Take the gradient from a checkpoint's recomputation where the first pass ran without a graph."""
        calls = self._by_path[path]
        if len(calls) != 1 or not calls[0].leaf:
            return
        for index, (key, value) in enumerate(self._floating(path, output)):
            row = self._sighting.rows["output"].get((calls[0], key if index else ""))
            if row is not None and not self._ledger.backward[row]:
                self._ledger.watch_gradient(row, value, self._wanted.get("grad", ()), None)

    def _see_sequence(self, module: nn.RNNBase, call: Call, args: tuple[Any, ...], tensor: Tensor) -> None:
        if any(isinstance(arg, PackedSequence) for arg in args):
            self._sighting.skipped[f"time steps of {call.path or '(model)'}"] = (
                "a packed sequence mixes its time steps"
            )
            return
        batched = tensor.ndim == 3 and module.batch_first
        self._see("sequence", call, "", tensor, _second_axis_first if batched else None)

    def _see(self, signal: str, call: Call, leaf: str, tensor: Tensor, view: View = None) -> None:
        junction = signal in JUNCTION
        if junction and not trains(call.module):
            return
        # What leaves a block is what enters the next one, so that a junction is asked for both.
        signals = JUNCTION if junction else (signal,)
        wanted = tuple(dict.fromkeys(name for s in signals for name in self._wanted.get(s, ())))
        grad = tuple(dict.fromkeys(name for s in signals for name in self._wanted.get(GRADIENT[s], ())))
        if not wanted and not grad:
            return
        now = tuple(name for name in wanted if not (junction and name in COSTLY))
        row = self._ledger.observe(tensor, now, grad, view)
        self._sighting.rows[signal][call, leaf] = row
        if now != wanted:
            self._waiting[row] = (tensor, tensor._version)

    def settle(self) -> None:
        """Reduce what is costly at the trunk alone: known once all has run, due before the backward pass."""
        calls = [c for c in self._sighting.calls if selects(self._select, c.path, c.module)]
        once = self._sighting.comes_once(self._ledger)
        trunk = find_trunk(calls, once) if self._waiting or self._flow else Trunk()
        if self._flow is not None:
            self._flow.settle(calls, trunk, self._watch.seen if self._watch is not None else ())
        rows = {row for signal in JUNCTION for row in junctions(signal, trunk, self._sighting).values()}
        costly = [name for s in JUNCTION for name in self._wanted.get(s, ()) if name in COSTLY]
        for row, (tensor, version) in self._waiting.items():
            if row in rows and tensor._version == version:
                reduce(tensor, costly, self._ledger.forward[row], None)
        self._waiting.clear()


def _second_axis_first(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1)
