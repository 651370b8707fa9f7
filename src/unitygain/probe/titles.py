"""Names of operations: the module call that one stands for, else its path and what it does, numbered."""

from collections import Counter
from collections.abc import Mapping

from unitygain._types import Site
from unitygain.probe.sites import Call
from unitygain.probe.trail import Seen


def name_operations(seen: list[Seen], sites: Mapping[Call, Site]) -> dict[Seen, Site]:
    """Name operations: the module call for one that stands for it, else ``path.(operation)``, numbered."""

    def title(one: Seen) -> tuple[str, str, str]:
        return one.signal, one.call.path if one.call else "", one.operation

    total = Counter(title(one) for one in seen if not one.whole)
    count: Counter[tuple[str, str, str]] = Counter()
    names: dict[Seen, Site] = {}
    for one in seen:
        if one.whole and one.call is not None:
            names[one] = sites[one.call]
            continue
        count[title(one)] += 1
        number = count[title(one)] if total[title(one)] > 1 else 0
        names[one] = Site(title(one)[1], number, f".({one.operation})")
    return names
