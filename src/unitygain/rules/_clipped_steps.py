"""What a clip, or the code between it and the optimizer, leaves of a gradient."""

import math
from collections.abc import Iterator, Mapping

from unitygain._types import Cause, Profile
from unitygain.rules._numbers import spell
from unitygain.rules._updates import read_fact

# What a clip must leave of a gradient, not to be what makes the steps too small.
CRUMBS = 0.01
# No rounding, and no other draw of dropout, makes a gradient so many times as large.
CARRIES = 8.0
# How far what reaches the optimizer may be from what the clip leaves of the loss's own gradient.
ALIKE = 0.1
UNSCALE = "scaler.unscale_(optimizer)  # before the gradient is clipped; then scaler.step(optimizer)"


def left_by_clip(profiles: Mapping[str, Profile]) -> float:
    """Return what the case's clip leaves of the gradient's norm; 1 where that is not known."""
    left = read_fact(profiles, "clipped")
    return 1.0 if math.isnan(left) else left


def clips_scaled(profiles: Mapping[str, Profile]) -> bool:
    """Whether the clip takes a gradient that carries a factor, which is taken off it afterwards.

    What then reaches the optimizer is the share of the loss's own gradient that the clip left of the larger
    one.
    """
    left, handed = read_fact(profiles, "clipped"), read_fact(profiles, "handed")
    return (
        read_fact(profiles, "carried") > CARRIES and 0 < left < CRUMBS and abs(handed - left) <= ALIKE * left
    )


def explain_clip(profiles: Mapping[str, Profile], ratio: float) -> Iterator[Cause]:
    """Yield the clip as a cause of steps of this ratio, where it leaves crumbs of the gradient."""
    left, carried = left_by_clip(profiles), read_fact(profiles, "carried")
    if clips_scaled(profiles):
        times = min(1 / left, carried)
        yield Cause(
            f"clip: it is given the gradient while that still carries a factor of {carried:.5g}, the loss "
            f"scale, and leaves {spell(left)} of it; clipped after the unscaling it makes a step "
            f"{times:.5g} times as long, a ratio of {spell(times * ratio)}",
            note="not tested: the order is that of the case's own step",
        )
    elif left < CRUMBS:
        yield Cause(
            f"clip: it leaves {spell(left)} of the gradient's norm; the limit is far below the gradient"
        )


def explain_own_step(profiles: Mapping[str, Profile]) -> Iterator[Cause]:
    """Yield the case's own step as a cause, where crumbs of the gradient reach its optimizer."""
    handed = read_fact(profiles, "handed")
    if handed < CRUMBS and not left_by_clip(profiles) < CRUMBS:
        yield Cause(
            f"step: its own code hands the optimizer {spell(handed)} of the gradient of the loss; look for a "
            "clip before the unscaling or of every sample to a tiny norm, a loss scale that is taken off "
            "twice, a loss that is divided twice",
            note="not tested: it is the case's own step",
        )
