"""UG612: dropout drops nine tenths or more of what it is given.

What it sees:
    The share that every dropout drops which runs in this pass, as a module, as an argument of nn.LSTM or
    nn.MultiheadAttention, or as a function: 0.9 or more. At 1 nothing passes, and no gradient comes back:
    that is an error.

Why it matters:
    What is kept is divided by its share, so that the mean is right and no gain shows anything. It is noise
    all the same: where one unit in n is kept, the noise of each is sqrt(n - 1) times its signal, in every
    layer anew, and each step trains a thin slice of the weights. The usual reason is a number that was meant
    as the share to keep, which is what the first paper calls p.

When it is a false alarm:
    A single dropout of 0.9 on a wide or redundant input, where much is to be hidden on purpose (a denoising
    model, a bag of thousands of words). In practice 0.1 to 0.5 are used, and up to 0.8 is left in peace.

Remedies:
    lower_dropout; in a function call, its p.

References:
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: A Simple Way to Prevent Neural
    Networks from Overfitting" (JMLR 2014), sections 4 and 7.3, where the error falls as more units are kept
    and is flat from four to eight tenths.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(*rates):
    ...     sites = tuple(Site(str(index)) for index in range(len(rates)))
    ...     labels = ("Dropout",) * len(rates)
    ...     profile = Profile("dropout_rate", "share that is dropped", sites, rates, labels=labels)
    ...     return [(f.code, f.severity) for f in judge({"dropout_rate": profile})]
    >>> found(0.1, 0.97), found(1.0)
    ([('UG612', 'warning')], [('UG612', 'error')])

A silent example:
    >>> found(0.1, 0.5, 0.8)
    []
"""

from collections.abc import Iterator, Mapping, Sequence

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._numbers import spell

# Recipes have 0.1 to 0.5, some 0.8, where the noise of a unit is twice its signal. At 0.9 it is three times,
# and from there on p is above all what was meant as the share to keep.
LIMIT = 0.9
# A function shows the share that it keeps, and 1 - (1 - 0.9) is a little less than 0.9.
ROUNDING = 1e-9
USUAL = 0.1
FUNCTION = "dropout"


@rule(code="UG612", name="dropout-too-high", severity="error", needs=("dropout_rate",))
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Judge the largest share that a dropout drops."""
    profile = profiles["dropout_rate"]
    labels = dict(zip(profile.sites, profile.labels or ("",) * len(profile), strict=True))
    found = [(value, site) for site, value in profile.finite() if value >= LIMIT - ROUNDING]
    if not found:
        return
    most = max(value for value, _ in found)
    sites = sorted((site for _, site in found), key=lambda site: profile.at(site) != most)
    modules = [site for site in sites if labels[site] != FUNCTION]
    worst = labels[sites[0]]
    yield Finding(
        "UG612",
        "dropout-too-high",
        "error" if most >= 1 else "warning",
        f"dropout drops {spell(most)} of what it is given at {_places(sites)}"
        + ("; nothing passes, and no gradient comes back" if most >= 1 else ""),
        tuple(sites),
        "dropout_rate",
        most,
        profile.unit,
        LIMIT,
        causes=(_cause(most, sites, modules if worst != FUNCTION else []),),
        evidence={"dropouts that run": len(profile), "of 0.9 or more": len(found)},
        fix=_fix(most, worst),
    )


def _cause(rate: float, sites: Sequence[Site], modules: Sequence[Site]) -> Cause:
    text = (
        f"dropout: p = {spell(rate)} at {_places(sites)} keeps {spell(100 * (1 - rate))} % of the units; "
        "p is the probability to drop, not to keep"
    )
    if not modules:
        return Cause(text)
    paths = tuple(dict.fromkeys(site.path for site in modules))
    return Cause(text, "lower_dropout", {"p": USUAL, "sites": paths}, (0.99 * USUAL, 1.01 * USUAL))


def _places(sites: Sequence[Site]) -> str:
    """Write the first place, and how many there are beside it."""
    more = len(sites) - 1
    beside = f" and {more} {'other' if more == 1 else 'others'}" if more else ""
    return f"{sites[0] if str(sites[0]) else 'the model'}{beside}"


def _fix(rate: float, kind: str) -> str:
    meant = spell(1 - rate if rate < 1 else USUAL)
    if kind == FUNCTION:
        return f"torch.nn.functional.dropout(x, p={meant})"
    return (
        f"torch.nn.{kind}(p={meant})"
        if kind.endswith("Dropout")
        else f"torch.nn.{kind}(..., dropout={meant})"
    )
