"""ScaleGuard: a loss scale with a floor, that falls for overflow and not for NaN."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import random_states
from unitygain._types import Event, Frame
from unitygain.detectors import LossScale
from unitygain.guard._tensors import Buffers
from unitygain.stats import gradient_stats

log = logging.getLogger("unitygain.guard")


class ScaleGuard:
    """Stands around a `torch.amp.GradScaler`, with the same calls, and bounds what its scale does.

    * **Floor.** The scale never falls below `floor`. Without one it halves for every bad step: its reciprocal
      becomes infinite, and the next healthy gradient, 0 · inf, writes NaN into the weights.
    * **Hysteresis.** The first `hysteresis` - 1 overflows since the scale last grew leave it as it is.
    * **Overflow or NaN.** A smaller scale removes an overflow and never a NaN. If the loss itself is not
      finite the scale is not at fault and stays. If the gradient is not finite even at the floor it was
      not either: the scale goes back to where it was. `explain` finds out at once, by trying.
    * **Alarm.** `LossScale` says when the floor is reached, and when the scale is stuck.

    Cost: two waits for the device per step, which read the scale.

    Args:
        scaler: The scaler; all settings but those above are its own.
        floor: Least scale, a positive number that should be at least 1.
        hysteresis: How many steps have to overflow before the scale falls, until it grows again.
        patience: Steps that may overflow before it counts as stuck.

    Raises:
        ValueError: If the floor is not positive, or hysteresis or patience is below 1.

    Example:
        >>> scaler = ScaleGuard(torch.amp.GradScaler("cpu", init_scale=4.0), hysteresis=1)
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = torch.optim.SGD([weight], 0.1)
        >>> for slope in (1.0, torch.inf, torch.inf, torch.inf):
        ...     optimizer.zero_grad()
        ...     _ = scaler.scale(weight.sum()).backward()
        ...     weight.grad *= slope
        ...     _ = scaler.step(optimizer)
        ...     scaler.update()
        ...     print(scaler.get_scale())
        4.0
        2.0
        1.0
        4.0

    References:
        Micikevicius et al., "Mixed Precision Training" (ICLR 2018), section 3.2. Hysteresis is
        counted as Megatron-LM counts it.
    """

    def __init__(
        self, scaler: torch.amp.GradScaler, *, floor: float = 1.0, hysteresis: int = 2, patience: int = 30
    ) -> None:
        if floor <= 0:
            raise ValueError(f"floor is {floor}; give a positive scale, such as 1")
        if hysteresis < 1:
            raise ValueError(f"hysteresis is {hysteresis}; 1 lowers the scale at the first overflow")
        self.scaler = scaler
        self.floor = floor
        self.hysteresis = hysteresis
        self._alarm = LossScale(floor=floor, patience=patience)
        self._tolerated = hysteresis - 1
        self._began: float | None = None  # the scale when the present run of bad steps began
        self._acquitted = False
        self._steps = 0
        self._loss: Tensor | None = None

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss times the scale, to call backward on."""
        self._loss = loss.detach() if isinstance(loss, Tensor) else None
        return self.scaler.scale(loss)

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, once; a second call before `update` does nothing."""
        try:
            self.scaler.unscale_(optimizer)
        except RuntimeError as error:
            if "already been called" not in str(error):
                raise

    def step(self, optimizer: torch.optim.Optimizer) -> Any:
        """Step `optimizer` unless its gradients are not finite."""
        return self.scaler.step(optimizer)

    def update(self) -> None:
        """Set the scale for the next step."""
        before = self.get_scale()
        if not self.settle(before):
            loss, self._loss = self._loss, None
            self.overflowed(before, loss is None or bool(loss.isfinite().all()))

    def get_scale(self) -> float:
        """Return the scale."""
        return self.scaler.get_scale()

    def is_enabled(self) -> bool:
        """Tell whether the scaler is in use."""
        return self.scaler.is_enabled()

    def settle(self, before: float) -> bool:
        """Let the scaler set its scale, and count the step if its gradient was finite at the scale `before`.

        Returns:
            Whether it was.
        """
        if not self.is_enabled():
            return True
        self.scaler.update()
        after = self.get_scale()
        if after < before:
            return False
        if after > before:
            self._tolerated = self.hysteresis - 1
        self._began, self._acquitted = None, False
        self._judge(before, overflow=False)
        return True

    def overflowed(self, before: float, loss_is_finite: bool = True) -> tuple[bool, Event | None]:
        """Set the scale after a step whose gradient was not finite at the scale `before`.

        Returns:
            Whether the scale may be at fault, and what the detector says of it.
        """
        self._began = before if self._began is None else self._began
        after, blamed = before, loss_is_finite and not self._acquitted
        if blamed and before <= self.floor:
            self._acquitted, blamed, after = True, False, self._began
        elif blamed and self._tolerated > 0:
            self._tolerated -= 1
        elif blamed:
            after = max(before * self.scaler.get_backoff_factor(), self.floor)
        self._set(after)
        return blamed, self._judge(before, overflow=loss_is_finite)

    def explain(self, recompute: Callable[[], Tensor], parameters: Iterable[Tensor] | nn.Module) -> Event:
        """Tell overflow from NaN by trying: this scale, half of it, and so on to the floor.

        Cost: one forward pass and at most log2(scale/floor) + 2 backward passes. Gradients, buffers (of a
        module) and random states are as they were afterwards.

        Args:
            recompute: Computes the loss of the same batch again, unscaled.
            parameters: The model, or its parameters.

        Returns:
            An event named ``overflow``, whose threshold is the largest scale that gives a finite gradient, or
            ``nonfinite``.
        """
        buffers = Buffers(parameters) if isinstance(parameters, nn.Module) else None
        given = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
        wanted = [parameter for parameter in given if parameter.requires_grad]
        now = self.get_scale()
        try:
            with random_states(), torch.enable_grad():
                scale = _repairing_scale(recompute(), wanted, now, self.floor)
        finally:
            if buffers is not None:
                with torch.no_grad():
                    buffers.restore()
        if scale is None:
            text = f"the gradient is finite at no loss scale from {now:g} to {self.floor:g}: NaN, no overflow"
            return Event("nonfinite", "error", self._steps, "loss_scale", now, self.floor, text)
        text = f"the gradient is finite at a loss scale of {scale:g}"
        text += "" if scale == now else f" and not at {now:g}: an overflow"
        return Event("overflow", "info", self._steps, "loss_scale", now, scale, text)

    def state_dict(self) -> dict[str, Any]:
        """Return the scaler's state and what is remembered here."""
        return {
            "scaler": self.scaler.state_dict(),
            "tolerated": self._tolerated,
            "began": self._began,
            "acquitted": self._acquitted,
            "steps": self._steps,
            "alarm": self._alarm.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self._tolerated, self._began = int(state["tolerated"]), state["began"]
        self._acquitted, self._steps = bool(state["acquitted"]), int(state["steps"])
        self._alarm.load_state_dict(state["alarm"])

    def _judge(self, scale: float, *, overflow: bool) -> Event | None:
        self._steps += 1
        event = self._alarm.judge(Frame(self._steps, {"loss_scale": scale, "overflow": float(overflow)}))
        if event is not None:
            log.warning(event.message)
        return event

    def _set(self, scale: float) -> None:
        self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": scale, "_growth_tracker": 0})
        # The number again, because this call also ends the step for the scaler.
        self.scaler.update(scale)


def _repairing_scale(loss: Tensor, wanted: list[Tensor], scale: float, floor: float) -> float | None:
    """Return the largest of `scale`, half of it, ..., `floor` at which the gradient is finite, if any is."""
    while True:
        gradients = torch.autograd.grad(loss * scale, wanted, retain_graph=True, allow_unused=True)
        if bool(gradient_stats([g for g in gradients if g is not None]).finite.all()):
            return scale
        if scale <= floor:
            return None
        scale = max(scale / 2, floor)
