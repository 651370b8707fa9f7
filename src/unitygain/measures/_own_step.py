"""A case's own step, watched: what its clip is given and leaves, and what gradient reaches the optimizer."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case, fresh
from unitygain.measures._ahead import length

# What is left lying there is so much larger than a gradient that it shows whatever the step adds to it.
MARK = 100.0
# Batches that a step may add up before its optimizer moves.
MOST_BATCHES = 64


class _Watch:
    """Compares gradients between the backward pass and the optimizer with those of the loss itself.

    The first call with a gradient counts: later ones are of other losses, or of weights that have moved.
    """

    def __init__(self, own: Mapping[int, Tensor | None]) -> None:
        self.facts = {"clipped": math.nan, "carried": math.nan, "handed": math.nan}
        self.stepped = False
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
        self.stepped = True
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


def _step(
    case: Case, twin: Case, optimizer: torch.optim.Optimizer, watch: _Watch, moved: Callable[[], bool]
) -> None:
    """Take the case's own step on the copy until its optimizer steps or weights move: some add up batches."""
    assert case.step is not None
    if twin.clip is not None:
        twin.clip = _Clip(twin.clip, watch)
    hook = getattr(optimizer, "register_step_pre_hook", None)
    handle = hook(watch.on_step) if hook is not None else None
    try:
        for batch in itertools.islice(itertools.cycle(twin.batches), MOST_BATCHES if hook is not None else 1):
            case.step(twin, fresh(batch))
            if watch.stepped or moved():
                break
    finally:
        twin.clip = case.clip
        if handle is not None:
            handle.remove()


def _moved(case: Case, twin: Case) -> bool:
    """Whether a parameter of the copy is no more what it was."""
    pairs = zip(case.model.parameters(), twin.model.parameters(), strict=True)
    return any(not torch.equal(original, parameter) for original, parameter in pairs)


def take_own_step(case: Case, twin: Case, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Take the case's own step on the copy, and say what became of the gradient on the way.

    A step that adds up the gradients of several batches is taken until its optimizer steps, 64 times at most.

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
    _step(case, twin, optimizer, watch, lambda: _moved(case, twin))
    return watch.facts


def share_kept(case: Case, twin: Case, optimizer: torch.optim.Optimizer, taken: Mapping[str, float]) -> float:
    """Take the own step once more over a gradient that lies there, and say how much of that it keeps.

    It is the gradient that the first step has left, made a hundred times as large as what a step adds.

    Args:
        case: What the copy was made from.
        twin: The copy, which has taken its own step; it is of no use afterwards.
        optimizer: The copy's.
        taken: What `take_own_step` said of that step.

    Returns:
        The norm of what the case's clip, or else the optimizer, is given, over that of what lay there: 1
        where nothing clears the gradient, next to 0 where the step does. NaN where it was cleared after the
        step before, where no step of that optimizer is called, or where it cannot be taken again.
    """
    left = [p for p in twin.model.parameters() if p.grad is not None and not p.grad.is_sparse]
    size = length(parameter.grad for parameter in left if parameter.grad is not None)
    if not (size > 0 and math.isfinite(size)):
        return math.nan
    own = length(p.grad for p in case.model.parameters() if p.grad is not None and not p.grad.is_sparse)
    adds = own * max((taken[name] for name in ("carried", "handed") if taken[name] > 1), default=1.0)
    factor = MARK * max(1.0, adds / size)
    stepped = not math.isnan(taken["handed"])
    watch = _Watch({id(parameter): parameter.grad for parameter in left})
    for parameter in left:
        parameter.grad = factor * torch.as_tensor(parameter.grad)
    try:
        # The weights have moved in the step before: without a step of the optimizer there is no telling when.
        _step(case, twin, optimizer, watch, lambda: not stepped)
    except Exception:
        return math.nan
    carried, handed = watch.facts["carried"], watch.facts["handed"]
    return (handed if math.isnan(carried) else carried) / factor
