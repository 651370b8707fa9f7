"""Profiles made by hand, and what a rule says about them."""

from collections.abc import Sequence

from unitygain._registry import RULES
from unitygain._types import Finding, Profile, Site


def site(name: str) -> Site:
    """Return the site of a module or parameter; ``(...)`` is a leaf of the model itself."""
    return Site("", leaf=name) if name.startswith("(") else Site(name)


def profile(name: str, values: dict[str, float], **more) -> Profile:
    """Return a profile with these values by the name of the site."""
    return Profile(name, f"unit of {name}", tuple(map(site, values)), tuple(values.values()), **more)


def judged(code: str, *profiles: Profile) -> list[Finding]:
    """Return the findings of the rule `code`; it must get what it needs."""
    given = {one.name: one for one in profiles}
    assert set(RULES[code].needs) <= given.keys(), f"{code} needs {RULES[code].needs}"
    found = list(RULES[code].judge(given))
    for finding in found:
        assert finding.code == code
        assert finding.quantity in given
        assert repr(finding.reread(given)) == repr(finding.value)
        assert finding.causes
    return found


def severities(findings: Sequence[Finding]) -> list[str]:
    """Return the severities in order."""
    return [finding.severity for finding in findings]
