"""The last so many numbers of a stream, in bounded memory, and their quantiles."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float64
from torch import Tensor


def empty_history(size: int, device: torch.device) -> dict[str, Tensor]:
    """Return the memory of the last `size` numbers of a stream that has not begun."""
    return {
        "values": torch.full((size,), torch.nan, dtype=torch.float64, device=device),
        "seen": torch.zeros((), dtype=torch.int64, device=device),
    }


def add(history: Mapping[str, Tensor], value: Float64[Tensor, ""]) -> dict[str, Tensor]:
    """Return the history with `value` in it, which takes the place of the oldest where it is full."""
    values, seen = history["values"], history["seen"]
    here = torch.arange(len(values), device=values.device) == seen % len(values)
    return {"values": torch.where(here, value, values), "seen": seen + 1}


def quantile(history: Mapping[str, Tensor], fraction: float) -> Float64[Tensor, ""]:
    """Return a quantile by linear interpolation between the two nearest numbers; NaN of an empty history.

    Waits for no device, as `torch.nanquantile` would.
    """
    values, seen = history["values"], history["seen"]
    count = seen.clamp(max=len(values))
    place = (count - 1).clamp(min=0).double() * fraction
    ordered = values.sort().values  # NaN, where nothing is yet, comes last
    low = place.floor()
    ends = torch.stack([low, (low + 1).clamp(max=(count - 1).clamp(min=0))]).long()
    below, above = ordered.index_select(0, ends).unbind()
    return below + (above - below) * (place - low)


def kept(finite: Bool[Tensor, ""], new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `new`, or `old` where the step was not finite: no bad number is ever remembered."""
    return {key: torch.where(finite, new[key], old[key]) for key in old}
