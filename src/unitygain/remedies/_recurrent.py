"""The recurrent modules of torch: their gates' biases, and over how many steps they run."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from unitygain._case import Case
from unitygain.probe.hooks import Hooks
from unitygain.probe.isolate import isolated
from unitygain.probe.sites import Select, selects

GATED = (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell)
LSTMS = (nn.LSTM, nn.LSTMCell)
# torch stacks the gates of an LSTM as i, f, g, o and those of a GRU as r, z, n: the second keeps the state.
ENTERING, KEEPING = 0, 1


def find_recurrent(
    model: nn.Module, sites: Select, kinds: tuple[type[nn.Module], ...]
) -> Iterator[tuple[str, Any]]:
    """Yield the chosen recurrent modules of the given kinds, with their paths."""
    for path, module in model.named_modules():
        if isinstance(module, kinds) and selects(sites, path, module):
            yield path, module


def bias_pairs(module: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the two biases of every layer and direction, which torch adds up; none where it has no biases."""
    own = dict(module.named_parameters(recurse=False))
    for name, bias in own.items():
        if name.startswith("bias_ih"):
            yield bias, own[name.replace("bias_ih", "bias_hh")]


def set_gate(pair: tuple[Tensor, Tensor], gate: int, hidden: int, value: Tensor | float) -> None:
    """Give a gate the effective bias `value`: the first of its two biases has it all, the second is zero."""
    rows = slice(gate * hidden, (gate + 1) * hidden)
    with torch.no_grad():
        pair[0][rows] = value
        pair[1][rows] = 0.0


def count_steps(case: Case, paths: list[str]) -> int:
    """Return the most steps that one of the modules runs over in the case's batches: one pass over each."""
    steps: Counter[str] = Counter()
    calls: Counter[str] = Counter()

    with isolated(case) as (twin, _):
        for batch in twin.batches:
            hooks = Hooks()
            calls.clear()
            for path in paths:
                hooks.on_call(twin.model.get_submodule(path), _counting(path, steps, calls), lambda *_: None)
            try:
                with torch.no_grad():
                    twin.compute_loss(batch)
            finally:
                hooks.remove()
            for path, count in calls.items():
                steps[path] = max(steps[path], count)
    return max(steps.values(), default=0)


def _counting(path: str, steps: Counter[str], calls: Counter[str]) -> Any:
    def enter(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered = args[0] if args else kwargs.get("input")
        if isinstance(module, nn.RNNCellBase):
            calls[path] += 1
        elif isinstance(entered, PackedSequence):
            steps[path] = max(steps[path], len(entered.batch_sizes))
        elif isinstance(entered, Tensor):
            first = entered.ndim == 2 or not module.batch_first
            steps[path] = max(steps[path], entered.shape[0 if first else 1])

    return enter
