"""The call of a model that is told a time for every sample, and what it made of the samples."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from unitygain._case import Case
from unitygain._types import Site
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import first_floating
from unitygain.probe.leaves import in_backward, unwrap
from unitygain.probe.record import Record
from unitygain.probe.trace import trace

# What arguments of forward are called that say how noisy a sample is, or how far along.
NAMES = (
    "t",
    "time",
    "times",
    "timestep",
    "timesteps",
    "sigma",
    "sigmas",
    "noise_level",
    "noise_levels",
    "log_snr",
)


@dataclass
class Timed:
    """One call with a time for every sample.

    Args:
        site: The module.
        name: Name of the argument.
        times: The time of every sample, shape (samples,).
        output: What the module gave, samples first.
    """

    site: Site
    name: str
    times: NDArray[np.float64]
    output: Tensor


def find_clocks(model: nn.Module) -> dict[str, str]:
    """Return the modules whose forward takes a time, with the argument's name, by path.

    Example:
        >>> class Denoiser(nn.Module):
        ...     def forward(self, x, t):
        ...         return x
        >>> find_clocks(nn.Sequential(Denoiser(), nn.Linear(1, 1)))
        {'0': 't'}
    """
    found = {path: _argument(module) for path, module in model.named_modules()}
    return {path: name for path, name in found.items() if name}


def _argument(module: nn.Module) -> str:
    try:
        named = inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return ""
    return next((name for name in named if name.lower() in NAMES), "")


@contextmanager
def timed(case: Case, record: Record) -> Iterator[tuple[Tensor, Timed | None]]:
    """Yield the loss and the first call that is told a time for every sample; None where there is none.

    Args:
        case: An isolated case.
        record: Its record.

    Side effects:
        As `trace`; the graph is held while the context is open.
    """
    modules, found, hooks = dict(case.model.named_modules()), [], Hooks()
    try:
        for path, name in find_clocks(case.model).items():
            hooks.on_call(modules[path], lambda *_: None, _keep(found, path, name))
        with trace(case, record) as live:
            hooks.remove()
            # A module inside another one ends before it: the outermost is the one that ends last.
            yield live.loss, found[-1] if found else None
    finally:
        hooks.remove()


def _keep(found: list[Timed], path: str, name: str) -> Callable[..., None]:
    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments.get(name)
        made = first_floating(unwrap(output))
        if in_backward() or not isinstance(given, Tensor) or made is None or not made.requires_grad:
            return
        if given.numel() < 2 or given.numel() != given.shape[0] or made.shape[:1] != given.shape[:1]:
            return
        times = given.detach().double().cpu().reshape(-1).numpy()
        found.append(Timed(Site(path), name, times, made))

    return leave
