"""sequence_warmup: train on the beginnings of the sequences at first, and on longer and longer ones.

Every tensor of the batch that is as long along the time axis as the first one is cut to the length of the
step: linearly from `start` to all of it.

What it changes:
    What the loss is given: batches that are cut in time. The model and the drawn batches stay. A diagnosis of
    the case sees the first lengths, since each of its passes counts as a step.

Why it helps:
    A gain per step acts as often as there are steps: over eight of them neither a decay nor a growth has done
    much, the early gradient is alive and bounded, and by the time the sequences are long the weights have
    learned to keep what matters. In large language models it lets training stand larger rates.

When it does not help:
    It puts off what the whole length does; a recurrence that explodes over 200 steps does so when they come.
    What has to be learned from the end of a sequence is not seen at first. Models that know their length (a
    head over all positions, learned positions counted from the end) do not take shorter ones, and the remedy
    refuses. Padding at the front is all that is left of a padded sequence.

What it costs:
    Less per step while sequences are short; more steps in all.

References:
    Li, Zhang and He, "The Stability-Efficiency Dilemma: Investigating Sequence Length Warmup for Training GPT
    Models" (NeurIPS 2022), section 4. Bengio, Louradour, Collobert and Weston, "Curriculum learning" (ICML
    2009).
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain._case import Batch, Case, fresh, random_states
from unitygain._registry import remedy
from unitygain.guard import LengthWarmup
from unitygain.probe.hooks import Hooks
from unitygain.remedies._snapshot import Undo

FIRST = 8


@remedy(treats=("UG401", "UG402"), changes="data", instead_of=("rescale_weights", "open_gates"))
def sequence_warmup(
    case: Case, *, axis: int | None = None, start: int = FIRST, steps: int = 100, multiple_of: int = 1
) -> Undo:
    """Cut the batches to a length that grows from step to step.

    Steps are counted by backward passes of the loss, for each model on its own.

    Args:
        case: The case; its loss is wrapped.
        axis: Which axis of the batch's tensors is time; known by itself where a tensor of the batch enters an
            nn.RNN, nn.LSTM or nn.GRU as it is.
        start: The first length.
        steps: Steps in which it grows.
        multiple_of: Lengths are multiples of this.

    Returns:
        What gives the case its own loss back.

    Raises:
        ValueError: If the axis is not known or no tensor of the batch has it, the sequences are not longer
            than `start`, a number is below 1, or the loss does not take the short ones.

    Side effects:
        ``case.loss``. Runs the loss on copies.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> case = Case(nn.GRU(2, 3, batch_first=True), loss=lambda m, x: m(x)[0].sum() * 0 + x.shape[1],
        ...             data=[torch.ones(1, 40, 2)])
        >>> undo = sequence_warmup(case, steps=4)
        >>> lengths = [case.compute_loss(case.batches[0]) for _ in range(2)]  # read, and not stepped
        >>> for _ in range(4):
        ...     lengths.append(case.compute_loss(case.batches[0]))
        ...     lengths[-1].backward()
        >>> [int(length) for length in lengths]
        [8, 8, 8, 16, 24, 32]
    """
    found = _time_axis(case) if axis is None else axis
    long = [
        leaf.shape[found] for leaf in _tensors(case.batches[0]) if found is not None and leaf.ndim > found
    ]
    if found is None or not long:
        raise ValueError(
            "which axis of the batch is time is not known; give axis=1 where it is (batch, time, ...)"
        )
    if long[0] <= start:
        raise ValueError(f"the sequences have {long[0]} steps; give a start below, or leave them as they are")
    make = _lengths(start, long[0], steps, multiple_of)
    given, running = case.loss, WeakKeyDictionary[nn.Module, LengthWarmup]()
    make()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        lengths = running.setdefault(model, make())
        return _stepping(given(model, _cut(batch, found, lengths.length)), lengths)

    twin = case.copy()
    try:
        with random_states(), torch.no_grad(), twin.autocast():
            given(twin.model, _cut(fresh(twin.batches[0]), found, start))
    except Exception as error:
        raise ValueError(
            f"the loss does not take sequences of {start} steps ({type(error).__name__}: {error}); cut them "
            "where they are made"
        ) from error
    case.loss = loss

    def undo() -> None:
        case.loss = given

    return undo


def _stepping(loss: Tensor, lengths: LengthWarmup) -> Tensor:
    """Let the backward pass of a loss be a step; one that is only read is none."""

    def step(gradient: Tensor) -> None:
        next(lengths)

    if loss.requires_grad:
        Hooks().change_gradient(loss, step)
    return loss


def _lengths(start: int, end: int, steps: int, multiple_of: int) -> Callable[[], LengthWarmup]:
    return lambda: LengthWarmup(start, end, steps, multiple_of=multiple_of)


def _tensors(batch: Batch) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]


def _cut(batch: Batch, axis: int, length: int) -> Batch:
    """Cut every tensor that is as long along the axis as the first that has it."""
    full = next(leaf.shape[axis] for leaf in _tensors(batch) if leaf.ndim > axis)

    def cut(leaf: Any) -> Any:
        timed = isinstance(leaf, Tensor) and leaf.ndim > axis and leaf.shape[axis] == full
        return leaf.narrow(axis, 0, min(length, full)) if timed else leaf

    return pytree.tree_map(cut, batch)


def _time_axis(case: Case) -> int | None:
    """The time axis of the recurrent module that a tensor of the batch enters as it is."""
    found: list[int] = []
    twin, batch = case.copy(), fresh(case.batches[0])
    leaves = {leaf.data_ptr() for leaf in _tensors(batch)}
    hooks = Hooks()

    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shown = next((t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)), None)
        if isinstance(module, nn.RNNBase) and shown is not None and shown.data_ptr() in leaves:
            found.append(1 if module.batch_first and shown.ndim == 3 else 0)

    for module in twin.model.modules():
        if isinstance(module, nn.RNNBase):
            hooks.on_call(module, see, lambda *_: None)
    try:
        with random_states(), torch.no_grad(), twin.autocast():
            twin.loss(twin.model, batch)
    finally:
        hooks.remove()
    return found[0] if found else None
