"""effective_rank: in how many directions the tokens that leave every block vary."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "effective rank over the largest possible rank"
NOTE = "NaN where the output is zero or not finite"


@measure(unit=UNIT, needs=("exit.effective_rank",))
def effective_rank(case: Case, record: Record) -> Profile | None:
    """Effective rank of the matrix of tokens at the exit of every block, over its largest possible value.

    The exponential of the entropy of the singular values (Roy and Vetterli 2007, definition 1), divided by
    the smaller side of the (tokens, features) matrix. Large matrices are sampled.

    Cost: an eigenvalue problem of at most 512 x 512 per block. No side effects.

    Args:
        case: Not used.
        record: A record with `exit.effective_rank`.

    Returns:
        From 0 to 1 per block; NaN where the output has no rank. None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = effective_rank(case, observe(case, ["exit.effective_rank"]))
        >>> [str(site) for site in profile.sites]
        ['0', '2']
    """
    return record.profile("exit.effective_rank", name="effective_rank", unit=UNIT, note=NOTE) or None
