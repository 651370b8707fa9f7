"""Growth and decay over depth of a model without weights: what theory expects, judged as a prediction."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from unitygain._types import Cause, Finding, Profile
from unitygain.rules._depth_causes import explain_depth
from unitygain.rules._fixes import suggest
from unitygain.rules._numbers import spell
from unitygain.rules._trend import Trend, falls, outermost, rises

UNTESTED = "a prediction: there are no weights on which to test it"


def foretell(profiles: Mapping[str, Profile], code: str, name: str, *, falling: bool) -> Iterable[Finding]:
    """Yield a finding where theory expects a trunk to decay (or grow) beyond the limits of a measured one."""
    profile = profiles["predicted_gain"]
    trend = _read(profile)
    if trend is None or not (falls(trend) if falling else rises(trend)):
        return
    way = "shrinks" if falling else "grows"
    count = (
        f"{trend.depth} of {len(profile)} blocks" if trend.depth < len(profile) else f"{trend.depth} blocks"
    )
    causes = _causes(profiles, profile, trend)
    yield Finding(
        code,
        name,
        trend.severity,
        f"predicted, not measured: the gradient {way} towards the input: {trend.describe()}. As designed: "
        "what is unstable is the design",
        outermost(profile, lowest=falling),
        "predicted_gain",
        trend.per_block,
        "x per block, backward, by theory",
        trend.threshold,
        fact="gain_per_block",
        interval=trend.interval,
        causes=causes,
        fix=suggest(causes),
        evidence={"loop_db": trend.loop, "predicted": count, "measured": "nothing: the model is on meta"},
    )


def _read(profile: Profile) -> Trend | None:
    names = ("gain_per_block", "loop_db", "loop_db_low", "loop_db_high", "predicted")
    numbers = [value for key in names if isinstance(value := profile.facts.get(key), (int, float))]
    if len(numbers) < len(names) or not all(map(math.isfinite, numbers)) or not numbers[-1]:
        return None
    per_block, loop, low, high, depth = map(float, numbers)
    return Trend(per_block, loop / depth, low / depth, high / depth, loop, int(depth))


def _causes(profiles: Mapping[str, Profile], profile: Profile, trend: Trend) -> tuple[Cause, ...]:
    if profile.facts.get("with_skip"):
        # Weights do not multiply along a trunk with skip paths, and what the paths pass was not measured.
        text = f"blocks: each adds its branch to a skip path and passes {spell(trend.per_block)}x by theory"
        return (Cause(text, note=UNTESTED),)
    causes = explain_depth(profiles, profile.sites, trend.per_block, forward=False)
    return tuple(dataclasses.replace(cause, note=UNTESTED) for cause in causes)
