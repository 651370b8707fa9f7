"""UG403: a small change of a recurrent module's state grows from step to step: the dynamics are chaotic.

What it sees:
    The largest Lyapunov exponent along the data's own way through a tanh RNN, LSTM or GRU, whose state is
    bounded. A warning where the lower end of its 95 % interval is above 0 by so much that a change grows a
    thousandfold over the sequence. Sequences of eight steps or more are judged.

Why it matters:
    The state after the sequence then depends on the last bits of its beginning: two samples that differ by
    rounding end far apart, the gradient grows like the change does, and the loss is too rough to descend.
    Driven by strong inputs the same weights may be calm, so that it is measured on the data.

When it is a false alarm:
    Reservoirs and generators of chaotic signals, which are to be so and whose recurrent weights are not
    trained. ReLU networks are not judged here: what grows in them grows without bound, and UG402 sees it.

Remedies:
    Recurrent matrix at gain 1 (orthogonal) or below; stronger inputs; gates that start half open.

References:
    Sompolinsky, Crisanti and Sommers, "Chaos in random neural networks" (Phys. Rev. Lett. 61, 1988).
    Vogt, Puelma Touzel, Shlizerman and Lajoie, "On Lyapunov exponents for RNNs" (Front. Appl. Math. Stat. 8,
    2022). Mikhaeil, Monfared and Durstewitz, "On the difficulty of learning chaotic dynamics with RNNs"
    (NeurIPS 2022).

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def exponent(value: float, error: float) -> Profile:
    ...     row = (80.0, float("inf"), value)
    ...     names = ("steps", "horizon", "exponent_1")
    ...     return Profile("lyapunov_spectrum", "nat", (Site("rnn"),), (value,), error=(error,),
    ...                    columns=names, rows=(row,), labels=("tanh",))
    >>> [finding.code for finding in judge({"lyapunov_spectrum": exponent(0.4, 0.1)})]
    ['UG403']

A silent example:
    >>> list(judge({"lyapunov_spectrum": exponent(0.01, 0.02)}))
    []
"""

import math
from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._exponents import Exponent, large_weights, read_exponents
from unitygain.rules._fixes import suggest
from unitygain.rules._numbers import spell

GROWTH = math.log(1e3)


@rule(
    code="UG403",
    name="chaotic-regime",
    severity="warning",
    needs=("lyapunov_spectrum",),
    wants=("weight_gain",),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding per recurrent cell whose largest exponent is above 0."""
    for cell in read_exponents(profiles["lyapunov_spectrum"]):
        if cell.kind != "relu" and cell.low * cell.steps >= GROWTH:
            yield report(profiles, cell)


def report(profiles: Mapping[str, Profile], cell: Exponent) -> Finding:
    """Return the finding for one cell."""
    causes = (
        *large_weights(profiles, cell.site, (-math.inf, cell.value / 3)),
        Cause("inputs: too weak to hold the state, which then follows its own dynamics"),
    )
    return Finding(
        "UG403",
        "chaotic-regime",
        "warning",
        f"a small change of the state grows {spell(math.exp(cell.value))}x per step over {cell.steps} steps: "
        f"the largest exponent is {cell.spelled()}{cell.against_theory()}",
        (cell.site,),
        "lyapunov_spectrum",
        cell.value,
        profiles["lyapunov_spectrum"].unit,
        GROWTH / cell.steps,
        interval=(cell.low, cell.high),
        expected=cell.expected,
        causes=causes,
        fix=suggest(causes),
        evidence={"steps": cell.steps, "kind": cell.kind},
    )
