"""The parts that bound what goes into a softmax: they travel with copies and pickles of a model."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unitygain.probe.attention import MASKED
from unitygain.remedies._ahead import read_through

SOFTMAXES = (torch.softmax, Tensor.softmax, nn.functional.softmax)


def bound(logits: Tensor, cap: float) -> Tensor:
    """Return cap·tanh(logits / cap); what is masked stays."""
    return torch.where(logits > MASKED, cap * torch.tanh(logits / cap), logits)


class CapInput:
    """A hook: a softmax module reads bounded logits.

    Args:
        cap: The bound.
    """

    def __init__(self, cap: float) -> None:
        self.cap = cap

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments with the first bounded."""
        return (bound(args[0], self.cap), *args[1:]), kwargs


class Capped(nn.Module):
    """An attention module whose softmax reads bounded logits.

    Args:
        held: The module; softmax and scaled_dot_product_attention are changed while it runs.
        cap: The bound.
    """

    def __init__(self, held: nn.Module, cap: float) -> None:
        super().__init__()
        self.held = held
        self.cap = cap

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module returns."""
        with _Cap(self.cap):
            return self.held(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Let the model read the module's own attributes."""
        return read_through(self, "held", name)


class _Cap(TorchFunctionMode):
    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in SOFTMAXES:
            name = "input" if "input" in kwargs else "self" if "self" in kwargs else ""
            if name:
                kwargs[name] = bound(kwargs[name], self.cap)
            else:
                args = (bound(args[0], self.cap), *args[1:])
            return func(*args, **kwargs)
        if func is nn.functional.scaled_dot_product_attention:
            return attend(self.cap, *args, **kwargs)
        return func(*args, **kwargs)


def attend(
    cap: float,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return scaled dot product attention with bounded logits, as torch's documentation writes it out."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    logits = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    logits = cap * torch.tanh(logits / cap)
    if is_causal:
        ahead = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(ahead, -math.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        logits = logits + attn_mask
    return nn.functional.dropout(torch.softmax(logits, -1), dropout_p, dropout_p > 0) @ value
