"""Weights that start at zero: those that no step moves, and those that wait for each other."""

import math
from collections.abc import Iterator, Mapping, Sequence

from unitygain._types import Cause, Finding, Profile, Severity, Site
from unitygain.rules._parameters import is_bias, list_owners, owner
from unitygain.rules._updates import BY_SIGN

# Zeros that must move before a weight of zeros gets a gradient. A gate waits for a zeroed head by design.
SERIES = 2


def blank_weights(sites: Sequence[Site], profiles: Mapping[str, Profile]) -> list[Site]:
    """Return the weights among the `sites` that start at zero and are never moved."""
    delays = profiles.get("param_grad_delay")
    if delays is None:
        return []
    rows = dict(zip(delays.sites, delays.rows, strict=True))
    return [site for site in sites if site in rows and rows[site][0] == 0 and rows[site][1] > 1]


def started_at_zero(blank: Sequence[Site]) -> Cause:
    """Return the cause of weights that are zero and stay so."""
    verb = "starts" if len(blank) == 1 else "start"
    text = (
        f"initialisation: {list_owners(blank)} {verb} at zero; a weight of "
        "zeros in front of another, or of a ReLU, gets no gradient and gives none, so that no step moves it"
    )
    return _drawn(text, blank)


def judge_series(count: int, profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield one finding where weights of zeros lie three or more in series, none with a way around it.

    The loss is then flat to the third order: a step in proportion to the gradient moves the last of them by
    its rate, the one before by a product of two such steps, and so on.
    """
    delays, sizes = profiles.get("param_grad_delay"), profiles.get("param_rms")
    zeros = {site for site, size in (sizes.items() if sizes else ()) if size == 0 and not is_bias(site)}
    late = {site: steps for site, steps in (delays.finite() if delays else ()) if site in zeros}
    if max(late.values(), default=0.0) < SERIES:
        return
    waiting = sorted(late, key=lambda site: -late[site])
    longest = int(late[waiting[0]])
    gradients = dict(profiles["param_grad_rms"].items())
    last = [site for site in zeros if gradients.get(site, 0.0) > 0]
    asleep = [site for site, value in gradients.items() if value == 0]
    yield Finding(
        "UG603",
        "parameter-not-learning",
        _severity(profiles),
        f"the gradient of {len(asleep)} of {count} trainable parameters is exactly zero, and stays so "
        f"until {longest} weights of zeros have moved, one after the other: {list_owners(asleep)}",
        tuple(dict.fromkeys((*waiting, *asleep))),
        "param_grad_rms",
        0.0,
        "rms of dL/d(parameter)",
        0.0,
        causes=(_in_series([*waiting, *last], longest + 1),),
        evidence={"zero gradient": len(asleep), "trainable": count, "zeros in series": longest + 1},
        fix="start the scales at one: write (1 + scale) where the map that makes it starts at zero",
    )


def _severity(profiles: Mapping[str, Profile]) -> Severity:
    """A step of one size in every entry leaves the zeros at once; of an unknown one nothing is held."""
    update = profiles.get("update_ratio")
    return "info" if update is None or update.facts.get("optimizer") in BY_SIGN else "warning"


def _in_series(zeros: Sequence[Site], count: int) -> Cause:
    text = (
        f"initialisation: {list_owners(zeros)} start at zero, {count} in series with no way around: what "
        "passes is their product, and the gradient of each is the product of the others"
    )
    return _drawn(text, zeros)


def _drawn(text: str, zeros: Sequence[Site]) -> Cause:
    # A layer can be drawn anew; what a parameter with a name of its own should be is not known.
    if not all(site.path.endswith(".weight") for site in zeros):
        return Cause(text)
    sites = tuple(owner(site) for site in zeros)
    return Cause(text, "activation_init", {"sites": sites}, (math.ulp(0.0), math.inf))
