"""Why units are zero for a whole batch: weights of zeros or of one sign, then biases, then inputs."""

import math
from collections.abc import Iterable, Mapping

from unitygain._types import Cause, Profile, Site
from unitygain.rules._layers import fed_by, parameter_rms, value_at, within
from unitygain.rules._numbers import spell

HEAVY = 0.5
ONE_SIDED = 0.95
# A unit whose weights have a mean this many times the spread of their sum below zero is off for inputs of one
# sign. Symmetric draws have 1/sqrt(fan_out) there.
BELOW = -3.0
# Mean over rms of a gradient that has one sign; of either sign it is about one over the root of its entries.
ONE_WAY = 0.2
ALL = 1e-6


def explain_dead(profiles: Mapping[str, Profile], site: Site, limit: float) -> Iterable[Cause]:
    """Yield the likely causes of dead units at the activation `site`, likeliest first.

    Args:
        profiles: All profiles; ``act_rms`` and ``param_rms`` tell the pre-activation and its bias,
            ``weight_mean`` which weights have one sign.
        site: The activation.
        limit: Below which the fraction of dead units must fall once the cause is gone.
    """
    yield from _at_the_output(profiles, site)
    yield from _badly_drawn(profiles, site, limit)
    # The bias is a part of the pre-activation; HEAVY of it says that it decides the sign of most units.
    heavy = [
        (bias, whole, ahead)
        for ahead in fed_by(profiles, site)
        if (bias := parameter_rms(profiles, f"{ahead.path}.bias"))
        >= HEAVY * (whole := value_at(profiles, "act_rms", ahead))
        > 0
    ]
    outputs = profiles.get("act_rms")
    if outputs is None or site not in outputs.sites:
        # Of the leaves around an activation that is a function call, any may be the one that feeds it; but
        # one that puts out its bias alone gets zeros, and stands behind dead units itself.
        heavy = sorted((one for one in heavy if not math.isclose(*one[:2], rel_tol=ALL)), reverse=True)
    if heavy:
        bias, whole, ahead = heavy[0]
        yield Cause(
            f"biases: rms {spell(bias)} in {ahead}, of a pre-activation of rms {spell(whole)} in all",
            "zero_biases",
            {"sites": (ahead.path,)},
            (0.0, limit),
        )
    mean, size = _first(profiles, "input_mean"), _first(profiles, "input_rms")
    if size > 0 and abs(mean) >= ONE_SIDED * size:
        yield Cause(
            f"inputs: mean {spell(mean)} of rms {spell(size)}: a unit has the same sign for every input",
            "unit_inputs",
            {},
            (0.0, limit),
        )
    yield Cause(
        "weights: negative sums for every input, by the draw (likelier the deeper and narrower the network) "
        "or after too large a step of the optimizer"
    )


def _at_the_output(profiles: Mapping[str, Profile], site: Site) -> Iterable[Cause]:
    """Yield the activation itself, where it is the last, all zero, and the loss asks for less than zero."""
    loss = profiles.get("loss_value")
    size, pull = (
        float(loss.facts.get(f"output_{what}", math.nan)) if loss else math.nan for what in ("rms", "pull")
    )
    if size == 0 and pull > ONE_WAY and profiles["act_frac_dead"].sites[-1] == site:
        yield Cause(
            f"output: {site} is a ReLU behind the last layer, and the loss asks for less than its 0: targets "
            "below 0 cannot be reached; take it away"
        )


def _badly_drawn(profiles: Mapping[str, Profile], site: Site, limit: float) -> Iterable[Cause]:
    """Yield the weights before `site` that are all zero, or that lie to one side."""
    ahead = [leaf.path for leaf in fed_by(profiles, site, "weight")]
    outputs = profiles.get("act_rms")
    if outputs is not None and site in outputs.sites:
        ahead = ahead[:1]
    blank = [path for path in ahead if parameter_rms(profiles, f"{path}.weight") == 0]
    if blank:
        yield Cause(
            f"initialisation: the weights of {blank[-1]} start at zero; behind a ReLU no gradient moves them",
            "activation_init",
            {"sites": tuple(blank)},
            (0.0, limit),
        )
    means = profiles.get("weight_mean")
    low = [
        (value, place.path)
        for place, value in (means.items() if means else ())
        if value <= BELOW and any(within(place.path, path) for path in ahead)
    ]
    if low:
        value, path = min(low)
        yield Cause(
            f"initialisation: the weights of {path} lie below zero: in a sum of inputs of one sign their "
            f"mean is {spell(value)} times their spread, which switches every unit off",
            "activation_init",
            {"sites": tuple(dict.fromkeys(path for _, path in low))},
            (0.0, limit),
        )


def _first(profiles: Mapping[str, Profile], name: str) -> float:
    profile = profiles.get(name)
    return profile.values[0] if profile else math.nan
