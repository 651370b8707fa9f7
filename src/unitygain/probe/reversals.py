"""Custom autograd functions and hooks that turn the gradient round, and what lies behind them alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from unitygain._case import Case, random_states, reseed
from unitygain.probe.hooks import Hooks
from unitygain.probe.leaves import in_backward, lifted
from unitygain.probe.passes import leading_to
from unitygain.probe.record import Record
from unitygain.probe.trace import buffers_kept, running
from unitygain.probe.turning_hooks import TensorHooks
from unitygain.stats import norm
from unitygain.stats.pairs import cosine

# How far from 1 the cosine of a tensor and a multiple of it may be: bfloat16 rounds by 4e-3, so by 1e-5 here.
SAME = 1e-4
# Steps along the gradient over the size of the parameters, and the least change of the loss over its own.
STEPS, LEAST = (1e-3, 1e-2), 1e-5

HOOK = "a tensor hook"
# A checkpoint of this kind hands out no single gradients.
REENTRANT = "CheckpointFunction"


@dataclass(frozen=True)
class Reversal:
    """Parameters that the loss reaches through functions or hooks alone that turn the gradient round.

    Args:
        function: Name of such a function; ``a tensor hook`` for one of these.
        path: The innermost module that was running when it was called.
        factor: What its backward multiplies the gradient by.
        parameters: Names of the parameters.
        losses: The loss before a step, and after steps along minus the gradient, the smallest first.
        back: The loss after steps along the gradient.
    """

    function: str
    path: str
    factor: float
    parameters: tuple[str, ...]
    losses: tuple[float, ...]
    back: tuple[float, ...]

    @property
    def climbs(self) -> bool:
        """Whether every step along minus the gradient raises the loss, and every one along it lowers it."""
        now, *down = self.losses
        least = LEAST * abs(now)
        return all(loss - now > least for loss in down) and all(now - loss > least for loss in self.back)


def find_reversal(case: Case, record: Record) -> Reversal | None:
    """Return what lies behind reversals alone; None where an input has another way to the loss.

    An input here is a floating tensor that a module is given and no gradient has made; where none has a
    gradient, the table of an embedding.

    Args:
        case: An isolated case.
        record: Its record, which names the seed.

    Raises:
        CaseFailure: If the model or loss raises.

    Cost: a forward pass; a backward pass where there are custom functions or hooks on tensors, and five
    forward passes where one of them turns the gradient. No side effects.
    """
    running_now = _Running(case.model)
    hooks = TensorHooks(_factor, running_now.innermost)
    with hooks, running(case, record, running_now.watch) as loss:
        if not loss.requires_grad or not (hooks.any or record.facts.get("custom_functions")):
            return None
        turning, gradients = _turning(loss, _trainable(case.model), hooks)
        if not turning:
            return None
        ways = _ways(loss, turning)
        tables = [m.weight for m in case.model.modules() if isinstance(m, nn.Embedding)]
        known = {id(parameter) for parameter in case.model.parameters()}
        inputs = {key: way for key, way in ways.items() if key not in known}
        inputs = inputs or {id(table): ways[id(table)] for table in tables if id(table) in ways}
        node, factor = next(iter(turning.items()))
        name, path = node.name().removesuffix("Backward"), hooks.path(node)
        name, path = (name, running_now.at(node._sequence_nr())) if path is None else (HOOK, path)
    if not inputs or any(way != {1} for way in inputs.values()):
        return None
    behind = {name: found for name, found in gradients.items() if ways.get(id(found[0])) == {1}}
    if not behind:
        return None
    losses = _losses(case, record, list(behind.values()))
    return Reversal(name, path, factor, tuple(behind), *losses) if losses else None


class _Running:
    """Lifts what enters the outermost modules, and tells which module made a node of the graph."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._open: list[tuple[str, int]] = []
        self._spans: list[tuple[int, int, str]] = []

    def watch(self, hooks: Hooks) -> None:
        """Set the hooks."""
        for path, module in self._model.named_modules():
            hooks.on_call(module, self._before(path), self._after(path))

    def innermost(self) -> str:
        """Return the path of the innermost module that is running."""
        return self._open[-1][0] if self._open else ""

    def at(self, node: int) -> str:
        """Return the path of the innermost module that was running then."""
        around = [(end - start, path) for start, end, path in self._spans if start <= node < end]
        return min(around)[1] if around else ""

    def _before(self, path: str) -> Callable[..., Any]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if in_backward():
                return None
            outermost = not self._open
            self._open.append((path, _next_node()))
            return lifted(args, kwargs) if outermost and torch.is_grad_enabled() else None

        return enter

    def _after(self, path: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            while self._open and not in_backward():
                opened, start = self._open.pop()
                if opened == path:
                    self._spans.append((start, _next_node(), path))
                    break

        return leave


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad and p.is_floating_point()}


def _turning(
    loss: Tensor, parameters: Mapping[str, nn.Parameter], of_tensors: TensorHooks
) -> tuple[dict[Any, float], dict[str, tuple[nn.Parameter, Tensor]]]:
    """Run the backward pass; return the nodes that turn it round with their factor, and the gradients."""
    nodes: list[Any] = [n for n in leading_to([loss.grad_fn], 0) if isinstance(n, BackwardCFunction)]
    turning: dict[Any, float] = {}
    if any(node.name().startswith(REENTRANT) for node in nodes):
        return turning, {}

    def watch(node: Any) -> None:
        taken = [index for index, (below, _) in enumerate(node.next_functions) if below is not None]
        if len(taken) != 1:
            return
        given: list[Tensor | None] = []

        def see(handed: Tensor | None) -> None:
            factor = _factor(given[-1], handed)
            if factor < 0:
                turning[node] = factor

        hooks.on_arrival(node, 0, given.append)
        hooks.on_passing(node, taken[0], see)

    hooks = Hooks()
    try:
        for node in nodes:
            watch(node)
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    finally:
        hooks.remove()
    for node, factor in of_tensors.turning().items():
        # One behind the other in the same place undo each other.
        if turning.pop(node, 1.0) > 0:
            turning[node] = factor
    pairs = zip(parameters.items(), found, strict=True)
    return turning, {name: (p, g.detach()) for (name, p), g in pairs if g is not None}


def _factor(given: Tensor | None, handed: Tensor | None) -> float:
    """Return c where a gradient is handed on as c times itself; else 0."""
    if given is None or handed is None or given.shape != handed.shape or not float(norm(given)):
        return 0.0
    one = cosine(given, handed)
    return float(one * norm(handed) / norm(given)) if 1 - abs(float(one)) <= SAME else 0.0


def _ways(loss: Tensor, turning: Mapping[Any, float]) -> dict[int, set[int]]:
    """Return for every leaf, by its id, over how many reversals the loss reaches it: odd (1) or even (0)."""
    ahead: list[tuple[Any, int]] = [(loss.grad_fn, 0)]
    seen: set[tuple[Any, int]] = set(ahead)
    ways: dict[int, set[int]] = {}
    # Held, so that the id of an input is not given to another one.
    held: list[Tensor] = []
    while ahead:
        node, odd = ahead.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            held.append(leaf)
            ways.setdefault(id(leaf), set()).add(odd)
        beyond = odd ^ (node in turning)
        for below, _ in node.next_functions:
            if below is not None and (below, beyond) not in seen:
                seen.add((below, beyond))
                ahead.append((below, beyond))
    return ways


def _losses(
    case: Case, record: Record, behind: list[tuple[nn.Parameter, Tensor]]
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the loss now and after steps along minus the gradient, and after steps along it."""
    size = sum(float(norm(p.detach())) ** 2 for p, _ in behind) ** 0.5
    slope = sum(float(norm(g)) ** 2 for _, g in behind) ** 0.5
    if not (size > 0 and 0 < slope < float("inf")):
        return None

    def after(step: float) -> float:
        with random_states(), buffers_kept(case.model), _moved(behind, step * size / slope):
            reseed(int(record.facts.get("seed", 0)))
            return float(case.compute_loss(case.batches[0]).detach())

    down = tuple(after(-step) for step in STEPS)
    return (after(0.0), *down), tuple(after(step) for step in STEPS)


@contextmanager
def _moved(behind: list[tuple[nn.Parameter, Tensor]], step: float) -> Iterator[None]:
    before = [p.detach().clone() for p, _ in behind]
    try:
        with torch.no_grad():
            for parameter, gradient in behind:
                parameter.add_(gradient.to(parameter.dtype), alpha=step)
        yield
    finally:
        with torch.no_grad():
            for (parameter, _), value in zip(behind, before, strict=True):
                parameter.copy_(value)


def _next_node() -> int:
    return torch.autograd._get_sequence_nr()  # pyright: ignore[reportPrivateImportUsage]
