"""Operations in which the samples of a batch may meet, as they run below autograd."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from unitygain.probe.leaves import in_backward, observable
from unitygain.probe.standards import Standards, layer_norm_runs_over

_SOFTMAX = frozenset({"_softmax", "_log_softmax", "_safe_softmax"})
_VIEWS = frozenset({"view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze"})
_REDUCE = frozenset({"mean", "sum", "var", "std", "var_mean", "std_mean", "amax", "amin", "max", "min"})
_REDUCE |= {"logsumexp", "native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"}
_LINK = frozenset({"index_add", "scatter_add", "scatter_reduce", "index_reduce", "segment_reduce"})
_PRODUCTS = frozenset({"mm", "bmm", "addmm", "baddbmm"})


class Meetings(TorchDispatchMode):
    """Notes, by the module call that runs, which operations may bring the first dimension's entries together.

    Args:
        samples: How many there are.
        innermost: Returns what to note an operation under; None outside of the model.

    Attributes:
        kinds: For each, ``softmax`` or ``norm`` over the first dimension of a matrix or more, ``statistics``
            where a spread over it divides what it was taken from, ``layer norm`` over the dimension with the
            length of the first, and ``view`` where a view gives the sizes another order, so that another
            dimension gets the length of the first, or the first that of the second.
        standards: Statistics over the first dimension, and what is put to scale by them.
        one_of_all: Whether all samples are put into a batch of one, as a set or a sequence.
        linked: Whether some matrix or index that needs no gradient says which of them belong together.
    """

    def __init__(self, samples: int, innermost: Callable[[], Any]) -> None:
        super().__init__()
        self.kinds: dict[Any, set[str]] = defaultdict(set)
        self.standards = Standards(samples)
        self.linked = False
        self.one_of_all = False
        self._samples = samples
        self._innermost = innermost
        self._pooled = False

    @property
    def pooled(self) -> bool:
        """Whether something is reduced over the first dimension, not for a scale, or drawn from all of it."""
        return self._pooled or bool(self.standards.open)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        place = self._innermost()
        if place is not None and args and not in_backward():
            name = func._schema.name.removeprefix("aten::").rstrip("_")
            self._note(place, name, args, kwargs or {}, out)
        return out

    def _note(self, place: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        first = args[0]
        if name in _LINK or "sparse" in name:
            self.linked = True
        elif name in _PRODUCTS:
            self.linked |= any(self._joins(value) for value in args)
        if not (observable(first) and first.requires_grad):
            return
        if name in _VIEWS and isinstance(out, Tensor) and self._reordered(first.shape, out.shape):
            self.kinds[place].add("view")
        if self.standards.scaled(name, args, out):
            self.kinds[place].add("statistics")
        if name == "native_layer_norm" and layer_norm_runs_over(self._samples, first.shape, args[1]):
            self.kinds[place].add("layer norm")
        if first.shape[:1] == (self._samples,):
            self._note_rows(place, name, first, args, out)

    def _note_rows(self, place: Any, name: str, first: Tensor, args: tuple[Any, ...], out: Any) -> None:
        if name in _SOFTMAX and first.ndim > 1 and args[1] in (0, -first.ndim):
            # One column alone is a choice among the rows, as attention over a set makes it.
            self.kinds[place] |= {"softmax"} if first[0].numel() > 1 else set()
            self._pooled |= first[0].numel() == 1
        elif name == "linalg_vector_norm" and _dimensions(args[2:3]) == {0} and first.ndim > 1:
            self.kinds[place].add("norm")
        elif name in _REDUCE:
            over = _dimensions(args[1:2])
            # The larger of two tensors is no reduction.
            elementwise = name in {"max", "min"} and len(args) > 1 and isinstance(args[1], Tensor)
            if not elementwise and (not over or bool(over & {0, -first.ndim})):
                self.standards.reduced(name, first, out)
        elif name in _VIEWS and isinstance(out, Tensor):
            self.one_of_all |= out.shape[:2] == (1, self._samples)
        elif name in {"index", "index_select"}:
            index = args[1] if name == "index" else [args[2]] if args[1] == 0 else []
            self.linked |= len(index) == 1 and isinstance(index[0], Tensor) and index[0].ndim == 1
        elif name in {"flip", "roll"}:
            # Each sample beside another one, as some ways to blend samples do.
            self.linked |= 0 in _dimensions(args[-1:])

    def _reordered(self, before: tuple[int, ...], after: tuple[int, ...]) -> bool:
        """Whether samples that lay along the first dimension get another, or the other way round.

        Away from the first only where the sizes stay the same in another order; to the first also where those
        behind it are joined, as of the last states of two layers.
        """
        if before.count(self._samples) != 1 or 1 in (before[0], after[0]):
            return False
        if before[0] == self._samples:
            return sorted(before) == sorted(after) and after[0] != self._samples
        return before[1] == self._samples == after[0] and len(before) > 2

    def _joins(self, value: Any) -> bool:
        return (
            isinstance(value, Tensor)
            and not value.requires_grad
            and value.ndim >= 2
            and value.shape[-2:] == (self._samples, self._samples)
        )


def _dimensions(given: tuple[Any, ...]) -> set[int]:
    """Return the dimensions that an operation was told; empty for all."""
    return {leaf for leaf in pytree.tree_leaves(given) if type(leaf) is int}


def tells_links(module: nn.Module, args: tuple[Any, ...], samples: int) -> bool:
    """Whether a module is handed, or holds, a matrix of all pairs of samples, or a list of edges.

    Masks that are handed to torch's own modules, which may be of as many places, are none.
    """
    given = [] if type(module).__module__.startswith("torch.nn") else pytree.tree_leaves(args)
    held = (*vars(module).values(), *module._buffers.values())
    return any(_is_link(value, samples) for value in (*given[1:], *held))


def _is_link(value: Any, samples: int) -> bool:
    if not isinstance(value, Tensor) or value.requires_grad:
        return False
    if value.layout != torch.strided:
        return True
    edges = not value.is_floating_point() and value.ndim == 2 and value.shape[0] == 2 and value.shape[1] > 2
    return edges or tuple(value.shape) == (samples, samples)
