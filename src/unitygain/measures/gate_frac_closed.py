"""gate_frac_closed: how much of a gate is shut."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "entries of the gate below 0.05, over entries"


@measure(unit=UNIT, needs=("gate.frac_closed",))
def gate_frac_closed(case: Case, record: Record) -> Profile | None:
    """Fraction of the entries of every gate that let less than 0.05 through.

    A gate is a sigmoid whose result multiplies another signal, the second half of a GLU, or a gate of an
    LSTM or GRU module, read from an unrolled computation with the module's own weights.

    Cost: two passes over every gate; for LSTM and GRU modules one unrolled forward pass without a graph.
    No side effects.

    Args:
        case: Not used.
        record: A record with `gate.frac_closed`.

    Returns:
        From 0 to 1 per gate, in the order in which they ran, named as ``lstm.(forget)`` or
        ``lstm.(forget l1_reverse)``; labels are ``forget``, ``input``, ``output``, ``reset``, ``update``
        or the operation. None where the model has no gate.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> case = Case(nn.GRU(4, 4), loss=lambda m, x: m(x)[0].mean(), data=[torch.ones(3, 2, 4)])
        >>> profile = gate_frac_closed(case, observe(case, ["gate.frac_closed"]))
        >>> [str(site) for site in profile.sites]
        ['(model).(reset)', '(model).(update)']
    """
    return record.profile("gate.frac_closed", name="gate_frac_closed", unit=UNIT) or None
