"""agc: every unit's gradient to a fraction of the norm of its weights (adaptive gradient clipping)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unitygain.clip._apply import own_piece
from unitygain.clip._clip import Clip
from unitygain.clip._gradients import Gradients
from unitygain.clip._rule import Bend, State, Stateless, least, require_threshold
from unitygain.stats import gradient_stats
from unitygain.stats.units import unit_norms


@dataclass(frozen=True)
class _Agc(Stateless):
    ratio: float
    eps: float
    units: tuple[tuple[str, int | None], ...]
    exclude: tuple[str, ...] | None

    name = "agc"
    keeps_direction = False

    @property
    def reads_entries(self) -> bool:
        return True

    def decide(self, seen: Gradients, state: State) -> tuple[Bend, State]:
        factors = self._factors(seen)
        home = seen.norm.device
        fires = [torch.zeros((), dtype=torch.bool, device=home)] * len(seen.parameters)
        for index, factor in factors.items():
            fires[index] = (factor < 1).any().to(home, non_blocking=True)

        def change(index: int) -> Tensor:
            gradient = own_piece(seen.gradient(index))
            if index not in factors:
                return gradient
            wide = torch.promote_types(gradient.dtype, torch.float32)
            return (gradient.to(wide) * factors[index].to(gradient.device, wide.to_real())).to(gradient.dtype)

        return Bend(torch.stack(fires) if fires else seen.norm > 0, change), {}

    def _factors(self, seen: Gradients) -> dict[int, Tensor]:
        """Return what stays of each unit of each tensor, in the shape that broadcasts against it."""
        dims = self._dims(seen)
        found = {index: self._by_unit(seen, index, dim) for index, dim in dims.items() if dim is not None}
        whole = [index for index, dim in dims.items() if dim is None]
        if whole:
            weights = gradient_stats([seen.parameters[index].detach() for index in whole]).norm
            norms = seen.norm.unbind()
            bounds = self.ratio * weights.to(seen.norm.device, non_blocking=True).clamp(min=self.eps)
            factors = least(bounds, torch.stack([norms[index] for index in whole]))
            found |= dict(zip(whole, factors.unbind(), strict=True))
        return found

    def _by_unit(self, seen: Gradients, index: int, dim: int) -> Tensor:
        weight = seen.parameters[index].detach()
        try:
            bound = self.ratio * unit_norms(weight, dim).clamp(min=self.eps)
            return least(bound, unit_norms(seen.gradient(index), dim))
        except ValueError as error:
            named = seen.names[index] or f"#{seen.slots[index]}"
            raise ValueError(f"agc cannot read parameter {named!r}: {error}") from error

    def _dims(self, seen: Gradients) -> dict[int, int | None]:
        """Return along which dimension the units of each gradient lie that is not left alone."""
        patterns = tuple(pattern for pattern, _ in self.units)
        count = len(seen.parameters)
        named = seen.matched(self.name, patterns) if patterns else [None] * count
        if self.exclude is None:
            last = last_layer(seen)
            left = [slot in last for slot in seen.slots]
        elif self.exclude:
            left = [match is not None for match in seen.matched(self.name, self.exclude)]
        else:
            left = [False] * count
        dims: dict[int, int | None] = {}
        for index, match in enumerate(named):
            if not left[index]:
                usual = 0 if seen.parameters[index].ndim > 1 else None
                dims[index] = usual if match is None else self.units[match][1]
        return dims


def agc(
    ratio: float = 0.01,
    eps: float = 1e-3,
    *,
    units: Mapping[str, int | None] | None = None,
    exclude: Sequence[str] | None = None,
) -> Clip:
    """Scale the gradient of every unit i by min(1, λ·max(‖W_i‖, ε)/‖G_i‖).

    Changes the direction: units are cut by different factors; within a unit it stays. A step can then move
    no unit by more than a fraction of its weights, whatever the loss. A unit is what feeds one output: the
    index of dimension 0 of a weight of torch's layout (out, in, ...), and the whole of a tensor with one
    dimension, as in the paper. The last layer is left alone, as the paper says and most copies do not.

    A tensor that starts at zero (a gain of a branch) may move by λε = 1e-5 per step at a learning rate of
    1: leave it out, or give a larger eps. Under an optimizer that divides by the gradient's size (Lion,
    Adam) the ratio does not mean what it says; watch `frac_clipped`.

    Cost: about four more passes over gradients and weights, to read the norms of their units, and more
    where they are tiny or in float64; about ten over a tensor that is cut, for its cosine.

    Args:
        ratio: λ; 0.01 for batches of 4096, 0.02 to 0.08 for smaller ones.
        eps: Least norm that a unit's weights count with.
        units: Where the units lie by pattern, as in ``{"*.up.weight": 1}`` for a transposed convolution,
            whose weight is (in, out, ...); None takes the tensor as one unit.
        exclude: Patterns of parameters to leave alone. Where left out: the last layer, which is the last
            parameter with two dimensions or more and those of the same module (without names: those after
            it). Pass the pattern of the head where another module was registered last; ``()`` leaves none.

    Raises:
        ValueError: If a number is out of range; on the call, if patterns are given and parameters have no
            names, or one matches none of them, if a gradient is sparse, or if a DTensor is cut through
            its units.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
        >>> weight = model[0].weight
        >>> weight.data = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
        >>> weight.grad = torch.tensor([[1.0, 0.0], [0.0, 0.01]])
        >>> report = agc(0.01)(model)
        >>> weight.grad
        tensor([[0.0500, 0.0000],
                [0.0000, 0.0100]])

    References:
        Brock, De, Smith and Simonyan, High-performance large-scale image recognition without normalization,
        2021, section 4.1, eq. 3.
    """
    places = tuple((units or {}).items())
    return Clip(
        _Agc(
            require_threshold("ratio", ratio),
            require_threshold("eps", eps),
            places,
            None if exclude is None else tuple(exclude),
        )
    )


def last_layer(seen: Gradients) -> set[int]:
    """Return the places of the last layer's parameters: its weight, and what its module holds besides."""
    weights = [slot for slot, parameter in enumerate(seen.given.parameters) if parameter.ndim > 1]
    if not weights:
        return set()
    last = weights[-1]
    name = seen.given.names[last]
    if not name:
        return set(range(last, len(seen.given.names)))
    module = name.rpartition(".")[0]
    return {slot for slot, other in enumerate(seen.given.names) if other.rpartition(".")[0] == module}
