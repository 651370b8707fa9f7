"""token_cosine: how parallel the tokens are that leave every block."""

import dataclasses

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "mean cosine between two tokens of a sample"
NOTE = "NaN where fewer than two tokens are not zero, or one is not finite"


@measure(unit=UNIT, needs=("exit.token_cosine",))
def token_cosine(case: Case, record: Record) -> Profile | None:
    """Mean cosine between two different tokens of a sample, at the exit of every block.

    1 says that all tokens point the same way. Without a time dimension the tokens are the samples.

    Cost: ten passes over each block's output. No side effects.

    Args:
        case: Not used.
        record: A record with `exit.token_cosine`.

    Returns:
        From -1 to 1 per block; NaN where a block's output has no two tokens. Fact ``between``: tokens, or
        inputs where the outputs have no time dimension.
        None where nothing was observed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> profile = token_cosine(case, observe(case, ["exit.token_cosine"]))
        >>> [str(site) for site in profile.sites], [round(value, 6) for value in profile.values]
        (['0', '2'], [1.0, 1.0])
    """
    profile = record.profile("exit.token_cosine", name="token_cosine", unit=UNIT, note=NOTE)
    sequences = all(len(place.shape) == 3 for place in record.of("exit"))
    return dataclasses.replace(profile, facts={"between": "tokens" if sequences else "inputs"}) or None
