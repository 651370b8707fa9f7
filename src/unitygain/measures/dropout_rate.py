"""dropout_rate: which share every dropout drops that runs in the pass."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "share that is dropped"


@measure(unit=UNIT, needs=("dropout.rate",))
def dropout_rate(case: Case, record: Record) -> Profile | None:
    """Share of its input that every dropout sets to zero, where it is active in the pass.

    Modules say it themselves: those of torch.nn.Dropout and its relatives, and the dropout of nn.LSTM, nn.GRU
    and nn.RNN between their layers and of nn.MultiheadAttention on its weights; those in evaluation mode
    are not active. Functions (`functional.dropout` and what is made like it: zeros and ones that are drawn,
    put to scale and multiplied with the signal) are found as operations, in whatever mode the model is. What
    leaves out whole rows (stochastic depth), and masks that are not put to scale, is not counted.

    Cost: none but watching the operations. No side effects.

    Args:
        case: Not used.
        record: A record with `dropout.rate`.

    Returns:
        One value per active dropout, from 0 (left out) to 1, in the order in which they ended, named by its
        module, or as ``path.(dropout)`` for a function. Labels are the classes of the modules, and
        ``dropout`` for a function. None where there is none.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Dropout(0.0), nn.AlphaDropout(0.5))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = dropout_rate(case, observe(case, ["dropout.rate"]))
        >>> [str(site) for site in profile.sites], profile.values
        (['1', '3'], (0.3, 0.5))

    References:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting" (JMLR 2014),
        section 4; their p is the probability to keep a unit, torch's the probability to drop it.
    """
    return record.profile("dropout.rate", name="dropout_rate", unit=UNIT) or None
