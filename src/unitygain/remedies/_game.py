"""What a loss shows a discriminator: tensors of the batch, which are real, and others, which are made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain._case import Batch, Case, fresh, random_states
from unitygain.probe.adversary import find_discriminators, is_logit
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import first_floating
from unitygain.probe.leaves import unwrap
from unitygain.remedies._counted import Steps
from unitygain.remedies._snapshot import Undo


@dataclass(frozen=True)
class Shown:
    """One call of a discriminator: with what, and whether that is a tensor of the batch."""

    judge: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sample: Tensor
    real: bool

    def logits(self, sample: Tensor) -> Tensor:
        """Return the logits, before any sigmoid, of another sample in the place of the one that was shown."""
        made: list[Tensor] = []
        hooks = Hooks()

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            found = first_floating(unwrap(output))
            if found is not None:
                made.append(found)

        def swapped(value: Any) -> Any:
            return sample if value is self.sample else value

        for leaf in filter(is_logit, self.judge.modules()):
            hooks.on_call(leaf, lambda *_: None, keep)
        try:
            args, kwargs = pytree.tree_map(swapped, (self.args, self.kwargs))
            self.judge(*args, **kwargs)
        finally:
            hooks.remove()
        return made[-1]


Penalty = Callable[[list[Shown]], Tensor]


def penalise(case: Case, penalty: Penalty, *, fakes: bool, every: int = 1) -> Undo:
    """Add a penalty on the discriminator to the loss of a case.

    Args:
        case: The case; its loss is wrapped.
        penalty: From what the loss showed to the discriminator to a number.
        fakes: Whether it needs generated samples too.
        every: At which of its steps the model pays the penalty: at the first, and each so many later.

    Raises:
        ValueError: If no part of the model is called a discriminator, or the loss does not show it what is
            needed.
    """
    if not find_discriminators(case.model):
        raise ValueError(
            "no part of the model is called a discriminator or critic; give the model that holds it under "
            "that name"
        )
    given = case.loss
    twin = case.copy()
    with random_states(), torch.no_grad(), twin.autocast():
        _, calls = _watch(given, twin.model, fresh(twin.batches[0]))
    if not any(call.real for call in calls) or (fakes and all(call.real for call in calls)):
        raise ValueError(
            f"the loss shows the discriminator {len(calls)} times something, of which "
            f"{sum(call.real for call in calls)} are tensors of the batch; declare the discriminator's own "
            "loss, with real samples as they are in the batch"
            f"{' and generated ones beside them' if fakes else ''}"
        )

    steps = Steps()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        # Without a graph, as where a loss is only read, there is no slope to punish.
        if not torch.is_grad_enabled():
            return given(model, batch)
        if steps.of(model) % every:
            return steps.count(model, given(model, batch))
        value, shown = _watch(given, model, batch)
        return steps.count(model, value + penalty(shown))

    case.loss = loss

    def undo() -> None:
        case.loss = given

    return undo


def slopes(logits: Tensor, sample: Tensor) -> Tensor:
    """Return the gradient of each sample's logits, one row per sample, with its own graph."""
    (slope,) = torch.autograd.grad(logits, sample, torch.ones_like(logits), create_graph=True)
    return slope.flatten(1)


def _watch(loss: Callable[..., Tensor], model: nn.Module, batch: Batch) -> tuple[Tensor, list[Shown]]:
    leaves = {leaf.data_ptr() for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)}
    calls: list[Shown] = []
    hooks = Hooks()

    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample = first_floating((args, kwargs))
        if sample is not None:
            calls.append(Shown(module, args, kwargs, sample, sample.data_ptr() in leaves))

    chosen = find_discriminators(model)
    inner = {id(part) for judge in chosen.values() for part in judge.modules() if part is not judge}
    for judge in chosen.values():
        if id(judge) not in inner:
            hooks.on_call(judge, see, lambda *_: None)
    try:
        return loss(model, batch), calls
    finally:
        hooks.remove()
