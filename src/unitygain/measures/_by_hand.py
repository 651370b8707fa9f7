"""Layers that are a list of matrices, multiplied one after the other without a module each."""

import itertools
import math
import re
from collections import defaultdict

from unitygain._types import Profile, Site
from unitygain.measures._staging import NOTE, ratio, slope_facts
from unitygain.probe.record import Record

# A product or two are what many a head does; blocks that repeat are the trunk.
LEAST, BLOCKS = 4, 3


def matrix_site(site: Site, name: str) -> Site:
    """Return the site of a matrix: its parameter's name, numbered where several are slices of one."""
    return Site(".".join(filter(None, (site.path, name))), site.call)


def matrix_gains(record: Record, name: str, unit: str, *, forward: bool) -> Profile | None:
    """Return by how much each matrix of the longest list, with what follows it, amplifies.

    None without a list of four, and where three blocks repeat.

    Args:
        record: A record with `matrix.entering` (rms) or, for the gradient, `matrix.arriving` (norm).
        name: The measure's name.
        unit: Its unit.
        forward: Whether it is the signal's gain.
    """
    sizes = record.values.get("matrix.entering" if forward else "matrix.arriving", {})
    lists: dict[tuple[str, str], list[tuple[Site, float]]] = defaultdict(list)
    for place in record.of("matrix"):
        known = sizes.get(place.site, (math.nan,))[0]
        held = place.site.path, re.sub(r"\d+$", "", place.type)
        lists[held].append((matrix_site(place.site, place.type), known))
    longest = max(lists.values(), key=len, default=[])
    if len(longest) < LEAST or len(record.blocks) >= BLOCKS:
        return None
    pairs = itertools.pairwise(longest)
    found = {
        a: ratio(after, before) if forward else ratio(before, after) for (a, before), (_, after) in pairs
    }
    known = {site: value for site, value in found.items() if not math.isnan(value)}
    if not known:
        return None
    values, labels = tuple(known.values()), ("matrix",) * len(known)
    return Profile(name, unit, tuple(known), values, labels=labels, facts=slope_facts(values), note=NOTE)
