"""UG404: a recurrent module forgets within a small part of the sequence that it is given.

What it sees:
    The memory horizon: as many steps as it takes for exp(λ·steps) to fall to the rounding of the module's
    dtype, λ the largest Lyapunov exponent along the data. A horizon below half of the sequence is a note,
    below a fifth a warning; the upper end of the exponent's 95 % interval counts, which makes the horizon
    long. Sequences of eight steps or more are judged. Where the loss reads all of the sequence itself (the
    gradient at the first step is at least a tenth of that at the last, which is no work of so short a
    memory), it is a note at most. Of a sequence whose end is not read, as with padding, the steps up to the
    last that has a gradient count.

Why it matters:
    Nothing that lies further back than the horizon can change what is learned, whatever the loss. Unlike
    the gradient at the first step, which a loss at every step keeps healthy, the exponent shows it. Whether
    a step of such a loss needs more than the steps just before it, the task knows.

When it is a false alarm:
    Tasks whose answers lie in the last few steps: then the sequence can be cut. LSTM and GRU may learn to
    open their gates in the course of training.

Remedies:
    Recurrent matrix at gain 1 (orthogonal); forget gates that start open; shorter windows.

References:
    Hochreiter, "Untersuchungen zu dynamischen neuronalen Netzen" (1991). Vogt, Puelma Touzel, Shlizerman and
    Lajoie, "On Lyapunov exponents for RNNs" (Front. Appl. Math. Stat. 8, 2022). Tallec and Ollivier, "Can
    recurrent neural networks warp time?" (ICLR 2018), on gates and time scales.

A firing example:
    >>> import math
    >>> from unitygain._types import Profile, Site
    >>> def forgetting(value: float) -> Profile:
    ...     row = (300.0, math.log(2**23) / -value, value)
    ...     names = ("steps", "horizon", "exponent_1")
    ...     return Profile("lyapunov_spectrum", "nat", (Site("rnn"),), (value,), error=(0.01,),
    ...                    columns=names, rows=(row,), labels=("tanh",))
    >>> [(finding.code, finding.severity) for finding in judge({"lyapunov_spectrum": forgetting(-0.5)})]
    [('UG404', 'warning')]

A silent example:
    >>> list(judge({"lyapunov_spectrum": forgetting(-0.05)}))
    []
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._exponents import Exponent, opening_gates, read_exponents, small_weights
from unitygain.rules._fixes import suggest
from unitygain.rules._numbers import spell
from unitygain.rules._time import Passage, read_passages

NOTE, WARNING = 1 / 2, 1 / 5
# The first step's gradient over the last one's from which on the loss reads the early steps itself.
READ_DB = -20.0


@rule(
    code="UG404",
    name="memory-horizon",
    severity="warning",
    needs=("lyapunov_spectrum",),
    wants=("gate_mean", "weight_gain", "time_grad_rms"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding per recurrent cell whose memory is short for its sequence."""
    passages = read_passages(profiles["time_grad_rms"]) if "time_grad_rms" in profiles else []
    for cell in read_exponents(profiles["lyapunov_spectrum"]):
        passage = _passage(passages, cell)
        if passage is not None:
            cell = replace(cell, steps=min(cell.steps, passage.steps))
        if cell.farthest < NOTE * cell.steps:
            yield report(profiles, cell, read=passage is not None and passage.across >= READ_DB)


def _passage(passages: Iterable[Passage], cell: Exponent) -> Passage | None:
    """The gradient over the steps of the cell's module; None where it is not known or is not one.

    Of a cell written by hand it is that of a layer inside, the one whose early steps get most.
    """
    known = list(passages)
    place = cell.site.path, cell.site.call or 1
    found = [one for one in known if (one.first.path, one.first.call or 1) == place]
    inside = [one for one in known if one.first.path.startswith(f"{cell.site.path}.") and cell.site.path]
    if not found and inside:
        return max(inside, key=lambda one: one.across)
    return found[0] if len(found) == 1 else None


def report(profiles: Mapping[str, Profile], cell: Exponent, *, read: bool = False) -> Finding:
    """Return the finding for one cell, a note where the loss reads all of its steps."""
    grave = not read and cell.farthest < WARNING * cell.steps
    share = WARNING if grave else NOTE
    rounding = cell.horizon * -cell.value if math.isfinite(cell.value) else math.nan
    causes = (
        *opening_gates(profiles, cell),
        *small_weights(profiles, cell),
        Cause(f"length: {cell.steps} steps where memory lasts {spell(cell.horizon)}"),
    )
    return Finding(
        "UG404",
        "memory-horizon",
        "warning" if grave else "info",
        f"memory reaches back {spell(cell.horizon)} of {cell.steps} steps: the largest exponent is "
        f"{cell.spelled()}, and before that nothing of a gradient stands above rounding"
        f"{cell.against_theory()}",
        (cell.site,),
        "lyapunov_spectrum",
        cell.value,
        profiles["lyapunov_spectrum"].unit,
        -rounding / (share * cell.steps),
        interval=(cell.low, cell.high),
        expected=cell.expected,
        causes=causes,
        fix=suggest(causes),
        evidence={"steps": cell.steps, "horizon": cell.horizon, "farthest": cell.farthest},
    )
