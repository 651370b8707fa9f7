"""unit_inputs: shift and scale the floating inputs of the model to mean 0 and rms 1.

Takes away what the scale of the data alone does. Targets are not touched: only those tensors of a batch are
changed that enter the model as they are.

What it changes:
    The drawn batches. Mean and rms are those of each input tensor of the first batch and are applied to every
    batch, so that batches stay comparable.

Why it helps:
    The gradient of the first weights is proportional to the input, and so is the pre-activation: inputs in
    hundreds saturate what they enter and make the first layer's step hundreds of times larger than the
    others.

When it does not help:
    In front of a normalisation the scale of the input has no effect. One scale for a whole tensor does not
    help features whose scales differ among each other. Inputs whose zero means something (padding, counts)
    lose it. In use the same shift and scale must be applied.

What it costs:
    Nothing per step; a copy of the drawn batches.

References:
    LeCun, Bottou, Orr and Müller, "Efficient BackProp" (1998), section 4.3.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain._case import Batch, Case, fresh, random_states
from unitygain._registry import remedy
from unitygain.probe.hooks import Hooks
from unitygain.probe.trace import buffers_kept
from unitygain.remedies._snapshot import Undo
from unitygain.stats import mean, rms


class _Entered(Exception):
    """The model was called: stops the pass before it begins."""


@remedy(
    treats=("UG103", "UG203", "UG204", "UG206", "UG601", "UG605", "UG607", "UG701", "UG702"), changes="data"
)
def unit_inputs(case: Case) -> Undo:
    """Standardise what enters the model.

    Args:
        case: The case; it gets other batches in the place of its own, which are not written to.

    Returns:
        What gives the case its own batches back.

    Raises:
        ValueError: If no floating tensor of the first batch enters the model as it is, or one is constant.

    Side effects:
        ``case.batches``. The loss function is called once, up to the point where it calls the model; to its
    end where it calls parts of the model alone.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> case = Case(nn.Linear(2, 1), loss=lambda m, x: m(x).sum(), data=[torch.tensor([[0.0, 10.0]])])
        >>> undo = unit_inputs(case)
        >>> case.batches[0].tolist()
        [[-1.0, 1.0]]
    """
    before = case.batches
    places = _entering(case, before[0])
    if not places:
        raise ValueError(
            "no floating tensor of the batch enters the model as it is; scale it where the loss prepares it"
        )
    leaves = pytree.tree_leaves(before[0])
    scales: dict[int, tuple[Tensor, Tensor]] = {}
    for place in places:
        shift = mean(leaves[place])
        scale = rms(leaves[place].double() - shift)
        if not float(scale) > 0:
            raise ValueError("an input is the same number everywhere; it cannot be scaled")
        scales[place] = (shift, scale)
    case._batches = tuple(_standardise(batch, scales) for batch in before)

    def undo() -> None:
        case._batches = before

    return undo


def _standardise(batch: Batch, scales: dict[int, tuple[Tensor, Tensor]]) -> Batch:
    leaves, spec = pytree.tree_flatten(batch)
    for place, (shift, scale) in scales.items():
        leaves[place] = ((leaves[place].double() - shift) / scale).to(leaves[place].dtype)
    return pytree.tree_unflatten(leaves, spec)


def _entering(case: Case, batch: Batch) -> list[int]:
    """Return the positions of those floating leaves of the batch whose memory the model's inputs show.

    Where the loss calls parts of the model and never the model itself, those are the inputs of the parts.
    """
    model: set[int] = set()
    parts: set[int] = set()
    # A copy, in which no two tensors share memory as parts of one series do, and that the loss may write to.
    batch = fresh(batch)
    leaves = pytree.tree_leaves(batch)

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        whole = module is case.model
        (model if whole else parts).update(t.untyped_storage().data_ptr() for t in tensors)
        if whole:
            raise _Entered

    hooks = Hooks()
    for module in case.model.modules():
        hooks.on_call(module, enter, lambda *_: None)
    try:
        with random_states(), buffers_kept(case.model), torch.no_grad():
            case.loss(case.model, batch)
    except _Entered:
        parts.clear()
    finally:
        hooks.remove()
    return [
        place
        for place, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor)
        and leaf.is_floating_point()
        and leaf.untyped_storage().data_ptr() in model | parts
    ]
