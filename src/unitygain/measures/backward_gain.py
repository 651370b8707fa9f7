"""backward_gain: by how much every block amplifies the gradient on its way back."""

import math
from dataclasses import replace

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.measures._by_hand import matrix_gains
from unitygain.measures._staging import gains, sizes
from unitygain.probe.record import Record

UNIT = "norm of dL/d(block input) over norm of dL/d(block output)"


@measure(unit=UNIT, needs=("entry_grad.rms", "exit_grad.rms", "matrix.arriving"))
def backward_gain(case: Case, record: Record) -> Profile | None:
    """Norm of the loss's gradient at the entry of every block over that at its exit.

    It is the gain along the one direction that this loss on this batch sends back, over the whole batch;
    `rms_gain` is that of a random direction. Where modules behind the next block read the entering
    tensor too, as layers that are all given the first features, its gradient is theirs, and no gain is told.

    Cost: one reduction per junction. No side effects.

    Args:
        case: Not used.
        record: A record with `entry_grad.rms`, `exit_grad.rms` and `matrix.arriving`.

    Returns:
        A plain ratio per block, in forward order; labels are the blocks' types. Facts: see
        `unitygain.measures._staging.slope_facts`, and `unitygain.measures._chance` on what chance gives
        where the record has draws. Where fewer than three blocks repeat it is that of the matrices of a list,
        multiplied by hand, from what enters one to what enters the next. None without four of these, and
        without blocks.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain._registry import MEASURES
        >>> from unitygain.probe.observe import observe
        >>> layers = [nn.Linear(4, 4, bias=False) for _ in range(4)]
        >>> _ = [layer.weight.data.copy_(0.1 * torch.eye(4)) for layer in layers]
        >>> case = Case(nn.Sequential(*layers), loss=lambda m, x: m(x).mean(), data=[torch.ones(2, 4)])
        >>> profile = backward_gain(case, observe(case, MEASURES["backward_gain"].needs))
        >>> [round(value, 6) for value in profile.values], round(profile.facts["slope_db"], 4)
        ([0.1, 0.1, 0.1, 0.1], -20.0)
    """
    by_hand = matrix_gains(record, "backward_gain", UNIT, forward=False)
    if by_hand is not None:
        return by_hand
    over, under = sizes(record, "entry_grad.rms"), sizes(record, "exit_grad.rms")
    past = dict.fromkeys(record.values.get("entry.goes_past", {}), math.nan)
    profile = gains(record, over | past, under, name="backward_gain", unit=UNIT)
    if profile is None or not past:
        return profile
    note = f"NaN at {', '.join(map(str, past))}: later modules read the block's input too"
    return replace(profile, note=f"{profile.note}; {note}")
