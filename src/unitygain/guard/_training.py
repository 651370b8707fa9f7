"""What a guard holds in its hands: a model, its optimizer, and the verbs that change them."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unitygain.clip import Clip, by_global_norm
from unitygain.guard._loss_scale import ScaleGuard
from unitygain.guard._ranks import anywhere, meeting_place
from unitygain.guard._rate import RateFactor
from unitygain.guard._reading import Reading, read
from unitygain.guard._snapshots import Ring, capture, restore
from unitygain.guard._tensors import Buffers, all_finite, forget_moments, held, here
from unitygain.stats import GradientStats

log = logging.getLogger("unitygain.guard")
Closure = Callable[[], Any]


class Training:
    """A model and its optimizer, with what is needed to step, to leave a step out, and to go back."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scale: ScaleGuard | None,
        clip: Callable[[Any], Any] | None,
        ring: Ring,
        also: Sequence[Any],
        group: Any,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.scale = scale
        self.clip = clip
        self.ring = ring
        self.also = tuple(also)
        self.group = group
        self.rate = RateFactor()
        self.buffers = Buffers(model)
        self.named = held(model, optimizer)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimizer moves, each once."""
        return [parameter for _, parameter in self.named]

    def read(self, loss: Tensor | float | None) -> Reading:
        """Unscale the gradients and read them."""
        # Names are looked up anew only where the optimizer was given other parameters.
        now = dict.fromkeys(id(p) for group in self.optimizer.param_groups for p in group["params"])
        if list(now) != [id(parameter) for parameter in self.parameters]:
            self.named = held(self.model, self.optimizer)
        if self.scale is not None:
            self.scale.unscale_(self.optimizer)
        absmax = isinstance(self.clip, Clip) and self.clip.needs_absmax
        return read(self.named, loss, self.buffers.variances(), self.group, absmax=absmax)

    def advance(
        self,
        closure: Closure | None = None,
        first: Tensor | None = None,
        stats: GradientStats | None = None,
    ) -> Any:
        """Clip and step, and return what the clip returned; `stats` spares it the reading of gradients."""
        clipped = None
        if isinstance(self.clip, Clip):
            clipped = self.clip(self.named, stats=stats)
        elif self.clip is not None:
            clipped = self.clip(self.parameters)
        with self.rate.applied(self.optimizer):
            if self.scale is not None:
                before = self.scale.get_scale()
                self.scale.step(self.optimizer)
                self.scale.settle(before)
            elif closure is None or first is None:
                self.optimizer.step()
            else:
                self.optimizer.step(_beginning_with(first, closure))
        return clipped

    def copy_parameters(self) -> list[Tensor]:
        """Return copies of the parameters, on their devices."""
        return [here(parameter).clone() for parameter in self.parameters]

    def put_back(self, before: Sequence[Tensor]) -> None:
        """Undo a step of the optimizer: its parameters, and its state, which led to it."""
        for parameter, value in zip(self.parameters, before, strict=True):
            here(parameter).copy_(value)
        forget_moments(self.optimizer)

    def leave_out(self) -> None:
        """Drop the gradients, and put the buffers back to those after the last good step."""
        self.optimizer.zero_grad(set_to_none=True)
        self.buffers.restore()

    def shrink(self, norm: float) -> None:
        """Scale the gradients down to `norm`, and put the buffers back: the batch is not to be trusted."""
        by_global_norm(norm)(self.parameters)
        self.buffers.restore()

    def release_scale(self) -> None:
        """Tell the scaler that a step with finite gradients is over, though nothing stepped."""
        if self.scale is not None:
            self.scale.settle(self.scale.get_scale())

    def broken(self) -> bool:
        """Tell whether a parameter is not finite, on any rank. Cost: one pass over the parameters."""
        return self._anywhere(not all_finite(self.parameters))

    def snapshot(self, position: int) -> bool:
        """Take a snapshot of finite weights; False, on all ranks, if there is none or one could not write."""
        if self.broken():
            return False
        written = self.ring.take(position, capture(self.model, self.optimizer, self.buffers, self.also))
        if not self._anywhere(not written):
            return True
        # Ranks that hold different snapshots would go back to different weights.
        if written:
            self.ring.drop_newest()
        log.error("step %d: the snapshot could not be written; %d older are held", position, len(self.ring))
        return False

    def rewind(self, older: bool) -> int | None:
        """Go back to the newest snapshot that all ranks can read; None if there is none.

        Args:
            older: Let the newest go first, if there is another.
        """
        if older and len(self.ring) > 1:
            self.ring.drop_newest()
        while len(self.ring):
            content = self.ring.read_newest()
            if not self._anywhere(content is None) and content is not None:
                restore(content, self.model, self.optimizer, self.buffers, self.also)
                return self.ring.position
            self.ring.drop_newest()
        return None

    def _anywhere(self, flag: bool) -> bool:
        return anywhere(flag, meeting_place(self.named[0][1].device), self.group)


def _beginning_with(first: Tensor, closure: Closure) -> Closure:
    """Return a closure whose first evaluation is the one that was judged; its gradients are still there."""
    waiting = [first]

    def evaluate() -> Any:
        if waiting:
            return waiting.pop()
        with torch.enable_grad():
            return closure()

    return evaluate
