"""Measure a case by name, and the gradient at any tensor the naive way."""

from collections.abc import Callable
from typing import Any

import torch
from contracts.small_cases import HEALTHY
from torch import Tensor, nn

import unitygain.measures  # noqa: F401 (fills the registry)
from unitygain._case import Case
from unitygain._registry import MEASURES
from unitygain._types import Profile
from unitygain.probe.observe import observe


def measured(case: Case, *names: str, sites: Any = None) -> dict[str, Profile]:
    """Run one pass with what the measures need, and return those that apply."""
    needs = dict.fromkeys(key for name in names for key in MEASURES[name].needs)
    record = observe(case, needs, sites=sites)
    profiles = {name: MEASURES[name].compute(case, record) for name in names}
    return {name: profile for name, profile in profiles.items() if profile is not None}


def doubled(name: str) -> Case:
    """One of the small healthy cases in float64."""
    torch.manual_seed(3)
    case = HEALTHY[name]()
    case.move(dtype=torch.float64)
    return case


def by_name(profile: Profile) -> dict[str, float]:
    """Values by the site's printed name."""
    return {str(site): value for site, value in profile.items()}


def squares(model: nn.Module, *shape: int, seed: int = 0, **more: Any) -> Case:
    """A float64 case whose loss is the mean square of the output, each entry with a weight of its own."""
    torch.manual_seed(seed)
    x = torch.randn(*shape, dtype=torch.float64)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        out = model(batch)
        out = out[0] if isinstance(out, tuple) else out
        weight = torch.arange(1, out.numel() + 1, dtype=out.dtype).reshape(out.shape).sqrt()
        return (out * weight).square().mean()

    return Case(model.double(), loss=loss, data=[x], **more)


def gradients(case: Case, chosen: Callable[[str, nn.Module], bool]) -> dict[str, tuple[Tensor, Tensor]]:
    """Output and its gradient at chosen modules, by printed site, from zeros added to the outputs."""
    kept: dict[str, list[tuple[Tensor, Tensor]]] = {}
    handles = []
    for name, module in case.model.named_modules():
        if chosen(name, module):

            def add(module: nn.Module, args: Any, output: Any, name: str = name) -> Any:
                first = output[0] if isinstance(output, tuple) else output
                zero = torch.zeros_like(first, requires_grad=True)
                kept.setdefault(name or "(model)", []).append((first.detach().clone(), zero))
                moved = first + zero
                return (moved, *output[1:]) if isinstance(output, tuple) else moved

            handles.append(module.register_forward_hook(add))
    torch.manual_seed(0)
    loss = case.compute_loss(case.batches[0])
    for handle in handles:
        handle.remove()
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, calls in kept.items():
        for number, (output, zero) in enumerate(calls, start=1):
            key = f"{name}#{number}" if len(calls) > 1 else name
            (gradient,) = torch.autograd.grad(loss, zero, retain_graph=True)
            found[key] = (output, gradient)
    return found


def rms(tensor: Tensor) -> float:
    """Root mean square in float64, the plain way."""
    return float(tensor.detach().double().square().mean().sqrt())
