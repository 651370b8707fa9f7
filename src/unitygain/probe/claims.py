"""Models that hand out ln |det J| beside what they make: flows by their own word, which is checked."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from unitygain._case import Case, CaseFailure
from unitygain.probe.columns import Matrix, factor_of_sample
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import Junction, first_floating, junction_of
from unitygain.probe.leaves import in_backward, lifted, observable, unwrap
from unitygain.probe.operators import JacobianOperator
from unitygain.probe.record import Record
from unitygain.probe.trace import Gap, running

# Of ln |det|, per number of a sample: float64 leaves far less, and a code with its divergence far more.
# Where the condition number comes near to what float64 holds, rounding reaches the smallest singular values.
RIGHT, ROUNDED = 1e-3, 0.1


def claimed_jacobian(case: Case, record: Record, most: int) -> Matrix | None:
    """Return the Jacobian of the first sample through a model that says rightly what its ln |det J| is.

    Such a model returns what has the shape of its first input, and beside it one number, or one per sample,
    that is ln |det J| of the first sample (either sign). In float64: of a flow that stretches much, float32
    loses what is small.

    Args:
        case: An isolated case.
        record: Its record, which names the seed.
        most: Numbers in a sample up to which it is looked at.

    Raises:
        CaseFailure: If the model or loss raises.
        Gap: If the shapes fit and the model cannot be copied.

    Cost: one forward pass; where the shapes fit, also a copy of the model in float64, a forward pass of it,
        and as many batched backward passes as a sample has numbers.
    """
    seen = _Outermost(case.model)
    with running(case, record, seen.watch):
        if not seen.may_be_a_flow(most):
            return None
    try:
        twin = case.copy()
    except Exception as error:
        raise Gap(f"the model could not be copied to float64 ({type(error).__name__}: {error})") from error
    twin.move(None, torch.float64)
    seen = _Outermost(twin.model)
    try:
        with running(twin, record, seen.watch):
            assert seen.entry is not None
            assert seen.exit is not None
            operator = JacobianOperator(seen.exit, seen.entry)
            if operator.coupled:
                return None
            factor = factor_of_sample(operator, 0)
    except CaseFailure:
        # A loss that holds tensors of its own in float32.
        return None
    if not np.isfinite(factor).all():
        return None
    volume, claimed = float(np.linalg.slogdet(factor)[1]), seen.claimed
    rounded = min(float(np.linalg.cond(factor)) * torch.finfo(torch.float64).eps, ROUNDED)
    return factor if abs(abs(volume) - abs(claimed)) <= (RIGHT + rounded) * len(factor) else None


class _Outermost:
    """Takes what enters and leaves the model in its first call, and the number beside it."""

    def __init__(self, model: nn.Module) -> None:
        self.entry: Junction | None = None
        self.exit: Junction | None = None
        self.claimed = float("nan")
        self._model = model
        self._calls = 0

    def watch(self, hooks: Hooks) -> None:
        """Set the hooks."""
        hooks.on_call(self._model, self._before, self._after)

    def may_be_a_flow(self, most: int) -> bool:
        """Whether the shapes, and a number beside the output, are those of a flow that tells its volume."""
        if self.entry is None or self.exit is None or self.claimed != self.claimed:
            return False
        shape = self.entry.shape
        return len(shape) > 1 and shape == self.exit.shape and 2 <= self.entry.size // shape[0] <= most

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._calls += not in_backward()
        if in_backward() or self._calls > 1:
            return None
        args, kwargs = lifted(args, kwargs)
        self.entry = junction_of(first_floating((args, kwargs)))
        return args, kwargs

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if in_backward() or self._calls > 1 or self.entry is None:
            return
        made = [leaf for leaf in pytree.tree_leaves(unwrap(output)) if observable(leaf)]
        if len(made) == 2 and made[1].shape in {(), (1,), made[0].shape[:1], (*made[0].shape[:1], 1)}:
            self.exit = junction_of(made[0])
            self.claimed = float(made[1].detach().reshape(-1)[0])
