"""Guard: a step of training that looks at the gradient first, and bounds what a bad one can do."""

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unitygain._types import Event, Frame
from unitygain.guard._actions import Action
from unitygain.guard._loss_scale import ScaleGuard
from unitygain.guard._policy import ON_NONFINITE, ON_SPIKE, Policy
from unitygain.guard._ranks import rank
from unitygain.guard._reading import Reading
from unitygain.guard._snapshots import Ring
from unitygain.guard._training import Training
from unitygain.guard._verdict import TrainingStopped, Verdict
from unitygain.guard._watch import Watch, broken_weights

log = logging.getLogger("unitygain.guard")

VERSION = 1


class Guard:
    """Takes the place of ``optimizer.step()``: it steps, or does the next thing that it is allowed to do.

    It reads the norm of the gradient and the loss, judges them against the history of healthy steps, and acts
    before the optimizer has seen a bad gradient. Actions stand in ladders: each is used so many times, then
    the next; when all are used up it stops with `TrainingStopped`. After `calm` healthy steps in a row the
    ladders are whole again. A healthy step is bit for bit the step that the optimizer alone would take.

    On several ranks (DDP, FSDP2) each has a guard and calls it at the same step; all decide alike.
    Cost: one pass over the gradients and one wait for the device per step; on several ranks one all-gather of
    three numbers, with which the norms of sharded gradients travel. Memory: one copy of the persistent
    buffers, and snapshots: `keep` copies (one more while one is taken) of trained parameters and buffers.

    Args:
        model: The model; names, buffers and snapshots are its own.
        optimizer: Any `torch.optim.Optimizer` over its parameters.
        scaler: A `torch.amp.GradScaler` or a `ScaleGuard` around one; here alone it steps and updates.
        clip: What clips healthy gradients, such as ``unitygain.clip.by_global_norm(1.0)``.
        on_nonfinite: What to do, in order, when the loss or the gradient is not finite.
        on_spike: What to do, in order, about all other events.
        detectors: What judges finite steps; by default a `Spike` each for gradient norm, loss, and the
            running variances of batch norms.
        calm: Healthy steps in a row after which trouble is over.
        snapshot_every: Batches between snapshots; they are taken only while all is calm.
        keep: How many snapshots are held.
        folder: Where to write them; None holds them in the memory of the host.
        also: Further objects with a ``state_dict`` that a rewind takes back too, such as averaged weights.
        group: Process group of the ranks; None is all.

    Raises:
        TypeError: If a ladder holds something else than actions.
        ValueError: If a number is out of range or an action is no help.

    Side effects:
        A step that is not taken clears the gradients and puts the buffers back. What it does is logged as a
        warning under "unitygain.guard". No random number is drawn.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 1)
        >>> guard = Guard(model, torch.optim.SGD(model.parameters(), 0.1))
        >>> for batch in (torch.ones(2, 4), torch.full((2, 4), torch.nan), torch.ones(2, 4)):
        ...     model.zero_grad()
        ...     loss = model(batch).square().mean()
        ...     loss.backward()
        ...     print(guard.step(loss).action)
        step
        skip
        step
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        scaler: Any = None,
        clip: Callable[[Any], Any] | None = None,
        on_nonfinite: Sequence[Action] = ON_NONFINITE,
        on_spike: Sequence[Action] = ON_SPIKE,
        detectors: Iterable[Any] | None = None,
        calm: int = 20,
        snapshot_every: int = 100,
        keep: int = 2,
        folder: str | os.PathLike[str] | None = None,
        also: Sequence[Any] = (),
        group: Any = None,
    ) -> None:
        if snapshot_every < 1:
            raise ValueError(f"snapshot_every is {snapshot_every}; give at least 1 batch")
        scale = scaler if scaler is None or isinstance(scaler, ScaleGuard) else ScaleGuard(scaler)
        ring = Ring(keep, folder, rank(group))
        self.training = Training(model, optimizer, scale, clip, ring, also, group)
        self.policy = Policy(on_nonfinite, on_spike, calm)
        self.watch = Watch(detectors, scale)
        self.snapshot_every = snapshot_every
        self.position = 0
        self.last_good = 0
        self._speaks = rank(group) == 0

    @property
    def green(self) -> bool:
        """Whether there was no event within the last `calm` healthy steps."""
        return self.policy.trouble == 0

    @property
    def lr_factor(self) -> float:
        """What the learning rates are multiplied by in the next step."""
        return self.training.rate.factor

    @property
    def snapshots(self) -> tuple[int, int]:
        """How many snapshots are held, and how many bytes they take on this rank."""
        return len(self.training.ring), self.training.ring.nbytes

    @torch.no_grad()
    def step(
        self, loss: Tensor | float | None = None, *, closure: Callable[[], Tensor] | None = None
    ) -> Verdict:
        """Judge the gradients that are there, then step the optimizer or do what the ladder says.

        Args:
            loss: The loss of this step, unscaled; without it only the gradient is judged.
            closure: For optimizers that evaluate the loss themselves (LBFGS): clears the gradients, computes
                the loss, calls backward and returns it. Its first evaluation is judged, and used; the
                parameters are copied, and put back if the step made them anything but finite.

        Raises:
            TrainingStopped: If the step is bad and nothing is left to try.
            ValueError: If the loss is not one number, or a closure comes with a scaler or a clip.
        """
        training = self.training
        if closure is not None:
            if training.scale is not None or training.clip is not None:
                raise ValueError("a closure computes gradients that neither a scaler nor a clip would see")
            with torch.enable_grad():
                loss = closure()
        reading = training.read(loss)
        self.position += 1
        if self.position == 1:
            self._begin()
        frame = Frame(self.position, reading.values())
        events = self.watch.judge(frame, reading) or self._judge_weights()
        if events and events[0].name == "overflow":
            training.leave_out()
            return self._say(Verdict(self.position, "skip", False, events, *reading.seen, self.lr_factor))
        if events:
            return self._treat(frame, reading, events, may_clip=closure is None)
        return self._advance(frame, reading, closure, loss)

    def state_dict(self) -> dict[str, Any]:
        """Return all from which the guard continues bit for bit, as tensors and plain values.

        Snapshots in memory are in it as they are, without being copied.
        """
        training = self.training
        return {
            "version": VERSION,
            "position": self.position,
            "last_good": self.last_good,
            "policy": self.policy.state_dict(),
            "rate": training.rate.state_dict(),
            "detectors": self.watch.state_dict(),
            "scale": None if training.scale is None else training.scale.state_dict(),
            "snapshots": training.ring.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; load the model and the optimizer first.

        Raises:
            ValueError: If it belongs to a guard of other actions or detectors, or is of another version.
        """
        if state["version"] != VERSION:
            raise ValueError(f"the state is of version {state['version']}; this guard reads {VERSION}")
        training = self.training
        self.policy.load_state_dict(state["policy"])
        self.watch.load_state_dict(state["detectors"])
        if training.scale is not None and state["scale"] is not None:
            training.scale.load_state_dict(state["scale"])
        training.rate.load_state_dict(state["rate"])
        training.ring.load_state_dict(state["snapshots"])
        self.position, self.last_good = int(state["position"]), int(state["last_good"])
        training.buffers.keep()

    def _begin(self) -> None:
        """Hold the weights that the training begins with: only now are they sure to be those."""
        if self.training.buffers.finite():
            self.training.buffers.keep()
        if self.policy.rewinds:
            self.training.snapshot(0)

    def _snapshot_is_due(self) -> bool:
        age = self.position - self.training.ring.position
        return self.policy.rewinds and self.green and age >= self.snapshot_every

    def _judge_weights(self) -> tuple[Event, ...]:
        """Look at the weights before a snapshot: behind a tanh infinite ones give finite losses."""
        if not (self._snapshot_is_due() and self.training.broken()):
            return ()
        return (broken_weights(self.position, "though loss and gradient are"),)

    def _advance(self, frame: Frame, reading: Reading, closure: Any, loss: Any) -> Verdict:
        """Step; a step with evaluations of its own is undone if it broke the weights."""
        training, factor = self.training, self.lr_factor
        before = training.copy_parameters() if closure is not None else []
        clipped = training.advance(closure, loss, reading.stats)
        if closure is None or not training.broken():
            return self._healthy(frame, reading, factor, clipped)
        training.put_back(before)
        event = broken_weights(self.position, "after the optimizer's own evaluations")
        return self._treat(frame, reading, (event,), may_clip=False)

    def _healthy(self, frame: Frame, reading: Reading, factor: float, clipped: Any) -> Verdict:
        """Take a good step into all that is remembered."""
        self.watch.learn(frame)
        training = self.training
        training.buffers.keep()
        training.rate.climb()
        self.last_good = self.position
        recovered = self.policy.count_healthy()
        if self._snapshot_is_due():
            training.snapshot(self.position)
        verdict = Verdict(
            self.position, "step", True, (), *reading.seen, factor, recovered=recovered, clip=clipped
        )
        return self._say(verdict) if recovered else verdict

    def _treat(self, frame: Frame, reading: Reading, events: tuple[Event, ...], may_clip: bool) -> Verdict:
        """Take the next action, or stop."""
        training, policy = self.training, self.policy
        unusable = any(event.name == "nonfinite" for event in events)
        broken = unusable and training.broken()
        usual = self.watch.usual_norm()

        def possible(action: Action) -> bool:
            if action.name == "rewind":
                return len(training.ring) > 0
            # Where the weights are broken only a rewind helps, and the rest would be tried in vain.
            return not broken and (action.name != "clip" or (may_clip and usual is not None))

        factor = self.lr_factor
        rewound_to = None
        while (action := policy.choose(unusable, possible)) is not None:
            if action.name != "rewind":
                break
            rewound_to = training.rewind(older=policy.rewound)
            if rewound_to is not None:
                break
        stepped = action is not None and action.name in ("clip", "accept")
        if not stepped and not math.isnan(reading.grad_norm):
            training.release_scale()
        if action is None:
            self._stop(events, broken)
        self._act(action, frame, usual)
        verdict = Verdict(self.position, action.name, stepped, events, *reading.seen, factor, rewound_to)
        policy.tried.append(str(verdict))
        return self._say(verdict)

    def _act(self, action: Action, frame: Frame, usual: float | None) -> None:
        """Do what `action` says; a rewind has put the weights back already."""
        training = self.training
        if action.name == "clip":
            assert usual is not None
            training.shrink(usual)
        if action.name == "accept":
            self.watch.accept(frame)
        if action.name in ("clip", "accept"):
            training.advance()
            return
        training.leave_out()
        self.policy.rewound = self.policy.rewound or action.name == "rewind"
        if action.factor < 1:
            training.rate.lower(action.factor, action.restore)

    def _stop(self, events: tuple[Event, ...], broken: bool) -> NoReturn:
        """Raise; weights that are not finite are those of a snapshot again, so that they can be saved."""
        restored = self.training.rewind(older=False) if broken else None
        self.training.leave_out()
        stopped = TrainingStopped(events, tuple(self.policy.tried), self.last_good, restored)
        if self._speaks:
            log.error(str(stopped))
        raise stopped

    def _say(self, verdict: Verdict) -> Verdict:
        if self._speaks and verdict.recovered:
            log.warning("step %d: recovered, %d healthy steps in a row", verdict.position, self.policy.calm)
        elif self._speaks:
            level = logging.WARNING if any(e.severity != "info" for e in verdict.events) else logging.INFO
            log.log(level, str(verdict))
        return verdict
