"""qk_norm: normalise queries and keys of every head before they are multiplied.

Keeps logits bounded by what can be learned, whatever the weights of queries and keys do.

What it changes:
    The queries and the keys of each head get an RMSNorm with a scale of their own, behind the maps that
    make them. Attention is found by what runs: a softmax of products of what two linear maps, or one
    packed map, return. An nn.MultiheadAttention is held by a module that computes the same from the same
    parameters, with the norms in between.

Why it helps:
    A logit is then at most sqrt(d) times the two scales, however large the weights grow: the softmax cannot
    come to take one key alone, and its derivative stays.

When it does not help:
    Where attention averages because logits are too small: the scales start at 1. Where the scale 1/sqrt(d)
    is missing, norms hide it and restore_logit_scale says it. A trained model has to be trained again.
    Fused kernels that multiply without a softmax of their own are not seen.

What it costs:
    Two norms over queries and keys, and an nn.MultiheadAttention runs without its fused kernel. The map's
    parameters are saved under ``NAME.held``.

References:
    Henry, Dachapally, Pawar and Chen, "Query-Key Normalization for Transformers" (Findings of EMNLP 2020),
    section 2; Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters" (ICML 2023), section
    2.
"""

from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.attention import Attends, Side, find_attention
from unitygain.probe.sites import Select, selects
from unitygain.remedies._attend import HeadNorm, OpenAttention, can_open
from unitygain.remedies._beside import Followed
from unitygain.remedies._held import hold
from unitygain.remedies._norm_order import put
from unitygain.remedies._snapshot import Undo, all_or_nothing, backwards

# How much the lengths of normalised queries may differ: rounding, in 16 bits too.
EVEN = 0.02


@remedy(treats=("UG701", "UG702"), changes="architecture", instead_of=("calm_attention",))
def qk_norm(case: Case, *, sites: Select = None) -> Undo:
    """Put an RMSNorm behind the queries and the keys of every head.

    Args:
        case: The case; maps or attention modules are held by others, and an optimizer instance is given the
            norms.
        sites: Which attention modules, by path; all when left out.

    Returns:
        What puts the modules back.

    Raises:
        ValueError: If no chosen module attends in a way that is known, or heads cannot be told apart.

    Side effects:
        The model's submodules. Costs two forward passes of copies of the model.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> case = Case(nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16)), lambda m, x: m(x).sum(),
        ...             [torch.ones(3, 1, 8)])
        >>> undo = qk_norm(case)
        >>> case.model[0].self_attn.query_norm
        RMSNorm((4,), eps=None, elementwise_affine=True)
    """
    model = case.model
    found = find_attention(case, sites)
    whole = [m for path, m in model.named_modules() if path and can_open(m) and selects(sites, path, m)]
    if not found and not whole:
        raise ValueError("no chosen module attends with queries and keys from linear maps that are modules")
    sides = {side: one for one in found for side in (one.query, one.key)}
    with all_or_nothing() as undos:
        for module in whole:
            undos += _open(case, module)
        for side, one in sides.items():
            undos += _behind(case, side, one)
        uneven = [one.path for one in find_attention(case, sites) if one.spread > EVEN]
        if found and uneven:
            raise ValueError(f"the heads of {uneven[0]} could not be told apart in what its maps return")
    return backwards(undos)


def _open(case: Case, module: nn.Module) -> list[Undo]:
    weight = next(module.parameters())
    assert isinstance(module, nn.MultiheadAttention)
    query, key = (nn.RMSNorm(module.head_dim, device=weight.device, dtype=weight.dtype) for _ in range(2))
    new = OpenAttention(module, query, key).train(module.training)
    return [hold(case, [*query.parameters(), *key.parameters()]), put(case.model, module, new)]


def _behind(case: Case, side: Side, one: Attends) -> list[Undo]:
    """Put the norm behind a map; a packed one gets one for its queries and another for its keys."""
    path = side.path
    module = case.model.get_submodule(path)
    map_ = module
    while isinstance(map_, Followed):
        map_ = map_.held
    weight = next(map_.parameters())
    norm = nn.RMSNorm(one.width, device=weight.device, dtype=weight.dtype)
    new = Followed(module, HeadNorm(norm, one.width, side.columns)).train(module.training)
    return [hold(case, norm.parameters()), put(case.model, module, new)]
