"""Gates and activations of recurrent modules, from an unrolled computation with their own weights."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from unitygain.probe.activations import SLOPES, silenced
from unitygain.probe.cells import GATES, Cell, State, cells, unroll
from unitygain.probe.sites import Call
from unitygain.stats import frac_dead, mean
from unitygain.stats.operations import frac_closed, slopes

if TYPE_CHECKING:
    from unitygain.probe.ops import Watch

KINDS = (nn.RNNBase, nn.RNNCellBase)
Parts = dict[tuple[Cell, str], list[Tensor]]


def watch(into: "Watch", call: Call, args: tuple[Any, ...]) -> None:
    """Note the gates (and the nonlinearity) of a recurrent module call in the watch.

    Cost: one unrolled forward pass without a graph.
    """
    module = call.module
    assert isinstance(module, KINDS)
    if not (into.wanted.get("gate") or into.wanted.get("activation")):
        return
    if not args or isinstance(args[0], PackedSequence):
        into.skipped[f"gates of {call.path or '(model)'}"] = "a packed sequence is not unrolled"
        return
    weight = next(module.parameters())
    x, state = (_cast(value, weight) for value in (args[0], args[1] if len(args) > 1 else None))
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        parts = _parts(module, x, state)
    single = len({cell for cell, _ in parts}) == 1
    for (cell, part), steps in parts.items():
        name = part if single else f"{part} {cell.name}"
        _note(into, call, cell, part, name, torch.stack(steps))
    if isinstance(module, nn.RNNBase) and module.dropout and module.training and module.num_layers > 1:
        into.skipped[f"dropout between the layers of {call.path or '(model)'}"] = (
            "its gates are read without it"
        )


def _parts(module: nn.RNNBase | nn.RNNCellBase, x: Tensor, state: Any) -> Parts:
    found: Parts = defaultdict(list)

    def visit(cell: Cell, time: int, state: State, parts: Any) -> None:
        for name, value in parts.items():
            found[cell, name].append(value)

    if isinstance(module, nn.RNNBase):
        unroll(module, x, state, visit)
        return found
    cell = cells(module)[0][0]
    flat = x.reshape(-1, x.shape[-1])
    given = (state,) if isinstance(state, Tensor) else state
    begin = tuple(s.reshape(-1, s.shape[-1]) for s in given) if given else cell.start(len(flat), flat)
    visit(cell, 0, begin, cell.step(flat, begin)[1])
    return found


def _note(into: "Watch", call: Call, cell: Cell, part: str, name: str, values: Tensor) -> None:
    if part in GATES[cell.kind]:
        if into.wanted.get("gate"):
            seen = into.add("gate", name, values, kind=part)
            seen.call = call
            seen.numbers |= {"mean": mean(values), "frac_closed": frac_closed(values)}
    elif into.wanted.get("activation"):
        kind = "relu" if cell.kind == "relu" else "tanh"
        seen = into.add("activation", name, values, kind=kind)
        seen.call = call
        # The slope of tanh at x from y = tanh(x) is 1 - y²; that of ReLU at x is that at max(x, 0).
        bent = SLOPES["relu"](values) if kind == "relu" else 1 - values.double().square()
        statistics = ("frac_saturated", "slope_rms", "frac_open", "frac_dead")
        # Only the unit dimension counts for dead units: time and batch are samples.
        numbers = (*slopes(bent, 1.0).unbind(), frac_dead(silenced(values, bent).flatten(0, -2)))
        seen.numbers |= dict(zip(statistics, numbers, strict=True))


def _cast(value: Any, like: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(like.dtype)
    return tuple(_cast(part, like) for part in value) if isinstance(value, tuple) else value
