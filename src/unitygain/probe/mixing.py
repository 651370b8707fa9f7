"""Whether what a model puts out for one sample depends on the other samples, and where they first meet."""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain._case import Batch, Case
from unitygain._types import Site
from unitygain.probe.exchange import tells_places
from unitygain.probe.few import count_samples
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import Junction, first_floating, junction_of
from unitygain.probe.leaves import in_backward, lifted, observable, unwrap
from unitygain.probe.meetings import Meetings, tells_links
from unitygain.probe.operators import generator
from unitygain.probe.record import Record
from unitygain.probe.sites import makes_weight
from unitygain.probe.standards import normalises, versions
from unitygain.probe.trace import NoGraph, running
from unitygain.stats import norm

# Of the energy of a sample's gradient; rounding alone leaves 1e-7 of it at others.
LEAST = 1e-4
SEQUENTIAL = (nn.MultiheadAttention, nn.RNNBase)
KINDS = ("view", "softmax", "norm", "layer norm", "statistics")
_BATCH_NORM = re.compile(r"(?i)batch_?(re)?norm")


@dataclass(frozen=True)
class Mixing:
    """How much of one sample's gradient lies at other samples.

    Args:
        site: The first module whose rows meet; the model where none do.
        share: Of the energy of a gradient of one sample's output, what lies at the others.
        kind: What brings them together; empty where nothing does.
        module: Class of the module.
        samples: How many samples the batch has.
    """

    site: Site
    share: float
    kind: str
    module: str
    samples: int


@dataclass(eq=False)
class _Call:
    path: str
    module: nn.Module
    number: int
    entries: list[Junction] = field(default_factory=list)
    exit: Junction | None = None
    buffers: dict[str, tuple[int, int]] = field(default_factory=dict)


def find_mixing(case: Case, record: Record) -> Mixing | None:
    """Return how the samples of the batch mix; None where that is not sure to mean anything.

    It is judged where every tensor of the batch begins with the samples, the model runs once in the loss,
    and its input and its output begin with them as well. A model with batch normalisation, one with a time
    that comes first, and a graph are left alone.

    Args:
        case: An isolated case.
        record: Its record, which names the seed.

    Raises:
        CaseFailure: If the model or loss raises.
        NoGraph: Under reentrant checkpointing, which hands out no gradient of a single tensor.

    Cost: one forward pass and two backward passes to the input. Where samples mix, another forward pass with
        up to four partial backward passes per module call, up to the first whose rows meet.

    Side effects:
        As `trace`.
    """
    index = int(record.facts.get("batch", 0))
    batch = case.batches[index]
    samples = count_samples(batch)
    names = (type(module).__name__ for module in case.model.modules())
    if samples < 2 or any(map(_BATCH_NORM.search, names)) or not _alike(case.batches):
        return None
    seen = _Calls(case.model, samples, every=False)
    with running(case, record, seen.watch, index):
        if not seen.one_pass or not seen.begins():
            return None
        assert seen.anchor is not None
        assert seen.root.exit is not None
        share = _share(seen.root.exit, seen.anchor, 0, 0)
        if share <= LEAST:
            return Mixing(Site(""), share, "", type(case.model).__name__, samples)
        if _other_axis(seen.root.exit, seen.anchor, batch) and not tells_places(case, record, 1):
            return None
    seen = _Calls(case.model, samples, every=True)
    with seen.meetings, running(case, record, seen.watch, index):
        found = seen.first_meeting() if seen.one_pass and seen.begins() else None
    return found or Mixing(Site(""), share, "elsewhere", type(case.model).__name__, samples)


def _alike(batches: tuple[Batch, ...]) -> bool:
    """Whether the batches are of one size, but for the last: sequences of one each have each their own."""
    return len({count_samples(batch) for batch in batches[:-1]}) < 2


def _other_axis(output: Junction, anchor: Junction, batch: Batch) -> bool:
    """Whether the samples may lie along the second dimension, of the output or of what enters."""
    tensors = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim]
    pairs = [(0, 1), (1, 0)] + [(1, 1)] * all(leaf.ndim > 1 for leaf in tensors)
    sizes = [(output.shape[out : out + 1], anchor.shape[into : into + 1]) for out, into in pairs]
    return any(
        one == other and one > (1,) and _share(output, anchor, out, into) <= LEAST
        for (one, other), (out, into) in zip(sizes, pairs, strict=True)
    )


def _share(output: Junction, anchor: Junction, out: int, into: int) -> float:
    """Return the largest share of a row's gradient that lies at other rows; NaN where nothing depends.

    The last row and the first are asked: what runs over the samples in one direction shows at one of them.
    """
    shares = [_share_of(output, anchor, out, into, row) for row in (output.shape[out] - 1, 0)]
    return max((share for share in shares if not math.isnan(share)), default=math.nan)


def _share_of(output: Junction, anchor: Junction, out: int, into: int, row: int) -> float:
    source = generator(output.device, 1)
    drawn = torch.randn(output.shape, generator=source, device=output.device, dtype=torch.float32)
    one = torch.tensor([row], device=output.device)
    cotangent = torch.zeros_like(drawn).index_copy(out, one, drawn.index_select(out, one))
    given = cotangent.to(output.dtype)
    try:
        (found,) = torch.autograd.grad(output.copy, anchor.edge, given, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise NoGraph("checkpointing with use_reentrant=True gives no single gradients") from error
    if found is None:
        return math.nan
    whole = float(norm(found))
    own = float(norm(found.select(into, row)))
    return max(0.0, 1 - (own / whole) ** 2) if 0 < whole < math.inf else math.nan


class _Calls:
    """Takes what enters and leaves the model, and if asked every module, as a forward pass goes by."""

    def __init__(self, model: nn.Module, samples: int, *, every: bool) -> None:
        self.anchor: Junction | None = None
        self.root = _Call("", model, 0)
        self._model = model
        self._samples = samples
        self._every = every
        self._passes = 0
        self._floating = self._last = False
        self._linked = False
        # Not through itself, which would hold its meetings and be held by them.
        stack: list[_Call] = []
        self.meetings = Meetings(samples, lambda: stack[-1] if stack else None)
        self._stack = stack
        self._done: list[_Call] = []
        self._count: Counter[str] = Counter()

    @property
    def one_pass(self) -> bool:
        """Whether the model ran once."""
        return self._passes == 1

    def begins(self) -> bool:
        """Whether what enters and what leaves the model both begin with the samples, and are no pairs."""
        entry, exit_ = self.anchor, self.root.exit
        if entry is None or exit_ is None or exit_.shape[:2] == (self._samples, self._samples):
            return False
        return entry.shape[:1] == exit_.shape[:1] == (self._samples,)

    def watch(self, hooks: Hooks) -> None:
        """Set hooks on every module: the first output stands for an input of tokens."""
        for path, module in self._model.named_modules():
            if not makes_weight(path):
                hooks.on_call(module, self._before(path), self._after)

    def first_meeting(self) -> Mixing | None:
        """Return the first call, as they ended, whose rows meet though they enter apart."""
        output = self.root.exit
        assert output is not None
        for call in self._done:
            along = self._apart_along(call)
            if along is None or not self._meet_in(call):
                continue
            entered = [one for one in call.entries if one.shape[along : along + 1] == (self._samples,)]
            shares = [_share(output, one, 0, along) for one in entered]
            share = max((share for share in shares if share > LEAST), default=0.0)
            if share:
                site = Site(call.path, call.number if self._count[call.path] > 1 else 0)
                return Mixing(site, share, self._kind(call, along), type(call.module).__name__, self._samples)
        return None

    def _meet_in(self, call: _Call) -> bool:
        """Whether samples mix in what a call returns, wherever they may lie in it."""
        return call.exit is not None and self._samples in call.exit.shape and self._axis(call.exit) is None

    def _kind(self, call: _Call, along: int) -> str:
        """Return what brings the rows of a call together, where it is known for a slip."""
        module, shape = call.module, call.entries[0].shape
        several = len(shape) == 3 and shape[1 - along] > 1
        if self._linked or self.meetings.linked:
            return "linked"
        if isinstance(module, SEQUENTIAL):
            own = "attention" if isinstance(module, nn.MultiheadAttention) else "recurrent"
            # A table whose rows and columns are looked at in turn is turned over on purpose.
            meant = along == 1 and own == "attention" and self._in_turn()
            return "one sequence" if meant or not several else own + " turned" * along
        if self.meetings.pooled:
            return "pooled"
        known = next((kind for kind in KINDS if kind in self.meetings.kinds[call]), "")
        if known == "statistics" and (self._last or call.buffers != versions(module)):
            return "kept"
        return known or ("rows" if several and not self.meetings.one_of_all else "one sequence")

    def _in_turn(self) -> bool:
        attention = [call for call in self._done if isinstance(call.module, nn.MultiheadAttention)]
        return any(self._apart_along(call) is not None and not self._meet_in(call) for call in attention)

    def _apart_along(self, call: _Call) -> int | None:
        """Return the dimension along which samples enter and do not mix yet; None where that says nothing.

        It is the first, or the one that a recurrent or attention module takes for the steps, or that a layer
        norm runs over.
        """
        module, axes = call.module, {self._axis(entry) for entry in call.entries if self._depends(entry)}
        axis = axes.pop() if len(axes) == 1 else None
        if not axis:
            return axis
        steps_first = axis == 1 and isinstance(module, SEQUENTIAL) and module.batch_first
        return axis if steps_first or normalises(module, len(call.entries[0].shape), axis) else None

    def _axis(self, tensor: Junction) -> int | None:
        """Return the dimension along which samples do not mix; the first where they do not matter."""
        assert self.anchor is not None
        for axis, size in enumerate(tensor.shape):
            if size == self._samples and not _share(tensor, self.anchor, axis, 0) > LEAST:
                return axis
        return None

    def _depends(self, tensor: Junction) -> bool:
        assert self.anchor is not None
        return tensor is self.anchor or tensor.depends_on(self.anchor)

    def _before(self, path: str) -> Callable[..., Any]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if in_backward():
                return None
            self._linked |= self._every and tells_links(module, (args, kwargs), self._samples)
            replaced = None
            self._count[path] += 1
            call = _Call(path, module, self._count[path])
            if not path:
                self._passes += 1
                args, kwargs = replaced = lifted(args, kwargs)
                first = first_floating((args, kwargs))
                self._floating = first is not None
                self.anchor = junction_of(first)
                self.root = call
            if self._every:
                taken = map(junction_of, filter(observable, pytree.tree_leaves((args, kwargs))))
                call.entries = [entry for entry in taken if entry is not None]
            call.buffers = versions(module)
            self._stack.append(call)
            return replaced

        return enter

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if in_backward():
            return
        # A call that raised and was caught by the model left its entry behind.
        while self._stack and self._stack[-1].module is not module:
            self._stack.pop()
        if not self._stack:
            return
        call = self._stack.pop()
        made = first_floating(unwrap(output))
        self._last |= not call.path and self.meetings.standards.made(made)
        waits = self.anchor is None and not self._floating and bool(self._stack)
        if self._every or waits or not call.path:
            call.exit = junction_of(made)
        if waits and call.exit is not None:
            self.anchor = call.exit
            for around in self._stack:
                around.entries = around.entries or [call.exit]
        if self._every:
            self._done.append(call)
