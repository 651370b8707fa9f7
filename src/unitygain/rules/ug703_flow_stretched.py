"""UG703: a flow keeps its volume, or nearly so, and stretches one direction many times over.

What it sees:
    The largest singular value of a flow over |det J|^(1/n), the geometric mean of all n of them: by how
    much more one direction is stretched than the volume tells. At determinant 1 that is the largest singular
    value itself. It fires from 50 on; from 1,000,000 on it is an error.

Why it matters:
    The likelihood sees the determinant alone, so that a flow of determinant 1 looks harmless however far it
    stretches. What is stretched in one direction is squeezed in another: the inverse, which draws samples,
    multiplies every error by that. At 1000 in pairs, as couplings have them, the condition number is 10^6,
    and float32 keeps one digit of a sample, three at 100; from 10^6 on nothing is left of it, and what is
    rebuilt by the inverse gives wrong gradients. The gradient of the likelihood grows with the largest
    singular value.

When it is a false alarm:
    Data that lie in a sheet thinner than a fiftieth of its width: a flow that maps them to noise must
    stretch by as much. Trained flows on moons, mixtures and data of low rank were at 24 and below.

Remedies:
    Couplings that start as the identity (last weights zero); a bounded scale, such as 2·tanh(s/2); spectral
    normalisation of the coupling nets; maps between couplings that are orthogonal rather than of
    determinant 1; a penalty on the Jacobian's norm.

References:
    Behrmann, Vicol, Wang, Grosse and Jacobsen, "Understanding and Mitigating Exploding Inverses in Invertible
    Neural Networks" (AISTATS 2021), sections 3 and 4. Dinh, Sohl-Dickstein and Bengio, "Density estimation
    using Real NVP" (ICLR 2017), section 3.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = tuple(Site(str(k)) for k in range(4))
    >>> def profiles(stretch: float) -> dict[str, Profile]:
    ...     facts = {"dimension": 8.0, "log_det": 0.0, "log10_sigma_max": 5.0, "stretch": stretch}
    ...     flow = Profile("jacobian_log_det", "ln |det J|", sites, (0.0,) * 4, facts=facts,
    ...                    columns=("sigma_max", "sigma_min"), rows=((18.0, 0.056),) * 4,
    ...                    labels=("triangular",) * 4)
    ...     return {"jacobian_log_det": flow}
    >>> [finding.code for finding in judge(profiles(1e5))]
    ['UG703']

A silent example:
    >>> list(judge(profiles(20.0)))
    []
"""

import math
from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Severity, Site
from unitygain.rules._layers import within_any
from unitygain.rules._numbers import spell

STRETCH, FATAL = 50.0, 1e6
# Of a block over the geometric mean of its singular values: below it the block is not to blame.
MUCH = 1.05
FIX = """nn.init.zeros_(coupling.net[-1].weight)  # and its bias: every coupling starts as the identity
scale = 2 * torch.tanh(scale / 2)  # and none can scale by more than e^2"""

Stretched = tuple[Site, float, str]


@rule(
    code="UG703",
    name="flow-stretched",
    severity="error",
    needs=("jacobian_log_det",),
    wants=("weight_gain",),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding where a flow stretches far more than its volume says, the worst block first."""
    profile = profiles["jacobian_log_det"]
    seen = {name: float(value) for name, value in profile.facts.items()}
    stretch, dimension = seen["stretch"], int(seen["dimension"])
    blocks = worst_blocks(profile, dimension)
    if not (blocks and stretch >= STRETCH):
        return
    severity: Severity = "error" if stretch >= FATAL else "warning"
    site, most, _ = blocks[0]
    worst = f"; no block does more than {site}, {spell(most)}x" if site.path else ""
    yield Finding(
        "UG703",
        "flow-stretched",
        severity,
        f"the flow stretches one direction {spell(stretch)}x more than its volume, |det|^(1/{dimension}) = "
        f"{spell(math.exp(seen['log_det'] / dimension))}{worst}",
        tuple(site for site, _, _ in blocks),
        "jacobian_log_det",
        stretch,
        "sigma_max over the geometric mean of the singular values",
        STRETCH,
        fact="stretch",
        causes=tuple(explain(profiles, blocks, stretch)),
        evidence={name: value for name, value in seen.items() if math.isfinite(value)},
        fix=FIX,
    )


def worst_blocks(profile: Profile, dimension: int) -> list[Stretched]:
    """Return every block with σ_max over the geometric mean of its singular values, and its evidence."""
    found = [
        (site, row[0] / math.exp(volume / dimension) if volume > -math.inf else math.inf, label)
        for (site, volume), row, label in zip(profile.items(), profile.rows, profile.labels, strict=True)
        if volume < math.inf
    ]
    return sorted(found, key=lambda block: -block[1])


def explain(profiles: Mapping[str, Profile], blocks: list[Stretched], stretch: float) -> Iterable[Cause]:
    """Yield the couplings, then the maps between them, whichever stretches more in all; then the depth.

    Of a flow that was seen as a whole only the weights can be named.
    """
    if not blocks[0][0].path:
        yield Cause(
            "weights: as they are drawn, the couplings and the maps between them stretch the same direction; "
            "let each start as the identity, or orthogonal"
        )
        return
    couplings = [block for block in blocks if block[2] and block[1] > MUCH]
    mixing = [block for block in blocks if not block[2] and block[1] > MUCH]
    found: list[tuple[float, Cause]] = []
    if couplings:
        found.append((total(couplings), couple(profiles, couplings, stretch)))
    if mixing:
        text = f"mixing: {len(mixing)} maps between couplings that stretch, {spell(mixing[0][1])}x at most"
        found.append((total(mixing), Cause(f"{text} ({mixing[0][0]}), where an orthogonal map has 1")))
    yield from (cause for _, cause in sorted(found, key=lambda item: -item[0]))
    middle = math.exp(total(blocks) / len(blocks))
    yield Cause(f"depth: {len(blocks)} blocks of {spell(middle)}x each, if all stretch the same direction")


def total(blocks: list[Stretched]) -> float:
    """Return the logarithm of what the blocks stretch if all stretch the same direction."""
    return math.fsum(math.log(stretch) for _, stretch, _ in blocks)


def couple(profiles: Mapping[str, Profile], couplings: list[Stretched], stretch: float) -> Cause:
    """Return the cause that coupling nets are too loud, and their last maps made quiet as its removal.

    A shear by a has σ = (a + √(a² + 4))/2, so that a = σ - 1/σ and ln σ is at most a/2: with the factor
    below all couplings together stretch twofold, at the inputs that they have now. Other inputs may meet a
    steeper part of the nets; the root of what was there leaves room for that.
    """
    slopes = math.fsum(s - 1 / s for _, s, _ in couplings)
    site, most, _ = couplings[0]
    text = f"couplings: {len(couplings)} of {spell(most)}x at most ({site}), where the identity has 1"
    return Cause(
        text,
        "scale_branch",
        {
            "sites": nets(profiles, {site.path for site, _, _ in couplings}),
            "factor": 2 * math.log(2) / slopes,
        },
        (1.0, math.sqrt(stretch)),
    )


def nets(profiles: Mapping[str, Profile], blocks: set[str]) -> tuple[str, ...]:
    """Return the modules inside `blocks` that hold layers directly: each ends a coupling net of its own."""
    profile = profiles.get("weight_gain")
    inside = [site.path for site in profile.sites if within_any(site.path, blocks)] if profile else []
    holders = dict.fromkeys(path if path in blocks else path.rpartition(".")[0] for path in inside)
    return tuple(holders) or tuple(sorted(blocks))
