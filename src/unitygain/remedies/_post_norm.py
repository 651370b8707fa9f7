"""Finds where a model normalises the sum of its stream and a branch: norm(x + f(x)), the Post-LN order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from unitygain.probe.sites import Select, selects
from unitygain.probe.wiring import VIEWS, Key, Step, Where, Wire, Wiring

TORCH_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


@dataclass(frozen=True)
class Reader:
    """A module of the branch that reads the stream: its path and the arguments that are the stream."""

    path: str
    where: tuple[Where, ...]


@dataclass(frozen=True, eq=False)
class Sublayer:
    """One norm(x + f(x)).

    Args:
        norm: Path of the norm.
        stream: Key of x.
        leaves: Key of what the norm returns.
        readers: The modules through which f reads x.
        entry: The outermost module that is handed x and holds the norm, and where; empty without one.
    """

    norm: str
    stream: Key
    leaves: Key
    readers: tuple[Reader, ...]
    entry: Reader


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of torch's own that normalises last, and can be told to do so first."""

    path: str
    stream: Key
    leaves: Key


class Refused(ValueError):
    """A Post-LN structure that cannot be turned exactly; says why."""


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises each token by itself: by the name of its class, and without statistics."""
    named = re.search("norm", type(module).__name__, re.IGNORECASE) is not None
    return named and not any(True for _ in module.buffers())


def is_torch_layer(module: nn.Module) -> bool:
    """Whether it is torch's own encoder or decoder layer, normalising last."""
    own = any(isinstance(module, kind) and type(module).forward is kind.forward for kind in TORCH_LAYERS)
    return own and not module.norm_first


def find_layers(wiring: Wiring, sites: Select) -> list[Layer]:
    """Return torch's own Post-LN layers among the chosen modules.

    Raises:
        Refused: If one runs more than once per pass.
    """
    found = []
    for call in wiring.calls:
        if call.number == 1 and is_torch_layer(call.module) and chosen(call, sites):
            require_once(wiring, call)
            stream = call.taken.get(0, call.taken.get("src", call.taken.get("tgt")))
            if stream is not None and call.made:
                found.append(Layer(call.path, stream, call.made[0]))
    return found


def find_sublayers(wiring: Wiring, sites: Select) -> list[Sublayer]:
    """Return every norm of a sum of stream and branch among the chosen modules, in the order of their calls.

    Raises:
        Refused: If a stream is read otherwise than by modules and the one sum, or a norm runs again.
    """
    parents = {call.parent for call in wiring.calls}
    found = []
    for call in wiring.calls:
        inside = any(is_torch_layer(around.module) for around in call.around())
        if call in parents or call.number > 1 or inside:
            continue
        if is_norm(call.module) and chosen(call, sites):
            sublayer = _read(wiring, call)
            if sublayer is not None:
                require_once(wiring, call)
                found.append(sublayer)
    return found


def chosen(call: Wire, sites: Select) -> bool:
    """Whether a call, or one around it, was chosen."""
    return any(selects(sites, around.path, around.module) for around in call.around())


def require_once(wiring: Wiring, call: Wire) -> None:
    """Refuse a module that is called again in the same pass.

    Raises:
        Refused: If it is.
    """
    times = wiring.times(call.module)
    if times > 1:
        raise Refused(f"{call.path} runs {times} times per pass; layers that share weights are not rewired")


def _read(wiring: Wiring, norm: Wire) -> Sublayer | None:
    """The sublayer that ends with `norm`; None where its input is no sum of a stream and a branch."""
    inputs = list(norm.taken.values())
    if len(inputs) != 1 or len(norm.made) != 1 or inputs[0][1] != norm.made[0][1]:
        return None
    if any(step.call is not norm for step in readings(wiring, inputs[0], norm)):
        return None
    leaves, sums = _opened(wiring, inputs[0], norm)
    clean, reasons = [], []
    for leaf in dict.fromkeys(leaves):
        readers, reason = _readers(wiring, leaf, norm, sums)
        if readers and not reason:
            clean.append((leaf, readers))
        elif reason and (readers or _handed(norm, leaf) is not None):
            reasons.append(reason)
    if len(clean) > 1:
        reasons = [f"{norm.path} normalises a sum of {len(clean)} tensors that modules read"]
    if reasons:
        raise Refused(reasons[0])
    if not clean:
        return None
    stream, readers = clean[0]
    return Sublayer(norm.path, stream, norm.made[0], readers, _handed(norm, stream) or Reader("", ()))


def readings(wiring: Wiring, key: Key, beside: Wire) -> list[Step]:
    """Return the operations that read the numbers of a tensor in the same pass of the model as a call."""
    return [
        step
        for step in wiring.readers.get(key, ())
        if step.name not in VIEWS and step.call is not None and step.call.outermost is beside.outermost
    ]


def _opened(wiring: Wiring, total: Key, norm: Wire) -> tuple[list[Key], list[Step]]:
    """What is summed up to `total`, and by which additions; sums that something else reads stay closed."""
    step = wiring.makers.get(total)
    if step is None or step.name != "add" or len(step.reads) != 2 or step.plain:
        return [total], []
    # A sum in place would change the stream under the norm that reads it.
    if any(read[0] == total[0] for read in step.reads):
        return [total], []
    leaves, sums = [], [step]
    for part in step.reads:
        alone = len(readings(wiring, part, norm)) == 1
        below, inner = _opened(wiring, part, norm) if alone else ([part], [])
        leaves += below
        sums += inner
    return leaves, sums


def _readers(wiring: Wiring, stream: Key, norm: Wire, sums: Sequence[Step]) -> tuple[tuple[Reader, ...], str]:
    """The modules through which a branch reads the stream, and why they are not all, or empty."""
    adding = [call for step in sums if stream in step.reads and step.call for call in step.call.around()]
    readers: dict[str, Reader] = {}
    reason = ""
    for step in readings(wiring, stream, norm):
        if step in sums:
            continue
        reader = _outermost(step, stream, norm.began, adding)
        if reader is None:
            where = step.call.path if step.call and step.call.path else "the model's own forward"
            reason = f"the operation {step.name} in {where} reads the stream of {norm.path} directly"
        elif is_norm(reader.module):
            reason = f"{reader.path} normalises the stream of {norm.path} already"
        else:
            require_once(wiring, reader)
            places = tuple(place for place, key in reader.taken.items() if key == stream)
            readers[reader.path] = Reader(reader.path, places)
    return tuple(readers.values()), reason


def _outermost(step: Step, stream: Key, before: int, adding: Sequence[Wire]) -> Wire | None:
    """The outermost module that was handed the stream for this operation, and does not add it up itself."""
    found = None
    for call in step.call.around() if step.call else ():
        if stream in call.taken.values() and 0 < call.ended < before and call not in adding:
            found = call
    return found


def _handed(norm: Wire, stream: Key) -> Reader | None:
    """The outermost module around the norm that was handed the stream."""
    found = None
    for call in norm.around():
        places = tuple(place for place, key in call.taken.items() if key == stream)
        if call is not norm and places:
            found = Reader(call.path, places)
    return found
