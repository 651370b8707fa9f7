"""A state that loses its graph before every step: the parameters that make it learn nothing of the past."""

from collections.abc import Mapping

from unitygain._types import Cause, Finding, Profile

# States handed on, all of them cut: three in four steps. From two steps in a row on, it may be a choice.
LEAST, ALONE = 3.0, 1.0


def judge_cut(profiles: Mapping[str, Profile]) -> Finding | None:
    """Return the finding for the modules that hand on their state without its graph at every single step."""
    profile = profiles.get("grad_steps")
    if profile is None:
        return None
    rows = dict(zip(profile.sites, profile.rows, strict=True))
    sites = [s for s, reach in profile.items() if reach == ALONE and LEAST <= rows[s][1] == rows[s][2]]
    if not sites:
        return None
    steps = int(rows[sites[0]][0])
    more = f", and so at {', '.join(map(str, sites[1:]))}" if len(sites) > 1 else ""
    where = ", ".join(map(str, sites))
    return Finding(
        "UG603",
        "parameter-not-learning",
        "warning",
        f"the gradient goes back over 1 step of {steps} at {sites[0]}: each call is handed the state of the "
        f"one before without its graph, so that the parameters learn nothing of earlier steps{more}",
        tuple(sites),
        "grad_steps",
        ALONE,
        profile.unit,
        ALONE,
        causes=(
            Cause(
                f"detach: the state of {where} is cut off at every step, by detach(), .data or no_grad(); a "
                "truncation is meant for the ends of long pieces"
            ),
        ),
        evidence={"states handed on": rows[sites[0]][1], "of them cut": rows[sites[0]][2]},
        fix="hand the state on as it is; state.detach() between batches, or after many steps",
    )
