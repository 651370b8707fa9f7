"""grad_direction_stability: whether the input gradient keeps its direction when the input hardly moves."""

import math

import numpy as np
import torch
from torch import Tensor

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.junctions import Move
from unitygain.probe.operators import cosine, generator
from unitygain.probe.record import Record
from unitygain.probe.trace import trace
from unitygain.stats import norm

UNIT = "cosine of dL/dx before and after a relative input change of 1e-3"
CHANGE = 1e-3
DRAWS = 4


@measure(unit=UNIT, passes="5")
def grad_direction_stability(case: Case, record: Record) -> Profile | None:
    """Cosine between the gradients of the loss at the input and at an input 1e-3 away.

    The input is moved in a random direction by 1e-3 of its norm, four times. A model whose first floating
    input is not its own, because it reads tokens, is moved at what enters its first block. Dropout masks
    are the same in every pass.

    Cost: 5 forward passes and 5 backward passes to the input. No side effects.

    Args:
        case: An isolated case.
        record: The record of the case.

    Returns:
        One value between -1 and 1, the mean of four, with its standard error; NaN where the gradient is
        zero or not finite. None where the model has neither a floating input nor blocks.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> case = Case(nn.Linear(4, 1), loss=lambda m, x: m(x).sum(), data=[torch.ones(2, 4)])
        >>> round(grad_direction_stability(case, observe(case, [])).values[0], 6)
        1.0

    References:
        Shattered gradients: D. Balduzzi et al., ICML 2017, section 2, who correlate gradients at
        neighbouring inputs.
    """
    seed = int(record.facts.get("seed", 0))
    with trace(case, record) as live:
        if live.anchor is None:
            return None
        site, _ = live.anchor
        before = live.anchor_gradient()
        note = "" if site.path == "" else "the input is not floating: moved at what enters the first block"
    cosines = [_moved_cosine(case, record, before, seed + draw) for draw in range(DRAWS)]
    if any(map(math.isnan, cosines)):
        note = "; ".join(filter(None, [note, "NaN: the gradient is zero, missing or not finite"]))
    spread = float(np.std(cosines, ddof=1)) / math.sqrt(DRAWS)
    return Profile(
        "grad_direction_stability",
        UNIT,
        sites=(site,),
        values=(float(np.mean(cosines)),),
        error=(spread,),
        facts={"relative_change": CHANGE, "draws": float(DRAWS)},
        note=note,
    )


def _moved_cosine(case: Case, record: Record, before: Tensor | None, seed: int) -> float:
    if before is None:
        return math.nan
    with trace(case, record, move=_move(seed)) as live:
        after = live.anchor_gradient()
        return math.nan if after is None else cosine(before, after)


def _move(seed: int) -> Move:
    def move(x: Tensor) -> Tensor:
        source = generator(x.device, seed)
        direction = torch.randn(x.shape, generator=source, dtype=torch.float32, device=x.device)
        length = CHANGE * float(norm(x)) / float(norm(direction))
        return x + (direction * length).to(x.dtype)

    return move
