"""The call of a model that is told a time for every sample, and what it made of the samples.

The time is an argument of forward with a name of those below. Where no module has one, it is a number for
every sample beside a larger tensor of that many samples, whose shape the output has: so a model of noise, of
a score or of a velocity is called, whatever its author calls how much noise there is.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
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


def may_be_told(model: nn.Module) -> list[str]:
    """Return the paths of modules of the user's own that are given two arguments or more.

    Example:
        >>> class Denoiser(nn.Module):
        ...     def forward(self, x, alpha_bar):
        ...         return x
        >>> may_be_told(nn.Sequential(Denoiser(), nn.Linear(1, 1), nn.Bilinear(1, 1, 1)))
        ['0']
    """
    return [
        path
        for path, module in model.named_modules()
        if not type(module).__module__.startswith("torch.nn.") and len(_arguments(module)) > 1
    ]


def _argument(module: nn.Module) -> str:
    return next((name for name in _arguments(module) if name.lower() in NAMES), "")


def _arguments(module: nn.Module) -> list[str]:
    try:
        return list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        return []


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
        clocks = find_clocks(case.model) or dict.fromkeys(may_be_told(case.model), "")
        for path, name in clocks.items():
            hooks.on_call(modules[path], lambda *_: None, _keep(found, path, name))
        with trace(case, record) as live:
            hooks.remove()
            # A module inside another one ends before it: the outermost is the one that ends last.
            yield live.loss, found[-1] if found else None
    finally:
        hooks.remove()


def _keep(found: list[Timed], path: str, name: str) -> Callable[..., None]:
    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        made = first_floating(unwrap(output))
        if in_backward() or made is None or not made.requires_grad:
            return
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        told = name or next((key for key, value in given.items() if _by_sample(value, made)), "")
        if not _by_sample(given.get(told), made) or not (name or _is_remade(given, made)):
            return
        times = given[told].detach().double().cpu().reshape(-1).numpy()
        found.append(Timed(Site(path), told, times, made))

    return leave


def _by_sample(value: Any, made: Tensor) -> bool:
    """Whether it is one number for every sample of the output."""
    if not isinstance(value, Tensor) or value.is_complex() or not value.ndim or not made.ndim:
        return False
    return value.numel() == value.shape[0] == made.shape[0] > 1


def _is_remade(given: Mapping[str, Any], made: Tensor) -> bool:
    """Whether the output has the shape of a floating argument with several numbers for every sample."""
    return made.numel() > made.shape[0] and any(
        isinstance(value, Tensor) and value.is_floating_point() and value.shape == made.shape
        for value in given.values()
    )
