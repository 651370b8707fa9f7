"""UG501: the gradient is lost in a narrow dtype, and not in truth.

What it sees:
    Where the run's own dtype is float16 or float8, the same pass in float64 beside it. It judges the share
    of the gradient's energy (the sum of its squares) that sits in entries which the narrow dtype rounds to
    zero, at the worst leaf module; 0.1 of it, which for a normal gradient is half of the entries, is too
    much. The count of lost entries alone is no measure: softmax gradients have millions of tiny entries
    that matter to nobody.

Why it matters:
    float16 ends at 6e-8. A gradient below it is zero, and the layers behind it do not learn, though nothing
    vanished mathematically. It is repaired by one number, the loss scale, and no initialisation will repair
    it.

When it is a false alarm:
    Where the case's own step scales the loss, which cannot be seen from outside: it is reported as
    information if a scale up to 65536 (where torch.amp.GradScaler starts) repairs it, unless that step,
    taken once, leaves every weight of the modules that lose most where it was.

Remedies:
    loss_scale, with the power of two that is stated; torch.amp.GradScaler; change_precision to bfloat16,
    which reaches as far down as float32. If no scale serves all sites at once, the gradient itself falls
    too far over the depth: UG101.

References:
    Micikevicius et al., "Mixed Precision Training" (arXiv:1710.03740), section 3.2 and figure 3.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(energy, scale, own_step=0.0):
    ...     facts = {"lost_energy": energy, "lost_site": "0", "loss_scale_float16": scale}
    ...     facts["own_step"] = own_step
    ...     rows = ((-8.2, 0.9, energy), (-5.0, 0.0, 0.0))
    ...     rescaled = Profile("grad_rescaled", "log10", (Site("0"), Site("2")), (-8.2, -5.0), rows=rows,
    ...                        labels=("float16", "float16"), facts=facts)
    ...     return [(f.severity, f.message) for f in judge({"grad_rescaled": rescaled})]
    >>> found(0.8, 128.0)[0][0]
    'warning'
    >>> found(0.8, float("nan"))[0][0]
    'error'

A silent example:
    >>> found(0.02, 4.0)
    []
"""

import math
from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Severity
from unitygain.rules._numbers import spell
from unitygain.rules._parameters import owner

LIMIT = 0.1
# The loss scale is chosen so that at most a hundredth of the energy is lost; as much again for new dropout.
REPAIRED = 0.02
SCALER_START = 65536.0
# float16's largest number, and the decades that a weight's gradient may lie above that of an output.
LARGEST, MARGIN = 65504.0, 4.0
FAR = 6.0


@rule(
    code="UG501",
    name="precision-underflow",
    severity="error",
    needs=("grad_rescaled",),
    wants=("grad_rms", "update_ratio"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield a finding where a narrow dtype loses a tenth of a gradient's energy."""
    profile = profiles["grad_rescaled"]
    lost = float(profile.facts.get("lost_energy", 0.0))
    if not lost >= LIMIT:
        return
    index = [str(site) for site in profile.sites].index(str(profile.facts["lost_site"]))
    site, dtype = profile.sites[index], profile.labels[index]
    true, entries, _ = profile.rows[index]
    scale = float(profile.facts.get(f"loss_scale_{dtype}", math.nan))
    worst = sorted(zip(profile.sites, profile.rows, strict=True), key=lambda pair: -_energy(pair[1]))
    sites = tuple(place for place, row in worst if _energy(row) >= LIMIT and place != site)
    repair = (
        f"a loss scale of {scale:.0f} repairs it" if math.isfinite(scale) else "no loss scale can repair it"
    )
    yield Finding(
        "UG501",
        "precision-underflow",
        _severity(scale, scales_itself=_may_scale_itself(profiles)),
        f"{dtype} rounds {entries:.0%} of the gradient's entries at {site} to zero, {spell(lost)} of "
        f"its energy (rms {spell(10**true)} in float64); {repair}",
        (site, *sites),
        "grad_rescaled",
        lost,
        "energy of the entries that are rounded to zero, over all",
        LIMIT,
        fact="lost_energy",
        causes=tuple(_causes(profile, dtype, scale)),
        evidence={"loss scale": scale, "log10 of the true rms": true, "sites": len(sites) + 1},
        fix="scaler = torch.amp.GradScaler()  # then scaler.scale(loss).backward(), step(opt), update()",
    )


def _severity(scale: float, *, scales_itself: bool) -> Severity:
    if not math.isfinite(scale):
        return "error"
    return "info" if scales_itself and scale <= SCALER_START else "warning"


def _may_scale_itself(profiles: Mapping[str, Profile]) -> bool:
    """Whether the case's own step may scale the loss.

    It was taken once: where it moved no weight of the modules that lose most, though the gradient has
    room to be multiplied as a scaler does at its start, it does not scale.
    """
    profile = profiles["grad_rescaled"]
    if profile.facts.get("own_step") != 1.0:
        return False
    room = max((value for _, value in profile.finite()), default=math.inf) + math.log10(SCALER_START)
    return not (_stays(profiles) and room < math.log10(LARGEST) - MARGIN)


def _stays(profiles: Mapping[str, Profile]) -> bool:
    """Whether the modules that lose most have weights, all of which stayed where they were."""
    moved, profile = profiles.get("update_ratio"), profiles["grad_rescaled"]
    most = max(map(_energy, profile.rows))
    rows = zip(profile.sites, profile.rows, strict=True)
    lost = {site.path for site, row in rows if _energy(row) == most}
    ratios = [ratio for site, ratio in (moved.items() if moved else ()) if owner(site) in lost]
    return bool(ratios) and not any(ratios)


def _causes(profile: Profile, dtype: str, scale: float) -> Iterator[Cause]:
    if math.isfinite(scale):
        yield Cause(
            f"range: {dtype} holds nothing smaller; with the loss times {scale:.0f} the gradient fits",
            remedy="loss_scale",
            parameters={"scale": scale},
            predicted=(0.0, REPAIRED),
        )
    values = [value for _, value in profile.finite()]
    fall = max(values) - min(values) if values else 0.0
    if fall > FAR:
        yield Cause(f"depth: in float64 the gradient itself falls by 10^{fall:.0f} between layers (UG101)")
    elif not math.isfinite(scale):
        yield Cause(f"span: between its largest and smallest entries lies more than {dtype} holds")


def _energy(row: tuple[float, ...]) -> float:
    return 0.0 if math.isnan(row[2]) else row[2]
