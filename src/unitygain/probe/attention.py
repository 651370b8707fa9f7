"""Finds attention by what runs: the maps of queries and keys, the width of heads, the scale of logits."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.probe.isolate import isolated
from unitygain.probe.linear_maps import find_weights
from unitygain.probe.sites import Select, selects
from unitygain.probe.wiring import Key, Step, Wire, Wiring, wire
from unitygain.stats import rms

SOFTMAX = frozenset({"_softmax", "_safe_softmax"})
PRODUCTS = frozenset({"bmm", "baddbmm", "mm"})
# Masks are infinite, or at least this far below the logits.
MASKED = -1e3
# Operations between a map and what is made of it.
REACH = 200


Columns = tuple[int, int] | None


@dataclass(frozen=True)
class Side:
    """Queries or keys: path of the map that makes them, and which columns of its output; None is all."""

    path: str
    columns: Columns = None


@dataclass(frozen=True)
class Attends:
    """One attention.

    Args:
        path: The innermost module that computes it.
        query: Where queries come from.
        key: Where keys come from.
        width: Numbers per head.
        scale: Logits over the product of queries and keys as their maps make them; NaN if not one number.
        spread: How much the lengths of single queries and keys differ, relative to their mean square.
    """

    path: str
    query: Side
    key: Side
    width: int
    scale: float
    spread: float


def find_attention(case: Case, sites: Select) -> list[Attends]:
    """Run a copy of a case and return every attention whose queries and keys come from maps that are modules.

    Costs one forward pass, and memory for every tensor of it. nn.MultiheadAttention, whose maps are no
    modules, is not among them.
    """
    with isolated(case) as (twin, _):
        return read_attention(wire(twin, hold=True), sites)


def read_attention(wiring: Wiring, sites: Select) -> list[Attends]:
    """Return the attention of a pass whose tensors are held."""
    maps = {c.made[0]: c for c in wiring.calls if len(c.made) == 1 and is_map(c.module)}
    found = []
    for step in wiring.steps:
        inside = step.call
        if step.name in SOFTMAX and inside is not None and inside.number == 1:
            whole = isinstance(inside.module, nn.MultiheadAttention)
            if not whole and any(selects(sites, call.path, call.module) for call in inside.around()):
                one = _read(wiring, step, inside, maps)
                found += [one] if one is not None else []
    return found


def _read(wiring: Wiring, softmax: Step, inside: Wire, maps: dict[Key, Wire]) -> Attends | None:
    product = next(iter(back(wiring, softmax.reads[0], PRODUCTS)), None)
    if product is None:
        return None
    q, k, out = *product.held[-3:-1], product.held[-1]
    queries, keys = (_sources(wiring, read, maps) for read in product.reads[-2:])
    if len(queries) != 1 or len(keys) != 1 or q.shape[-1] < 2:
        return None
    first, second = None, None
    if queries[0] is keys[0]:
        first, second = _packing(wiring.tensors[queries[0].made[0]], q)
    query, key = Side(queries[0].path, first), Side(keys[0].path, second)
    scale = _ratio(softmax.held[0], out)
    for side, used, source in ((query, q, queries[0]), (key, k, keys[0])):
        made = part(wiring.tensors[source.made[0]], side.columns)
        scale *= _over(float(rms(used)), float(rms(made)))
    return Attends(inside.path, query, key, int(q.shape[-1]), scale, max(_spread(q), _spread(k.mT)))


def part(tensor: Tensor, columns: Columns) -> Tensor:
    """Return these columns of the last dimension, or all of it for None."""
    return tensor if columns is None else tensor[..., slice(*columns)]


def _packing(made: Tensor, query: Tensor) -> tuple[Columns, Columns]:
    """Where queries and keys lie in what one map makes of both, before its values.

    The queries that are used tell how many numbers of a row are theirs; keys and values, of as many heads or
    fewer, share the rest.
    """
    width, rows = made.shape[-1], made.numel() // made.shape[-1]
    whole, over = divmod(query.numel(), rows)
    of_keys = (width - whole) // 2
    if over or not 0 < of_keys <= whole or of_keys % query.shape[-1] or whole + 2 * of_keys != width:
        whole = of_keys = -(-width // 3)
    return (0, whole), (whole, whole + of_keys)


def is_map(module: nn.Module) -> bool:
    """Whether a module is a linear map."""
    return any(weight.module is module for weight in find_weights(module))


def _over(value: float, by: float) -> float:
    return value / by if by else float("nan")


def _spread(rows: Tensor) -> float:
    squares = torch.linalg.vecdot(rows, rows)
    usual = rms(squares)
    return _over(float(rms(squares - usual.to(squares.dtype))), float(usual))


def _ratio(logits: Tensor, products: Tensor) -> float:
    """Logits over products where they are not masked; NaN where they are not proportional."""
    logits, products = logits.reshape(-1), products.reshape(-1)
    if logits.shape != products.shape:
        return float("nan")
    seen = logits > MASKED
    logits, products = logits[seen], products[seen]
    ratio = _over(float(rms(logits)), float(rms(products)))
    rest = _over(float(rms(logits - ratio * products)), float(rms(logits)))
    return ratio if rest < 1e-2 else float("nan")


def back(wiring: Wiring, start: Key, names: frozenset[str]) -> list[Step]:
    """Return the nearest operations of these names of which a tensor is made."""
    found, open_, seen = [], [start], set[Key]()
    while open_ and len(seen) < REACH:
        key = open_.pop(0)
        step = wiring.makers.get(key)
        if key in seen or step is None or step.call is None:
            continue
        seen.add(key)
        if step.name in names:
            found.append(step)
        else:
            open_ += step.reads
    return found


def _sources(wiring: Wiring, start: Key, maps: dict[Key, Wire]) -> list[Wire]:
    """The linear maps of whose outputs a tensor is made, without going past one."""
    found: dict[Wire, None] = {}
    open_, seen = [start], set[Key]()
    while open_ and len(seen) < REACH:
        key = open_.pop()
        if key in seen:
            continue
        seen.add(key)
        if key in maps:
            found[maps[key]] = None
        elif key in wiring.makers:
            open_ += wiring.makers[key].reads
    return list(found)
