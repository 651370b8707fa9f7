"""Steps that add their gradient to that of all steps before."""

import math
from collections.abc import Mapping

from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._numbers import spell
from unitygain.rules._updates import read_fact

# By how much what is kept may differ from all of it: the step adds its own to what is a hundred times as
# large. A gradient that is made smaller from step to step on purpose keeps 0.95 at most.
NEAR = 0.02


def judge_piled_up(profiles: Mapping[str, Profile]) -> Finding | None:
    """Say where nothing clears the gradient between two of the case's own steps."""
    kept = read_fact(profiles, "kept")
    if not math.isfinite(kept) or abs(kept - 1) > NEAR:
        return None
    return Finding(
        "UG601",
        "update-too-large",
        "error",
        f"gradients pile up: the case's own step never clears them, and its optimizer gets {spell(kept)} of "
        "what earlier steps left, beside its own",
        (Site(""),),
        "update_ratio",
        kept,
        "of what lay in the gradient before the step",
        NEAR,
        fact="kept",
        causes=(
            Cause(
                "no zero_grad: backward() adds to what earlier steps left in .grad, so that after n steps "
                "the gradient is the sum of n, and most of it is of weights long gone"
            ),
        ),
        fix="optimizer.zero_grad()  # before loss.backward(), or after optimizer.step()",
    )
