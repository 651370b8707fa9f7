"""Which frozen parameters are frozen by mistake: one layer among its kind."""

import fnmatch
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._parameters import is_bias, list_owners, owner, pattern


def judge_frozen(frozen: list[Site], trainable: list[Site], profiles: Mapping[str, Profile]) -> Finding:
    gains = profiles.get("backward_gain")
    odd = _odd_layers(frozen, trainable, untouched=gains is not None and gains.facts.get("law") == "redrawn")
    sites = odd or frozen
    total = len(frozen) + len(trainable)
    what = f"{len(frozen)} of {total} parameters are frozen ({len(frozen) / total:.0%})"
    tail = f"{list_owners(odd)} among layers of the same kind that train" if odd else list_owners(frozen)
    names = _common(sites)
    left = float(sum(not fnmatch.fnmatchcase(site.path, names) for site in frozen))
    cause = Cause(
        f"requires_grad is False on {list_owners(sites)}",
        remedy="unfreeze",
        parameters={"names": names},
        predicted=(left, left),
    )
    return Finding(
        "UG603",
        "parameter-not-learning",
        "warning" if odd else "info",
        f"{what}: {tail}",
        tuple(sites),
        "param_trainable",
        float(len(frozen)),
        "frozen parameters",
        1.0,
        fact="frozen",
        causes=(cause,),
        evidence={"frozen": len(frozen), "trainable": len(trainable)},
        fix="parameter.requires_grad_(True), and give it to the optimizer",
    )


def _common(sites: Sequence[Site]) -> str:
    """A pattern for the names of all `sites`: the path that they share."""
    if len(sites) == 1:
        return sites[0].path
    shared: list[str] = []
    for parts in zip(*(owner(site).split(".") for site in sites), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join([*filter(None, shared), "*"])


def _odd_layers(frozen: Sequence[Site], trainable: Sequence[Site], *, untouched: bool) -> list[Site]:
    """Frozen weights that have weights of the same name pattern before and behind them that train."""
    alike: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for site in trainable:
        alike[pattern(site)].append(_numbers(site))
    still = Counter(pattern(site) for site in frozen)
    ends = {kind: (min(numbers), max(numbers)) for kind, numbers in alike.items()}
    # Most of its kind train: a few layers left open in a frozen trunk are a choice, unless that trunk was
    # never trained.
    usual = {kind for kind, numbers in alike.items() if untouched or len(numbers) > still[kind]}
    return [
        site
        for site in frozen
        if not is_bias(site) and (kind := pattern(site)) in usual
        if ends[kind][0] < _numbers(site) < ends[kind][1]
    ]


def _numbers(site: Site) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", site.path))
