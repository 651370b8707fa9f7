"""UG203: most units of an activation are zero for the whole batch.

What it sees:
    The fraction of an activation's units that are exactly zero for every sample. It fires from 0.8 up to,
    but not including, 1 (that is UG206).

Why it matters:
    A unit that is off for every input gets no gradient, and so stays off: the layer has only the width that
    is left.

When it is a false alarm:
    A batch of few or very similar inputs: deep in a random ReLU network all inputs are nearly parallel, so
    that up to half of the units are off for a whole batch, which is why 0.5 is no threshold. Networks that
    were trained to be sparse, and large language models with ReLU, have such layers by design.

Remedies:
    Biases at zero; inputs with mean zero; a smaller learning rate if it came during training; leaky ReLU or
    GELU.

References:
    Lu, Shin, Su and Karniadakis, "Dying ReLU and Initialization: Theory and Numerical Examples" (2019).
    Maas, Hannun and Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models" (ICML workshop
    2013), on the leaky slope.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = (Site("1"), Site("3"), Site("5"))
    >>> dead = Profile("act_frac_dead", "fraction", sites, (0.1, 0.93, 0.2))
    >>> [finding.message for finding in judge({"act_frac_dead": dead})]
    ['0.93 of the units at 3 are zero for the whole batch']

A silent example:
    >>> list(judge({"act_frac_dead": Profile("act_frac_dead", "fraction", sites, (0.1, 0.45, 0.5))}))
    []
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Finding, Profile
from unitygain.rules._dead import explain_dead
from unitygain.rules._fixes import suggest
from unitygain.rules._numbers import spell

MANY = 0.8


@rule(
    code="UG203",
    name="dead-units",
    severity="warning",
    needs=("act_frac_dead",),
    wants=("act_rms", "param_rms", "weight_mean", "input_rms", "input_mean"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding for all layers with many dead units, the worst first."""
    found = [(site, value) for site, value in profiles["act_frac_dead"].finite() if MANY <= value < 1]
    found.sort(key=lambda item: -item[1])
    if not found:
        return
    site, value = found[0]
    more = f", and {MANY} or more at {len(found) - 1} other places" if len(found) > 1 else ""
    # What comes behind dead units is starved by them: the cause is looked for where they begin.
    start = next(place for place, dead in profiles["act_frac_dead"].items() if dead >= MANY)
    likely = tuple(explain_dead(profiles, start, MANY))
    yield Finding(
        "UG203",
        "dead-units",
        "warning",
        f"{spell(value)} of the units at {site} are zero for the whole batch{more}",
        tuple(site for site, _ in found),
        "act_frac_dead",
        value,
        "fraction of units",
        MANY,
        causes=likely,
        fix=suggest(likely),
        evidence={str(site): value for site, value in found[:8]},
    )
