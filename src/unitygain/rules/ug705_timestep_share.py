"""UG705: a few noise levels give a diffusion model almost all of its gradient.

What it sees:
    The samples of the batch, sorted by the time that the model is told and cut into eight groups; the energy
    of a sample's gradient in each. It fires where one group has 0.97 of the sum of all, or 0.8 while the
    quieter half of the groups has a hundred-thousandth in all, at sixteen samples or more.

Why it matters:
    The other seven eighths of every batch then move no weight, and what is learned there is undone by the
    noise of the loud group. A squared error of the noise, read off a network that predicts the sample,
    weighs it by the signal-to-noise ratio, which is 10,000 at the first step of DDPM's schedule and below 1
    at three quarters of the steps; the variational bound does the same to predictions of the noise. Clipping
    the norm of the gradient hides it: which step a batch has drawn decides whether it counts.

When it is a false alarm:
    A schedule that visits one range of times on purpose, so that the batch holds few others. Samples at the
    very ends of the schedule, if the batch is small: another batch shows another share.

Remedies:
    A weight that is bounded, such as min(SNR, 5) for predictions of the sample; the plain squared error on
    predictions of the noise or of v; a weight of sigma² on the squared error of a score, whose size goes as
    1/sigma; times drawn in proportion to what they need. Declare the other loss as
    ``Case(variants={"min_snr": loss})`` and it is tried.

References:
    Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (ICCV 2023), section 3. Ho,
    Jain and Abbeel, "Denoising Diffusion Probabilistic Models" (NeurIPS 2020), eq. 12 and 14. Salimans and
    Ho, "Progressive Distillation for Fast Sampling of Diffusion Models" (ICLR 2022), section 4. Song and
    Ermon, "Generative Modeling by Estimating Gradients of the Data Distribution" (NeurIPS 2019), eq. 6, on
    the weight of sigma² over noise levels.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def profiles(*shares: float) -> dict[str, Profile]:
    ...     sites = tuple(Site("", leaf=f"(t {100 * k} to {100 * k + 99})") for k in range(8))
    ...     rows = tuple((4.0, share, share) for share in shares)
    ...     facts = {"largest": max(shares), "groups": 8.0, "argument": "t", "variants": ""}
    ...     columns = ("samples", "energy", "output_energy")
    ...     return {"timestep_grad_share": Profile("timestep_grad_share", "share", sites, shares, rows=rows,
    ...                                            columns=columns, facts=facts)}
    >>> [finding.code for finding in judge(profiles(0.993, 0.004, 0.003, 0.0, 0.0, 0.0, 0.0, 0.0))]
    ['UG705']

A silent example:
    >>> list(judge(profiles(0.9, 0.06, 0.02, 0.01, 0.005, 0.003, 0.001, 0.001)))
    []
"""

import math
from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell

# In odds the middle between a healthy min-SNR (0.947) and what an unbounded weight gave least (0.981).
SHARE = 0.97
# Groups are cut where the samples lie, and two may share what one weight favours. Where the quieter half has
# a hundred-thousandth in all (300 times less gradient in rms), most of the energy in one group is enough.
MOST, SILENT = 0.8, 1e-5
GROUPS, SAMPLES = 8, 16
# Of the gradient at the model's output: what is as uneven there was made so by the loss.
BY_LOSS = 0.8
FIX = "weight = snr.clamp(max=5)  # for predictions of the sample; divided by snr for those of the noise"


@rule(code="UG705", name="timestep-share", severity="warning", needs=("timestep_grad_share",))
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding where one eighth of the times has nearly all of the gradient."""
    profile = profiles["timestep_grad_share"]
    largest, groups = (float(profile.facts[name]) for name in ("largest", "groups"))
    samples = math.fsum(row[0] for row in profile.rows)
    ranked = sorted(profile.items(), key=lambda item: -item[1])
    site, _ = ranked[0]
    others = sorted(value for _, value in ranked)[: len(ranked) // 2]
    limit = MOST if math.fsum(others) <= SILENT else SHARE
    if not largest >= limit or groups < GROUPS or samples < SAMPLES:
        return
    yield Finding(
        "UG705",
        "timestep-share",
        "warning",
        f"{spell(largest)} of the gradient's energy comes from {site}, one of {int(groups)} groups of times; "
        f"the quieter half of them has {spell(math.fsum(others))}",
        (site,),
        "timestep_grad_share",
        largest,
        profile.unit,
        limit,
        fact="largest",
        causes=tuple(explain(profile)),
        evidence={"argument": str(profile.facts["argument"]), "samples": samples},
        fix=FIX,
    )


def explain(profile: Profile) -> Iterable[Cause]:
    """Yield the loss where the gradient is as uneven at the model's output; else the model."""
    index = max(range(len(profile)), key=lambda k: profile.values[k])
    outputs = [row[2] for row in profile.rows]
    share = outputs[index] / math.fsum(outputs) if any(outputs) else math.nan
    there = f"{spell(share)} of the gradient at the model's output is from the same times"
    model = Cause(f"model: it passes the gradient of these times on more strongly ({there})")
    names = [name for name in str(profile.facts.get("variants", "")).split(", ") if name]
    text = (
        "loss: its weighting over the noise levels, or what it asks the model to predict (the sample, the "
        f"noise or the score), favours them ({there}); a weight of sigma² takes 1/sigma² out of an error of "
        "the score, and min(SNR, 5) bounds one of the sample"
    )
    if names:
        chosen = min(names, key=lambda name: not any(word in name for word in ("snr", "eps", "v_")))
        loss = Cause(text, "swap_loss", {"variant": chosen}, (1 / float(profile.facts["groups"]), SHARE))
    else:
        loss = Cause(
            text, note='declare another loss to have it tried: Case(..., variants={"min_snr": loss})'
        )
    yield from (loss, model) if share >= BY_LOSS else (model, loss)
