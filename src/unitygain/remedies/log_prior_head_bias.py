"""log_prior_head_bias: start the output layer at the frequencies of the classes.

The first loss is then that of the best guess that does not look at the input.

What it changes:
    The bias of the output layer becomes the log of each class's share in the case's batches, with one more
    count for every class; for a binary loss per output, the log of the odds. The weights stay.

Why it helps:
    The first thing that training finds out is how frequent each class is. Where classes are rare this takes
    hundreds of steps, in which every layer gets a gradient that says nothing about the inputs. With this
    bias a head of small weights starts at the entropy of the labels, which is the loss of the best constant
    prediction.

When it does not help:
    With balanced classes it sets equal biases. A loss that starts high because the logits are large keeps its
    excess: their weights are to be made smaller (`scale_head`). The shares are those of the few batches of
    the case: a class that is not among them is taken to be rare. Where the loss weighs classes by the inverse
    of their share, equal biases are right.

What it costs:
    One forward pass over each batch of a copy, to see the labels; nothing per step.

References:
    Lin, Goyal, Girshick, He and Dollár, "Focal Loss for Dense Object Detection" (ICCV 2017), section 3.3, on
    the prior. Karpathy, "A Recipe for Training Neural Networks" (2019), "init well".
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.isolate import isolated
from unitygain.probe.linear_maps import find_weights
from unitygain.remedies._snapshot import Undo, keep

CLASSES = ("nll_loss_forward", "nll_loss2d_forward")
BINARY = ("binary_cross_entropy_with_logits", "binary_cross_entropy")


class _Labels(TorchDispatchMode):
    """Counts the labels of every cross-entropy while its context is open."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[tuple[str, int], Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and look at its labels if it is a loss."""
        name = func._schema.name.removeprefix("aten::")
        if name in CLASSES:
            classes = args[0].shape[1 if args[0].ndim > 1 else 0]
            kept = args[1][args[1] != args[4]]
            self._add(("classes", classes), torch.bincount(kept.flatten(), minlength=classes).double())
        elif name in BINARY and args[1].ndim > 0:
            rows = args[1].double().reshape(-1, args[1].shape[-1] if args[1].ndim > 1 else 1)
            on = torch.ones(len(rows), dtype=torch.float64, device=rows.device) @ rows
            self._add(("binary", len(on)), torch.stack([on, len(rows) - on]))
        return func(*args, **(kwargs or {}))

    def _add(self, what: tuple[str, int], counts: Tensor) -> None:
        self.counts[what] = self.counts.get(what, 0.0) + counts


@remedy(treats=("UG605",), changes="initial weights", instead_of=("scale_head",))
def log_prior_head_bias(case: Case, *, site: str = "") -> Undo:
    """Set the bias of the output layer to the log of the classes' shares.

    Args:
        case: The case; one bias is changed in place.
        site: Path of the layer; the last linear map in order of registration when left out.

    Returns:
        What puts the bias back, bit for bit.

    Raises:
        ValueError: If the loss shows no labels of a cross-entropy, or the layer has no bias of their number.

    Side effects:
        One bias, in place.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> data = [(torch.randn(6, 4), torch.tensor([0, 0, 0, 0, 1, 1]))]
        >>> case = Case(nn.Linear(4, 2), lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), data)
        >>> undo = log_prior_head_bias(case)
        >>> [round(share, 3) for share in case.model.bias.softmax(0).tolist()]
        [0.625, 0.375]
    """
    weights = list(find_weights(case.model, site or None))
    if not weights:
        raise ValueError(f"there is no linear map at {site or 'any path'}; give the path of the output layer")
    bias = getattr(weights[-1].module, "bias", None)
    if not isinstance(bias, nn.Parameter):
        raise ValueError(f"the output layer at {weights[-1].path or 'the model'} has no bias to set")
    counts = _count(case)
    for kind in ("classes", "binary"):
        seen = counts.get((kind, len(bias)))
        if seen is not None:
            undo = keep([bias])
            with torch.no_grad():
                bias.copy_(_biases(kind, seen))
            return undo
    raise ValueError(
        f"no cross-entropy with labels of {len(bias)} classes is seen in the loss; give the path of the "
        "output layer with site="
    )


def _count(case: Case) -> dict[tuple[str, int], Tensor]:
    labels = _Labels()
    with isolated(case) as (twin, _), torch.no_grad():
        for batch in twin.batches:
            with labels:
                twin.compute_loss(batch)
    return labels.counts


def _biases(kind: str, counts: Tensor) -> Tensor:
    if kind == "classes":
        total = torch.ones_like(counts) @ (counts + 1)
        return ((counts + 1) / total).log()
    return ((counts[0] + 1) / (counts[1] + 1)).log()
