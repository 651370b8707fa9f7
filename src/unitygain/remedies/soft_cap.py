"""soft_cap: bound the logits of attention smoothly, cap·tanh(logits / cap).

A bound that is smooth, so that logits below it keep their gradient.

What it changes:
    What goes into the softmax of attention passes cap·tanh(·/cap). An nn.Softmax gets it in front; an
    nn.MultiheadAttention is held by a module that computes the same from the same parameters; any other
    module in whose forward torch's softmax or scaled_dot_product_attention runs is held by one that
    changes just these calls while it runs. Entries below -1000 are masks and stay.

Why it helps:
    No logit is beyond the cap, so that no key takes all by more than e^(2·cap); small logits stay as they
    are. A loss cannot be driven by one logit that grows without bound.

When it does not help:
    Behind logits that are far beyond the cap already its own slope vanishes: at twice the cap 0.07 of the
    gradient passes. There the scale is what to change (calm_attention, restore_logit_scale, qk_norm). With
    qk_norm it is not needed.

What it costs:
    A tanh per logit, and attention runs without its fused kernel: memory grows with the square of the
    length. Parameters are saved under ``NAME.held``.

References:
    Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size" (2024), section 2, logit
    soft-capping; Bello et al., "Neural Combinatorial Optimization with Reinforcement Learning" (2016),
    section A.1.
"""

import math

from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.attention import PRODUCTS, SOFTMAX, back
from unitygain.probe.hooks import Hooks
from unitygain.probe.isolate import isolated
from unitygain.probe.sites import Select, selects
from unitygain.probe.wiring import wire
from unitygain.remedies._attend import OpenAttention, can_open
from unitygain.remedies._capped import CapInput, Capped
from unitygain.remedies._norm_order import put
from unitygain.remedies._snapshot import Undo, all_or_nothing, backwards


@remedy(treats=("UG701", "UG702"), changes="architecture", instead_of=("calm_attention",))
def soft_cap(case: Case, *, cap: float = 50.0, sites: Select = None) -> Undo:
    """Bound the logits of attention by `cap`.

    Args:
        case: The case; attention modules are held by others, softmax modules get a hook.
        cap: The bound.
        sites: Which attention modules, by path; all when left out.

    Returns:
        What puts the modules back.

    Raises:
        ValueError: If `cap` is not a positive number, or no chosen module runs a softmax of products.

    Side effects:
        The model's submodules and hooks. Costs a forward pass of a copy of the model.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> case = Case(nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16)), lambda m, x: m(x).sum(),
        ...             [torch.ones(3, 1, 8)])
        >>> undo = soft_cap(case, cap=30.0)
        >>> case.model[0].self_attn.cap
        30.0
    """
    if not (cap > 0 and math.isfinite(cap)):
        raise ValueError(f"cap is {cap}; give a positive number, such as 50.0")
    model, hooks = case.model, Hooks()
    whole = [m for path, m in model.named_modules() if path and can_open(m) and selects(sites, path, m)]
    paths = _attending(case, sites)
    if not whole and not paths:
        raise ValueError("no chosen module runs a softmax of products of queries and keys")
    with all_or_nothing() as undos:
        undos.append(hooks.remove)
        for module in whole:
            opened = OpenAttention(module, nn.Identity(), nn.Identity(), cap).train(module.training)
            undos.append(put(model, module, opened))
        for path in paths:
            module = model.get_submodule(path)
            if isinstance(module, nn.Softmax):
                hooks.change_input(module, CapInput(cap))
            else:
                undos.append(put(model, module, Capped(module, cap).train(module.training)))
    return backwards(undos)


def _attending(case: Case, sites: Select) -> list[str]:
    """Paths of the modules in whose own forward a softmax of products runs."""
    with isolated(case) as (twin, _):
        wiring = wire(twin)
    found = {
        step.call.path: None
        for step in wiring.steps
        if step.name in SOFTMAX
        and step.call is not None
        and step.call.path
        and not isinstance(step.call.module, nn.MultiheadAttention)
        and any(selects(sites, call.path, call.module) for call in step.call.around())
        and back(wiring, step.reads[0], PRODUCTS)
    }
    return list(found)
