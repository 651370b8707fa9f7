"""What is known of tensors on the meta device that hold no signal: masks, positions, weights, noise."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from unitygain._types import Site
from unitygain.probe.record import Record
from unitygain.probe.tape import LIKE
from unitygain.probe.trail import key
from unitygain.stats import mean, rms
from unitygain.stats.moments import row_moments

# Mean square of an entry, mean product of one feature in two different rows, mean.
Moments = tuple[float, float, float]
Geometry = tuple[int, tuple[int, ...], tuple[int, ...]]
# Entries up to which a constant is computed.
CONSTANT = 1 << 22
NOISE: dict[str, Moments] = {"randn": (1.0, 0.0, 0.0), "randn_like": (1.0, 0.0, 0.0)}
NOISE |= dict.fromkeys(("rand", "rand_like"), (1 / 3, 1 / 4, 1 / 2))
SAME = frozenset({"clone", "_to_copy", "detach", "contiguous", "_unsafe_view", "embedding", "index_select"})


class Shadows:
    """Moments of tensors on meta by their memory, and the numbers themselves of small constants.

    Args:
        model: The model, on meta.
        record: Its record with ``drawn.moments``.
    """

    def __init__(self, model: nn.Module, record: Record) -> None:
        self._held: list[Tensor] = []
        self._fixed: dict[int, Moments] = {}
        self._names: dict[int, str] = {}
        self._moments: dict[int, tuple[StorageWeakRef, Moments]] = {}
        self._constants: dict[int, tuple[StorageWeakRef, dict[Geometry, Tensor]]] = {}
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._held.append(tensor)
            self._names[key(tensor)] = name
            found = record.numbers("drawn.moments", Site(name))
            if found is not None:
                square, middle = found
                self._fixed[key(tensor)] = square, middle**2, middle

    def give(self, moved: Tensor, original: Tensor, features: int, groups: int | None) -> None:
        """Take what a tensor of a batch held before it was moved to meta."""
        if original.is_meta or not original.numel():
            return
        self._held.append(moved)
        if original.numel() <= CONSTANT:
            self._hold(moved, original.detach())
        elif original.is_floating_point() and original.ndim:
            square, shared, middle = row_moments(original, features, groups).tolist()
            self._note(moved, (square, shared, middle))

    def name(self, tensor: Tensor) -> str:
        """Return the name of the parameter or buffer whose memory this is; else what it looks like."""
        shape = "x".join(map(str, tensor.shape)) or "one number"
        return self._names.get(key(tensor), f"a tensor of {shape} that the model makes")

    def constant(self, tensor: Tensor) -> Tensor | None:
        """Return the numbers of a tensor, where they are known."""
        if not tensor.is_meta:
            return tensor
        entry = self._constants.get(key(tensor))
        return None if entry is None or entry[0].expired() else entry[1].get(_geometry(tensor))

    def moments(self, tensor: Tensor, features: int = -1, groups: int | None = None) -> Moments | None:
        """Return the moments of a tensor, where they are known."""
        numbers = self.constant(tensor)
        if numbers is not None and numbers.numel():
            if numbers.is_floating_point() and numbers.ndim:
                square, shared, middle = row_moments(numbers, features, groups).tolist()
                return square, shared, middle
            value = numbers.double()
            middle = float(mean(value))
            return float(rms(value)) ** 2, middle**2, middle
        entry = self._moments.get(key(tensor))
        if entry is not None and not entry[0].expired():
            return entry[1]
        return self._fixed.get(key(tensor))

    def learn(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Take note of an operation that no signal entered."""
        name = func._schema.name.removeprefix("aten::")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if not isinstance(out, Tensor) or not out.is_meta:
            return
        if name.startswith("bernoulli") and len(args) > 1 and isinstance(args[1], float):
            self._note(out, (args[1], args[1] ** 2, args[1]))
        elif torch.Tag.nondeterministic_seeded in func.tags:
            self._forget(out)
            if name in NOISE:
                self._note(out, NOISE[name])
        elif not self._compute(func, name, args, kwargs, out):
            found = self._derive(name.rstrip("_"), args, kwargs)
            if func._schema.is_mutable and first is not None:
                self._forget(first)
            if found is not None:
                self._note(out, found)

    def _compute(self, func: Any, name: str, args: Any, kwargs: Any, out: Tensor) -> bool:
        """Run it on the numbers, where all of them are known."""
        if out.numel() > CONSTANT or name.startswith(("empty", "new_empty")):
            return False
        missing = False

        def numbers(value: Any) -> Any:
            nonlocal missing
            if isinstance(value, torch.device):
                return torch.device("cpu")
            if not isinstance(value, Tensor):
                return value
            if name in LIKE:
                return torch.zeros(value.shape, dtype=value.dtype)
            known = self.constant(value)
            missing = missing or known is None
            return known

        taken = pytree.tree_map(numbers, (args, kwargs))
        if missing:
            return False
        with torch.no_grad():
            self._hold(out, func(*taken[0], **taken[1]))
        return True

    def _derive(self, name: str, args: Any, kwargs: Any) -> Moments | None:
        """Moments of the result of an operation on tensors whose moments are known."""
        values = [self.moments(a) if isinstance(a, Tensor) else _number(a) for a in args[:2]]
        if name in SAME:
            return values[0]
        if name == "native_layer_norm":
            return self._normalised(args[2], args[3])
        if len(values) < 2 or values[0] is None or values[1] is None or kwargs:
            return None
        (a, b, c), (d, e, f) = values[0], values[1]
        if name == "mul":
            return a * d, b * e, c * f
        if name == "div" and isinstance(args[1], (int, float)) and args[1]:
            return a / d, b / e, c / f
        if name in {"add", "sub"}:
            cross = 2 * c * f * (1 if name == "add" else -1)
            return a + d + cross, b + e + cross, c + f if name == "add" else c - f
        return None

    def _normalised(self, scale: Any, shift: Any) -> Moments | None:
        one = self.moments(scale) if isinstance(scale, Tensor) else (1.0, 1.0, 1.0)
        other = self.moments(shift) if isinstance(shift, Tensor) else (0.0, 0.0, 0.0)
        return None if one is None or other is None else (one[0] + other[0], other[0], other[2])

    def _hold(self, tensor: Tensor, numbers: Tensor) -> None:
        entry = self._constants.get(key(tensor))
        if entry is None or entry[0].expired():
            entry = self._constants[key(tensor)] = (StorageWeakRef(tensor.untyped_storage()), {})
        entry[1][_geometry(tensor)] = numbers

    def _note(self, tensor: Tensor, moments: Moments) -> None:
        self._constants.pop(key(tensor), None)
        # The weak reference keeps the number of the memory from being given to another.
        self._moments[key(tensor)] = StorageWeakRef(tensor.untyped_storage()), moments

    def _forget(self, tensor: Tensor) -> None:
        self._constants.pop(key(tensor), None)
        self._moments.pop(key(tensor), None)
        self._fixed.pop(key(tensor), None)


def _geometry(tensor: Tensor) -> Geometry:
    return int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride())


def _number(value: Any) -> Moments | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value) ** 2, float(value) ** 2, float(value)
    return None
