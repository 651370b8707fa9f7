"""Operation watch: sees what only exists inside an operation, such as attention logits and gates."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from unitygain._types import Site, Skipped
from unitygain.probe import dropouts, losses, matrices, norms, ranges, reach, recurrent, scores, simplex
from unitygain.probe.activations import AMBIGUOUS, SLOPES, Slope, module_slope, silenced, slope
from unitygain.probe.leaves import in_backward, observable, unwrap
from unitygain.probe.ledger import dtype_name
from unitygain.probe.record import Place, Record
from unitygain.probe.sites import Call, Select, holds_weight, selects
from unitygain.probe.titles import name_operations
from unitygain.probe.trail import Memory, Origin, Seen, Trail, is_at, key, refer
from unitygain.stats import frac_dead, mean
from unitygain.stats.operations import frac_closed, shown_by_mask, slopes, softmax_logits

OPERATIONS: dict[str, tuple[str, ...]] = {
    "softmax": ("absmax", "entropy", "before", "after", *scores.STATISTICS),
    "activation": ("frac_saturated", "slope_rms", "frac_open", "frac_dead"),
    "gate": ("mean", "frac_closed"),
    "loss": losses.STATISTICS,
    "norm": norms.STATISTICS,
    "reach": reach.STATISTICS,
    "simplex": simplex.STATISTICS,
    "logit_range": ranges.STATISTICS,
    "matrix": matrices.STATISTICS,
    "dropout": dropouts.STATISTICS,
}
_SOFTMAX = frozenset({"_softmax", "_safe_softmax"})
_PRODUCTS = frozenset({"bmm", "baddbmm", "mm", "addmm"})
# The content of their result is still that of their operand, a little changed.
_CARRIES = frozenset({"div", "native_dropout", "_to_copy", "clone", "add", "sub", "rsub", "neg", "index"})
_CARRIES |= {"cat", "masked_fill", "where", "clamp", "clamp_min", "maximum"}
_FOLLOWED = _PRODUCTS | _CARRIES | {"mul", "log", "binary_cross_entropy"}
_FREE = frozenset({"detach", "view", "_unsafe_view", "alias", "t", "transpose", "expand", "clone"})


class Watch(TorchDispatchMode):
    """Sees every operation of the forward pass below autograd; active while its context is open.

    Args:
        wanted: Which statistics of which signals.
        innermost: Returns the module call whose forward is running.

    Side effects:
        Fused attention is replaced by its parts while the context is open, if softmax signals are wanted.
    """

    def __init__(self, wanted: Mapping[str, tuple[str, ...]], innermost: Callable[[], Call | None]) -> None:
        super().__init__()
        self.wanted = wanted
        self.trail = Trail()
        self.seen: dict[Seen, None] = {}
        self.skipped: dict[str, str] = {}
        self._innermost = innermost
        self._draws = dropouts.Draws()
        self._matrices = matrices.Matrices()
        self._scores = scores.Scores()
        self._follows = ""
        self._paused = False
        self._ended = 0
        self._counts: Counter[Call] = Counter()
        self._within: dict[Call, list[Seen]] = defaultdict(list)
        self._stack = ExitStack()

    def __enter__(self) -> "Watch":
        if self.wanted.get("softmax"):
            self._stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if torch.backends.mha.get_fastpath_enabled():
            torch.backends.mha.set_fastpath_enabled(False)
            self._stack.callback(torch.backends.mha.set_fastpath_enabled, True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Look away: our own operations are not the model's."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        call = self._innermost()
        if self._paused or in_backward() or (call is not None and isinstance(call.module, recurrent.KINDS)):
            return func(*args, **kwargs)
        space, _, name = func._schema.name.partition("::")
        name = name.rstrip("_") if space == "aten" else func._schema.name
        if call is not None and name not in _FREE:
            self._counts[call] += 1
        bent = self._bend(name, args, kwargs)
        source = refer(args[0]) if args else None
        out = func(*args, **kwargs)
        if bent is not None:
            self._activation(name, bent, source, out)
        elif name in _SOFTMAX:
            self._softmax(args, out)
        elif name == "glu" and self.wanted.get("gate"):
            self._gate(args[0].detach().chunk(2, *(args[1:] or (-1,)))[1].sigmoid())
        elif name in _FOLLOWED:
            self._follow(name, args, out)
        if name in matrices.OPERATIONS:
            self._follows = self._matrices.watch(self, call, name, args) or self._follows
        if name in scores.OPERATIONS:
            self._scores.watch(self, name, args, out)
        if name in losses.OPERATIONS:
            losses.watch(self, name, args, kwargs, out)
        if name in ranges.OPERATIONS:
            ranges.watch(self, name, args)
        if name in simplex.OPERATIONS:
            simplex.watch(self, name, args, inside=call is not None)
        elif name in norms.OPERATIONS:
            norms.watch(self, name, args)
        self._draws.watch(self, call, name, args, out)
        if name in reach.OPERATIONS:
            reach.watch(self, name, args, inside=call is not None)
        return out

    def add(self, signal: str, operation: str, tensor: Tensor, **more: Any) -> Seen:
        """Note an operation under the module call that is running."""
        call = self._innermost()
        like = (tuple(tensor.shape), dtype_name(tensor))
        seen = Seen(signal, operation, call, like, follows=self._follows, calls_before=self._ended, **more)
        self.seen[seen] = None
        if call is not None:
            self._within[call].append(seen)
        return seen

    def left(self, call: Call, args: tuple[Any, ...], output: Any) -> None:
        """Take note that a module call ended; its own activations and gates are read now."""
        self._ended += 1
        dropouts.left(self, call, output)
        inside = [seen for seen in self._within[call] if seen.signal in {"activation", "gate"}]
        if isinstance(call.module, recurrent.KINDS):
            recurrent.watch(self, call, args)
        elif call.leaf and len(inside) == 1 and self._counts[call] == 1:
            inside[0].whole = True
        elif call.leaf and (self.wanted.get("activation") or inside):
            self._whole_module(call, args, output, inside)
        if holds_weight(call.module):
            self._follows = call.path
        if call.parent is None:
            tensors = [tensor for tensor in pytree.tree_leaves(unwrap(output)) if observable(tensor)]
            self._arrived(self.trail.origin(tensors[0]) if tensors else None)

    def _arrived(self, origin: Origin | None) -> None:
        """The result of an operation is the model's output, or is read by the loss alone."""
        if origin is None or origin.seen is None:
            return
        if origin.kind == "activation":
            origin.seen.kind = f"{origin.seen.operation} (output)"
        elif origin.seen.kind == "hidden":
            origin.seen.kind = "output"

    def _bend(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope | None:
        sigmoid = name == "sigmoid" and (self.wanted.get("gate") or self.wanted.get("loss"))
        wanted = self.wanted.get("activation") or sigmoid
        if not wanted or name not in SLOPES or not args or not observable(args[0]) or args[0].is_complex():
            return None
        certain = not torch.is_grad_enabled() and name not in AMBIGUOUS
        return slope(name, args, kwargs) if args[0].numel() and (args[0].requires_grad or certain) else None

    def _activation(self, name: str, bent: Slope, source: Memory, out: Any) -> None:
        out = out[0] if isinstance(out, tuple) else out
        seen = self.add("activation", name, out, arguments=bent.arguments)
        self._describe(seen, bent, out)
        if name == "sigmoid" and self.wanted.get("gate"):
            seen.numbers |= {"mean": mean(out), "frac_closed": frac_closed(out)}
        self.trail.mark(out, Origin("activation", seen, source))

    def _describe(self, seen: Seen, bent: Slope, out: Tensor) -> None:
        if self.wanted.get("activation") and not out.is_meta:
            numbers = (*slopes(bent.values, bent.steepest).unbind(), frac_dead(silenced(out, bent.values)))
            seen.numbers |= dict(zip(OPERATIONS["activation"], numbers, strict=True))

    def _whole_module(self, call: Call, args: tuple[Any, ...], output: Any, inside: list[Seen]) -> None:
        """Let an elementwise module without parameters stand for the operations that it is made of."""
        module = call.module
        if any(True for _ in module.parameters()) or len(args) != 1 or not self._counts[call]:
            return
        if not (observable(args[0]) and observable(output)) or args[0].is_complex():
            return
        if (bent := module_slope(module, args[0], output)) is None:
            return
        for one in inside:
            del self.seen[one]
        seen = self.add("activation", type(module).__name__, output, whole=True)
        seen.call = call
        self._describe(seen, bent, output)
        self.trail.mark(output, Origin("activation", seen))

    def _gate(self, out: Tensor) -> None:
        numbers: dict[str, Tensor | float] = {"mean": mean(out), "frac_closed": frac_closed(out)}
        self.add("gate", "glu", out, numbers=numbers)

    def _softmax(self, args: tuple[Any, ...], out: Tensor) -> None:
        logits = args[0]
        if not (logits.requires_grad or not torch.is_grad_enabled()):
            return
        seen = Seen("softmax", "softmax", None, ((), ""), kind="hidden")
        if self.wanted.get("softmax"):
            seen = self.add("softmax", "softmax", logits, kind="hidden")
            numbers = softmax_logits(logits, out, args[1]).unbind()
            seen.numbers |= dict(zip(("absmax", "entropy"), numbers, strict=True))
            if args[1] in {-1, logits.ndim - 1} and logits.ndim > 1 and logits.shape[-1] == logits.shape[-2]:
                seen.numbers |= dict(
                    zip(("before", "after"), shown_by_mask(logits, out).unbind(), strict=True)
                )
        facts = {"classes": out.shape[args[1]], "dim": args[1], "softmax_before": 0.0}
        self.trail.mark(out, Origin("softmax", seen, facts=facts))

    def _follow(self, name: str, args: tuple[Any, ...], out: Any) -> None:
        """Ask what becomes of the result of a softmax or a sigmoid."""
        tensors = [value for value in pytree.tree_leaves(args) if isinstance(value, Tensor)]
        for tensor in tensors:
            origin = self.trail.origin(tensor)
            if origin is None or origin.seen is None:
                continue
            others = [other for other in tensors if other is not tensor]
            if name in _PRODUCTS and origin.kind == "softmax":
                self._multiplied(origin.seen, name, others)
            elif name == "mul" and others:
                self._scaled(origin, tensor, others[0], out)
            elif name in {"log", "binary_cross_entropy"}:
                self._arrived(origin)
            elif name in _CARRIES:
                self._carry(out, origin)

    def _multiplied(self, seen: Seen, name: str, others: list[Tensor]) -> None:
        weights = any(self.is_parameter(other) for other in others) and name in {"mm", "addmm"}
        if not weights:
            seen.kind = "attention"

    def _scaled(self, origin: Origin, tensor: Tensor, other: Tensor, out: Any) -> None:
        assert origin.seen is not None
        if origin.kind == "softmax" and other.numel() > 1 and other.shape != tensor.shape:
            origin.seen.kind = "attention"
            return
        # A loss that multiplies the model's output makes no gate of it, nor does x·sigmoid(x).
        inside = self._innermost() is not None and other.numel() > 1
        if origin.seen.operation == "sigmoid" and inside and not is_at(origin.source, other):
            origin.seen.signal = "gate"
        self._carry(out, origin)

    def _carry(self, out: Any, origin: Origin) -> None:
        first = out[0] if isinstance(out, tuple) else out
        if isinstance(first, Tensor) and self.trail.origin(first) is None:
            self.trail.mark(first, dataclasses.replace(origin, source=None))

    def is_parameter(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter of the module that is running."""
        call = self._innermost()
        own = () if call is None else call.module.parameters(recurse=False)
        return any(key(parameter) == key(tensor) for parameter in own)

    def complete(self, record: Record, sites: Mapping[Call, Site], select: Select) -> Record:
        """Return the record with the watched operations added, in the order in which they ran."""
        chosen = [s for s in self.seen if self._counts_as_model(s, select)]
        names = name_operations([seen for seen in chosen if self.wanted.get(seen.signal)], sites)
        places = tuple(
            Place(site, seen.signal, seen.kind or seen.operation, *seen.like, seen.follows, seen.arguments)
            for seen, site in names.items()
        )
        values: dict[str, dict[Site, tuple[float, ...]]] = defaultdict(dict)
        for seen, site in names.items():
            for statistic in self.wanted[seen.signal]:
                if statistic in seen.numbers:
                    values[f"{seen.signal}.{statistic}"][site] = (float(seen.numbers[statistic]),)
        notes = tuple(Skipped(what, reason) for what, reason in self.skipped.items())
        return dataclasses.replace(
            record,
            places=record.places + places,
            values={**record.values, **values},
            skipped=record.skipped + notes,
        )

    def _counts_as_model(self, seen: Seen, select: Select) -> bool:
        """Whether it was chosen; an activation behind the last module is the loss's own, as a hinge."""
        if seen.call is None:
            return seen.signal != "activation" or seen.calls_before < self._ended
        return selects(select, seen.call.path, seen.call.module)
