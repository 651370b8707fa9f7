"""The check of a new order of norms: a changed copy against branches of the original, evaluated elsewhere."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.probe.hooks import Hooks
from unitygain.probe.wiring import run_quietly, unfused
from unitygain.remedies._ahead import NormAhead, ReadNormed, fresh_norm
from unitygain.remedies._norm_order import Order, turn
from unitygain.remedies._post_norm import Refused, Sublayer
from unitygain.stats import rms

# Both ways add the same numbers in another order: a few roundings of the sum.
ROUNDINGS = 64
Seen = dict[str, list[Tensor]]


def check_order(twin: Case, order: Order, seed: int = 0) -> None:
    """Change a copy, run it, and compare every sum with branches of the unchanged model.

    For every norm that moves, the original is run once more with what its branch should now read in the place
    of the whole stream: the sum that its norm is handed, less that, is the branch; with the stream it must
    be the sum that the changed copy has.

    Raises:
        Refused: If one differs by more than rounding.
    """
    if not order.sublayers:
        return
    undo = turn(twin, order)
    try:
        sums, entries = _run_changed(twin, order, seed)
    finally:
        undo()
    wrong = _Original(twin, order, sums, entries).run(seed)
    if wrong:
        raise Refused(f"the branch of {wrong[0]} could not be told from the stream: {wrong[1]}")


def _run_changed(twin: Case, order: Order, seed: int) -> tuple[Seen, Seen]:
    """The sums at the places of the norms in the changed model, and what enters its streams, by call."""
    sums: Seen = defaultdict(list)
    entries: Seen = defaultdict(list)
    hooks = Hooks()
    for sublayer in order.sublayers:
        place = twin.model.get_submodule(sublayer.norm)
        hooks.on_call(place, _see(sums[sublayer.norm], 0), lambda *_: None)
        entry = sublayer.entry
        if sublayer.norm not in order.before and entry.where:
            module = twin.model.get_submodule(entry.path)
            hooks.on_call(module, _see(entries[sublayer.norm], entry.where[0]), lambda *_: None)
    try:
        with unfused():
            run_quietly(twin, seed)
    finally:
        hooks.remove()
    return sums, entries


def _see(kept: list[Tensor], where: Any) -> Any:
    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept.append(kwargs[where] if isinstance(where, str) else args[where])

    return see


class _Original:
    """The unchanged model, run with its streams overwritten by what its branches read in the changed one."""

    def __init__(self, twin: Case, order: Order, sums: Seen, entries: Seen) -> None:
        self._twin, self._order = twin, order
        self._sums, self._entries = sums, entries
        self._norms = {s.norm: twin.model.get_submodule(s.norm) for s in order.sublayers}
        self._after = {before: path for path, before in order.before.items()}
        self._calls: dict[str, int] = defaultdict(int)
        self._wrong: list[tuple[str, str]] = []

    def run(self, seed: int) -> tuple[str, str] | None:
        """Return the first norm whose sum differs, and by how much."""
        hooks = Hooks()
        for sublayer in self._order.sublayers:
            hooks.change_output(self._norms[sublayer.norm], self._leave(sublayer))
            if sublayer.norm not in self._order.before and sublayer.entry.where:
                entry = self._twin.model.get_submodule(sublayer.entry.path)
                ahead = NormAhead(self._norms[sublayer.norm])
                hooks.change_input(entry, _Overwrite(ahead, sublayer.entry.where))
        try:
            with unfused():
                run_quietly(self._twin, seed)
        finally:
            hooks.remove()
        return self._wrong[0] if self._wrong else None

    def _leave(self, sublayer: Sublayer) -> Any:
        path = sublayer.norm
        norm, streams = self._norms[path], self._sums.get(self._order.before.get(path, ""), [])
        follower = self._norms.get(self._after.get(path, ""))
        if follower is None and self._order.ends.get(path) is not None:
            follower = fresh_norm(norm)

        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            number = self._calls[path]
            self._calls[path] += 1
            changed = self._sums[path][number]
            known = streams or self._entries.get(path, [])
            if known:
                differs = compare(known[number], norm.forward(known[number]), args[0], changed)
                self._wrong.extend([(path, differs)] if differs else [])
            return changed if follower is None else follower.forward(changed)

        return leave


class _Overwrite(ReadNormed):
    """Like a branch that reads the norm, for all that reads the stream; the norm's own hooks stay out."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        for place in self.where:
            given[place] = self.ahead.held.forward(given[place])
        return tuple(given[index] for index in range(len(args))), {name: given[name] for name in kwargs}


def compare(stream: Tensor, read: Tensor, total: Tensor, changed: Tensor) -> str:
    """Say by how much stream + branch differs from the changed sum; empty where it is rounding."""
    expected = stream + (total - read).reshape(stream.shape)
    size = float(rms(expected)) + float(rms(total))
    off = float(rms(expected - changed.reshape(stream.shape))) / size if size else 0.0
    limit = ROUNDINGS * torch.finfo(changed.dtype).eps
    return "" if off <= limit else f"its sum differs by {off:.1g} of its size from stream and branch"
