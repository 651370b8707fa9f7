"""UG702: attention has collapsed: each query looks at one token only.

What it sees:
    The mean entropy of attention weights over its maximum, ln n. It fires below 0.05 in a quarter or more
    of the attentions.

Why it matters:
    A softmax at a corner passes no gradient to queries and keys: which token is looked at was decided by
    the initialisation, or by one bad step, and cannot be learned any more.

When it is a false alarm:
    Heads that copy or look one token back do so on purpose in trained models; single ones do not fire,
    since the entropy is averaged over the heads of an attention and a quarter of all attentions must be
    collapsed. Windows of one or two tokens.

Remedies:
    As for UG701: the scale of the scores, normalised queries and keys, a lower learning rate with warm-up.

References:
    Zhai et al., "Stabilizing Transformer Training by Preventing Attention Entropy Collapse" (ICML 2023).

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = (Site("a.(softmax)"), Site("b.(softmax)"))
    >>> entropy = Profile("attention_entropy", "of its maximum", sites, (0.01, 0.4))
    >>> [finding.code for finding in judge({"attention_entropy": entropy})]
    ['UG702']

A silent example:
    >>> entropy = Profile("attention_entropy", "of its maximum", sites, (0.2, 0.4))
    >>> list(judge({"attention_entropy": entropy}))
    []
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Finding, Profile
from unitygain.rules._attention import explain_logits
from unitygain.rules._layers import value_at
from unitygain.rules._numbers import spell

COLLAPSED = 0.05
SHARE = 0.25


@rule(
    code="UG702",
    name="attention-collapsed",
    severity="warning",
    needs=("attention_entropy",),
    wants=("attention_logit_absmax", "weight_gain", "input_rms", "attention_scale"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding where a quarter of the attentions or more look at one token."""
    finite = profiles["attention_entropy"].finite()
    found = sorted((item for item in finite if item[1] < COLLAPSED), key=lambda item: item[1])
    if not found or len(found) < SHARE * len(finite):
        return
    site, value = found[0]
    logits = value_at(profiles, "attention_logit_absmax", site)
    yield Finding(
        "UG702",
        "attention-collapsed",
        "warning",
        f"attention looks at one token: entropy {spell(value)} of its maximum at {site}, "
        f"below {COLLAPSED} in {len(found)} of {len(finite)} attentions",
        tuple(site for site, _ in found),
        "attention_entropy",
        value,
        "entropy over ln(tokens)",
        COLLAPSED,
        causes=tuple(explain_logits(profiles, site, logits, lambda factor: (COLLAPSED, 1.0))),
        evidence={"collapsed": len(found), "attentions": len(finite), "logit_absmax": logits},
    )
