"""UG613: a normalisation runs in evaluation mode on statistics that no batch has set.

What it sees:
    Batch or instance normalisations in evaluation mode whose running mean is 0 and whose running variance is
    1 in every channel, and which have counted no batch. It is a note. Where a gradient or a signal shrinks
    or grows over depth, with as many of them as half the blocks, they are the first cause named there (UG101,
    UG102, UG201, UG202, UG205, UG602, UG605).

Why it matters:
    Such a layer passes on what enters: the network trains as if it had none, at whatever scale its weights
    have. PyTorch's default weights shrink a signal by sqrt(6) per ReLU layer, and rely on the norm behind.

When it is a false alarm:
    A model that is only to be looked at; norms that are meant to be scales and biases alone. Frozen norms
    with loaded statistics are not seen: those are not 0 and 1.

Remedies:
    ``model.train()`` before training, and again after each evaluation; where statistics are to be frozen,
    load them first, or show the model some batches in training mode.

References:
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
    Covariate Shift" (ICML 2015), sections 3.1 and 3.2.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(*values):
    ...     sites = tuple(Site(f"bn{index}") for index in range(len(values)))
    ...     labels = ("BatchNorm2d",) * len(values)
    ...     facts = {"unset": sum(values)}
    ...     profile = Profile("norm_unset", "1 if unset", sites, values, labels=labels, facts=facts)
    ...     return [(f.code, f.severity) for f in judge({"norm_unset": profile})]
    >>> found(0.0, 1.0)
    [('UG613', 'info')]

A silent example:
    >>> found(0.0, 0.0)
    []
"""

from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._kept_statistics import describe, unset


@rule(code="UG613", name="norm-without-statistics", severity="info", needs=("norm_unset",))
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield a note where a normalisation has nothing to normalise by."""
    profile, sites = profiles["norm_unset"], unset(profiles)
    if not sites:
        return
    yield Finding(
        "UG613",
        "norm-without-statistics",
        "info",
        f"{len(sites)} of {len(profile)} normalisations in eval mode have statistics that no batch has set",
        tuple(sites),
        "norm_unset",
        float(len(sites)),
        "normalisations",
        0.0,
        fact="unset",
        causes=(Cause(describe(profiles, sites)),),
        evidence={"in eval mode": len(profile), "without statistics": len(sites)},
        fix="model.train()  # before training",
    )
