"""From the Post-LN structure that was found to the plan of the Pre-LN one, its check, and its making."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from unitygain._case import Case
from unitygain.probe.hooks import Hooks
from unitygain.probe.sites import CONTAINERS, Select
from unitygain.probe.wiring import Key, Wire, Wiring
from unitygain.remedies._ahead import Closed, NormAhead, ReadNormed, fresh_norm
from unitygain.remedies._held import hold
from unitygain.remedies._post_norm import (
    Layer,
    Refused,
    Sublayer,
    find_layers,
    find_sublayers,
    is_norm,
)
from unitygain.remedies._snapshot import Undo, all_or_nothing, backwards


@dataclass
class Order:
    """What is to be done.

    Args:
        layers: torch's own layers, whose flag is set.
        sublayers: The norms that move.
        before: For each norm that moves, the one whose sum is its stream.
        ends: What leaves the last block of a stream: the block that gets a norm behind it, by the path of
            the last norm or layer; None where something normalises it already.
    """

    layers: list[Layer]
    sublayers: list[Sublayer]
    before: dict[str, str] = field(default_factory=dict)
    ends: dict[str, str | None] = field(default_factory=dict)

    def last_norm(self, model: nn.Module, path: str) -> nn.Module:
        """Return the norm that a new one is made after."""
        module = model.get_submodule(path)
        return module if is_norm(module) else [m for m in module.modules() if isinstance(m, nn.LayerNorm)][-1]


def plan_order(wiring: Wiring, model: nn.Module, sites: Select) -> Order:
    """Find the sums that are normalised, and where a stream ends.

    Raises:
        Refused: If there are none, or it cannot be done exactly.
    """
    order = Order(find_layers(wiring, sites), find_sublayers(wiring, sites))
    units = {**{layer.path: layer for layer in order.layers}, **{s.norm: s for s in order.sublayers}}
    if not units:
        raise Refused(
            "no chosen module normalises the sum of a stream and a branch, norm(x + f(x)), as Post-LN blocks "
            "do; the norm must be a module with a class named so, and f must read x through modules"
        )
    makes = {unit.leaves: path for path, unit in units.items()}
    order.before = {path: makes[unit.stream] for path, unit in units.items() if unit.stream in makes}
    ends = [path for path in units if path not in order.before.values()]
    alone = [path for path in ends if path not in order.before]
    if sites is None and alone and len(units) > 1:
        raise Refused(
            f"what {alone[0]} returns is changed before the next block reads it: the stream ends there"
        )
    for path in ends:
        order.ends[path] = _place(wiring, model, units, path)
    return order


def _place(wiring: Wiring, model: nn.Module, units: dict[str, Layer | Sublayer], path: str) -> str | None:
    """The module behind which the stream of `path` gets its last norm; None where it has one."""
    made = units[path].leaves
    if any(is_norm(call.module) and made in call.taken.values() for call in wiring.calls):
        return None
    holder = path.rpartition(".")[0]
    above = model.get_submodule(holder.rpartition(".")[0]) if holder else model
    stacked = (nn.TransformerEncoder, nn.TransformerDecoder)
    if isinstance(above, stacked) and above.norm is None and holder.rpartition(".")[2] == "layers":
        return holder.rpartition(".")[0]
    others = {kind for p, unit in units.items() if p != path for kind in _makers(wiring, unit.leaves)}
    same = [call for call in _producers(wiring, made) if type(call.module) in others and call.path]
    return same[0].path if same else path


def _producers(wiring: Wiring, made: Key) -> list[Wire]:
    """The calls that return a tensor, the outermost first."""
    return [call for call in wiring.calls if call.made[:1] == (made,)]


def _makers(wiring: Wiring, made: Key) -> set[type[nn.Module]]:
    return {type(call.module) for call in _producers(wiring, made)} - set(CONTAINERS)


def turn(case: Case, order: Order) -> Undo:
    """Change the model as planned, and return what puts it back."""
    model = case.model
    ends = {path: order.last_norm(model, path) for path, place in order.ends.items() if place is not None}
    hooks = Hooks()
    with all_or_nothing() as undos:
        undos += [_set_flag(model.get_submodule(layer.path)) for layer in order.layers]
        undos.append(hooks.remove)
        for sublayer in order.sublayers:
            readers = [(model.get_submodule(reader.path), reader.where) for reader in sublayer.readers]
            norm = model.get_submodule(sublayer.norm)
            ahead = NormAhead(norm).train(norm.training)
            undos.append(put(model, norm, ahead))
            for module, where in readers:
                hooks.change_input(module, ReadNormed(ahead, where))
        for path, like in ends.items():
            undos += _close(case, model, str(order.ends[path]), path, like)
    return backwards(undos)


def _set_flag(layer: nn.Module) -> Undo:
    settings: dict[str, Any] = vars(layer)
    settings["norm_first"] = True

    def undo() -> None:
        settings["norm_first"] = False

    return undo


def put(model: nn.Module, old: nn.Module, new: nn.Module) -> Undo:
    """Put `new` wherever the model holds `old`, and return what puts it back."""
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if child is old and parent is not new
    ]
    for parent, name in places:
        parent._modules[name] = new

    def undo() -> None:
        for parent, name in places:
            parent._modules[name] = old

    return undo


def _close(case: Case, model: nn.Module, place: str, path: str, like: nn.Module) -> list[Undo]:
    """Give what leaves the last block a norm of its own."""
    new = fresh_norm(like).train(like.training)
    held = hold(case, new.parameters(), next(like.parameters(), None))
    module = model.get_submodule(place)
    if isinstance(module, (nn.TransformerEncoder, nn.TransformerDecoder)) and place != path:
        return [held, _set_norm(module, new)]
    return [held, put(model, module, Closed(new, module).train(module.training))]


def _set_norm(stack: nn.Module, norm: nn.Module) -> Undo:
    registered = "norm" in stack._modules
    stack.norm = norm

    def undo() -> None:
        del stack.norm
        if registered:
            stack._modules["norm"] = None
        else:
            settings: dict[str, Any] = vars(stack)
            settings["norm"] = None

    return undo
