"""UG206: an activation is zero for every unit and every sample, so that nothing before it can learn.

What it sees:
    The first activation in forward order whose units are all exactly zero for the whole batch. An error
    where no leaf before it gets any gradient; a warning where the gradient finds another way, as in a dead
    residual branch.

Why it matters:
    The output does not depend on the input, the gradient of everything before the place is exactly zero,
    and no number of steps changes that.

When it is a false alarm:
    A branch that is switched off on purpose (then it is the warning). A batch of nothing but padding.

Remedies:
    A new draw of weights of zeros or of one sign (activation_init), biases at zero, more width, leaky ReLU or
    GELU.

References:
    Lu, Shin, Su and Karniadakis, "Dying ReLU and Initialization: Theory and Numerical Examples" (2019),
    which names networks that are born dead and gives their probability by depth and width.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = (Site("1"), Site("3"), Site("5"))
    >>> dead = Profile("act_frac_dead", "fraction", sites, (0.1, 1.0, 1.0))
    >>> [(finding.code, str(finding.sites[0])) for finding in judge({"act_frac_dead": dead})]
    [('UG206', '3')]

A silent example:
    >>> list(judge({"act_frac_dead": Profile("act_frac_dead", "fraction", sites, (0.1, 0.4, 0.5))}))
    []
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Finding, Profile, Severity, Site
from unitygain.rules._dead import explain_dead
from unitygain.rules._fixes import suggest

ALL = 1.0


@rule(
    code="UG206",
    name="born-dead",
    severity="error",
    needs=("act_frac_dead",),
    wants=("grad_rms", "act_rms", "param_rms", "weight_mean", "input_rms", "input_mean"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding that names the first all-dead activation."""
    dead = [site for site, value in profiles["act_frac_dead"].items() if value == ALL]
    if not dead:
        return
    cut = cut_off(profiles, dead[0])
    severity: Severity = "error" if cut else "warning"
    reach = "no layer before it gets a gradient" if cut else "the gradient passes it by another way"
    likely = tuple(explain_dead(profiles, dead[0], 0.99))
    yield Finding(
        "UG206",
        "born-dead",
        severity,
        f"all units at {dead[0]} are zero for the whole batch (fraction 1); {reach}",
        tuple(dead),
        "act_frac_dead",
        ALL,
        "fraction of units",
        ALL,
        causes=likely,
        fix=suggest(likely),
        evidence={"places": len(dead), "first": str(dead[0])},
    )


def cut_off(profiles: Mapping[str, Profile], site: Site) -> bool:
    """Whether every leaf before `site` has a gradient of exactly zero (or it was not measured)."""
    profile = profiles.get("grad_rms")
    if profile is None or site not in profile.sites:
        return True
    return all(value == 0 for value in profile.values[: profile.sites.index(site)])
