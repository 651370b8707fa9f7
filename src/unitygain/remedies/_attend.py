"""The parts that change attention: they travel with copies and pickles of a model."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unitygain.probe.attention import Columns
from unitygain.remedies._ahead import read_through


class Times(nn.Module):
    """Multiplies a part of the last dimension.

    Args:
        factor: The factor.
        columns: From where to where; all for None.
    """

    def __init__(self, factor: float, columns: Columns) -> None:
        super().__init__()
        self.factor = factor
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        """Return x with that part multiplied."""
        return changed(x, self.columns, lambda part: part * self.factor)


class HeadNorm(nn.Module):
    """Normalises every head of a part of the last dimension.

    Args:
        norm: The norm over the numbers of one head.
        width: Numbers per head.
        columns: From where to where; all for None.
    """

    def __init__(self, norm: nn.Module, width: int, columns: Columns) -> None:
        super().__init__()
        self.each = norm
        self.width = width
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        """Return x with that part normalised."""
        return changed(x, self.columns, self._normal)

    def _normal(self, x: Tensor) -> Tensor:
        return self.each(x.unflatten(-1, (-1, self.width))).flatten(-2)


def changed(x: Tensor, columns: Columns, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return x with a change of these columns of its last dimension, or of all of it for None."""
    if columns is None:
        return change(x)
    start, stop = columns
    parts = [x[..., :start], change(x[..., start:stop]), x[..., stop:]]
    return torch.cat([part for part in parts if part.shape[-1]], -1)


class OpenAttention(nn.Module):
    """The attention of an nn.MultiheadAttention written out, where queries, keys and logits can be changed.

    Args:
        held: The module, whose parameters are used.
        query_norm: Applied to the queries of every head.
        key_norm: Applied to the keys of every head.
        cap: Bound of the logits, cap·tanh(logits / cap); none where it is infinite.
    """

    def __init__(
        self, held: nn.Module, query_norm: nn.Module, key_norm: nn.Module, cap: float = math.inf
    ) -> None:
        super().__init__()
        self.held = held
        self.query_norm = query_norm
        self.key_norm = key_norm
        self.cap = cap
        # The layers of torch look at this before they compute the whole layer in one kernel.
        self._qkv_same_embed_dim = False

    def __getattr__(self, name: str) -> Any:
        """Let the model read the module's own attributes."""
        return read_through(self, "held", name)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what nn.MultiheadAttention returns."""
        held: Any = self.held
        single, first = query.ndim == 2, held.batch_first and query.ndim == 3
        given = [x[None] if single else x if first else x.transpose(0, 1) for x in (query, key, value)]
        q, k, v = (
            nn.functional.linear(x, weight, bias).unflatten(-1, (held.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(given, *_maps(held), strict=True)
        )
        q, k = self.query_norm(q), self.key_norm(k)
        logits = q @ k.mT / math.sqrt(q.shape[-1])
        if math.isfinite(self.cap):
            logits = self.cap * torch.tanh(logits / self.cap)
        weights = torch.softmax(_masked(logits, attn_mask, key_padding_mask), -1)
        weights = nn.functional.dropout(weights, held.dropout, self.training)
        out = held.out_proj((weights @ v).transpose(1, 2).flatten(-2))
        out = out[0] if single else out if first else out.transpose(0, 1)
        if not need_weights:
            return out, None
        shown = sum(weights.unbind(1)) / held.num_heads if average_attn_weights else weights
        assert isinstance(shown, Tensor)
        return out, shown[0] if single else shown


def _maps(held: Any) -> tuple[list[Tensor], list[Tensor | None]]:
    """Weights and biases of queries, keys and values."""
    packed = held.in_proj_weight
    weights = (
        [held.q_proj_weight, held.k_proj_weight, held.v_proj_weight] if packed is None else packed.chunk(3)
    )
    biases = [None] * 3 if held.in_proj_bias is None else held.in_proj_bias.chunk(3)
    return list(weights), list(biases)


def _masked(logits: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
    """Add masks: True, or minus infinity, is not attended to."""
    if mask is not None:
        mask = mask.unflatten(0, logits.shape[:2]) if mask.ndim == 3 else mask
        logits = logits.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else logits + mask
    if padding is not None:
        padding = padding[None, None, None] if padding.ndim == 1 else padding[:, None, None]
        logits = logits.masked_fill(padding, -math.inf) if padding.dtype == torch.bool else logits + padding
    return logits


def can_open(module: nn.Module) -> bool:
    """Whether an attention module of torch is one that OpenAttention writes out."""
    own = isinstance(module, nn.MultiheadAttention) and type(module).forward is nn.MultiheadAttention.forward
    return own and module.bias_k is None and not module.add_zero_attn
