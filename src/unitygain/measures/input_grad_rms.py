"""input_grad_rms: how large the gradient is that arrives at the model's inputs."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "rms of dL/d(model input)"


@measure(unit=UNIT, needs=("input_grad.rms",))
def input_grad_rms(case: Case, record: Record) -> Profile | None:
    """Root mean square of the loss's gradient with respect to every floating input of the model.

    Cost: one reduction per input. No side effects.

    Args:
        case: Not used.
        record: A record with `input_grad.rms`.

    Returns:
        One value per floating input. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = input_grad_rms(case, observe(case, ["input_grad.rms"]))
        >>> len(profile)
        1
    """
    return record.profile("input_grad.rms", name="input_grad_rms", unit=UNIT) or None
