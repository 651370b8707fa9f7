"""A trace of the first samples of a large batch, where they give alone what they give in the whole of it."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain._case import Batch, Case, CaseFailure
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import first_floating
from unitygain.probe.record import Record
from unitygain.probe.trace import Trace, glance, trace
from unitygain.stats import norm

# Numbers between two blocks beyond which fewer samples are taken: 4 of the demo's, 1 of GPT-2-small's.
ENTRIES = 1 << 15
FACT = "first samples of batch {}"
Entries = dict[str, list[Tensor]]


@contextmanager
def trace_few(case: Case, record: Record, batch: int = 0) -> Iterator[Trace]:
    """Trace the first samples where the batch is large, else the whole batch (see `trace`).

    With more than 32,768 numbers between two blocks, as many samples are taken as have no more; one at
    least. That is done only where it is the same computation, which is tried: without dropout the first
    samples must enter every block alone as they do among all, and no gradient may pass from one sample to
    another. A coupled batch (batch normalisation in train mode), one whose tensors do not all begin with the
    samples, and a model that cannot run on fewer or in eval mode are traced whole.

    Args:
        case: An isolated case.
        record: Its record, which names the blocks and the seed.
        batch: Which of the case's batches.

    Returns:
        The trace; its note says which samples were taken.

    Raises:
        CaseFailure: If the model or loss raises on the whole batch.

    Cost: beside the trace, a forward pass in eval mode of the whole batch; one of the samples taken, and
    another of at least two of them with two backward passes through the blocks. Nothing where
    `choose_samples` has asked before.

    Side effects:
        As `trace`. Train flags are put back.
    """
    kept = int(choose_samples(case, record, batch).facts[FACT.format(batch)])
    if not kept:
        with trace(case, record, batch) as live:
            yield live
        return
    with trace(_first(case, batch, kept), record) as live:
        live.samples = _note_on(kept, count_samples(case.batches[batch]))
        yield live


def choose_samples(case: Case, record: Record, batch: int = 0) -> Record:
    """Return the record with the fact on how many samples `trace_few` takes, so that it asks but once.

    The fact ``"first samples of batch 0"`` is 0 where it must be, or may as well be, the whole batch.
    """
    fact = FACT.format(batch)
    if fact in record.facts:
        return record
    try:
        kept = _choose(case, record, batch)
    except CaseFailure:
        kept = 0
    return replace(record, facts={**record.facts, fact: float(kept)})


def _choose(case: Case, record: Record, batch: int) -> int:
    samples = count_samples(case.batches[batch])
    if samples < 2 or not record.blocks or 0 < _largest(record) <= ENTRIES:
        return 0
    whole = _entries(case, record, batch)
    largest = max((tensor.numel() for seen in whole.values() for tensor in seen), default=0)
    if largest <= ENTRIES:
        return 0
    kept = max(1, ENTRIES * samples // largest)
    first = _first(case, batch, kept)
    axis = _axis(whole, _entries(first, record, 0), samples, kept)
    # One sample alone cannot show that it mixes with others.
    pair = first if kept > 1 else _first(case, batch, 2)
    return kept if axis is not None and _separate(pair, record, axis) else 0


def _note_on(kept: int, samples: int) -> str:
    which = "first sample" if kept == 1 else f"first {kept} samples"
    return (
        f"on the {which} of {samples}: samples that do not mix have a block each in the batch's Jacobian, "
        "and the largest over the whole batch may be larger"
    )


def count_samples(batch: Batch) -> int:
    """Return the length with which every tensor of the batch begins; 0 where there is no such."""
    lengths = {len(t) for t in pytree.tree_leaves(batch) if isinstance(t, Tensor) and t.ndim}
    return lengths.pop() if len(lengths) == 1 else 0


def _first(case: Case, batch: int, kept: int) -> Case:
    def cut(value: Any) -> Any:
        return value[:kept] if isinstance(value, Tensor) and value.ndim else value

    few = pytree.tree_map(cut, case.batches[batch])
    return Case(case.model, case.loss, [few], precision=case.precision)


def _largest(record: Record) -> int:
    """The most numbers that enter a block, if the record tells; else 0."""
    blocks = set(record.blocks)
    sizes = [torch.Size(p.shape).numel() for p in record.of("entry") if p.site in blocks]
    return max(sizes, default=0)


def _entries(case: Case, record: Record, batch: int) -> Entries:
    """What enters the blocks, call by call, in eval mode: there nothing is drawn at random."""
    modules = dict(case.model.named_modules())
    sites = [*record.blocks, *([record.end] if record.end else [])]
    seen: Entries = defaultdict(list)

    def watch(hooks: Hooks) -> None:
        for path in dict.fromkeys(site.path for site in sites):
            hooks.on_call(modules[path], _note(seen[path]), lambda *_: None)

    with _evaluating(case.model):
        glance(case, record, watch, batch)
    return seen


def _note(seen: list[Tensor]) -> Callable[..., None]:
    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = first_floating((args, kwargs))
        if first is not None:
            seen.append(first.detach())

    return enter


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Clear the train flags; not by `eval`, of which some models make more."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


def _axis(whole: Entries, few: Entries, samples: int, kept: int) -> int | None:
    """The axis along which every entry of the few is the beginning of that of all; None if one is not."""
    pairs = [pair for path, seen in whole.items() for pair in zip(seen, few[path], strict=False)]
    if any(len(seen) != len(few[path]) for path, seen in whole.items()):
        return None
    for axis in (0, 1):
        if all(_begins(a, b, axis, samples, kept) for a, b in pairs):
            return axis
    return None


def _begins(whole: Tensor, few: Tensor, axis: int, samples: int, kept: int) -> bool:
    expected = list(whole.shape)
    if whole.ndim <= axis or whole.shape[axis] != samples:
        return False
    expected[axis] = kept
    if list(few.shape) != expected:
        return False
    # Another size of the batch rounds otherwise, and depth adds to that: half of the digits are left for it.
    slack = torch.finfo(few.dtype).eps ** 0.5
    return bool(norm(whole.narrow(axis, 0, kept) - few) <= slack * norm(few))


def _separate(case: Case, record: Record, axis: int) -> bool:
    """Whether no gradient passes from one sample to another, in train mode if the model is in it."""
    with trace(case, record) as live:
        return all(block.jacobian().sample_axis == axis for block in live.blocks)
