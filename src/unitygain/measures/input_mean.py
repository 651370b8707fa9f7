"""input_mean: where the model's inputs are centred."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "mean of the model's input"


@measure(unit=UNIT, needs=("input.mean",))
def input_mean(case: Case, record: Record) -> Profile | None:
    """Mean of every floating input of the model.

    Cost: one reduction per input. No side effects.

    Args:
        case: Not used.
        record: A record with `input.mean`.

    Returns:
        One value per floating input. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = input_mean(case, observe(case, ["input.mean"]))
        >>> profile.values
        (1.0,)
    """
    return record.profile("input.mean", name="input_mean", unit=UNIT) or None
