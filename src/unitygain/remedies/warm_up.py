"""warm_up: start at a small part of the learning rate, and come to the whole of it in a number of steps.

The rate grows linearly. A schedule that the case declares begins where the warm-up ends.

What it changes:
    The learning-rate schedule of the case: torch's LinearLR, and behind it the case's own by SequentialLR.

Why it helps:
    The first steps are the most dangerous: curvature is large at the start and falls as training goes on,
    Adam's second moments are means of a few gradients, and in a Post-LN transformer the gradient of the last
    layers is large. A rate that would overshoot there is fine a hundred steps later.

When it does not help:
    A rate that is too large for good overshoots when the warm-up reaches it: lower_learning_rate. Gains that
    grow with depth stay what they are, and warm-up only puts the failure off. Where the start is sound it
    loses steps. For Adam in long trainings 2/(1 - β2) steps, 2000 by default, are a rule of thumb; what a
    trial of a few hundred steps can show is a shorter one.

What it costs:
    About half of the steps of the warm-up.

References:
    Goyal et al., "Accurate, Large Minibatch SGD" (2017, arXiv:1706.02677), section 2.2. Xiong et al., "On
    Layer Normalization in the Transformer Architecture" (ICML 2020), section 3, on Post-LN. Ma and Yarats,
    "On the adequacy of untuned warmup for adaptive optimization" (AAAI 2021), section 5, on 2/(1 - β2).
"""

from typing import Any

import torch
from torch.optim.lr_scheduler import LinearLR, LRScheduler, SequentialLR

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG601",), changes="optimizer", instead_of=("lower_learning_rate",))
def warm_up(case: Case, *, steps: int = 100, start: float = 0.01) -> Undo:
    """Let the learning rate grow linearly from `start` of it to all of it.

    Args:
        case: The case; it gets another schedule.
        steps: Steps until the whole rate is reached.
        start: The first rate over the whole one, above 0 and at most 1.

    Returns:
        What gives the case its own schedule back.

    Raises:
        ValueError: If a number is out of its range, the case declares no optimizer, or it has its own step,
            which steps its own schedule. When the schedule is made: if the case's own is none of torch's.

    Side effects:
        ``case.schedule``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        >>> case = Case(layer, loss=lambda m, x: m(x).sum(), data=[], optimizer=optimizer)
        >>> undo = warm_up(case, steps=4, start=0.2)
        >>> schedule = case.schedule(optimizer)
        >>> optimizer.param_groups[0]["lr"]
        0.1
    """
    if steps < 1 or not 0 < start <= 1:
        raise ValueError(
            f"steps is {steps} and start {start}; give at least 1 step and a part above 0, up to 1"
        )
    if case.optimizer is None:
        raise ValueError("the case declares no optimizer; pass optimizer= to change its learning rate")
    if case.step is not None:
        raise ValueError("the case has its own step, which steps its own schedule; put the warm-up there")
    given = case.schedule

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        ramp = LinearLR(optimizer, start_factor=start, total_iters=steps)
        if given is None:
            return ramp
        after = given(optimizer)
        if not isinstance(after, LRScheduler):
            raise ValueError(
                f"the case's schedule is a {type(after).__name__}, before which no warm-up can be put; "
                "declare one of torch.optim.lr_scheduler"
            )
        return SequentialLR(optimizer, [ramp, after], milestones=[steps])

    case.schedule = schedule

    def undo() -> None:
        case.schedule = given

    return undo
