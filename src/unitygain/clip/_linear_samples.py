"""Gradients of single samples where only linear layers learn: from what enters them and what comes back."""

import math
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unitygain.probe.hooks import Hooks
from unitygain.stats import norm
from unitygain.stats.samples import linear_sample_norms

# Relative difference to autograd's own gradient above which a layer was used in a way that was not seen.
_AGREEMENT = 1e-3


class LinearSamples:
    """One backward pass of a model whose trained parameters all belong to linear layers, each called once.

    Args:
        calls: Layer by name.
        entering: What entered each, (samples, positions, inputs).
        arriving: ∂L/∂output of each.
        loss: The loss, without its graph.
    """

    def __init__(
        self,
        calls: Mapping[str, nn.Linear],
        entering: dict[str, Tensor],
        arriving: dict[str, Tensor],
        loss: Tensor,
    ) -> None:
        self.loss = loss
        self._calls, self._entering, self._arriving = calls, entering, arriving

    def norms(self) -> Tensor:
        """Return the norm of every sample's share of the gradient, shape (samples,), float64."""
        total: Tensor | None = None
        for name, layer in self._calls.items():
            a, b = self._entering[name], self._arriving[name]
            if layer.weight.requires_grad:
                found = linear_sample_norms(a, b, bias=_trained_bias(layer))
            else:
                found = linear_sample_norms(torch.ones_like(a[..., :1]), b, bias=False)
            total = found if total is None else torch.hypot(total, found)
        assert total is not None, "a model without trained parameters has no linear samples"
        return total

    def gradients(self, weights: Tensor) -> dict[Tensor, Tensor]:
        """Return Σ_i weights_i·g_i of every parameter."""
        found: dict[Tensor, Tensor] = {}
        for name, layer in self._calls.items():
            a, b = self._entering[name], self._arriving[name]
            weighted = b * weights.to(b.device, b.dtype).reshape(-1, 1, 1)
            if layer.weight.requires_grad:
                found[layer.weight] = weighted.flatten(0, 1).T @ a.flatten(0, 1)
            if _trained_bias(layer):
                found[layer.bias] = torch.einsum("sto->o", weighted)
        return found


def linear_samples(
    model: nn.Module, loss: Callable[[Any, Any], Tensor], batch: Any, samples: int
) -> LinearSamples | None:
    """Run one forward and backward pass and keep what linear layers need; None where that is not enough.

    It is not where another kind of module learns, a layer is called twice or not at all or with another
    first dimension, or a weight is used past its layer, which shows in autograd's own gradient.
    """
    layers = _trained_layers(model)
    if not layers:
        return None
    with _watched(layers) as (entering, outputs), torch.enable_grad():
        value = loss(model, batch)
        if not _whole(layers, entering, outputs, samples):
            return None
        names = list(layers)
        parameters = [p for layer in layers.values() for p in layer.parameters() if p.requires_grad]
        found = torch.autograd.grad(
            value, [outputs[name][0] for name in names] + parameters, allow_unused=True
        )
    arriving = {}
    for name, gradient in zip(names, found[: len(names)], strict=True):
        output = outputs[name][0]
        given = torch.zeros_like(output) if gradient is None else gradient
        arriving[name] = given.reshape(samples, -1, output.shape[-1])
    inputs = {
        name: seen[0].detach().reshape(samples, -1, seen[0].shape[-1]) for name, seen in entering.items()
    }
    kept = LinearSamples(layers, inputs, arriving, value.detach())
    own: dict[Tensor, Tensor | None] = dict(zip(parameters, found[len(names) :], strict=True))
    return kept if _agrees(kept.gradients(torch.ones(samples)), own) else None


@contextmanager
def _watched(layers: Mapping[str, nn.Linear]) -> Any:
    entering: dict[str, list[Tensor]] = {name: [] for name in layers}
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks = Hooks()

    def watch(name: str) -> None:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            entering[name].append(args[0] if args else kwargs["input"])

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            outputs[name].append(output)

        hooks.on_call(layers[name], before, after)

    for name in layers:
        watch(name)
    try:
        yield entering, outputs
    finally:
        hooks.remove()


def _trained_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers that learn; none if anything else does, or if two share a parameter."""
    layers = {}
    for name, module in model.named_modules():
        learns = any(p.requires_grad for p in module.parameters(recurse=False))
        if learns and type(module) is not nn.Linear:
            return {}
        if learns:
            layers[name] = module
    owned = [id(p) for layer in layers.values() for p in layer.parameters()]
    return layers if len(set(owned)) == len(owned) else {}


def _whole(
    layers: Mapping[str, nn.Linear],
    entering: Mapping[str, list[Tensor]],
    outputs: Mapping[str, list[Tensor]],
    samples: int,
) -> bool:
    return all(
        len(outputs[name]) == 1
        and outputs[name][0].requires_grad
        and entering[name][0].shape[:1] == (samples,)
        for name in layers
    ) and all(entering[name][0].ndim > 1 and math.prod(entering[name][0].shape) for name in layers)


def _agrees(found: Mapping[Tensor, Tensor], own: Mapping[Tensor, Tensor | None]) -> bool:
    for parameter, gradient in own.items():
        given = torch.zeros_like(parameter) if gradient is None else gradient
        # Written so that a gradient that is not finite, the same both ways, is no disagreement.
        if bool(norm(found[parameter] - given) > _AGREEMENT * norm(given)):
            return False
    return True


def _trained_bias(layer: nn.Linear) -> bool:
    return layer.bias is not None and layer.bias.requires_grad
