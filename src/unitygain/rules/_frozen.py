"""Which frozen parameters are frozen by mistake: one layer among its kind, or a part never trained."""

import fnmatch
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._numbers import spell
from unitygain.rules._parameters import is_bias, list_owners, numbers, owner, pattern

# Of all the model's numbers.
MOST = 0.5


def judge_frozen(frozen: list[Site], trainable: list[Site], profiles: Mapping[str, Profile]) -> Finding:
    gains = profiles.get("backward_gain")
    odd = _odd_layers(frozen, trainable, untouched=gains is not None and gains.facts.get("law") == "redrawn")
    untrained = [] if odd else _never_trained(profiles)
    sites = odd or untrained or frozen
    total = len(frozen) + len(trainable)
    what = f"{len(frozen)} of {total} parameters are frozen ({len(frozen) / total:.0%})"
    tail = f"{list_owners(odd)} among layers of the same kind that train" if odd else list_owners(frozen)
    tail += ", which look as if they were never trained" if untrained else ""
    names = _common(sites)
    left = float(sum(not fnmatch.fnmatchcase(site.path, names) for site in frozen))
    never = _narrowed(profiles) if untrained else ""
    cause = Cause(
        f"frozen: requires_grad is False on {list_owners(sites)}{never}",
        remedy="unfreeze",
        parameters={"names": names},
        predicted=(left, left),
    )
    return Finding(
        "UG603",
        "parameter-not-learning",
        "warning" if odd or untrained else "info",
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


def _never_trained(profiles: Mapping[str, Profile]) -> list[Site]:
    """Return the frozen weights where all look drawn, are most of the model, and lose what they are given."""
    drawn = profiles.get("frozen_drawn")
    if drawn is None or "fake_logit_grad" in profiles or not all(drawn.values):
        return []
    # A random map to more numbers than it reads keeps what they say: random features are a method.
    lossy = float(drawn.facts["features"]) < float(drawn.facts["inputs"])
    meant = any("random" in site.path.lower() for site in drawn.sites)
    return list(drawn.sites) if lossy and not meant and float(drawn.facts["share"]) >= MOST else []


def _narrowed(profiles: Mapping[str, Profile]) -> str:
    facts = profiles["frozen_drawn"].facts
    left = spell(float(facts["features"]) / float(facts["inputs"]))
    return (
        ", on weights that were never trained: they look like a random draw, and what trains reads "
        f"{left} numbers of theirs for each of the input"
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
        alike[pattern(site)].append(numbers(site))
    still = Counter(pattern(site) for site in frozen)
    ends = {kind: (min(places), max(places)) for kind, places in alike.items()}
    # Most of its kind train: a few layers left open in a frozen trunk are a choice, unless that trunk was
    # never trained.
    usual = {kind for kind, places in alike.items() if untouched or len(places) > still[kind]}
    return [
        site
        for site in frozen
        if not is_bias(site) and (kind := pattern(site)) in usual
        if ends[kind][0] < numbers(site) < ends[kind][1]
    ]
