"""UG402: the gradient with respect to the input grows on its way to the start of the sequence.

What it sees:
    The rms of dL/dx_t over the steps t of a recurrent module. It fires where step 0 gets more than a
    thousand times what the last step gets and the gradient grows at most steps, over eight steps or more;
    from a factor of 1e5 it is an error.

    Where a loop adds what it makes to its state, h + f(h), and the trunk shows that skip path, the cause is
    that the whole of f is added at every step, unless its weights are louder than a usual draw: the identity
    is beside them, so that their gain is not that of a step.

Why it matters:
    The oldest input decides the step, the size of the step changes by orders of magnitude from batch to
    batch, and a longer sequence makes it worse by the same factor per step.

When it is a false alarm:
    A loss that weighs the start of the sequence. A batch in which few samples are long: late steps are then
    padding for most, which costs a factor of the square root of the batch size, far below a thousand.

Remedies:
    Recurrent matrix at gain 1 (orthogonal, or the identity for ReLU); a share of 1/steps for what a residual
    step adds, as an Euler step of a neural ODE has; clipping by the global norm; shorter windows.

References:
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks" (ICML 2013),
    section 2. Le, Jaitly and Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified Linear
    Units" (2015). Chen, Rubanova, Bettencourt and Duvenaud, "Neural Ordinary Differential Equations" (NeurIPS
    2018), on residual steps as Euler steps.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> steps = tuple(Site("rnn", time=t) for t in range(40))
    >>> growth = Profile("time_grad_rms", "rms", steps, tuple(1.4 ** (39 - t) for t in range(40)))
    >>> [(finding.code, str(finding.sites[0])) for finding in judge({"time_grad_rms": growth})]
    [('UG402', 'rnn@0')]

A silent example:
    >>> steady = Profile("time_grad_rms", "rms", steps, tuple(1.02 ** (39 - t) for t in range(40)))
    >>> list(judge({"time_grad_rms": steady}))
    []
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Severity
from unitygain.rules._fixes import suggest
from unitygain.rules._numbers import from_db, spell
from unitygain.rules._time import Passage, describe, explain_time, judged, one_per_loop, read_passages

GROWTH = 60.0
FATAL = 100.0
MOSTLY = 0.6


@rule(
    code="UG402",
    name="exploding-over-time",
    severity="error",
    needs=("time_grad_rms",),
    wants=("weight_gain", "gate_mean", "gain_parts", "act_rms"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding per recurrent module, or loop, whose gradient grows towards the first step."""
    grown = [
        passage
        for passage in read_passages(profiles["time_grad_rms"])
        if passage.across >= GROWTH and passage.slope > 0 and passage.share >= MOSTLY
    ]
    for loop in one_per_loop(profiles, grown):
        yield report(profiles, loop)


def added(causes: tuple[Cause, ...]) -> bool:
    """Whether the first cause is that a loop adds its branch whole."""
    return causes[0].text.startswith("branch: ")


def report(profiles: Mapping[str, Profile], loop: tuple[Passage, ...]) -> Finding:
    """Return the finding for one module or loop, with the numbers of its first passage."""
    passage = loop[0]
    severity: Severity = "error" if passage.across >= FATAL else "warning"
    causes = explain_time(profiles, passage)
    return Finding(
        "UG402",
        "exploding-over-time",
        severity,
        f"the gradient at the first step is {spell(from_db(passage.across))}x that at the last: "
        f"{describe(profiles['time_grad_rms'], passage)}",
        tuple(other.first for other in loop),
        "time_grad_rms",
        **judged(profiles["time_grad_rms"], passage, GROWTH),
        causes=causes,
        fix=f"h = h + f(h) / {passage.steps}  # 1 / number of steps" if added(causes) else suggest(causes),
        evidence={"steps": passage.steps, "across_db": passage.across},
    )
