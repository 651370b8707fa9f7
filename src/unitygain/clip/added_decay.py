"""Weight decay that the loss or the loop adds to the gradient by itself, where the clip cuts it too."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain._case import Case, CaseFailure, fresh, random_states, reseed
from unitygain.clip.decay import Decay, follow
from unitygain.probe.hooks import Hooks, uncompiled
from unitygain.stats import norm
from unitygain.stats.pairs import cosine

Tensors = dict[str, Tensor]
# A gradient this parallel to the weight is λθ; what a float32 sum rounds is no direction.
_PARALLEL, _ROUNDING = 0.999, 1e-5


def added_decay(case: Case, batch: int = 0, *, seed: int = 0) -> tuple[Decay, ...]:
    """Find λθ in the gradient that reaches the clip, and what of it the clip and the optimizer leave.

    A penalty λ/2·‖θ‖² in the loss, or a loop that adds λθ before it clips, couples decay to the clip: where
    the gradient is cut to a tenth, so is the decay. What of the loss's gradient does not pass through the
    model, and what stands at the clip of the case's own step beyond the loss's gradient, is λθ if it is
    parallel to θ (a cosine of at least 0.999).

    Cost: up to three forward and backward passes, one step of a case that has its own, and memory for a copy
    of the model and its optimizer's state. No side effects on the case.

    Args:
        case: Declares an optimizer; its clip counts where it has one.
        batch: Which of the drawn batches.
        seed: Seed of the random numbers that the model draws.

    Returns:
        One entry for each parameter with such a term: `declared` is η·λ, `effective` what the step takes
        after the clip (the norm of the parameter's gradient after it over that before). Parameters of one
        entry, whose gradient is always parallel, are left out, and so is a loss that calls parts of the
        model by themselves. Decay that the optimizer adds is in `effective_decay`.

    Raises:
        ValueError: If the case declares no optimizer or has no such batch.
        CaseFailure: If the case cannot be copied or its own code raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain import clip
        >>> def loss(model, x):
        ...     return model(x).sum() + 0.05 * model.weight.square().sum()
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[100.0, 0.0]]))
        >>> case = Case(model, loss, data=[torch.tensor([[0.3, 0.4]])], clip=clip.by_global_norm(1.0),
        ...             optimizer=lambda p: torch.optim.SGD(p, 0.1))
        >>> (found,) = added_decay(case)
        >>> round(found.declared / found.effective, 1)
        10.3
    """
    if case.optimizer is None:
        raise ValueError("the case declares no optimizer, so there is no rate; give Case(optimizer=...)")
    if not 0 <= batch < len(case.batches):
        raise ValueError(f"batch is {batch}; the case has {len(case.batches)} drawn batches")
    with random_states(), torch.inference_mode(False), torch.enable_grad(), uncompiled():
        try:
            twin = case.copy()
        except Exception as error:
            raise CaseFailure(f"the case cannot be copied: {type(error).__name__}: {error}") from error
        try:
            return tuple(_found(twin, batch, seed))
        except CaseFailure:
            raise
        except Exception as error:
            raise CaseFailure.during(error, "", batch) from error


def _found(twin: Case, batch: int, seed: int) -> Iterator[Decay]:
    optimizer = twin.optimizer = twin.build_optimizer()
    assert optimizer is not None
    held = {name: _Held(name, optimizer, p) for name, p in twin.model.named_parameters() if p.numel() > 1}
    past, plain = _past_the_model(twin, batch, seed), _of_the_loss(twin, batch, seed)
    before, after = _around_the_clip(twin, batch, seed)
    for name, weight in held.items():
        if weight.group is None or name not in before:
            continue
        left = float(norm(after[name])) / float(norm(before[name])) if name in after else 0.0
        beyond = before[name] - plain[name] if name in plain else before[name]
        for who, term in {"loss": past.get(name), "step": beyond}.items():
            if term is not None and float(norm(term)) > _ROUNDING * float(norm(before[name])):
                yield from weight.decay(who, term, left)


class _Held:
    """A parameter as it stands before anything steps, and how its optimizer follows λθ."""

    def __init__(self, name: str, optimizer: torch.optim.Optimizer, parameter: Tensor) -> None:
        self.name = name
        self.came = parameter.detach().clone()
        self.group, self.place = None, (0, 0)
        for number, group in enumerate(optimizer.param_groups):
            for place, other in enumerate(group["params"]):
                if other is parameter:
                    self.group, self.place = group, (number, place)
                    self.kept, self.why = follow(optimizer, group, parameter)

    def decay(self, who: str, term: Tensor, left: float) -> Iterator[Decay]:
        """Yield what of a term is decay: all or nothing."""
        assert self.group is not None
        if not float(cosine(term, self.came)) > _PARALLEL:
            return
        size = float(norm(term)) / float(norm(self.came))
        declared = float(self.group["lr"]) * size
        why = f"the {who} adds {size:.3g}·θ to {self.name}, the clip leaves {left:.3g} of it, and {self.why}"
        yield Decay(self.place, declared, declared * left * self.kept, True, why)


def _past_the_model(twin: Case, batch: int, seed: int) -> Tensors:
    """Gradients of what the loss makes of parameters without a call of the model."""

    def cut(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        return pytree.tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, output)

    hooks = Hooks()
    hooks.change_output(twin.model, cut)
    try:
        return _of_the_loss(twin, batch, seed)
    except RuntimeError:  # nothing is left to differentiate, or a loss that differentiates the model itself
        return {}
    finally:
        hooks.remove()


def _of_the_loss(twin: Case, batch: int, seed: int) -> Tensors:
    twin.model.zero_grad()
    reseed(seed)
    twin.compute_loss(twin.batches[batch]).backward()
    return _gradients(twin.model)


def _around_the_clip(twin: Case, batch: int, seed: int) -> tuple[Tensors, Tensors]:
    """Gradients before and after the clip of one step; none where the case's own step calls no clip."""
    clip, seen = twin.clip, []

    def watched(parameters: Iterable[nn.Parameter]) -> Any:
        parameters = list(parameters)
        before = _gradients(twin.model)
        report = clip(parameters) if clip is not None else None
        seen[:] = [before, _gradients(twin.model)]
        return report

    if twin.step is None:
        _of_the_loss(twin, batch, seed)
        watched(twin.model.parameters())
    else:
        twin.clip = watched
        twin.model.zero_grad()
        reseed(seed)
        twin.step(twin, fresh(twin.batches[batch]))
    return (seen[0], seen[1]) if seen else ({}, {})


def _gradients(model: nn.Module) -> Tensors:
    """Copies of the gradients that are not zero."""
    found = {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}
    return {name: gradient for name, gradient in found.items() if bool(gradient.any())}
