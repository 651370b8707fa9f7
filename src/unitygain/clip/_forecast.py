"""What the next step would do to the loss: a clipped gradient can still step over the valley."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unitygain._case import Case, CaseFailure, random_states, reseed
from unitygain.probe.hooks import uncompiled
from unitygain.stats import norm
from unitygain.stats.pairs import cosine


@dataclass(frozen=True)
class StepForecast:
    """The loss along one step of the optimizer.

    Args:
        loss: Loss before the step.
        after: Loss after it, on the same batch with the same random numbers.
        slope: Derivative of the loss along the step, g·d for the step d: what the gradient alone promises.
        length: L2 norm of the step.
    """

    loss: float
    after: float
    slope: float
    length: float

    @property
    def curvature(self) -> float:
        """Second derivative along the step, dᵀHd: what the two losses and the slope leave for it.

        Exact where the loss is quadratic along the step; elsewhere its average over the step.
        """
        return 2 * (self.after - self.loss - self.slope)

    @property
    def lowest(self) -> float:
        """Where the parabola through both losses is lowest, in steps; infinite where it has no such point."""
        return -self.slope / self.curvature if self.curvature > 0 and self.slope < 0 else math.inf

    @property
    def overshoots(self) -> bool:
        """Whether the step leads downhill at first and ends higher than it began."""
        return self.slope < 0 and not self.after <= self.loss

    def __str__(self) -> str:
        """Return a sentence with the two losses and, if the step is too long, the length that would do."""
        told = f"the step takes the loss from {self.loss:.4g} to {self.after:.4g}"
        if not self.overshoots:
            return f"{told}; the gradient alone promised {self.loss + self.slope:.4g}"
        if not math.isfinite(self.after):
            return f"{told}: it is far too long"
        return f"{told}: it overshoots; {self.lowest:.2g} of it would do best"


def predict_step(case: Case, batch: int = 0, *, seed: int = 0) -> StepForecast:
    """Say whether the next step of `case`, clipped as it declares, would overshoot the curvature.

    A clip bounds the length of the gradient and knows nothing of the valley's width: with the same clipped
    step of 2.5, a loss with curvature 100 rises from 50 to 112.5, and one with curvature 1 falls.

    Args:
        case: Declares an optimizer; its own state, clip and loss are used, on a copy.
        batch: Which of the drawn batches.
        seed: Seed of the random numbers that the model draws, the same before and after the step.

    Returns:
        The forecast; prints as a sentence.

    Raises:
        ValueError: If the case declares no optimizer, has a step of its own, or has no such batch.
        CaseFailure: If the case cannot be copied or its own code raises.

    Cost: one forward and backward pass, one optimizer step, one more forward pass, and memory for a copy of
    the model and its optimizer's state. No side effects on the case.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain import clip
        >>> def steep(model, x):
        ...     return 50 * model(x).square().sum()
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> case = Case(model, loss=steep, data=[torch.ones(1, 1)], clip=clip.by_global_norm(25.0),
        ...             optimizer=lambda p: torch.optim.SGD(p, 0.1))
        >>> print(predict_step(case))
        the step takes the loss from 50 to 112.5: it overshoots; 0.4 of it would do best
    """
    if case.optimizer is None:
        raise ValueError("the case declares no optimizer, so there is no step; give Case(optimizer=...)")
    if case.step is not None:
        raise ValueError("the case has a step of its own, whose gradient is not known; leave Case(step=) out")
    if not 0 <= batch < len(case.batches):
        raise ValueError(f"batch is {batch}; the case has {len(case.batches)} drawn batches")
    with random_states(), torch.inference_mode(False), torch.enable_grad(), uncompiled():
        try:
            twin = case.copy()
        except Exception as error:
            raise CaseFailure(f"the case cannot be copied: {type(error).__name__}: {error}") from error
        return _forecast(twin, batch, seed)


def _forecast(twin: Case, batch: int, seed: int) -> StepForecast:
    before = {name: p.detach().clone() for name, p in twin.model.named_parameters()}
    buffers = {name: b.detach().clone() for name, b in twin.model.named_buffers()}
    optimizer = twin.build_optimizer()
    assert optimizer is not None
    optimizer.zero_grad()
    try:
        reseed(seed)
        loss = twin.compute_loss(twin.batches[batch])
        loss.backward()
    except CaseFailure:
        raise
    except Exception as error:
        raise CaseFailure.during(error, "", batch) from error
    gradients = {n: p.grad.detach().clone() for n, p in twin.model.named_parameters() if p.grad is not None}
    if twin.clip is not None:
        twin.clip(twin.model.parameters())
    optimizer.step()
    with torch.no_grad():
        for name, buffer in twin.model.named_buffers():
            buffer.copy_(buffers[name])
        reseed(seed)
        after = float(twin.compute_loss(twin.batches[batch]))
        moves = {name: p - before[name] for name, p in twin.model.named_parameters()}
    length = math.hypot(*(float(norm(move)) for move in moves.values()))
    return StepForecast(float(loss.detach()), after, _slope(gradients, moves), length)


def _slope(gradients: Mapping[str, Tensor], moves: Mapping[str, Tensor]) -> float:
    """The inner product of gradient and step, from norms and cosines."""
    shares = []
    for name, gradient in gradients.items():
        size = float(norm(gradient)) * float(norm(moves[name]))
        shares.append(size * float(cosine(gradient, moves[name])) if size else 0.0)
    return math.fsum(shares)
