"""A clip: rules in their order, what they remember, and the call that applies them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unitygain.clip._apply import Application
from unitygain.clip._gradients import Gradients, Parameters, Timestep, read
from unitygain.clip._history import add, empty_history, kept
from unitygain.clip._report import ClipReport
from unitygain.clip._rule import Rule, describe
from unitygain.stats import GradientStats
from unitygain.stats.scale import combined_norm

HISTORY = 1000


class Clip:
    """Rules that cut gradients, applied in order: ``clip(model.parameters())`` between backward and step.

    What the functions of `unitygain.clip` return; `chain` puts several into one. Call it after gradients
    were reduced over ranks and, under a `GradScaler`, after ``unscale_``. The gradients are read once; a
    gradient that nothing changes is not written to, so that it keeps its bits.

    If a gradient is not finite, all gradients stay as they are, nothing is remembered of the step and the
    report says so. Where all ranks hold the same gradients (or pieces of the same), all do the same.

    Args:
        rules: In the order in which they apply.

    Example:
        >>> import torch
        >>> from unitygain import clip
        >>> w = torch.zeros(2, requires_grad=True)
        >>> w.grad = torch.tensor([3.0, 0.4])
        >>> both = clip.chain(clip.by_value(1.0), clip.by_global_norm(0.5))
        >>> print(both)
        1. by_value(c=1.0), which changes the direction
        2. by_global_norm(c=0.5, p=2.0), which keeps the direction
        >>> print(both([w]))
        norm 3.027 → 0.5, cosine 0.9694; 100.0% of 1 steps clipped
    """

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules
        self._states: list[dict[str, Tensor] | None] = [None] * len(rules)
        self._counts: dict[str, Tensor] | None = None
        self._calls = 0

    @property
    def needs_absmax(self) -> bool:
        """Whether a rule reads the largest entry of each gradient."""
        return any(rule.needs_absmax for rule in self.rules)

    @torch.no_grad()
    def __call__(
        self, parameters: Parameters, *, timestep: Timestep = None, stats: GradientStats | None = None
    ) -> ClipReport:
        """Clip the gradients of `parameters` in place.

        Cost: one pass over the gradients, and one that writes to those that change; a rule that looks at
        entries or units says what it adds. On an accelerator nothing waits for the device.

        Args:
            parameters: The model, its parameters, or (name, parameter) pairs; names are needed by rules
                that choose by name. A parameter that comes twice counts once, one without a gradient not.
            timestep: Diffusion time of the batch, or one for each sample; for `mirrored`.
            stats: What `unitygain.stats.gradient_stats` said of these gradients, where they were read just
                now, as a guard does; spares the pass that reads.

        Returns:
            What was done, computed as it is asked for.

        Raises:
            ValueError: If a rule misses something, or the number of parameters changed under a rule that
                remembers one number of each, or `stats` are of other gradients.
            TypeError: If something among the parameters is no tensor.

        Side effects:
            The gradients, and what the rules remember.
        """
        seen = read(parameters, absmax=self.needs_absmax, step=self._calls, timestep=timestep, stats=stats)
        application = Application(seen, bends=sum(not rule.keeps_direction for rule in self.rules))
        states = [
            self._advance(rule, state, application)
            for rule, state in zip(self.rules, self._states, strict=True)
        ]
        application.write()
        # Only here, where nothing can fail any more, so that a failed call leaves no trace.
        self._states = list(states)
        self._calls += 1
        return self._report(seen, application)

    def __repr__(self) -> str:
        called = [describe(rule) for rule in self.rules]
        return called[0] if len(called) == 1 else f"chain({', '.join(called)})"

    def __str__(self) -> str:
        return "\n".join(
            f"{place}. {describe(rule)}, which {'keeps' if rule.keeps_direction else 'changes'} the direction"
            for place, rule in enumerate(self.rules, 1)
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all that is remembered, as plain numbers, strings and copies of tensors.

        A run that goes on from it clips as the run that wrote it would have, bit for bit.
        """
        return {
            "rules": [describe(rule) for rule in self.rules],
            "states": [None if state is None else _copied(state) for state in self._states],
            "counts": None if self._counts is None else _copied(self._counts),
            "calls": self._calls,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: If it was written by other rules.
        """
        own = [describe(rule) for rule in self.rules]
        if list(state["rules"]) != own:
            raise ValueError(
                f"the state was written by {', '.join(state['rules'])}; this clip is {', '.join(own)}"
            )
        self._states = [None if one is None else _copied(one) for one in state["states"]]
        self._counts = None if state["counts"] is None else _copied(state["counts"])
        self._calls = int(state["calls"])

    def _advance(
        self, rule: Rule, remembered: dict[str, Tensor] | None, application: Application
    ) -> dict[str, Tensor]:
        """Let one rule decide, and return what it remembers afterwards."""
        if rule.reads_entries:
            application.write()
        seen = application.seen
        before = _on(remembered if remembered is not None else rule.start(seen), seen.norm.device)
        _require_places(rule, before, seen)
        decision, after = rule.decide(seen, before)
        application.take(decision)
        return kept(seen.finite, after, before)

    def _report(self, seen: Gradients, application: Application) -> ClipReport:
        device = seen.norm.device
        norm = combined_norm(seen.norm)
        before = _on(self._counts or _nothing_counted(device), device)
        finite = seen.finite
        counted = add(before, norm) | {
            "clipped": before["clipped"] + application.fired,
        }
        always = {"not_finite": before["not_finite"] + ~finite, "norm": norm}
        self._counts = kept(finite, counted, {key: before[key] for key in counted}) | always
        return ClipReport(
            seen.names,
            seen.slots,
            seen.norm,
            application.seen.norm,
            application.cosines,
            finite,
            application.fired,
            self._counts,
        )


def chain(*clips: Clip) -> Clip:
    """Return one clip that applies the rules of several, in the order given; the order matters.

    Each rule sees what the ones before it left. Rules that only shorten are multiplied into one writing.
    The usual order is from fine to coarse: entries, units, tensors, groups, all.

    Changes the direction if one of its rules does; else it stays.

    Args:
        clips: Their rules are taken, not what they remember.

    Raises:
        ValueError: If there is none.
        TypeError: If one is no clip.

    Example:
        >>> chain()
        Traceback (most recent call last):
            ...
        ValueError: chain() got no clip; give at least one, such as by_global_norm(1.0)
    """
    if not clips:
        raise ValueError("chain() got no clip; give at least one, such as by_global_norm(1.0)")
    for one in clips:
        if not isinstance(one, Clip):
            raise TypeError(f"chain() got a {type(one).__name__}; give clips, such as by_global_norm(1.0)")
    return Clip(*(rule for one in clips for rule in one.rules))


def _nothing_counted(device: torch.device) -> dict[str, Tensor]:
    zero = torch.zeros((), dtype=torch.int64, device=device)
    return empty_history(HISTORY, device) | {"clipped": zero, "not_finite": zero}


def _require_places(rule: Rule, state: Mapping[str, Tensor], seen: Gradients) -> None:
    for key, values in state.items():
        if key.startswith("each_") and len(values) != len(seen.given.parameters):
            raise ValueError(
                f"{rule.name} remembers {len(values)} parameters and was given {len(seen.given.parameters)}; "
                "give it the same parameters at every step, or make a new clip"
            )


def _on(state: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {key: value.to(device, non_blocking=True) for key, value in state.items()}


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}
