"""UG401: the gradient with respect to the input is lost on its way to the start of the sequence.

What it sees:
    The rms of dL/dx_t over the steps t of a recurrent module, where it falls at most steps and the sequence
    has eight steps or more. Step 0 with less than a thousandth of the last step's is a note. Less than
    2^-24, which float32 rounds away when the steps are added up in the shared weights, is a warning, and
    less than 1e-10 an error; for LSTM and GRU, whose gates learn to open, the note begins at 2^-24 and the
    warning at 1e-15. Exactly zero at step 0, after a decay, is an error. Steps after the one that is read
    (padding) are left out. Where the last steps are the same in most samples, so that padding is read,
    and the gradient does not reach back over it, it is a warning at least, whatever the gates.

Why it matters:
    Nothing that happens before the horizon can be learned. Parameter norms do not show it: the last steps
    keep them healthy, since parameters are shared over time.

When it is a false alarm:
    Tasks whose answer lies in the last few steps. Steps that are masked on purpose have a gradient of
    exactly zero without a decay before, and do not fire. A loss at every step hides the disease: each step
    then gets a gradient of its own, and this rule is silent though nothing reaches far.

Remedies:
    Recurrent matrix at gain 1 (orthogonal); forget gates that start open; shorter windows; a loss at more
    steps.

References:
    Hochreiter, "Untersuchungen zu dynamischen neuronalen Netzen" (1991). Bengio, Simard and Frasconi,
    "Learning long-term dependencies with gradient descent is difficult" (1994). Pascanu, Mikolov and
    Bengio, "On the difficulty of training recurrent neural networks" (ICML 2013), section 2.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> steps = tuple(Site("rnn", time=t) for t in range(40))
    >>> decay = Profile("time_grad_rms", "rms", steps, tuple(0.5 ** (39 - t) for t in range(40)))
    >>> [(finding.code, str(finding.sites[0])) for finding in judge({"time_grad_rms": decay})]
    [('UG401', 'rnn@0')]

A silent example:
    >>> steady = Profile("time_grad_rms", "rms", steps, tuple(0.95 ** (39 - t) for t in range(40)))
    >>> list(judge({"time_grad_rms": steady}))
    []
"""

import math
from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Severity
from unitygain.rules._fixes import suggest
from unitygain.rules._numbers import from_db, spell
from unitygain.rules._time import (
    Passage,
    describe,
    explain_time,
    judged,
    keeping,
    one_per_loop,
    read_passages,
)

DECAY, FATAL = -60.0, -200.0
ROUNDED_AWAY, GATED_DECAY = -144.0, -300.0
MOSTLY = 0.6


@rule(
    code="UG401",
    name="vanishing-over-time",
    severity="error",
    needs=("time_grad_rms",),
    wants=("gate_mean", "weight_gain"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding per recurrent module, or loop, whose gradient does not reach the first step."""
    lost = []
    for passage in read_passages(profiles["time_grad_rms"]):
        gated = bool(keeping(profiles, passage.first)[0])
        limit = ROUNDED_AWAY if gated and not padding(profiles, passage) else DECAY
        if passage.across <= limit and passage.slope < 0 and passage.share >= MOSTLY and passage.gradual:
            lost.append(passage)
    for loop in one_per_loop(profiles, lost):
        yield report(profiles, loop, gated=bool(keeping(profiles, loop[0].first)[0]))


def grade(passage: Passage, *, gated: bool) -> Severity:
    """Return how bad it is: worst where nothing arrives, milder where gates can learn to open."""
    if passage.lost:
        return "error"
    if gated:
        return "warning" if passage.across <= GATED_DECAY else "info"
    if passage.across > ROUNDED_AWAY:
        return "info"
    return "error" if passage.across <= FATAL else "warning"


def padding(profiles: Mapping[str, Profile], passage: Passage) -> int:
    """Return how many last steps are padding that the gradient does not reach back over; 0 elsewhere."""
    profile = profiles["time_grad_rms"]
    if "constant_tail" not in profile.columns:
        return 0
    row = profile.rows[profile.sites.index(passage.first)]
    tail = row[profile.columns.index("constant_tail")]
    return int(tail) if passage.horizon() <= tail < passage.steps else 0


def report(profiles: Mapping[str, Profile], loop: tuple[Passage, ...], *, gated: bool) -> Finding:
    """Return the finding for one module or loop, with the numbers of its first passage."""
    passage, behind = loop[0], padding(profiles, loop[0])
    limit = ROUNDED_AWAY if gated and not behind else DECAY
    start = "exactly 0" if passage.lost else f"{spell(from_db(passage.across))} of that at the last step"
    causes = explain_time(profiles, passage)
    severity = grade(passage, gated=gated)
    if behind:
        causes = (_read_behind(behind, passage), *causes)
        severity = "warning" if severity == "info" else severity
    return Finding(
        "UG401",
        "vanishing-over-time",
        severity,
        f"the gradient at the first step is {start}: {describe(profiles['time_grad_rms'], passage)}; it "
        f"reaches back {passage.horizon()} steps to a thousandth",
        tuple(other.first for other in loop),
        "time_grad_rms",
        **judged(profiles["time_grad_rms"], passage, limit),
        causes=causes,
        fix=suggest(causes),
        evidence={
            "steps": passage.steps,
            "steps_with_zero": passage.lost,
            "horizon": passage.horizon(),
            "padding": behind,
            "across_db": passage.across if math.isfinite(passage.across) else "-inf",
        },
    )


def _read_behind(padded: int, passage: Passage) -> Cause:
    return Cause(
        f"padding: the last {padded} steps are the same in most samples, and the gradient reaches back "
        f"{passage.horizon()}: what is read behind them forgot what came before. Read each sample at its own "
        "last step, or pack_padded_sequence"
    )
