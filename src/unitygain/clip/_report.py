"""What a clip says of a step: sizes, angle and energy, as numbers that are computed when asked for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class ClipReport:
    """What a clip did to the gradients of one step.

    It holds small tensors, one number per gradient, where the gradients are. The first property that is
    read fetches them, which on an accelerator waits for the device; until then nothing does. Sizes are L2
    norms of the gradients as one vector, whatever norm the clip compares.

    Where a gradient was not finite, `finite` is false and nothing was changed, neither the gradients nor
    what the clip remembers: skipping the step is the caller's decision.

    Example:
        >>> import torch
        >>> from unitygain import clip
        >>> w = torch.zeros(2, requires_grad=True)
        >>> w.grad = torch.tensor([3.0, 4.0])
        >>> report = clip.by_global_norm(1.0)([w])
        >>> report.norm_before, report.norm_after, report.coefficient, report.cosine
        (5.0, 1.0, 0.2, 1.0)
    """

    _names: tuple[str, ...] = field(repr=False)
    _slots: tuple[int, ...] = field(repr=False)
    _before: Tensor = field(repr=False)
    _after: Tensor = field(repr=False)
    _cosines: Tensor = field(repr=False)
    _finite: Tensor = field(repr=False)
    _fired: Tensor = field(repr=False)
    _counts: Mapping[str, Tensor] = field(repr=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the gradients; one whose parameter came without is called by its place, as ``#3``."""
        return tuple(name or f"#{slot}" for name, slot in zip(self._names, self._slots, strict=True))

    @property
    def total_norm(self) -> Tensor:
        """The norm before, as a 0-dim tensor on its device, for those who must not wait."""
        return self._counts["norm"]

    @cached_property
    def finite(self) -> bool:
        """Whether all gradients were finite."""
        return bool(self._finite)

    @cached_property
    def clipped(self) -> bool:
        """Whether anything was changed."""
        return bool(self._fired)

    @cached_property
    def norm_before(self) -> float:
        """Norm of all gradients before the clip."""
        return _length(self._sizes[0])

    @cached_property
    def norm_after(self) -> float:
        """Norm of all gradients after the clip."""
        return _length(self._sizes[1])

    @property
    def coefficient(self) -> float:
        """Norm after over norm before; 1 where there was nothing to clip."""
        return self.norm_after / self.norm_before if self.norm_before else 1.0

    @cached_property
    def cosine(self) -> float:
        """Cosine of the angle between the gradient before and after: 1 where only the length changed.

        NaN where either is zero or not finite.
        """
        before, after = self._sizes
        if not (self.finite and self.norm_before and self.norm_after):
            return math.nan
        if not self.clipped:
            return 1.0
        parts = (before / self.norm_before) * (after / self.norm_after) * self._cosines.cpu().numpy()
        return min(1.0, math.fsum(parts))

    @property
    def shares(self) -> dict[str, tuple[float, float]]:
        """Share of the energy (the squared norm) of each gradient, before and after, by name."""
        totals = (self.norm_before, self.norm_after)
        before, after = (_shares(sizes, total) for sizes, total in zip(self._sizes, totals, strict=True))
        return dict(zip(self.names, zip(before, after, strict=True), strict=True))

    @property
    def steps(self) -> int:
        """Steps so far that were finite, this one included."""
        return int(self._counts["seen"])

    @property
    def steps_not_finite(self) -> int:
        """Steps so far in which a gradient was not finite, this one included."""
        return int(self._counts["not_finite"])

    @property
    def frac_clipped(self) -> float:
        """Fraction of the finite steps so far in which something was changed; NaN before the first."""
        return int(self._counts["clipped"]) / self.steps if self.steps else math.nan

    @property
    def quantiles(self) -> dict[float, float]:
        """Quantiles of the norm before the clip over the last thousand finite steps; NaN before the first."""
        remembered = np.sort(self._counts["values"].cpu().numpy())[: self.steps]  # NaN, for none, comes last
        if not self.steps:
            return dict.fromkeys(QUANTILES, math.nan)
        count = len(remembered)
        found = np.interp(np.multiply(QUANTILES, count - 1), np.arange(count), remembered)
        return dict(zip(QUANTILES, found.tolist(), strict=True))

    def __str__(self) -> str:
        if not self.finite:
            return "not finite: nothing was changed and nothing is remembered of this step"
        rate = f"{self.frac_clipped:.1%} of {self.steps} steps clipped"
        if not self.clipped:
            return f"norm {self.norm_before:.4g}, not clipped; {rate}"
        return f"norm {self.norm_before:.4g} → {self.norm_after:.4g}, cosine {self.cosine:.4f}; {rate}"

    @cached_property
    def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
        return self._before.cpu().numpy(), self._after.cpu().numpy()


def _length(sizes: np.ndarray) -> float:
    return math.hypot(*sizes.tolist())


def _shares(sizes: np.ndarray, total: float) -> list[float]:
    return ((sizes / total) ** 2 if total else np.zeros_like(sizes)).tolist()
