"""The blocks of a case's trunk, as one pass shows them, for remedies that change every block."""

from dataclasses import dataclass

from unitygain._case import Case
from unitygain._types import Site
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe
from unitygain.probe.sites import Select, selects
from unitygain.probe.wiring import Key, Wire, Wiring, wire


@dataclass(frozen=True)
class Spine:
    """A trunk with the wiring of its pass.

    Args:
        blocks: The call of every block, in order.
        after: For each block, the call that reads what leaves it: the next block, or the head.
        wiring: The pass.
    """

    blocks: tuple[Wire, ...]
    after: tuple[Wire | None, ...]
    wiring: Wiring


def find_spine(case: Case, sites: Select) -> Spine:
    """Run a copy of a case and return the chosen blocks of its trunk.

    Raises:
        ValueError: If no part of the model repeats, none of it is chosen, or a block runs again.
    """
    with isolated(case) as (twin, _):
        record = observe(twin, [])
        wiring = wire(twin)
    calls = {(call.path, call.number): call for call in reversed(wiring.calls)}
    followers: tuple[Site | None, ...] = (*record.blocks[1:], record.end) if record.blocks else ()
    pairs = [
        (
            calls[site.path, site.call or 1],
            None if next_ is None else calls.get((next_.path, next_.call or 1)),
        )
        for site, next_ in zip(record.blocks, followers, strict=True)
    ]
    chosen = [(block, after) for block, after in pairs if selects(sites, block.path, block.module)]
    if not chosen:
        what = (
            "no part of the model repeats" if not pairs else f"no block of the trunk is chosen by {sites!r}"
        )
        raise ValueError(f"{what}; name the blocks with sites=")
    for block, _ in chosen:
        if wiring.times(block.module) > 1:
            raise ValueError(f"{block.path} runs several times per pass; blocks that share weights are left")
    return Spine(tuple(b for b, _ in chosen), tuple(a for _, a in chosen), wiring)


def entering(call: Wire) -> Key | None:
    """Return the key of the first tensor that a call is handed."""
    return next(iter(call.taken.values()), None)


def keeps_shape(call: Wire) -> bool:
    """Whether what a call returns first has as many numbers as what it is handed first."""
    given = entering(call)
    return given is not None and bool(call.made) and given[1] == call.made[0][1]


def has_skip(wiring: Wiring, block: Wire, after: Wire | None) -> bool:
    """Whether what enters a block is added to something until the next one begins."""
    until = after.began if after is not None else block.ended
    return any(
        step.name in {"add", "sub", "lerp"} and block.began < step.time < max(until, block.ended)
        for step in wiring.readers.get(entering(block) or (0, 0, 0), ())
    )
