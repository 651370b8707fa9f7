"""Normalisations that run on kept statistics which no batch has set, as a cause of what they are against."""

from collections.abc import Iterator, Mapping

from unitygain._types import Cause, Profile, Site

# From this share of the layers on, norms that do nothing explain a gain over all of them.
SHARE = 0.5


def unset(profiles: Mapping[str, Profile]) -> list[Site]:
    """Return the normalisations that run on the statistics of their construction, in forward order."""
    profile = profiles.get("norm_unset")
    return [site for site, value in profile.items() if value == 1] if profile is not None else []


def describe(profiles: Mapping[str, Profile], sites: list[Site]) -> str:
    """Say which these are, and what to do."""
    profile = profiles["norm_unset"]
    kinds = dict(zip(profile.sites, profile.labels, strict=True))
    kind = kinds[sites[0]].rstrip("123d")
    more = len(sites) - 1
    beside = f" and {more} {'other' if more == 1 else 'others'}" if more else ""
    verb, they = ("run", "they normalise") if more else ("runs", "it normalises")
    return (
        f"{kind}: {sites[0]}{beside} {verb} in eval mode on statistics that no batch has set (mean 0, "
        f"variance 1): {they} nothing; model.train() before training"
    )


def blame_unset(profiles: Mapping[str, Profile], layers: int) -> Iterator[Cause]:
    """Yield such normalisations as the cause of a gain over `layers`, where there are enough of them."""
    sites = unset(profiles)
    if sites and len(sites) >= SHARE * layers:
        yield Cause(describe(profiles, sites))
