"""UG701: attention logits are so large that the softmax is all but a choice of one.

What it sees:
    The largest magnitude of an attention's logits. It fires above 100 where the entropy of the same
    attention is below half of its maximum, above 50 where it is below a tenth, above 10 there if its
    products of queries and keys lack their scale of 1/sqrt(d), and above 10,000 whatever the entropy; the
    latter is an error.

Why it matters:
    The gradient of a softmax is p(1 - p): where one weight is near 1 the queries and keys get none, and a
    small step moves the choice from one token to another. In half precision such logits are rounded to
    whole units.

When it is a false alarm:
    Trained models have single heads with logits of tens. Position biases that are large on purpose (ALiBi
    on long sequences) count as logits.

Remedies:
    Divide by the square root of the head's width; normalise queries and keys; smaller query and key
    weights.

References:
    Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), section 3.2.1. Dehghani et al., "Scaling
    Vision Transformers to 22 Billion Parameters" (ICML 2023), section 2. Wortsman et al., "Small-scale
    proxies for large-scale Transformer training instabilities" (2023), section 3.1.1.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = (Site("a.(softmax)"), Site("b.(softmax)"))
    >>> logits = Profile("attention_logit_absmax", "logits", sites, (310.0, 4.0))
    >>> entropy = Profile("attention_entropy", "of its maximum", sites, (0.02, 0.9))
    >>> [f.code for f in judge({"attention_logit_absmax": logits, "attention_entropy": entropy})]
    ['UG701']

A silent example:
    >>> logits = Profile("attention_logit_absmax", "logits", sites, (31.0, 4.0))
    >>> list(judge({"attention_logit_absmax": logits, "attention_entropy": entropy}))
    []
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Finding, Profile, Severity, Site
from unitygain.rules._attention import UNSCALED, explain_logits, find_factor
from unitygain.rules._layers import value_at
from unitygain.rules._numbers import spell

LARGE, HUGE = 100.0, 1e4
# Where products of queries and keys are not scaled.
LARGE_UNSCALED = 10.0
CHOOSING = 0.5
# Nearly a choice of one, and by logits that no usual draw makes.
LARGE_CHOSEN, CHOSEN = 50.0, 0.1


@rule(
    code="UG701",
    name="attention-logits",
    severity="error",
    needs=("attention_logit_absmax", "attention_entropy"),
    wants=("weight_gain", "input_rms", "attention_scale"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding for all attentions with too large logits, the largest first."""
    found = [
        (site, value, value_at(profiles, "attention_entropy", site))
        for site, value in profiles["attention_logit_absmax"].finite()
    ]
    found = [item for item in found if item[1] > _limit(profiles, item[0], item[2])]
    found.sort(key=lambda item: -item[1])
    if not found:
        return
    site, value, entropy = found[0]
    severity: Severity = "error" if value > HUGE else "warning"
    limit = min(_limit(profiles, site, entropy), LARGE)
    more = f"; too large in {len(found)} attentions" if len(found) > 1 else ""
    yield Finding(
        "UG701",
        "attention-logits",
        severity,
        f"attention logits reach {spell(value)} at {site}, entropy {spell(entropy)} of its maximum{more}",
        tuple(site for site, _, _ in found),
        "attention_logit_absmax",
        value,
        "largest magnitude of a logit",
        limit,
        causes=tuple(
            explain_logits(profiles, site, value, lambda factor: (0.9 * factor * value, 1.1 * factor * value))
        ),
        evidence={"entropy": entropy, "attentions": len(found)},
        fix="scores = scores / head_width ** 0.5  # or normalise queries and keys",
    )


def _limit(profiles: Mapping[str, Profile], site: Site, entropy: float) -> float:
    """Return the logits above which an attention of that entropy is a finding."""
    if not entropy < CHOOSING:
        return HUGE
    times, _ = find_factor(profiles, site)
    if times >= UNSCALED:
        return LARGE_UNSCALED
    return LARGE_CHOSEN if entropy < CHOSEN else LARGE
