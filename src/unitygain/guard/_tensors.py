"""The tensors of a training that a bad step can spoil: what the optimizer moves, and the model's buffers."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unitygain.stats import gradient_stats
from unitygain.stats.shards import is_sharded


def held(model: nn.Module, optimizer: Optimizer) -> list[tuple[str, nn.Parameter]]:
    """Return each parameter of the optimizer once, with its name in the model."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    once: dict[int, tuple[str, nn.Parameter]] = {}
    for number, group in enumerate(optimizer.param_groups):
        for place, parameter in enumerate(group["params"]):
            name = names.get(id(parameter), f"(group {number}, parameter {place})")
            once.setdefault(id(parameter), (name, parameter))
    return list(once.values())


def here(tensor: Tensor) -> Tensor:
    """Return the piece of `tensor` that lies on this rank, as an alias without a graph."""
    return (tensor.to_local() if is_sharded(tensor) else tensor).detach()  # type: ignore[operator]


def all_finite(parameters: list[nn.Parameter]) -> bool:
    """Tell whether all entries that lie on this rank are finite. Cost: one pass over them."""
    return bool(gradient_stats([here(parameter) for parameter in parameters]).finite.all())


class Buffers:
    """Copies of the model's persistent buffers as they were after the last good step.

    A batch that is not finite spoils the running statistics of a norm in the forward pass, before there
    is a gradient to look at; leaving the step out does not take that back.

    Memory: one copy of the persistent buffers that there are now, on their devices.
    """

    def __init__(self, model: nn.Module) -> None:
        self._places = list(_persistent(model))
        self.kept: dict[str, Tensor] = {}
        self.keep()

    def keep(self) -> None:
        """Take the buffers as they are now."""
        for name, buffer, _, _ in self._live():
            kept = self.kept.get(name)
            if kept is None or kept.shape != buffer.shape or kept.device != buffer.device:
                self.kept[name] = here(buffer).clone()
            else:
                kept.copy_(here(buffer))

    def finite(self) -> bool:
        """Tell whether the buffers are finite now."""
        live = [here(buffer) for _, buffer, _, _ in self._live() if buffer.is_floating_point()]
        return bool(gradient_stats(live).finite.all())

    def variances(self) -> list[Tensor]:
        """Return the running variances that batch norms hold now."""
        return [here(buffer) for _, buffer, _, key in self._live() if key == "running_var"]

    def restore(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Put back what was kept, or `tensors` of the same names."""
        for name, buffer, module, key in self._live():
            before = (self.kept if tensors is None else tensors).get(name)
            if before is None:
                continue
            if here(buffer).shape == before.shape:
                here(buffer).copy_(before)
            else:
                module._buffers[key] = before.clone().to(buffer.device)

    def _live(self) -> Iterator[tuple[str, Tensor, nn.Module, str]]:
        """Yield each buffer as it is now: a model may put another tensor in its place."""
        for name, module, key in self._places:
            buffer = module._buffers.get(key)
            if buffer is not None:
                yield name, buffer, module, key


def _persistent(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for path, module in model.named_modules():
        for key, buffer in module._buffers.items():
            if buffer is not None and key not in module._non_persistent_buffers_set:
                yield f"{path}.{key}" if path else key, module, key


def forget_moments(optimizer: Optimizer) -> None:
    """Give `optimizer` the state that it has when it is made.

    Side effects:
        Moments and step counts are gone; learning rates and other options stay.
    """
    groups = [dict(group) for group in optimizer.param_groups]
    try:
        # Some fill their state when they are made (Adagrad); a new one of the same kind shows with what.
        state = type(optimizer)(groups, **optimizer.defaults).state
    except Exception:  # an optimizer with a signature of its own
        state = {}
    optimizer.state.clear()
    optimizer.state.update(state)


def copied(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """Return copies of the pieces of `tensors` that lie on this rank."""
    return {name: here(tensor).to(device, copy=True) for name, tensor in tensors.items()}
