"""pre_norm: normalise what a branch reads, x + f(norm(x)), in the place of the sum, norm(x + f(x)).

The skip path then passes every block unchanged, and only the branches read a normalised stream.

What it changes:
    Every norm moves from the sum of the stream and a branch to the entrance of that branch, with its own
    scale and shift; what leaves the last block gets a norm of its own, if nothing normalises it yet.
    torch's encoder and decoder layers are told to do so (``norm_first``). Elsewhere the stream, the branch
    and what reads the stream are found in one pass; the norm's place then hands the sum on, and the modules
    that read the stream are handed its norm. Before anything is changed, a copy is changed and compared with
    branches of the original that are evaluated where they should now be.

Why it helps:
    A norm on the sum divides the skip path too, so that nothing passes through all blocks unchanged: the
    gradient is multiplied by every norm's slope, and attention that averages outweighs the stream more in
    each block. With the norm in the branch the skip path has gain 1 and each block adds its share to a
    stream that grows as sqrt(depth).

When it does not help:
    Where the gradient is fine and training diverges for another reason. A few layers of Post-LN with a
    warm-up train as well, and often end a little better. In very deep Pre-LN models the last branches add
    little to a large stream. A model that has been trained in the other order has to be trained again.

What it costs:
    One more norm at the end. A norm is computed again for each module that reads the stream, such as separate
    query, key and value maps. Checkpoints have the moved norm under ``NAME.held``.

References:
    Xiong et al., "On Layer Normalization in the Transformer Architecture" (ICML 2020), section 3 and theorem
    1; Nguyen and Salazar, "Transformers without Tears" (IWSLT 2019), section 2.2; Liu et al., "Understanding
    the Difficulty of Training Transformers" (EMNLP 2020), section 3.
"""

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.hooks import uncompiled
from unitygain.probe.sites import Select
from unitygain.probe.wiring import wire
from unitygain.remedies._norm_check import check_order
from unitygain.remedies._norm_order import plan_order, turn
from unitygain.remedies._snapshot import Undo


@remedy(
    treats=("UG101", "UG102", "UG205"),
    changes="architecture",
    instead_of=("scale_branch", "bypass_norm"),
)
def pre_norm(case: Case, *, sites: Select = None) -> Undo:
    """Turn Post-LN blocks into Pre-LN blocks with the same weights.

    Args:
        case: The case; its model is changed in place, and an optimizer instance is given the new norm.
        sites: Which blocks, or single norms, by path; all that normalise a sum when left out.

    Returns:
        What puts the very same modules back.

    Raises:
        ValueError: If no chosen module normalises the sum of a stream and a branch, or it cannot be done
            exactly; the message says why.

    Side effects:
        The model's submodules and hooks. Costs one copy of the model and three forward passes of it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        >>> case = Case(nn.TransformerEncoder(layer, 2), loss=lambda m, x: m(x).sum(),
        ...             data=[torch.ones(2, 3, 8)])
        >>> undo = pre_norm(case)
        >>> case.model.layers[0].norm_first, case.model.norm
        (True, LayerNorm((8,), eps=1e-05, elementwise_affine=True, bias=True))
    """
    try:
        twin = case.copy(share=True)
    except Exception as error:
        raise ValueError(
            f"the model cannot be copied ({type(error).__name__}: {error}), which is needed to check the "
            "new order before the model is changed"
        ) from error
    with uncompiled():
        order = plan_order(wire(twin), twin.model, sites)
        check_order(twin, order)
    return turn(case, order)
