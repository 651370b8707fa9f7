"""UG406: a gradient grows many times over on its way back through time, although it dies out in the end.

What it sees:
    The largest norm of a product of step Jacobians of a recurrent module, at 10 or more, while the largest
    Lyapunov exponent (with its 95 % interval) and the spectral radius of a step say that everything decays.

Why it matters:
    Eigenvalues decide what is left after very many steps. Over the tens of steps of a sequence a matrix far
    from normal, such as a chain in which every unit feeds the next, amplifies by any factor, in directions
    that a check of eigenvalues does not show. Gradients of some samples then spike, and clipping hides it.

When it is a false alarm:
    Delay lines, which are built as such chains: they need the growth to be 1, and do not fire.

Remedies:
    Recurrent matrix at gain 1 or orthogonal, which is normal: what its eigenvalues say is then all there is.

References:
    Trefethen and Embree, "Spectra and pseudospectra" (2005), chapter 14. Ganguli, Huh and Sompolinsky,
    "Memory traces in dynamical systems" (PNAS 2008). Kerg et al., "Non-normal recurrent neural network
    (nnRNN)" (NeurIPS 2019).

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> site = (Site("rnn"),)
    >>> def profiles(growth: float) -> dict[str, Profile]:
    ...     decay = Profile("lyapunov_spectrum", "nat", site, (-0.2,), error=(0.05,),
    ...                     columns=("steps", "horizon"), rows=((100.0, 80.0),), labels=("tanh",))
    ...     peak = Profile("transient_growth", "norm", site, (growth,),
    ...                    columns=("at_steps", "spectral_radius"), rows=((9.0, 0.8),))
    ...     return {"lyapunov_spectrum": decay, "transient_growth": peak}
    >>> [finding.code for finding in judge(profiles(40.0))]
    ['UG406']

A silent example:
    >>> list(judge(profiles(1.5)))
    []
"""

import math
from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._exponents import Exponent, large_weights, read_exponents
from unitygain.rules._fixes import suggest
from unitygain.rules._numbers import spell
from unitygain.rules._time import recurrent_gain

GROWTH = 10.0


@rule(
    code="UG406",
    name="transient-growth",
    severity="warning",
    needs=("transient_growth", "lyapunov_spectrum"),
    wants=("weight_gain",),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding per recurrent cell that amplifies before it forgets."""
    decay = {cell.site: cell for cell in read_exponents(profiles["lyapunov_spectrum"])}
    growth = profiles["transient_growth"]
    for (site, value), row in zip(growth.items(), growth.rows, strict=True):
        seen = dict(zip(growth.columns, row, strict=True))
        forgets = site in decay and decay[site].high < 0 and seen["spectral_radius"] < 1
        if forgets and GROWTH <= value < math.inf:
            yield report(profiles, site, value, seen, decay[site])


def report(
    profiles: Mapping[str, Profile], site: Site, value: float, seen: Mapping[str, float], cell: Exponent
) -> Finding:
    """Return the finding for one cell."""
    departure = seen.get("non_normality", math.nan)
    # A scale of g is g^k over k steps; where that is below the growth, the shape of the matrix made it.
    scale = recurrent_gain(profiles, site) ** seen["at_steps"]
    causes = (
        *(large_weights(profiles, site, (1.0, value / 3)) if scale > value else ()),
        Cause(f"non-normality: {spell(departure)} of the step's Jacobian, where an orthogonal matrix has 0"),
    )
    return Finding(
        "UG406",
        "transient-growth",
        "warning",
        f"a gradient can grow {spell(value)}x over {int(seen['at_steps'])} steps before it decays, although "
        f"the largest exponent is {cell.spelled()} and the spectral radius {spell(seen['spectral_radius'])}",
        (site,),
        "transient_growth",
        value,
        profiles["transient_growth"].unit,
        GROWTH,
        causes=causes,
        fix=suggest(causes),
        evidence={name: number for name, number in seen.items() if math.isfinite(number)},
    )
