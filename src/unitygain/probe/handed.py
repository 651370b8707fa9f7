"""The states that modules hand on to their own next calls: with the graph that made them, or cut from it."""

import math
import weakref
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from unitygain._case import Case
from unitygain.probe.hooks import Hooks
from unitygain.probe.leaves import in_backward, observable
from unitygain.probe.loops import listen
from unitygain.probe.record import Record
from unitygain.probe.steps import KINDS, repeats
from unitygain.probe.trace import glance
from unitygain.probe.trail import key

# Rows and features: what has more dimensions may hold many steps in time.
ONE_STEP = 2


@dataclass(eq=False)
class Handed:
    """What one module's calls were handed of what it returned before.

    Args:
        steps: Steps in time of all its calls; NaN where a call may hold many.
        reach: The most steps in a row that one gradient can go back over.
        handed: How many calls were handed memory that the call before had returned.
        cut: Of them, those in which all of it had lost its graph.
    """

    steps: float = 0.0
    reach: float = 0.0
    handed: int = 0
    cut: int = 0
    _row: float = 0.0
    _memory: dict[int, StorageWeakRef] = field(default_factory=dict)
    _beside: tuple[weakref.ref[Tensor], ...] = ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Note one call; all that is kept of its tensors is weak, so that none lives longer for it."""
        if in_backward():
            return
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if observable(leaf)]
        state = [leaf for leaf in leaves if self._returned(leaf)]
        beside = [leaf for leaf in leaves if not self._returned(leaf)]
        # What is handed nothing new is no step in time: it is a layer that shares its weights with the last.
        if state and (isinstance(module, KINDS) or self._is_new(beside)):
            lost = all(leaf.grad_fn is None for leaf in state)
            self.handed += 1
            self.cut += lost
            self._row = 0.0 if lost else self._row
        else:
            self._row = 0.0
        taken = _steps(module, args, kwargs, beside)
        self.steps += taken
        self._row += taken
        self.reach = math.nan if math.isnan(self._row) else max(self.reach, self._row)
        self._beside = tuple(map(weakref.ref, beside))
        # Only what had a graph can lose it.
        made = [leaf for leaf in pytree.tree_leaves(output) if observable(leaf) and leaf.requires_grad]
        self._memory = {key(leaf): StorageWeakRef(leaf.untyped_storage()) for leaf in made if key(leaf)}

    def _returned(self, leaf: Tensor) -> bool:
        known = self._memory.get(key(leaf))
        return known is not None and not known.expired()

    def _is_new(self, beside: list[Tensor]) -> bool:
        last = [ref() for ref in self._beside]
        return any(all(leaf is not other for other in last) for leaf in beside)


def handed_on(case: Case, record: Record) -> dict[str, Handed]:
    """Return, by path, what modules that keep a state in time were handed by their own last call.

    Read are torch's recurrent modules and cells, and modules of any other class that hold none of these and
    are handed something new beside the state. A state is known by its memory, which a tensor shares with
    what `detach` and ``.data`` make of it; what was computed from it is another tensor.

    Args:
        case: An isolated case.
        record: Its record.

    Raises:
        CaseFailure: If the model or loss raises.

    Cost: one forward pass with its graph, if some module ran four times or more; else none. No side effects.
    """
    if not repeats(record):
        return {}
    own = {path: module for path, (module, _) in listen(case.model, KINDS).items()}
    torchs = {path: module for path, module in case.model.named_modules() if isinstance(module, KINDS)}
    heard = {path: (module, Handed()) for path, module in (own | torchs).items()}

    def watch(hooks: Hooks) -> None:
        for module, ear in heard.values():
            hooks.on_call(module, lambda *_: None, ear)

    glance(case, record, watch, graph=True)
    return {path: ear for path, (_, ear) in heard.items() if ear.handed}


def _steps(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], beside: list[Tensor]) -> float:
    """Steps in time of one call; NaN where that is not known."""
    if isinstance(module, nn.RNNCellBase):
        return 1.0
    if isinstance(module, nn.RNNBase):
        x = args[0] if args else kwargs.get("input")
        if isinstance(x, PackedSequence):
            return float(len(x.batch_sizes))
        if not isinstance(x, Tensor):
            return math.nan
        return float(x.shape[1 if module.batch_first and x.ndim == 3 else 0])
    return 1.0 if all(leaf.ndim <= ONE_STEP for leaf in beside) else math.nan
