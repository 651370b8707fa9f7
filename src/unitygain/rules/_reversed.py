"""A gradient that is turned round for everything: part of UG105."""

from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell

HOOK = "a tensor hook"
FIX = "label, domain = head(z), adversary(Reverse.apply(z))  # turn the adversary's branch alone"


def turned_round(profile: Profile) -> Finding:
    """Return the finding for parameters whose gradient has the wrong sign."""
    seen = dict(zip(profile.columns, profile.rows[0], strict=True))
    function, first = profile.labels[0], profile.facts["first"]
    site, after = profile.sites[0], profile.values[0]
    count = int(seen["parameters"])
    what = f"the custom autograd function {function}" if function != HOOK else "the hook on a tensor"
    inside = "its backward" if function != HOOK else "the hook"
    more = f" and {count - 1} other parameters" if count > 1 else ""
    return Finding(
        "UG105",
        "not-what-it-claims",
        "warning",
        f"every way from the loss to the inputs passes {function} at {site}, which hands on "
        f"{spell(seen['factor'])}x of the gradient: a step of 1 % of {first}{more} along minus the gradient "
        f"takes the loss from {spell(seen['before'])} up to {spell(after)}, one along it down to "
        f"{spell(seen['back'])}",
        profile.sites,
        profile.name,
        after,
        profile.unit,
        seen["before"],
        causes=(
            Cause(
                f"way back: {what} at {site} reverses the gradient of all "
                "tasks, and what lies before it climbs the loss: apply it to the adversary's branch alone, "
                f"behind the place where the branches part, or take the minus out of {inside}"
            ),
        ),
        evidence=dict(seen),
        fix=FIX,
    )
