"""gate_mean: how far gates are open on average."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "mean of the gate"


@measure(unit=UNIT, needs=("gate.mean",))
def gate_mean(case: Case, record: Record) -> Profile | None:
    """Mean opening of every gate: 1 lets everything through, 0 nothing.

    A gate is a sigmoid whose result multiplies another signal, the second half of a GLU, or a gate of an
    LSTM or GRU module, read from an unrolled computation with the module's own weights.

    Cost: two passes over every gate; for LSTM and GRU modules one unrolled forward pass without a graph.
    No side effects.

    Args:
        case: Not used.
        record: A record with `gate.mean`.

    Returns:
        From 0 to 1 per gate, in the order in which they ran, named as ``lstm.(forget)`` or
        ``lstm.(forget l1_reverse)``; labels are ``forget``, ``input``, ``output``, ``reset``, ``update``
        or the operation. None where the model has no gate.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> case = Case(nn.GRU(4, 4), loss=lambda m, x: m(x)[0].mean(), data=[torch.ones(3, 2, 4)])
        >>> profile = gate_mean(case, observe(case, ["gate.mean"]))
        >>> [str(site) for site in profile.sites]
        ['(model).(reset)', '(model).(update)']
    """
    return record.profile("gate.mean", name="gate_mean", unit=UNIT) or None
