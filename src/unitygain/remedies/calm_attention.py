"""calm_attention: multiply the queries of attention, and with them its logits.

Logits are linear in the query, so that the factor is exact. The values and the rest of the model stay.

What it changes:
    Weight and bias of the query maps, once, before training.

Why it helps:
    A softmax over logits far apart is a choice of one: its entropy is near 0 and its derivative, p·(1 - p),
    nearly vanishes. Logits of the order of 1 keep the weights apart and the gradient alive. A factor of
    1/sqrt(d) is what attention without its scale is missing.

When it does not help:
    Logits that grow during training grow again: the factor acts on the start alone, where sigma_reparam, a
    norm on queries and keys or a soft cap hold all the time. A missing 1/sqrt(d) belongs into the code, where
    it also scales the gradient of the keys. Query maps without one of the usual names are not found.

What it costs:
    Nothing per step.

References:
    Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), section 3.2.1, on 1/sqrt(d). Dehghani et al.,
    "Scaling Vision Transformers to 22 Billion Parameters" (ICML 2023), section 2, on logits that grow. Zhai
    et al., "Stabilizing Transformer Training by Preventing Attention Entropy Collapse" (ICML 2023), section
    3.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.attention import Attends, find_attention
from unitygain.probe.sites import Select, selects
from unitygain.remedies._snapshot import Undo, keep

QUERIES = {"query", "q_proj", "q", "to_q", "wq", "q_lin", "query_proj", "W_q", "Wq"}
Part = tuple[Tensor, tuple[slice, ...]]
# How nearly logits are as many times smaller as the queries.
AGREE = 1e-2
PACKED = {"qkv", "c_attn", "Wqkv", "to_qkv", "qkv_proj"}


@remedy(treats=("UG701", "UG702"), changes="initial weights")
def calm_attention(case: Case, *, factor: float, sites: Select = None) -> Undo:
    """Multiply weight and bias of the query map by `factor` in every chosen attention module.

    Query maps are known by their names (``query``, ``q_proj``, ``to_q``, ...), or are the first part of
    a packed one (``in_proj_weight``, ``qkv``, ``c_attn``, ...): a third, or as many rows as a pass of a copy
    shows queries, which with fewer heads of keys and values are more. Where no name tells, that pass shows
    which maps make the queries.

    Args:
        case: The case; query parameters are changed in place.
        factor: What the logits are multiplied by.
        sites: Which attention modules, by path; all when left out.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If `factor` is not finite, no query map was found, or the rows of a packed one do not
            scale the logits.

    Side effects:
        The query parameters, in place. Packed maps cost two passes of a copy.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.MultiheadAttention(4, 2)
        >>> case = Case(model, loss=lambda m, x: m(x, x, x)[0].sum(), data=[torch.ones(3, 1, 4)])
        >>> undo = calm_attention(case, factor=0.0)
        >>> model.in_proj_weight[:4].abs().max().item(), bool(model.in_proj_weight[4:].any())
        (0.0, True)
    """
    if not math.isfinite(factor):
        raise ValueError(f"factor is {factor}; give a finite number")
    chosen = [(path, m) for path, m in case.model.named_modules() if selects(sites, path, m)]
    ran = _packed(case, sites) if any(_packs(module) for _, module in chosen) else {}
    found = [part for path, module in chosen for part in _queries(path, module, ran)]
    found = found or list(_as_they_ran(case, sites))
    if not found:
        raise ValueError(f"no query map was found in the modules chosen by sites={sites!r}")
    undo = keep(parameter for parameter, _ in found)
    if ran:
        _multiply(found, 0.5)
        after = _packed(case, sites)
        undo()
        # A scale is of what the map makes as queries: other rows would change the one and not the other.
        wrong = [path for path, one in ran.items() if path in after and not _agree(one, after[path])]
        if wrong:
            raise ValueError(
                f"the first part of what {wrong[0]} returns does not scale its logits: the queries are not "
                "there, or a norm stands behind them"
            )
    _multiply(found, factor)
    return undo


def _multiply(found: Iterable[Part], factor: float) -> None:
    with torch.no_grad():
        for parameter, index in found:
            parameter[index].mul_(factor)


def _agree(before: Attends, after: Attends) -> bool:
    """Whether the logits followed the queries; taken for granted where they are no multiple of products."""
    return not abs(after.scale - before.scale) > AGREE * before.scale


def _packs(module: nn.Module) -> bool:
    return any(name in PACKED for name, _ in module.named_children())


def _packed(case: Case, sites: Select) -> dict[str, Attends]:
    """Return the attention whose queries are a part of what a map makes, by the path of the map."""
    return {one.query.path: one for one in find_attention(case, sites) if one.query.columns is not None}


def _as_they_ran(case: Case, sites: Select) -> Iterator[Part]:
    """Yield the parameters of every map that makes queries alone."""
    for path in dict.fromkeys(
        one.query.path for one in find_attention(case, sites) if one.query.columns is None
    ):
        for parameter in case.model.get_submodule(path).parameters(recurse=False):
            yield parameter, (slice(None),)


def _queries(path: str, module: nn.Module, ran: Mapping[str, Attends]) -> Iterator[Part]:
    """Yield the query parameters of `module` or its children, with the part that is the query's."""
    if isinstance(module, nn.MultiheadAttention):
        for parameter in (module.in_proj_weight, module.in_proj_bias):
            if parameter is not None:
                yield parameter, (slice(0, module.embed_dim),)
        if module.q_proj_weight is not None:
            yield module.q_proj_weight, (slice(None),)
        return
    for name, child in module.named_children():
        if name in QUERIES | PACKED:
            across = type(child).__name__ == "Conv1D"
            part = _rows(f"{path}.{name}" if path else name, child, ran) if name in PACKED else slice(None)
            for parameter in child.parameters(recurse=False):
                yield parameter, (slice(None), part) if across and parameter.ndim == 2 else (part,)


def _rows(path: str, child: nn.Module, ran: Mapping[str, Attends]) -> slice:
    """Return the rows of a packed map that make queries, as it ran; a third where that was not seen."""
    columns = ran[path].query.columns if path in ran else None
    if columns is not None:
        return slice(*columns)
    shape = next((p.shape for p in child.parameters(recurse=False) if p.ndim == 2), (0, 0))
    if max(shape) != 3 * min(shape):
        raise ValueError(
            f"{path} packs queries with keys and values, {max(shape)} numbers of {min(shape)}, and no pass "
            "showed which are queries; choose other modules with sites="
        )
    return slice(0, min(shape))
