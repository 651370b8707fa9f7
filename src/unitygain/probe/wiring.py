"""Wiring: which module calls and which operations of one forward pass read and made which tensors."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from unitygain._case import Case, CaseFailure, random_states, reseed
from unitygain.probe.hooks import Hooks, uncompiled
from unitygain.probe.leaves import unwrap

# Address, number of entries and version: views of the whole of a tensor have its key, parts of it have not.
Key = tuple[int, int, int]
Where = int | str
# These hand the same numbers on.
VIEWS = frozenset({"detach", "view", "_unsafe_view", "alias", "t", "transpose", "permute", "expand"})
VIEWS |= {"unsqueeze", "squeeze", "slice", "select", "split", "chunk", "unbind", "as_strided", "unflatten"}

# These take a tensor for its shape alone.
LIKE = frozenset({"empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"})
LIKE |= {"new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"}


def key_of(tensor: Tensor) -> Key:
    """Return what tells the numbers of a tensor as they are now from those of others that are held."""
    return tensor.data_ptr(), tensor.numel(), tensor._version


@dataclass(eq=False)
class Wire:
    """One call of a module.

    Args:
        path: Its path.
        module: The module.
        parent: The call inside which it ran.
        number: The how manieth call of the module.
        began: Time at which it began, in events of the pass.
        taken: Every tensor among its arguments, by position or name.
        ended: Time at which it ended.
        made: Keys of the tensors that it returned, in order.
    """

    path: str
    module: nn.Module
    parent: "Wire | None"
    number: int
    began: int
    taken: dict[Where, Key]
    ended: int = 0
    made: tuple[Key, ...] = ()

    def around(self) -> Iterator["Wire"]:
        """Yield this call and those inside which it ran, innermost first."""
        call: Wire | None = self
        while call is not None:
            yield call
            call = call.parent

    @property
    def outermost(self) -> "Wire":
        """The call inside which all of this ran."""
        return list(self.around())[-1]


@dataclass(eq=False)
class Step:
    """One operation below autograd.

    Args:
        name: Its name, as in ATen.
        call: The module call that was running.
        time: When it ran, in events of the pass.
        reads: Keys of the tensors that it read, as they were before.
        makes: Key of its first result, if it has one.
        plain: Its arguments that are no tensors.
        shape: Shape of its first result.
        held: What it read and its first result, where the pass holds tensors.
    """

    name: str
    call: Wire | None
    time: int
    reads: tuple[Key, ...]
    makes: tuple[Key, ...]
    plain: tuple[Any, ...]
    shape: tuple[int, ...]
    held: tuple[Tensor, ...] = ()


@dataclass
class Wiring:
    """What one forward pass showed: calls and operations in the order in which they began.

    Args:
        calls: The calls.
        steps: The operations.
        makers: The operation that made the numbers of a tensor.
        readers: The operations that read them.
        tensors: A tensor for every key, where the pass holds them.
    """

    calls: list[Wire] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    makers: dict[Key, Step] = field(default_factory=dict)
    readers: dict[Key, list[Step]] = field(default_factory=lambda: defaultdict(list))
    tensors: dict[Key, Tensor] = field(default_factory=dict)

    def times(self, module: nn.Module) -> int:
        """Return how often a module was called per call of the model, which a loss may run several times."""
        passes = sum(call.path == "" for call in self.calls)
        return -(-sum(call.module is module for call in self.calls) // max(passes, 1))


class _Recorder(TorchDispatchMode):
    def __init__(self, model: nn.Module, hooks: Hooks, hold: bool) -> None:
        super().__init__()
        self.wiring = Wiring()
        self._hold = hold
        self._stack: list[Wire] = []
        self._numbers: Counter[str] = Counter()
        self._time = 0
        # Held to the end of the pass, so that no address is given to another tensor.
        self._held: list[Tensor] = []
        for path, module in model.named_modules():
            hooks.on_call(module, self._before(path), self._after)

    def _now(self) -> int:
        self._time += 1
        return self._time

    def _key(self, tensor: Tensor) -> Key:
        self._held.append(tensor)
        key = key_of(tensor)
        if self._hold:
            self.wiring.tensors.setdefault(key, tensor)
        return key

    def _before(self, path: str) -> Any:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._numbers[path] += 1
            given: dict[Where, Any] = {**dict(enumerate(args)), **kwargs}
            taken = {place: self._key(value) for place, value in given.items() if isinstance(value, Tensor)}
            parent = self._stack[-1] if self._stack else None
            call = Wire(path, module, parent, self._numbers[path], self._now(), taken)
            self._stack.append(call)
            self.wiring.calls.append(call)

        return enter

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        while self._stack and self._stack[-1].module is not module:
            self._stack.pop()
        if self._stack:
            call = self._stack.pop()
            leaves = pytree.tree_leaves(unwrap(output))
            call.ended = self._now()
            call.made = tuple(self._key(leaf) for leaf in leaves if isinstance(leaf, Tensor))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = pytree.tree_leaves((args, kwargs))
        reads = tuple(self._key(value) for value in given if isinstance(value, Tensor))
        plain = tuple(value for value in given if not isinstance(value, Tensor))
        out = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        name = name.rstrip("_") if func._schema.is_mutable else name
        results = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)]
        call = self._stack[-1] if self._stack else None
        made = tuple(self._key(leaf) for leaf in results)
        shape = tuple(results[0].shape) if results else ()
        held = (*(v for v in given if isinstance(v, Tensor)), *results[:1]) if self._hold else ()
        step = Step(name, call, self._now(), reads, made[:1], plain, shape, held)
        self.wiring.steps.append(step)
        for read in set(reads) if name not in LIKE else ():
            self.wiring.readers[read].append(step)
        self.wiring.makers.update((key, step) for key in made if key not in reads)
        return out


def wire(case: Case, seed: int = 0, *, hold: bool = False) -> Wiring:
    """Run the first batch forward, without a graph, and return which calls and operations read what.

    Args:
        case: A copy of a case: its buffers may change. Its random states are put back.
        seed: Seed of the random numbers of the pass.
        hold: Keep the tensors in what is returned.

    Raises:
        ValueError: If the model or the loss raises.

    Side effects:
        Holds every tensor of the pass until it ends, or longer with `hold`.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> [step.name for step in wire(case).steps if step.call and step.call.path]
        ['t', 'addmm', 'tanh']
    """
    hooks = Hooks()
    recorder = _Recorder(case.model, hooks, hold)
    try:
        with unfused(), recorder:
            run_quietly(case, seed)
    finally:
        hooks.remove()
    return recorder.wiring


def run_quietly(case: Case, seed: int = 0) -> Tensor:
    """Return the loss on the first batch, without a graph and under `seed`; random states are put back.

    Raises:
        ValueError: If the model or the loss raises.
    """
    batch = case.batches[0]
    with random_states(), torch.no_grad(), uncompiled():
        reseed(seed)
        try:
            return case.compute_loss(batch)
        except CaseFailure as failure:
            raise ValueError(f"{failure}") from failure
        except Exception as error:
            raise ValueError(
                f"the model does not run on its first batch: {type(error).__name__}: {error}"
            ) from error


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
