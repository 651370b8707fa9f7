"""What a rule sees of the gradients of a step: names, tensors, and one number or two of each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import repeat
from operator import is_not
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from unitygain.stats import GradientStats, gradient_stats

Parameters = nn.Module | Tensor | Iterable[Tensor] | Iterable[tuple[str, Tensor]]
Timestep = int | Sequence[int] | Tensor | None


class Given(NamedTuple):
    """The parameters of a call, each once, and their names, empty where none were given."""

    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]


@dataclass(frozen=True)
class Gradients:
    """The gradients of a step as a rule sees them, those before it in the chain already counted in.

    Args:
        names: Of the parameters that have a gradient; empty strings where no names were given.
        parameters: The same parameters, each once.
        slots: The place of each among all parameters that were given; those without a gradient keep theirs,
            so that what is remembered of a tensor never moves to another.
        given: All parameters that were given, with their names.
        norm: L2 norm of each gradient.
        absmax: Largest |x| of each, where a rule of the chain needs it.
        finite: Whether every entry of every gradient is finite.
        step: Number of calls before this one.
        timestep: The diffusion time, or those of the batch, if the call said so.
    """

    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    slots: tuple[int, ...]
    given: Given
    norm: Float64[Tensor, " tensors"]
    absmax: Float64[Tensor, " tensors"] | None
    finite: Bool[Tensor, ""]
    step: int = 0
    timestep: Timestep = None

    def gradient(self, index: int) -> Tensor:
        """Return the gradient of a parameter, which a rule must not write to."""
        gradient = self.parameters[index].grad
        assert gradient is not None, "only parameters with a gradient are listed"
        return gradient

    def number(self, value: float) -> Float64[Tensor, ""]:
        """Return `value` where the norms are."""
        return torch.full((), value, dtype=torch.float64, device=self.norm.device)

    def numbers(self, values: Sequence[float]) -> Float64[Tensor, " tensors"]:
        """Return `values` where the norms are, without waiting for that device."""
        return torch.tensor(values, dtype=torch.float64).to(self.norm.device, non_blocking=True)

    def pick(self, remembered: Float64[Tensor, " given"]) -> Float64[Tensor, " tensors"]:
        """Return of one number per parameter those of the parameters that have a gradient now."""
        return (
            remembered
            if len(self.slots) == len(self.given.names)
            else remembered.index_select(0, self._index())
        )

    def put(
        self, remembered: Float64[Tensor, " given"], values: Float64[Tensor, " tensors"]
    ) -> Float64[Tensor, " given"]:
        """Return `remembered` with the numbers of the parameters that have a gradient now replaced."""
        return (
            values
            if len(self.slots) == len(self.given.names)
            else remembered.index_copy(0, self._index(), values)
        )

    def matched(self, rule: str, patterns: tuple[str, ...]) -> list[int | None]:
        """Return for every gradient which of the patterns is the first that its name matches, if any.

        Raises:
            ValueError: If the parameters came without names, or a pattern matches none of them.
        """
        found = _first_matches(rule, patterns, self.given.names)
        return [found[slot] for slot in self.slots]

    def _index(self) -> Tensor:
        return torch.tensor(self.slots).to(self.norm.device, non_blocking=True)


def read(
    parameters: Parameters,
    *,
    absmax: bool,
    step: int,
    timestep: Timestep,
    stats: GradientStats | None = None,
) -> Gradients:
    """Read the gradients of `parameters` in one pass; each parameter counts once, None not at all.

    Raises:
        TypeError: If something among the parameters is no tensor.
        ValueError: If `stats` are of another number of gradients.
    """
    given = each_once(parameters)
    gradients = [parameter.grad for parameter in given.parameters]
    slots = tuple(range(len(gradients)))
    names, chosen = given
    if not all(map(is_not, gradients, repeat(None))):
        slots = tuple(slot for slot in slots if gradients[slot] is not None)
        names = tuple(given.names[slot] for slot in slots)
        chosen = tuple(given.parameters[slot] for slot in slots)
    if stats is None or (absmax and stats.absmax is None):
        stats = gradient_stats([gradient for gradient in gradients if gradient is not None], absmax=absmax)
    if len(stats.norm) != len(chosen):
        raise ValueError(
            f"stats are of {len(stats.norm)} gradients, and the parameters hold {len(chosen)}; "
            "give what gradient_stats said of these"
        )
    return Gradients(
        names=names,
        parameters=chosen,
        slots=slots,
        given=given,
        norm=stats.norm,
        absmax=stats.absmax,
        finite=stats.finite.all(),
        step=step,
        timestep=timestep,
    )


def each_once(parameters: Parameters) -> Given:
    """Return the parameters, each once and in order, and their names.

    Raises:
        TypeError: If something among the parameters is no tensor.
    """
    names, tensors = _named(parameters)
    for kind in set(map(type, tensors)):
        if not issubclass(kind, Tensor):
            name = next(name for name, tensor in zip(names, tensors, strict=True) if type(tensor) is kind)
            raise TypeError(
                f"parameter {name!r} is a {kind.__name__}; give tensors, (name, tensor) pairs, or a model"
            )
    if len(set(map(id, tensors))) == len(tensors):
        return Given(tuple(names), tuple(tensors))
    once: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in zip(names, tensors, strict=True):
        once.setdefault(id(tensor), (name, tensor))
    return Given(*zip(*once.values(), strict=True))


@lru_cache(maxsize=32)
def _first_matches(rule: str, patterns: tuple[str, ...], names: tuple[str, ...]) -> tuple[int | None, ...]:
    if not all(names):
        raise ValueError(
            f"{rule} chooses parameters by name, and they came without; "
            "pass the model or model.named_parameters()"
        )
    for pattern in patterns:
        if names and not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"{rule}: no parameter matches {pattern!r}; names are such as {', '.join(names[:3])}"
            )
    return tuple(
        next((i for i, pattern in enumerate(patterns) if fnmatchcase(name, pattern)), None) for name in names
    )


def _named(parameters: Parameters) -> tuple[Sequence[str], Sequence[Tensor]]:
    if isinstance(parameters, Tensor):
        return [""], [parameters]
    named: list[Any] = list(
        parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters
    )
    # By kind, since there are few: nothing is run in Python for each of a thousand tensors.
    if not any(issubclass(kind, tuple) for kind in set(map(type, named))):
        return [""] * len(named), named
    names, tensors = zip(*(one if isinstance(one, tuple) else ("", one) for one in named), strict=True)
    return names, tensors
