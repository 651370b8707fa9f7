"""entry_grad_rms: how large the gradient is at every junction of the trunk."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.measures._staging import at_junctions
from unitygain.probe.record import Record

UNIT = "rms of dL/d(what enters the block)"


@measure(unit=UNIT, needs=("entry_grad.rms", "exit_grad.rms"))
def entry_grad_rms(case: Case, record: Record) -> Profile | None:
    """Root mean square of the loss's gradient at the entry of every block, and at the exit of the last.

    A block begins where its tensor enters and ends where the next one begins, so that what runs between
    two blocks (an activation after a bare layer) belongs to the first.

    Cost: one reduction per junction. No side effects.

    Args:
        case: Not used.
        record: A record with `entry_grad.rms` and `exit_grad.rms`.

    Returns:
        One value per block in forward order, then one at ``Site(last, leaf="(out)")``; labels are the
        blocks' types. None where no repeated trunk was found.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain._registry import MEASURES
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = entry_grad_rms(case, observe(case, MEASURES["entry_grad_rms"].needs))
        >>> [str(site) for site in profile.sites]
        ['0', '2', '2(out)']
    """
    return at_junctions(record, "_grad", name="entry_grad_rms", unit=UNIT)
