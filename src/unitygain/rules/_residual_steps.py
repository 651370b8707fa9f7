"""A loop that adds what it makes to its state at every step, h + f(h): the identity is beside its weights."""

from collections.abc import Iterable, Mapping

from unitygain._types import Cause, Profile
from unitygain.rules._layers import SCALE_FREE, Layer, read_layers, within
from unitygain.rules._numbers import from_db, spell

# The gain of an identity over all steps, up to the rounding of its sums.
SAME = 1.01
# He's 1.41 and the 1.67 that a GELU, SiLU or ELU needs are usual: from here on the weights are a cause of
# their own.
LOUD_MAPS = 2.0


def blame_full_steps(profiles: Mapping[str, Profile], slope: float, steps: int) -> Iterable[Cause]:
    """Yield the branch that a loop adds whole at every step, where the gradient grows over one with a skip.

    ``gain_parts`` tells the skip path: of the block inside which, or behind which, the whole loop runs. A
    state that decays, or is mixed by a gate, passes less than 1 and is no such loop.
    """
    if slope <= 0 or not skips(profiles):
        return
    last = last_map(profiles)
    if last is None or last.gain > LOUD_MAPS:
        return
    scaled = last.activation in SCALE_FREE
    yield Cause(
        f"branch: each of {steps} steps adds it to the state, h + f(h), at full size, and passes "
        f"{spell(from_db(slope))}x back, with {last.site} at a usual gain of {spell(last.gain)}; 1/{steps} "
        "of it, as an Euler step of that size has, keeps the gain over all steps near e, and at most a third "
        "of the growth per step may be left",
        "scale_branch" if scaled else None,
        {"sites": (last.site.path,), "factor": 1 / steps} if scaled else {},
        (-slope / 3, slope / 3) if scaled else None,
        note="" if scaled else "an activation ends the branch, so that no weight alone scales it",
    )


def skips(profiles: Mapping[str, Profile]) -> bool:
    """Whether the block that holds all calls of the loop has a skip path of gain 1."""
    parts, outputs = profiles.get("gain_parts"), profiles.get("act_rms")
    repeated = {step.path for step in profiles["time_grad_rms"].sites}
    order = [site.path for site in outputs.sites] if outputs else []
    calls = [index for index, path in enumerate(order) if path in repeated]
    if parts is None or not calls:
        return False
    column = parts.columns.index("skip")
    starts = [
        next((index for index, path in enumerate(order) if within(path, block.path)), len(order))
        for block in parts.sites
    ]
    for row, start, end in zip(parts.rows, starts, (*starts[1:], len(order)), strict=True):
        if start <= calls[0] and calls[-1] < end:
            return 1 / SAME < row[column] < SAME
    return False


def last_map(profiles: Mapping[str, Profile]) -> Layer | None:
    """Return the layer with a weight that a step of the loop runs last."""
    repeated = {step.path for step in profiles["time_grad_rms"].sites}
    order = [site.path for site in profiles["act_rms"].sites]
    layers = [layer for layer in read_layers(profiles) if layer.site.path in repeated]
    return max(layers, key=lambda layer: order.index(layer.site.path), default=None)
