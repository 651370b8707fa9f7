"""UG502: an output reaches, or all but reaches, the largest number of its dtype.

What it sees:
    The powers of two between the largest entry of every leaf module's output and the largest number of its
    dtype. Fewer than 2 (a factor of 4) is a warning; below 0 the output is infinite in the run, although it
    is finite in float64, where the pass was repeated to find out: an error.

Why it matters:
    float16 ends at 65504. One entry beyond it is infinite, the next subtraction or normalisation makes NaN
    of it, and a loss scaler can halve its scale for ever: activations do not depend on it.

When it is a false alarm:
    A masked score that is meant to be the most negative number of its dtype.

Remedies:
    change_precision to bfloat16, whose range is that of float32; this module alone outside autocast; a norm
    layer or a smaller gain before it; attention logits divided by the root of the head size before, not
    after, the product.

References:
    Micikevicius et al., "Mixed Precision Training" (arXiv:1710.03740), section 3. Kalamkar et al., "A Study
    of BFLOAT16 for Deep Learning Training" (arXiv:1905.12322), section 2.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(*bits):
    ...     sites = tuple(Site(str(index)) for index in range(len(bits)))
    ...     room = Profile("act_headroom", "log2", sites, bits, labels=("float16",) * len(bits))
    ...     return [(f.severity, str(f.sites[0])) for f in judge({"act_headroom": room})]
    >>> found(9.0, 1.2), found(9.0, -3.0)
    ([('warning', '1')], [('error', '1')])

A silent example:
    >>> found(9.0, 4.5)
    []
"""

import math
from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell

LEAST = 2.0
# bfloat16 and float32 end at 2^128, float16 at 2^16.
GAINED = 112.0


@rule(
    code="UG502", name="precision-overflow", severity="error", needs=("act_headroom",), wants=("act_absmax",)
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield one finding for all outputs near or beyond the end of their dtype, the worst first."""
    profile = profiles["act_headroom"]
    dtypes = dict(zip(profile.sites, profile.labels, strict=True))
    found = sorted((bits, site) for site, bits in profile.finite() if bits < LEAST)
    if not found:
        return
    bits, site = found[0]
    beyond = [site for room, site in found if room < 0]
    end = "the end is passed" if bits < 0 else f"the largest output is 1/{spell(2**bits)} of it"
    more = f", and {len(found) - 1} other outputs are as near" if len(found) > 1 else ""
    yield Finding(
        "UG502",
        "precision-overflow",
        "error" if beyond else "warning",
        f"{site} has a headroom of {spell(bits)} powers of two to the end of {dtypes[site]}: {end}{more}",
        tuple(place for _, place in found),
        "act_headroom",
        bits,
        profile.unit,
        LEAST,
        causes=tuple(_causes(dtypes[site], bits)),
        evidence={"beyond the end": len(beyond), "near it": len(found) - len(beyond)},
        fix="autocast to torch.bfloat16, or run this module under torch.autocast(device, enabled=False)",
    )


def _causes(dtype: str, bits: float) -> Iterator[Cause]:
    if dtype == "float16" and math.isfinite(bits):
        yield Cause(
            "range: float16 ends at 65504; bfloat16 has 112 powers of two more",
            remedy="change_precision",
            parameters={"precision": "bfloat16"},
            # bfloat16 rounds to 8 bits on the way, and a second dropout mask may be drawn: one power of two.
            predicted=(bits + GAINED - 1, bits + GAINED + 1),
        )
    yield Cause(
        "growth: the signal is this large because a layer before it amplifies it (UG201), or the inputs do"
    )
