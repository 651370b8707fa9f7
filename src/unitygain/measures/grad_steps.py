"""grad_steps: over how many steps in time a gradient can go back through the state of a module."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.handed import handed_on
from unitygain.probe.record import Record

UNIT = "steps in a row that one gradient goes back over, at most"
COLUMNS = ("steps", "handed", "cut")
NOTE = "NaN: a call is given more than rows and features, and may be of many steps in time"


@measure(unit=UNIT, needs=("output.rms",), passes="0; 1 forward where a module runs 4 times")
def grad_steps(case: Case, record: Record) -> Profile | None:
    """Steps in time over which a gradient can go back through the state that a module hands to its next call.

    A state that is handed on as it was returned carries its graph, and the gradient goes back as far as the
    calls do. One that shares the memory of what was returned and has no graph was detached: no gradient
    passes there. A call of a cell is one step, one of an `nn.RNN`, `nn.LSTM` or `nn.GRU` as many as its
    sequence has.

    Cost: one forward pass with its graph where some module ran four times or more. No side effects.

    Args:
        case: An isolated case.
        record: A record with `output.rms`; tells which modules ran how often.

    Returns:
        The longest row of steps without a cut, per module that was handed what it had returned. Rows:
        ``steps`` of all calls, the calls that were ``handed`` a state, and those of them in which it was
        ``cut``. NaN where the steps of a call are not known. None where no module hands on a state.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> class Reader(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.cell = nn.RNNCell(2, 3)
        ...     def forward(self, x):
        ...         h = torch.zeros(len(x), 3)
        ...         for now in x.unbind(1):
        ...             h = self.cell(now, h.detach())
        ...         return h
        >>> case = Case(Reader(), loss=lambda m, x: m(x).sum(), data=[torch.ones(4, 6, 2)])
        >>> profile = grad_steps(case, observe(case, ["output.rms"]))
        >>> [(str(site), value) for site, value in profile.items()], profile.rows
        ([('cell', 1.0)], ((6.0, 5.0, 5.0),))

    References:
        Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network
        trajectories" (Neural Computation 1990), on backpropagation that is truncated after so many steps.
    """
    found = handed_on(case, record)
    if not found:
        return None
    values = tuple(one.reach for one in found.values())
    return Profile(
        "grad_steps",
        UNIT,
        tuple(map(Site, found)),
        values,
        columns=COLUMNS,
        rows=tuple((one.steps, float(one.handed), float(one.cut)) for one in found.values()),
        note=NOTE if any(map(math.isnan, values)) else "",
    )
