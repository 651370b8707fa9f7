"""UG704: the generator's loss is flat where the discriminator is sure, and gives the generator no gradient.

What it sees:
    The gradient of the loss at the discriminator's logits of generated samples, over what a discriminator
    that knows nothing (logits of 0) would give: 0.01 or less, while the loss bends down there, so that it is
    flat at its worst end and not because it is satisfied. Below 0.0001 it is an error. The discriminator is a
    part of the model, or a module that the loss function closes over.

Why it matters:
    log(1 - D) has the slope D: the better the discriminator knows the fakes, the less the generator learns
    how to change, and early in training it knows them all. Every layer of the generator looks as if its
    gradient were lost over depth (UG101), but it is missing before the journey begins: no initialisation,
    norm or skip path of the generator brings it back. -log D has the slope 1 - D, which is 1 there.

When it is a false alarm:
    Where the adversarial term is one of several that reach the generator, and may rest.

Remedies:
    The non-saturating loss, -log D; a Wasserstein or hinge loss, whose slope does not depend on the
    discriminator's verdict; a discriminator that learns more slowly, or sees noise on its inputs. Declare the
    other loss as ``Case(variants={"non_saturating": loss})`` and it is tried.

References:
    Goodfellow et al., "Generative adversarial nets" (NeurIPS 2014), section 3. Arjovsky and Bottou, "Towards
    Principled Methods for Training Generative Adversarial Networks" (ICLR 2017), theorem 2.4.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> columns = ("pull", "undecided", "bend", "logit_mean", "saturating", "non_saturating", "passed")
    >>> def profiles(value: float, bend: float) -> dict[str, Profile]:
    ...     row = (value / 2, 0.5, bend, -12.0, 1.2e-5, 2.0, 0.8)
    ...     return {"fake_logit_grad": Profile("fake_logit_grad", "ratio", (Site("discriminator"),), (value,),
    ...                                        columns=columns, rows=(row,), facts={"variants": ""})}
    >>> [finding.code for finding in judge(profiles(1.2e-5, -1.0))]
    ['UG704']

A silent example:
    >>> list(judge(profiles(2.0, 0.0))), list(judge(profiles(1.2e-5, 1.0)))
    ([], [])
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Severity, Site
from unitygain.rules._numbers import spell

FLAT, FATAL = 0.01, 1e-4
# Losses whose value at these logits is known, by what their names contain.
STEADY = ("wasserstein", "hinge")
FIX = "loss = torch.nn.functional.softplus(-discriminator(fake)).mean()  # -log D, not log(1 - D)"


@rule(code="UG704", name="generator-saturated", severity="error", needs=("fake_logit_grad",))
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding for the discriminators whose verdict has flattened the generator's loss."""
    profile = profiles["fake_logit_grad"]
    found: list[tuple[float, Site, Mapping[str, float]]] = []
    for (site, value), row in zip(profile.items(), profile.rows, strict=True):
        seen = dict(zip(profile.columns, row, strict=True))
        # A gradient of exactly zero has no bend to read: log(1 - D) in floating point at D = 0.
        if value <= FLAT and (seen["bend"] < 0 or (value == 0 and seen["logit_mean"] < 0)):
            found.append((value, site, seen))
    if not found:
        return
    found.sort(key=lambda item: item[0])
    value, site, seen = found[0]
    severity: Severity = "error" if value < FATAL else "warning"
    yield Finding(
        "UG704",
        "generator-saturated",
        severity,
        f"the generator's loss gives {spell(value)} of the gradient that it would give at logits of 0: at "
        f"{site} they are {spell(seen['logit_mean'])} on average, where -log D would give "
        f"{spell(seen['non_saturating'])}; behind it the discriminator passes {spell(seen['passed'])}x",
        tuple(site for _, site, _ in found),
        "fake_logit_grad",
        value,
        profile.unit,
        FLAT,
        causes=tuple(explain(profile, value, seen)),
        evidence=dict(seen),
        fix=FIX,
    )


def explain(profile: Profile, value: float, seen: Mapping[str, float]) -> Iterable[Cause]:
    """Yield the loss, and its replacement by one that the case names; then the discriminator."""
    text = f"loss: it saturates like log(1 - D), which gives {spell(seen['saturating'])} at these logits"
    names = [name for name in str(profile.facts.get("variants", "")).split(", ") if name]
    if names:
        chosen = min(names, key=lambda name: ("non" not in name, not any(w in name for w in STEADY)))
        yield Cause(text, "swap_loss", {"variant": chosen}, expected(chosen, value, seen))
    else:
        note = 'declare another loss to have it tried: Case(..., variants={"non_saturating": loss})'
        yield Cause(text, note=note)
    yield Cause(
        f"discriminator: it is sure of every generated sample (mean logit {spell(seen['logit_mean'])})"
    )


def expected(variant: str, value: float, seen: Mapping[str, float]) -> tuple[float, float]:
    """Return the range of the value under another loss: near its law where the name tells it."""
    if any(word in variant for word in STEADY):
        return 0.9, 1.1
    if "non" in variant:
        return 0.9 * seen["non_saturating"], 1.1 * seen["non_saturating"]
    return 10 * max(value, FLAT), 1e6
