"""One forward pass kept alive, with the tensors between the blocks of the trunk held for differentiation."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unitygain._case import Case, CaseFailure, random_states, reseed
from unitygain._types import Site
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import Junction, Junctions, Move, first_floating
from unitygain.probe.operators import JacobianOperator
from unitygain.probe.record import Record


class Gap(RuntimeError):
    """What was asked for cannot be had, for a reason that lies in the case; says which."""


class NoGraph(Gap):
    """What was asked for cannot be differentiated."""


@dataclass(frozen=True)
class TracedBlock:
    """A block, what enters it, and what enters what follows it."""

    site: Site
    entry: Junction
    exit: Junction

    def jacobian(self) -> JacobianOperator:
        """Return the Jacobian of what leaves the block with respect to what enters it."""
        return JacobianOperator(self.exit, self.entry)


class Trace:
    """A live graph of one forward pass.

    Args:
        blocks: The blocks through which a gradient passes, in forward order.
        gaps: Blocks that could not be traced, with the reason.
        anchor: The first floating input of the model, or what enters the first block where the model
            has none, by name; None where there is neither.
        loss: The loss, with its graph.

    Attributes:
        samples: A sentence on the samples that were taken; empty where it is the whole batch.
    """

    def __init__(
        self,
        blocks: list[TracedBlock],
        gaps: dict[Site, str],
        anchor: tuple[Site, Junction] | None,
        loss: Tensor,
    ) -> None:
        self.blocks = blocks
        self.gaps = gaps
        self.anchor = anchor
        self.loss = loss
        self.samples = ""

    @property
    def note(self) -> str:
        """What is missing: blocks, and samples; empty where nothing is."""
        if not self.gaps:
            return self.samples
        site, reason = next(iter(self.gaps.items()))
        more = f" and {len(self.gaps) - 1} more" if len(self.gaps) > 1 else ""
        return "; ".join(filter(None, [self.samples, f"left out: {site}{more} ({reason})"]))

    def require_blocks(self) -> list[TracedBlock]:
        """Return the blocks; NoGraph with the reason if none could be traced."""
        if not self.blocks:
            raise NoGraph(f"no block could be differentiated; {self.note}")
        return self.blocks

    def anchor_gradient(self) -> Tensor | None:
        """Return the gradient of the loss with respect to the anchor; None where there is none.

        Raises:
            NoGraph: Under reentrant checkpointing, which hands out no gradient of a single tensor.
        """
        if self.anchor is None or not self.loss.requires_grad:
            return None
        edge = self.anchor[1].edge
        try:
            return torch.autograd.grad(self.loss, edge, retain_graph=True, allow_unused=True)[0]
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            raise NoGraph("checkpointing with use_reentrant=True gives no single gradients") from error

    def close(self) -> None:
        """Let the graph go, from its end and block by block: a deep one at once overflows the stack."""
        self.loss = torch.empty(0)
        self.blocks = []
        self.anchor = None


@contextmanager
def trace(case: Case, record: Record, batch: int = 0, move: Move = None) -> Iterator[Trace]:
    """Run one forward pass of an isolated case and hold its graph while the context is open.

    Attention runs on its plain kernels and recurrent modules without fused ones, since only those have
    a double backward pass. Every trace of a record draws the same random numbers.

    Args:
        case: An isolated case.
        record: Its record, which names the blocks and the seed.
        batch: Which of the case's batches.
        move: Replaces the anchor (see `Trace`) by another tensor of its shape.

    Raises:
        CaseFailure: If the model or loss raises.

    Side effects:
        Hooks during the forward pass; memory for all activations while the context is open. Buffers,
        random states and backend flags are put back at the end. No gradient is written.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(2, 4)])
        >>> with trace(case, observe(case, [], seed=0)) as live:
        ...     [block.jacobian().shape for block in live.blocks]
        [(8, 8), (8, 8)]
    """
    junctions = Junctions(case.model, record, move)
    with ExitStack() as stack:
        _enter_all(stack, case, record)
        # No other frame may hold the graph when it is closed: a deep one overflows the stack as it goes.
        loss = _forward(case, batch, junctions.watch)
        pairs, gaps = junctions.pairs()
        live = Trace([TracedBlock(*pair) for pair in pairs], gaps, junctions.anchor, loss)
        del junctions, pairs, loss
        try:
            yield live
        finally:
            live.close()


@contextmanager
def running(case: Case, record: Record, watch: Callable[[Hooks], None], batch: int = 0) -> Iterator[Tensor]:
    """Run one forward pass, as `trace` runs it, under the hooks that `watch` sets, and yield the loss.

    What the hooks keep can be differentiated while the context is open.

    Raises:
        CaseFailure: If the model or loss raises.
    """
    with ExitStack() as stack:
        _enter_all(stack, case, record)
        yield _forward(case, batch, watch)


def entering(case: Case, record: Record, paths: Iterable[str], batch: int = 0) -> dict[str, tuple[int, ...]]:
    """Return the shape of the first floating tensor that enters each module, from one forward pass.

    Raises:
        CaseFailure: If the model or loss raises.
    """
    modules = dict(case.model.named_modules())
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(hooks: Hooks) -> None:
        for path in paths:
            hooks.on_call(modules[path], _note_shape(shapes, path), lambda *_: None)

    glance(case, record, watch, batch)
    return shapes


def glance(
    case: Case, record: Record, watch: Callable[[Hooks], None], batch: int = 0, *, graph: bool = False
) -> None:
    """Run one forward pass, as `trace` runs it, under the hooks that `watch` sets.

    Args:
        case: An isolated case.
        record: Its record, which names the seed.
        watch: Sets the hooks.
        batch: Which of the case's batches.
        graph: Whether it has a graph, which a loss that differentiates by its own input needs.

    Raises:
        CaseFailure: If the model or loss raises.
    """
    with ExitStack() as stack:
        _enter_all(stack, case, record)
        if not graph:
            stack.enter_context(torch.no_grad())
        _forward(case, batch, watch)


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put the buffers back at the end: running statistics, the vectors of a spectral normalisation."""
    owners = [(module._buffers, dict(module._buffers)) for module in model.modules() if module._buffers]
    values = [(b, b.detach().clone()) for _, held in owners for b in held.values() if b is not None]
    try:
        yield
    finally:
        for table, held in owners:
            table.update(held)
        with torch.no_grad():
            for buffer, value in values:
                if not buffer.is_meta and not torch.equal(buffer, value):
                    buffer.copy_(value)


def _note_shape(shapes: dict[str, tuple[int, ...]], path: str) -> Callable[..., None]:
    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = first_floating((args, kwargs))
        if first is not None:
            shapes.setdefault(path, tuple(first.shape))

    return enter


def _enter_all(stack: ExitStack, case: Case, record: Record) -> None:
    stack.enter_context(random_states())
    reseed(int(record.facts.get("seed", 0)))
    stack.enter_context(torch.enable_grad())
    stack.enter_context(buffers_kept(case.model))
    stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    if any(isinstance(module, nn.RNNBase) for module in case.model.modules()):
        stack.enter_context(_switched_off(torch.backends.cudnn))
        stack.enter_context(_switched_off(torch.backends.mkldnn))


@contextmanager
def _switched_off(backend: Any) -> Iterator[None]:
    """Switch a backend off; its own `flags` would touch other flags, and warn."""
    before = backend.enabled
    backend.enabled = False
    try:
        yield
    finally:
        backend.enabled = before


def _forward(case: Case, batch: int, watch: Callable[[Hooks], None]) -> Tensor:
    hooks = Hooks()
    try:
        watch(hooks)
        return case.compute_loss(case.batches[batch])
    except CaseFailure:
        raise
    except Exception as error:
        raise CaseFailure.during(error, "", batch) from error
    finally:
        hooks.remove()
