"""Parameters without a gradient that are to spare by design: offsets that cancel, the last of a series."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from unitygain._types import Cause, Profile, Site
from unitygain.rules._parameters import is_bias, list_owners, numbers, owner, pattern


def find_spare(sites: Sequence[Site], leaves: Sequence[Site], profiles: Mapping[str, Profile]) -> list[Cause]:
    """Explain why the `sites` have no gradient where nothing is left for them to change; empty elsewhere.

    A bias whose weight gets a gradient is lost in a difference or a slope. The last of a series, as the
    last backcast of residual forecasts, is called where its kind is and hands on to a block that is not
    there. What marks a series that is handed on, and not one head among others that was forgotten, is that
    something of the last block, called between the last two of the series, gets a gradient.

    Args:
        sites: The trainable parameters without a gradient.
        leaves: The modules that ran, in the order in which they first did.
        profiles: With `param_grad_rms`: those that get one; without it none does.
    """
    if "param_grad_rms" not in profiles:
        return []
    gets = [site for site, value in profiles["param_grad_rms"].items() if value > 0]
    weighed = {owner(site) for site in gets if not is_bias(site)}
    last = set(_ends_of_series({owner(site) for site in sites}, {owner(site) for site in gets}, leaves))
    ends = [site for site in sites if owner(site) in last]
    offsets = [s for s in sites if is_bias(s) and owner(s) in weighed and owner(s) not in last]
    if len(ends) + len(offsets) < len(sites):
        return []
    causes = []
    if ends:
        names = list_owners(ends)
        causes.append(Cause(f"end of a series: there is no next block to read what {names} hands on"))
    if offsets:
        names = list_owners(offsets)
        causes.append(Cause(f"biases: the loss reads only differences or slopes of what {names} returns"))
    return causes


def _ends_of_series(idle: set[str], busy: set[str], leaves: Sequence[Site]) -> Iterator[str]:
    """Yield the modules that end a series which each block hands to the next."""
    places = {path: k for k, path in enumerate(dict.fromkeys(leaf.path for leaf in leaves))}
    series: dict[str, list[str]] = defaultdict(list)
    for path in places:
        if path in idle or path in busy:
            series[pattern(Site(path))].append(path)
    order = list(places)
    for kin in series.values():
        *others, before, end = ["", *kin]
        if not before or end not in idle or not busy.issuperset(filter(None, [*others, before])):
            continue
        block = _next_block(before, end)
        between = order[places[before] + 1 : places[end]]
        if block and any(path in busy and numbers(Site(path))[: len(block)] == block for path in between):
            yield end


def _next_block(before: str, end: str) -> tuple[int, ...]:
    """The numbers of the block of `end`, where it is the one after that of `before`; else empty."""
    old, new = numbers(Site(before)), numbers(Site(end))
    split = next((k for k, (a, b) in enumerate(zip(old, new, strict=True)) if a != b), None)
    return new[: split + 1] if split is not None and new[split] == old[split] + 1 else ()
