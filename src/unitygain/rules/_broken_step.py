"""A step that leaves weights infinite or NaN where every gradient is finite: what it divides by is zero."""

import math
from collections.abc import Mapping

from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell
from unitygain.rules._parameters import list_owners
from unitygain.rules._ranges import SMALLEST
from unitygain.rules._updates import read_fact

FIX = 'keep the weights in float32 and compute under torch.autocast("cuda", torch.{dtype}); or eps=1e-4'


def judge_broken(profiles: Mapping[str, Profile]) -> Finding | None:
    """Say where the first step leaves parameters that are not finite, of a finite gradient."""
    profile, gradients = profiles["update_ratio"], profiles.get("param_grad_rms")
    broken = [site for site, value in profile.items() if not math.isfinite(value)]
    known = [*profiles["param_rms"].values, *(gradients.values if gradients else (math.nan,))]
    if not broken or not read_fact(profiles, "broken") or not all(map(math.isfinite, known)):
        return None
    dtype = dict(zip(profile.sites, profile.labels, strict=True)).get(broken[0], "") if profile.labels else ""
    cause = _explain_epsilon(profiles, dtype)
    return Finding(
        "UG601",
        "update-too-large",
        "error",
        f"the first optimizer step makes {len(broken)} of {len(profile)} parameters infinite or NaN, of "
        f"finite weights and a finite gradient: {list_owners(broken)}",
        tuple(broken),
        "update_ratio",
        float(len(broken)),
        "parameters that are not finite after the step",
        0.0,
        fact="broken",
        causes=(cause or Cause("step: the optimizer divides by zero, or by what its dtype cannot hold"),),
        evidence={"eps": read_fact(profiles, "eps"), "dtype": dtype or "float32"},
        fix=FIX.format(dtype=dtype) if cause else "look at the optimizer's eps, its rate and its state",
    )


def _explain_epsilon(profiles: Mapping[str, Profile], dtype: str) -> Cause | None:
    """Return the epsilon that is no number of the weights' dtype, where a larger one mends the step."""
    eps, mended = read_fact(profiles, "eps"), read_fact(profiles, "mended")
    least = SMALLEST.get(dtype, 0.0)
    if mended != 1.0 or not eps <= least / 2:
        return None
    name = profiles["update_ratio"].facts.get("optimizer", "the optimizer")
    return Cause(
        f"eps: the weights are {dtype}, whose smallest number is {spell(least)}; {name}'s eps of "
        f"{spell(eps)} is zero there, and so is the square of a small gradient, whose root divides the step",
        note="not tested on the weights' dtype; with an eps of 1e-4 the same step leaves every weight finite",
    )
