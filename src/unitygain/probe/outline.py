"""The operations of a model on the meta device: a forward pass of shapes, with the moments that are known."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain._case import Case, CaseFailure
from unitygain._types import Site
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import first_floating
from unitygain.probe.leaves import in_backward, observable
from unitygain.probe.record import Record
from unitygain.probe.segment import Fixed, Segment
from unitygain.probe.shadows import Shadows
from unitygain.probe.tape import BATCH_NORMS, SOFTMAX, Tape, layout, unfused
from unitygain.probe.trace import Gap, glance
from unitygain.probe.trail import key
from unitygain.stats.moments import visible_keys

UNIT = (1.0, 0.0, 0.0)
STEM = Site("", leaf="(before the trunk)")
Visible = Tensor | str


@dataclass(frozen=True)
class Outline:
    """What a forward pass of shapes says of a model.

    Args:
        stem: What comes before the trunk, from the model's first floating input; None where there is none.
        segments: The blocks.
        assumed: Blocks, or the stem, of whose input nothing is known, with why.
    """

    stem: Segment | None
    segments: list[Segment]
    assumed: dict[Site, str]


def outline(case: Case, record: Record) -> Outline:
    """Run one forward pass on the meta device and return the operations of the stem and of every block.

    Args:
        case: An isolated case whose model is on meta; its batches may be anywhere.
        record: Its record, which names the blocks and has the moments of the weights (``drawn.moments``).

    Raises:
        Gap: If the model does not run this way, though it ran before.

    Cost: one forward pass of shapes. Masks, positions and other constants are computed, up to four million
    entries each. No side effects.
    """
    twin = on_shapes(case)
    shadows = Shadows(twin.model, record)
    given = zip(pytree.tree_leaves(twin.batches[0]), pytree.tree_leaves(case.batches[0]), strict=True)
    for moved, original in given:
        if isinstance(moved, Tensor):
            shadows.give(moved, original, *_layout_of_input(case.model, original))
    tape = _OutlineTape(twin.model, record, shadows)
    try:
        with unfused(), tape:
            glance(twin, record, tape.watch, graph=True)
    except CaseFailure as failure:
        raise Gap(f"the operations could not be followed: {failure}") from failure
    return Outline(tape.stem, tape.segments, tape.assumed)


def on_shapes(case: Case) -> Case:
    """Return the case with its model and its first batch on the meta device; it is not changed itself."""

    def moved(tensor: Any) -> Any:
        return tensor.to("meta") if isinstance(tensor, Tensor) else tensor

    twin = copy.copy(case)
    tensors = (*case.model.parameters(), *case.model.buffers())
    twin._model = case.model
    if not all(tensor.is_meta for tensor in tensors):
        twin._model = copy.deepcopy(case.model)._apply(moved)
    twin._batches = (pytree.tree_map(moved, case.batches[0]),)
    return twin


def _layout_of_input(model: nn.Module, tensor: Tensor) -> tuple[int, int | None]:
    return layout(model, tensor) if tensor.ndim else (-1, None)


class _OutlineTape(Tape):
    """A tape on which tensors have no numbers: what is known of those that are fixed comes from shadows."""

    def __init__(self, model: nn.Module, record: Record, shadows: Shadows) -> None:
        super().__init__(model, record)
        self.stem: Segment | None = None
        self.assumed: dict[Site, str] = {}
        self._shadows = shadows
        self._visible: dict[int, Visible] = {}

    def watch(self, hooks: Hooks) -> None:
        """Set the hooks, and one that opens what comes before the trunk."""
        super().watch(hooks)
        if ("", 1) not in self._begins:
            hooks.on_call(self._model, self._begin, lambda *_: None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if in_backward():
            return out
        first = next(filter(observable, pytree.tree_leaves(out)), None)
        if first is None or self._value(first) is None:
            self._shadows.learn(func, args, kwargs, out)
        else:
            self._see_mask(func._schema.name.removeprefix("aten::").rstrip("_"), args, first)
        return out

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = first_floating((args, kwargs))
        if self.stem is None and not self.segments and first is not None and not in_backward():
            self._open(STEM, module, first)
            self.stem = self.segments.pop()

    def _open(self, site: Site, module: nn.Module, first: Tensor | None) -> None:
        carried = first is not None and self._value(first) is not None
        self._turn(first)
        self._visible.clear()
        if first is None or first.is_complex():
            self.segments.append(Segment(site, UNIT, (), gap="no plain real tensor enters it"))
            return
        features, groups = layout(module, first)
        entering = None if carried else self._shadows.moments(first, features, groups)
        if entering is None and not carried:
            self.assumed[site] = "nothing is known of what enters it"
        # Rows of independent features have the lengths of chi-squares.
        spread = 2 / first.shape[features] if first.ndim else 0.0
        self._now = Segment(site, entering or UNIT, tuple(first.shape), spread=spread, carried=carried)
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
            # Rows that are drawn at random: the participation of a Wishart matrix.
            width = first.shape[features]
            rows = first.numel() / width
            self._now.directions = rows * width / (rows + width)
        self.segments.append(self._now)
        self._mark(first, 0)

    def _take(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_meta or self._value(value) is not None:
            return super()._take(value)
        found = self._shadows.moments(value) if value.numel() else (0.0, 0.0, 0.0)
        if found is None:
            if value.is_floating_point():
                self._lack(f"nothing is known of {self._shadows.name(value)}")
            return Fixed(math.nan, math.nan, tuple(value.shape))
        return Fixed(found[0], found[2], tuple(value.shape))

    def _facts(self, name: str, args: tuple[Any, ...]) -> tuple[float, ...]:
        if name in SOFTMAX:
            return self._keys(args[0], args[1])
        if name in BATCH_NORMS and not args[5]:
            centre, spread = self._shadows.moments(args[3]), self._shadows.moments(args[4])
            if centre is None or spread is None or abs(spread[0] - spread[2] ** 2) > 1e-6 * spread[0]:
                self._lack("its running statistics are not known")
                return 0.0, 1.0
            return centre[0], 1 / (spread[2] + args[7])
        return ()

    def _keys(self, logits: Tensor, dim: int) -> tuple[float, ...]:
        """How many keys a query sees, by the mask that was added to the logits."""
        mask = self._visible.get(key(logits))
        if mask is None:
            return float(logits.shape[dim]), 1 / logits.shape[dim]
        if isinstance(mask, str):
            self._lack(mask)
            return 1.0, 1.0
        axis = dim % logits.ndim - logits.ndim
        if mask.ndim < -axis:
            mask = mask.reshape(*(1,) * (-axis - mask.ndim), *mask.shape)
        wide = list(mask.shape)
        wide[axis] = logits.shape[dim]
        return tuple(visible_keys(mask.expand(wide), axis).tolist())

    def _see_mask(self, name: str, args: tuple[Any, ...], out: Tensor) -> None:
        """Keep what was added to a signal, or what of it was overwritten, until a softmax asks."""
        if name not in {"add", "masked_fill"} or len(args) < 2:
            return
        pair = args[:2] if name == "masked_fill" or self._is_signal(args[0]) else (args[1], args[0])
        other = pair[1]
        if not isinstance(other, Tensor) or self._is_signal(other):
            return
        numbers = self._shadows.constant(other)
        if numbers is None:
            self._visible[key(out)] = f"nothing is known of the mask, {self._shadows.name(other)}"
        elif name == "add":
            self._visible[key(out)] = numbers.float()
        else:
            self._visible[key(out)] = torch.zeros(numbers.shape).masked_fill(numbers.bool(), -math.inf)

    def _is_signal(self, value: Any) -> bool:
        return isinstance(value, Tensor) and self._value(value) is not None

    def _lack(self, what: str) -> None:
        if self._now is not None and not self._now.gap:
            self._now.gap = f"{what} on meta"
