"""Normalisations as the operations show them: over how many numbers each takes its mean and its spread."""

import math
from typing import TYPE_CHECKING, Any

import torch

from unitygain.probe.leaves import observable
from unitygain.probe.linear_maps import NORMS

if TYPE_CHECKING:
    from unitygain.probe.ops import Watch

STATISTICS = ("numbers",)
_LAYERS = frozenset({"native_layer_norm", "_fused_rms_norm"})
# The sixth argument says whether the batch's own statistics are taken; `_batch_norm_with_update` always does.
_BATCHES = frozenset({"native_batch_norm", "_native_batch_norm_legit"})
_BATCHES |= {"cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_with_update"}
OPERATIONS = _LAYERS | _BATCHES | {"native_group_norm"}


def watch(into: "Watch", name: str, args: tuple[Any, ...]) -> None:
    """Note a normalisation by the batch's own statistics in the watch."""
    if not into.wanted.get("norm") or not observable(args[0]) or not args[0].numel():
        return
    numbers = _numbers(name, args)
    if numbers and (args[0].requires_grad or not torch.is_grad_enabled()):
        seen = into.add("norm", name, args[0], numbers={"numbers": float(numbers)})
        seen.whole = seen.call is not None and isinstance(seen.call.module, NORMS)


def _numbers(name: str, args: tuple[Any, ...]) -> int:
    """Return how many numbers share a mean and a spread; 0 where those are kept ones."""
    shape = args[0].shape
    if name in _LAYERS:
        return math.prod(args[1])
    if name == "native_group_norm":
        _, channels, places, groups = args[3:7]
        return int(channels) * int(places) // int(groups)
    if name != "_batch_norm_with_update" and not args[5]:
        return 0
    return args[0].numel() // shape[1]
