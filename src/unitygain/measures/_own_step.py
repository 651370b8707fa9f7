"""A case's own step, watched: what its clip is given and leaves, and what gradient reaches the optimizer."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.measures._ahead import length


class _Watch:
    """Compares gradients between the backward pass and the optimizer with those of the loss itself.

    The first call with a gradient counts: later ones are of other losses, or of weights that have moved.
    """

    def __init__(self, own: Mapping[int, Tensor | None]) -> None:
        self.facts = {"clipped": math.nan, "carried": math.nan, "handed": math.nan}
        self._own = own

    def note(self, name: str, parameters: Iterable[nn.Parameter]) -> float:
        """Return the norm of their gradients, and note it over that of the loss's own."""
        known = [p for p in parameters if id(p) in self._own and p.grad is not None]
        now = length(p.grad for p in known if p.grad is not None and not p.grad.is_sparse)
        own = [self._own[id(p)] for p in known]
        whole = length(gradient for gradient in own if gradient is not None and not gradient.is_sparse)
        if whole and math.isnan(self.facts[name]):
            self.facts[name] = now / whole
        return now

    def on_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Note what reaches the optimizer."""
        self.note("handed", (p for group in optimizer.param_groups for p in group["params"]))


class _Clip:
    """The case's clip, whose calls are watched."""

    def __init__(self, clip: Callable[..., Any], watch: _Watch) -> None:
        self._clip, self._watch = clip, watch

    def __call__(self, parameters: Any, *args: Any, **kwargs: Any) -> Any:
        given: list[Any] = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        before = self._watch.note("carried", given)
        made = self._clip(given, *args, **kwargs)
        if before and math.isnan(self._watch.facts["clipped"]):
            self._watch.facts["clipped"] = self._watch.note("carried", given) / before
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clip, name)


def take_own_step(case: Case, twin: Case, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Take the case's own step on the copy, and say what became of the gradient on the way.

    Args:
        case: Its model holds the gradients of the loss itself.
        twin: The copy, which is trained.
        optimizer: The copy's.

    Returns:
        Norms of the gradient: ``clipped``, after the case's clip over before it; ``carried``, before that
        clip over the loss's own; ``handed``, at the optimizer's step over the loss's own. NaN where the step
        calls no clip or no step of that optimizer.
    """
    pairs = zip(twin.model.parameters(), case.model.parameters(), strict=True)
    watch = _Watch({id(parameter): original.grad for parameter, original in pairs})
    if twin.clip is not None:
        twin.clip = _Clip(twin.clip, watch)
    hook = getattr(optimizer, "register_step_pre_hook", None)
    handle = hook(watch.on_step) if hook is not None else None
    try:
        assert case.step is not None
        case.step(twin, twin.batches[0])
    finally:
        twin.clip = case.clip
        if handle is not None:
            handle.remove()
    return watch.facts
