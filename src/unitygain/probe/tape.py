"""Tape: the operations of every block of a trunk as they ran, with what is fixed reduced to its moments."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from unitygain._case import Case, CaseFailure
from unitygain._types import Site
from unitygain.probe.detours import Detours
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import first_floating
from unitygain.probe.leaves import in_backward, observable, unwrap
from unitygain.probe.record import Record
from unitygain.probe.segment import Fixed, Operation, Read, Segment
from unitygain.probe.sites import makes_weight
from unitygain.probe.trace import Gap, glance
from unitygain.probe.trail import key
from unitygain.stats import mean, rms
from unitygain.stats.layouts import covers
from unitygain.stats.moments import (
    attended_square,
    row_directions,
    row_lengths,
    row_moments,
    row_spread,
    visible_keys,
)

CHANNELS_SECOND = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
SOFTMAX = frozenset({"_softmax", "_safe_softmax"})
BATCH_NORMS = frozenset({"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"})
# These take a tensor for its shape alone.
LIKE = frozenset({"empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"})
LIKE |= {"new_empty", "new_zeros", "new_ones", "new_full"}


def play(case: Case, record: Record) -> list[Segment]:
    """Run one forward pass and return the operations of every block of the trunk.

    Args:
        case: An isolated case.
        record: Its record, which names the blocks and the seed.

    Raises:
        Gap: If the model does not run this way, though it ran before.

    Cost: one forward pass, and one reduction per weight and per block. No side effects.

    Example:
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(*(layer for _ in range(3) for layer in (nn.Linear(4, 4), nn.Tanh())))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(2, 4)])
        >>> [[one.name for one in segment.operations] for segment in play(case, observe(case, []))]
        [['addmm', 'tanh'], ['addmm', 'tanh'], ['addmm']]
    """
    tape = Tape(case.model, record)
    try:
        with unfused(), tape:
            glance(case, record, tape.watch, graph=True)
    except CaseFailure as failure:
        raise Gap(f"the operations could not be followed: {failure}") from failure
    return tape.segments


class Tape(TorchDispatchMode):
    """Notes the operations below autograd while its context is open (see `play`)."""

    def __init__(self, model: nn.Module, record: Record) -> None:
        super().__init__()
        self.segments: list[Segment] = []
        self._model = model
        self._begins = {(site.path, site.call or 1): site for site in record.blocks}
        self._last = next(reversed(self._begins), None)
        self._end = (record.end.path, record.end.call or 1) if record.end else None
        self._calls: dict[str, int] = {}
        self._stack: list[str] = []
        self._now: Segment | None = None
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}
        self._count = 0
        self._part: Tensor | None = None
        self._detours = Detours()
        matrices = (p for p in model.parameters() if not is_lazy(p) and p.ndim > 1)
        self._weights = frozenset(map(key, matrices))
        self._met: dict[int, frozenset[int]] = {}

    def watch(self, hooks: Hooks) -> None:
        """Set the hooks that tell which module runs and where blocks begin and end."""
        for path, module in self._model.named_modules():
            if not makes_weight(path):
                hooks.on_call(module, self._before(path), self._after(path))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        now = self._now
        name = func._schema.name.removeprefix("aten::")
        if now is None or name in LIKE or in_backward():
            return func(*args, **kwargs)
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        past = any(map(self._detours.holds, leaves))
        if not any(self._value(leaf) is not None for leaf in leaves):
            out = func(*args, **kwargs)
            if past:
                self._detours.follow(pytree.tree_leaves(out))
            return out
        if past:
            now.gap = "what enters it also goes past it, by what ran before"
        elif any(self._lies_beside(leaf) for leaf in leaves):
            now.gap = "it reads on in the memory of what enters it, as of the other half of a coupling"
        # Read before it runs: an in-place operation changes what its arguments are.
        taken = pytree.tree_map(self._take, (args, kwargs))
        out = func(*args, **kwargs)
        written = func._schema.is_mutable
        first = next(filter(observable, pytree.tree_leaves(out)), None)
        if first is None or (self._value(first) is not None and not written):
            return out
        name = name.rstrip("_") if written else name
        facts = self._facts(name, args)
        met = self._meet(now, leaves)
        module = self._stack[-1] if self._stack else ""
        now.operations.append(Operation(name, module, taken[0], taken[1], tuple(first.shape), facts))
        self._count += 1
        self._met[self._count] = met
        self._mark(first, self._count)
        return out

    def _meet(self, now: Segment, leaves: list[Tensor]) -> frozenset[int]:
        """Return the weights that made a result, on all ways through the block; theory has no two alike."""
        numbers = [self._value(leaf) for leaf in leaves]
        before = frozenset[int]().union(*(self._met.get(n, frozenset()) for n in numbers if n is not None))
        here = self._weights.intersection(
            key(leaf) for leaf, number in zip(leaves, numbers, strict=True) if number is None
        )
        if before & here:
            now.gap = "it runs over the same weights again, where theory takes new ones"
        return before | here

    def _facts(self, name: str, args: tuple[Any, ...]) -> tuple[float, ...]:
        if name in SOFTMAX:
            return tuple(visible_keys(args[0], args[1]).tolist())
        if name in BATCH_NORMS and not args[5]:
            centre, spread = args[3], args[4]
            return float(rms(centre)) ** 2, float(mean(1 / (spread + args[7])))
        if name == "bmm" and all(self._value(part) is not None for part in args[:2]):
            return (float(attended_square(args[0], args[1])),)
        return ()

    def _take(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        number = self._value(value)
        if number is not None:
            return Read(number, tuple(value.shape), int(value.storage_offset()))
        if not value.dtype.is_floating_point:
            value = value.float() if value.dtype is torch.bool else value
        if not value.is_floating_point() or value.numel() == 0:
            return Fixed(float("nan"), float("nan"), tuple(value.shape))
        return Fixed(float(rms(value)) ** 2, float(mean(value)), tuple(value.shape))

    def _value(self, tensor: Tensor) -> int | None:
        known = self._known.get(key(tensor))
        return known[1] if known is not None and not known[0].expired() else None

    def _lies_beside(self, tensor: Tensor) -> bool:
        """Whether a tensor shares the memory of what entered the block, and not its numbers."""
        return self._value(tensor) == 0 and self._part is not None and not covers(self._part, tensor)

    def _mark(self, tensor: Tensor, number: int) -> None:
        # The weak reference keeps the number of the memory from being given to another.
        self._known[key(tensor)] = (StorageWeakRef(tensor.untyped_storage()), number)

    def _before(self, path: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # A checkpoint's recomputation calls the same modules again.
            if in_backward():
                return
            self._stack.append(path)
            self._calls[path] = self._calls.get(path, 0) + 1
            call = (path, self._calls[path])
            if call in self._begins or call == self._end:
                first = first_floating((args, kwargs))
                self._close(first)
                if call in self._begins:
                    self._open(self._begins[call], module, first)

        return enter

    def _after(self, path: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if in_backward():
                return
            while self._stack and self._stack.pop() != path:
                pass
            if self._end is None and (path, self._calls[path]) == self._last:
                self._close(first_floating(unwrap(output)))

        return leave

    def _open(self, site: Site, module: nn.Module, first: Tensor | None) -> None:
        self._turn(first)
        if first is None or first.is_complex() or not key(first):
            self.segments.append(Segment(site, (0.0, 0.0, 0.0), (), gap="no plain real tensor enters it"))
            return
        features, groups = layout(module, first)
        square, shared, middle = row_moments(first, features, groups).tolist()
        spread = float(row_spread(first, features))
        self._now = Segment(site, (square, shared, middle), tuple(first.shape), spread=spread)
        self._now.lengths = tuple(row_lengths(first, features).tolist())
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
            self._now.directions = float(row_directions(first, features))
        self.segments.append(self._now)
        self._mark(first, 0)
        whole = first.untyped_storage().nbytes() == first.numel() * first.element_size()
        self._part = None if whole else first.detach()

    def _turn(self, first: Tensor | None) -> None:
        """Forget the values of the block before, but for what it made of that which enters this one."""
        before = self.segments[-1].operations if self.segments else []
        leaves = [pytree.tree_leaves((one.args, one.kwargs)) for one in before]
        reads = [[leaf.value for leaf in row if isinstance(leaf, Read)] for row in leaves]
        self._detours.turn(None if first is None else self._value(first), self._known, reads)
        self._known.clear()
        self._met.clear()
        self._count = 0

    def _close(self, first: Tensor | None) -> None:
        if self._now is None:
            return
        number = None if first is None else self._value(first)
        if first is None or number is None:
            self._now.gap = "what leaves it does not depend on what enters it"
        else:
            self._now.exit = Read(number, tuple(first.shape), int(first.storage_offset()))
        self._now = self._part = None


def layout(module: nn.Module, entering: Tensor) -> tuple[int, int | None]:
    """Return the dimension of the features, and that of what is kept apart: sequences, for tokens.

    Features come second in a block with convolutions, batch or group normalisation, and last elsewhere.
    """
    parts = list(module.modules())
    if entering.ndim >= 3 and any(isinstance(part, CHANNELS_SECOND) for part in parts):
        return 1, None
    if entering.ndim != 3:
        return -1, None
    first = [part.batch_first for part in parts if isinstance(part, nn.MultiheadAttention)]
    return -1, 1 if first and not first[0] else 0


@contextmanager
def unfused() -> Iterator[None]:
    """Run attention as the operations that it is made of."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
