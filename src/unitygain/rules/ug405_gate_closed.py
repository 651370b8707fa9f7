"""UG405: the gate that keeps the state of an LSTM or GRU is closed, so that every step forgets it.

What it sees:
    The mean of the forget gate of an LSTM, or of the update gate of a GRU (which in torch keeps the old
    state), over units, steps and samples. Below 0.1 is a warning: more than nine tenths of the state are
    replaced at every step.

Why it matters:
    What a gated cell remembers, it remembers through this gate. Closed, ten steps leave a ten-billionth of
    the state; and its sigmoid is flat there, so that it learns to open only slowly.

When it is a false alarm:
    A trained model whose every step starts anew on purpose. A gate that is closed only at some steps, such
    as at the ends of sentences, has a higher mean and does not fire.

Remedies:
    A bias of 1 or more on the forget gate (the second quarter of an LSTM's biases, the second third of a
    GRU's). Check whether gates were taken for one another when weights came from another library, where
    the order of gates, or the meaning of the update gate, is another.

References:
    Gers, Schmidhuber and Cummins, "Learning to Forget" (Neural Computation 2000). Jozefowicz, Zaremba and
    Sutskever, "An Empirical Exploration of Recurrent Network Architectures" (ICML 2015), section 2.2.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def forget(mean: float) -> Profile:
    ...     site = (Site("lstm", leaf=".(forget)"),)
    ...     return Profile("gate_mean", "mean", site, (mean,), labels=("forget",))
    >>> [(finding.code, str(finding.sites[0])) for finding in judge({"gate_mean": forget(0.02)})]
    [('UG405', 'lstm.(forget)')]

A silent example:
    >>> list(judge({"gate_mean": forget(0.27)}))
    []
"""

import math
from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._fixes import suggest
from unitygain.rules._numbers import spell

CLOSED = 0.1
KEEPING = {"forget", "update"}
# Before the sigmoid: what opens a gate to 0.88 wherever it stood.
OPEN = 2.0


@rule(
    code="UG405",
    name="gate-closed",
    severity="warning",
    needs=("gate_mean",),
    wants=("gate_frac_closed",),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding per keeping gate that is closed."""
    gates = profiles["gate_mean"]
    for (site, value), kind in zip(gates.items(), gates.labels, strict=True):
        if kind in KEEPING and value < CLOSED:
            yield report(profiles, site, kind, value)


def report(profiles: Mapping[str, Profile], site: Site, kind: str, value: float) -> Finding:
    """Return the finding for one gate."""
    tiny = max(value, 1e-30)
    bias = OPEN - math.log(tiny / (1 - tiny))
    shares = profiles.get("gate_frac_closed")
    shut = dict(shares.items()).get(site) if shares else None
    causes = (
        Cause(
            f"gate: what enters the {kind} gate's sigmoid is about {spell(OPEN - bias)}; with {spell(bias)} "
            "added the gate must be open by more than half",
            "open_gates",
            {"sites": (site.path,), "bias": bias},
            (0.5, 1.0),
        ),
        Cause("order of the gates: weights from another library, which orders them otherwise"),
    )
    return Finding(
        "UG405",
        "gate-closed",
        "warning",
        f"the {kind} gate is open by {spell(value)} on average: a step drops {spell(1 - value)} of the state",
        (site,),
        "gate_mean",
        value,
        profiles["gate_mean"].unit,
        CLOSED,
        causes=causes,
        fix=suggest(causes),
        evidence={} if shut is None else {"frac_closed": shut},
    )
