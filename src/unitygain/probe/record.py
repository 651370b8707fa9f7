"""Record: what a probe brings back. Reduced numbers, serialisable, no live tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from unitygain._types import Profile, Site, Skipped

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Place:
    """A place that was observed.

    Args:
        site: Its name.
        signal: Which tensor: ``output``, ``entry``, ``exit``, ``input``, ``sequence``, ``parameter``, ...
        type: Class name of the module.
        shape: Shape of the tensor.
        dtype: Its dtype, without the ``torch.`` prefix.
        note: A word on it, such as ``leaf`` or the name that a tied parameter shares.
        arguments: Of an activation, the arguments of its operation beside the input: positional ones, and
            pairs by name; empty where they are not known.
    """

    site: Site
    signal: str
    type: str
    shape: tuple[int, ...]
    dtype: str
    note: str = ""
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Record:
    """The reduced numbers of one forward and backward pass.

    Args:
        places: Every observed place, each signal in forward order.
        blocks: The trunk: block calls in forward order; empty where no repeated part was found.
        end: The head that follows the trunk, whose input is what leaves the last block; None where
            the last block's own output leaves it.
        values: ``values["grad.rms"][site]`` is a tuple of numbers.
        skipped: What was not observed, and why.
        facts: The loss and other scalars of the pass.
    """

    places: tuple[Place, ...] = ()
    blocks: tuple[Site, ...] = ()
    end: Site | None = None
    values: Mapping[str, Mapping[Site, Numbers]] = field(default_factory=lambda: MappingProxyType({}))
    skipped: tuple[Skipped, ...] = ()
    facts: Mapping[str, float | str] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, signal: str) -> tuple[Place, ...]:
        """Return the places of `signal` in forward order."""
        return tuple(place for place in self.places if place.signal == signal)

    def numbers(self, key: str, site: Site) -> Numbers | None:
        """Return what was recorded as `key` at `site`, or None where it was not seen."""
        return self.values.get(key, {}).get(site)

    def profile(self, key: str, *, name: str, unit: str, note: str = "") -> Profile:
        """Return the first number of `key` (``"grad.rms"``) at every site, in forward order.

        The labels are module types; for parameters, dtypes.
        """
        seen = self.values.get(key, {})
        labels = self.labels(key.partition(".")[0])
        return Profile(
            name,
            unit,
            sites=tuple(seen),
            values=tuple(numbers[0] for numbers in seen.values()),
            labels=tuple(labels.get(site, "") for site in seen),
            note=note,
        )

    def labels(self, signal: str) -> dict[Site, str]:
        """Return the module type at every site of `signal` or of its gradient; for parameters, the dtype."""
        origin = "output" if signal == "grad" else signal.removesuffix("_grad")
        return {p.site: p.dtype if origin == "parameter" else p.type for p in self.of(origin)}
