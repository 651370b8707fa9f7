"""UG206: what leaves an activation or a norm is the same for every sample, so that nothing before can learn.

What it sees:
    The first activation in forward order whose units are all exactly zero for the whole batch. An error
    where no leaf before it gets any gradient; a warning where the gradient finds another way, as in a dead
    residual branch. And a norm that takes its mean over one number (a group of one channel of a vector, a map
    of one place), which puts out its bias, or a sign, whatever comes in: an error where the leaf before it
    has less than a thousandth of the gradient of the norm's output, which is rounding.

Why it matters:
    The output does not depend on the input, the gradient of everything before the place is exactly zero,
    and no number of steps changes that.

When it is a false alarm:
    A branch that is switched off on purpose (then it is the warning). A batch of nothing but padding. A norm
    whose maps shrink to one place for this batch's inputs alone, as of small images in a test.

Remedies:
    A new draw of weights of zeros or of one sign (activation_init), biases at zero, more width, leaky ReLU or
    GELU. Fewer groups than channels, or no norm (bypass_norm), where one is over one number.

References:
    Lu, Shin, Su and Karniadakis, "Dying ReLU and Initialization: Theory and Numerical Examples" (2019),
    which names networks that are born dead and gives their probability by depth and width. Wu and He,
    "Group Normalization" (2018), section 3, on which numbers each norm takes together.

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

from collections.abc import Iterable, Mapping, Sequence

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Severity, Site
from unitygain.rules._dead import explain_dead
from unitygain.rules._fixes import suggest

ALL = 1.0
ROUNDING = 1e-3


@rule(
    code="UG206",
    name="born-dead",
    severity="error",
    needs=("act_frac_dead",),
    wants=(
        "grad_rms",
        "act_rms",
        "param_rms",
        "weight_mean",
        "input_rms",
        "input_mean",
        "norm_numbers",
        "loss_value",
    ),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding that names the norms over one number, and one the first all-dead activation."""
    counts = profiles.get("norm_numbers")
    norms = [site for site, value in (counts.items() if counts else ()) if value == 1]
    if norms:
        yield _norm_of_one(norms, profiles)
    dead = [site for site, value in profiles["act_frac_dead"].items() if value == ALL]
    if not dead:
        return
    cut = cut_off(profiles, dead[0])
    severity: Severity = "error" if cut else "warning"
    reach = "no layer before it gets a gradient" if cut else "the gradient passes it by another way"
    ahead = [norm for norm in norms if _ran_before(profiles, norm, dead[0])]
    likely = (*map(_cause, ahead[-1:]), *explain_dead(profiles, dead[0], 0.99))
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


def _norm_of_one(norms: Sequence[Site], profiles: Mapping[str, Profile]) -> Finding:
    cut = _rounding_alone(profiles, norms[0])
    reach = "what comes before it gets the gradient of rounding alone" if cut else "whatever enters it"
    return Finding(
        "UG206",
        "born-dead",
        "error" if cut else "warning",
        f"{norms[0]} normalises one number at a time, so that what leaves it does not depend on what enters; "
        f"{reach}",
        tuple(norms),
        "norm_numbers",
        1.0,
        profiles["norm_numbers"].unit,
        2.0,
        causes=tuple(map(_cause, norms[:1])),
        evidence={"norms": len(norms), "first": str(norms[0])},
        fix="fewer groups than channels, or a norm over the features: torch.nn.LayerNorm(features)",
    )


def _cause(norm: Site) -> Cause:
    return Cause(
        f"norm: {norm} takes its mean over one number, and that number minus its mean is zero, so that it "
        "puts out its bias (a norm without a mean, a sign)",
        # An operation in a larger module cannot be taken out alone.
        remedy=None if norm.leaf else "bypass_norm",
        parameters={} if norm.leaf else {"sites": (norm.path,)},
    )


def _ran_before(profiles: Mapping[str, Profile], norm: Site, site: Site) -> bool:
    """Whether the norm may feed the activation; of function calls the order is not known."""
    ran = profiles["act_rms"].sites if "act_rms" in profiles else ()
    return norm not in ran or site not in ran or ran.index(norm) < ran.index(site)


def _rounding_alone(profiles: Mapping[str, Profile], norm: Site) -> bool:
    """Whether the leaf that ran before the norm has next to nothing of the gradient of its output."""
    gradients = profiles.get("grad_rms")
    if gradients is None or norm not in gradients.sites[1:]:
        return False
    place = gradients.sites.index(norm)
    return max(gradients.values[:place]) < ROUNDING * gradients.values[place]


def cut_off(profiles: Mapping[str, Profile], site: Site) -> bool:
    """Whether every leaf before `site` has a gradient of exactly zero (or it was not measured)."""
    profile = profiles.get("grad_rms")
    if profile is None or site not in profile.sites:
        return True
    return all(value == 0 for value in profile.values[: profile.sites.index(site)])
