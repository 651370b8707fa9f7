"""grad_rms: how large the gradient is at the output of every leaf module."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "rms of dL/d(output)"


@measure(unit=UNIT, needs=("grad.rms",))
def grad_rms(case: Case, record: Record) -> Profile | None:
    """Root mean square of the loss's gradient with respect to the output of every leaf module call.

    The gradient is the sum over all uses of the output. A loss that is a mean over the batch makes it
    smaller by the batch size; ratios between sites do not depend on that.

    Cost: one reduction per gradient. No side effects.

    Args:
        case: Not used.
        record: A record with `grad.rms`.

    Returns:
        One value per leaf call, in forward order.
        Labels are the module types. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = grad_rms(case, observe(case, ["grad.rms"]))
        >>> [str(site) for site in profile.sites]
        ['0', '1', '2']
    """
    return record.profile("grad.rms", name="grad_rms", unit=UNIT) or None
