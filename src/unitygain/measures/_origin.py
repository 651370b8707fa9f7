"""The operation that made the first infinity or NaN, as a profile."""

from unitygain._types import Profile
from unitygain.probe.nonfinite import Origin


def describe_origin(origin: Origin, name: str, unit: str, **more: float) -> Profile:
    """Return the profile of an origin, with what is known of it as facts."""
    facts: dict[str, float | str] = {
        "operation": origin.operation,
        "direction": origin.direction,
        "line": origin.line,
        "kind": origin.kind,
        "dtype": origin.dtype,
        **more,
    }
    if origin.then:
        facts["then"] = origin.then
    if origin.fed:
        facts["fed"] = 1.0
    return Profile(name, unit, (origin.site,), (1.0,), labels=(origin.operation,), facts=facts)
