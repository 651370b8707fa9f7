"""Means and spreads over the samples of a batch, and what is put to scale by them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from unitygain.probe.trail import Memory, Origin, Trail, is_at, key, refer

_SPREADS = frozenset({"var", "std", "var_mean", "std_mean"})
_OF_STATISTICS = frozenset({"add", "sub", "sqrt", "rsqrt", "reciprocal", "pow", "clamp", "clamp_min"})
_OF_STATISTICS |= {"maximum", "clone", "expand", "div", "mul"}


class Standards:
    """Follows statistics over the samples to the samples that they are taken from, or divide.

    Attributes:
        open: The reductions over the samples that stand for something else so far, such as a pooling.
    """

    def __init__(self, samples: int) -> None:
        self.open: set[int] = set()
        self._samples = samples
        self._trail = Trail()
        self._count = 0
        self._made: list[Memory] = []

    def reduced(self, name: str, first: Tensor, out: Any) -> None:
        """Note a reduction over the samples."""
        self._count += 1
        self.open.add(self._count)
        squares = self._kind(first) in {"square", "square of centred"} and name in {"mean", "sum"}
        facts = {"of": {self._count} | self._of(first), "alone": squares and self._kind(first) == "square"}
        if name in _SPREADS or squares:
            self._trail.mark(out[0] if isinstance(out, tuple) else out, Origin("spread", facts=facts))
        if name in {"var_mean", "std_mean"} or (name == "mean" and not squares):
            self._trail.mark(out[1] if isinstance(out, tuple) else out, Origin("mean", facts=facts))

    def scaled(self, name: str, args: Sequence[Any], out: Any) -> bool:
        """Follow an operation; whether it puts samples to scale by their spread, or by their mean square."""
        if not isinstance(out, Tensor) or not args or not isinstance(args[0], Tensor):
            return False
        first, second = args[0], args[1] if len(args) > 1 else None
        if name in {"div", "mul"} and isinstance(second, Tensor):
            return self._divided(first, second, out) or (name == "mul" and self._divided(second, first, out))
        if name == "pow" and second == 2 and self._has_samples(first):
            self._trail.mark(out, Origin(self._squared(first), facts={"of": self._of(first)}))
        elif name == "sub" and self._kind(second) == "mean" and self._has_samples(first):
            self._trail.mark(out, Origin("centred", facts={"of": self._of(second)}))
        elif name in _OF_STATISTICS and self._kind(first) in {"mean", "spread"} and out.shape == first.shape:
            self._trail.mark(out, Origin(self._kind(first), facts=self._facts(first)))
        return False

    def _divided(self, signal: Tensor, by: Tensor, out: Tensor) -> bool:
        """Whether samples are divided by a spread over them, or multiplied with its inverse."""
        if key(signal) == key(by) and self._has_samples(signal):
            self._trail.mark(out, Origin(self._squared(signal), facts={"of": self._of(signal)}))
        if self._kind(by) != "spread" or not self._has_samples(signal):
            return False
        if self._kind(signal) != "centred" and not self._facts(by).get("alone"):
            return False
        self.open -= self._of(by) | self._of(signal)
        self._made.append(refer(out))
        return True

    def made(self, tensor: Any) -> bool:
        """Whether a tensor is what was put to scale, with nothing behind it."""
        return any(is_at(memory, tensor) for memory in self._made)

    def _has_samples(self, tensor: Tensor) -> bool:
        return tensor.shape[:1] == (self._samples,)

    def _kind(self, tensor: Any) -> str:
        origin = self._trail.origin(tensor)
        return "" if origin is None else origin.kind

    def _squared(self, tensor: Tensor) -> str:
        return "square of centred" if self._kind(tensor) == "centred" else "square"

    def _facts(self, tensor: Any) -> dict[str, Any]:
        origin = self._trail.origin(tensor)
        return {} if origin is None else origin.facts

    def _of(self, tensor: Any) -> set[int]:
        return self._facts(tensor).get("of", set())


def normalises(module: nn.Module, dimensions: int, axis: int) -> bool:
    """Whether a module is a layer norm that runs over this dimension of so many.

    Example:
        >>> normalises(nn.LayerNorm(8), 2, 1), normalises(nn.LayerNorm(8), 2, 0), normalises(nn.Tanh(), 2, 1)
        (True, False, False)
    """
    shape = getattr(module, "normalized_shape", None)
    return isinstance(shape, tuple) and axis >= dimensions - len(shape)


def layer_norm_runs_over(samples: int, shape: Sequence[int], normalised: Sequence[int]) -> bool:
    """Whether a layer norm of such an input runs over a dimension that has the length of the batch alone.

    Example:
        >>> layer_norm_runs_over(32, (8, 32), (32,)), layer_norm_runs_over(32, (32, 8), (8,))
        (True, False)
        >>> layer_norm_runs_over(32, (32, 8), (32, 8)), layer_norm_runs_over(32, (32, 32), (32,))
        (True, False)
    """
    outside = shape[: len(shape) - len(normalised)]
    return samples in normalised and samples not in outside


def versions(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Return what tells whether a module's own buffers are written, by name."""
    held = module._buffers.items()
    return {name: (id(buffer), buffer._version) for name, buffer in held if buffer is not None}
