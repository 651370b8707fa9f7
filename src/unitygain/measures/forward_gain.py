"""forward_gain: by how much every block amplifies the signal."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.measures._by_hand import matrix_gains
from unitygain.measures._staging import gains
from unitygain.probe.record import Record

UNIT = "rms(block output) over rms(block input)"


@measure(unit=UNIT, needs=("entry.rms", "exit.rms", "matrix.entering"))
def forward_gain(case: Case, record: Record) -> Profile | None:
    """Root mean square of what leaves every block over that of what enters it.

    Cost: one reduction per junction. No side effects.

    Args:
        case: Not used.
        record: A record with `entry.rms`, `exit.rms` and `matrix.entering`.

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
        >>> _ = [layer.weight.data.copy_(2 * torch.eye(4)) for layer in layers]
        >>> case = Case(nn.Sequential(*layers), loss=lambda m, x: m(x).mean(), data=[torch.ones(2, 4)])
        >>> profile = forward_gain(case, observe(case, MEASURES["forward_gain"].needs))
        >>> [round(value, 6) for value in profile.values], round(profile.facts["loop_db"], 4)
        ([2.0, 2.0, 2.0, 2.0], 24.0824)
    """
    over, under = (
        {s: n[0] for s, n in record.values.get(key, {}).items()} for key in ("exit.rms", "entry.rms")
    )
    by_hand = matrix_gains(record, "forward_gain", UNIT, forward=True)
    if by_hand is not None:
        return by_hand
    return gains(record, over, under, name="forward_gain", unit=UNIT)
