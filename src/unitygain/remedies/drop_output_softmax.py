"""drop_output_softmax: take the softmax or sigmoid at the end of the model away.

For a loss that takes logits. Only a module that is registered last and whose output is the model's own is
taken: a softmax that is a function call in the user's forward has no module to replace.

What it changes:
    An identity stands in the place of the module that makes the model's output.

Why it helps:
    Cross-entropy holds its own softmax. A second one before it squeezes the logits into 0 to 1: the loss
    cannot fall below ln(1 + (n - 1)/e) for n classes, and the gradient is that of nearly equal probabilities.

When it does not help:
    Where the loss takes probabilities (nn.BCELoss, nn.NLLLoss of the logarithm, a squared error) the softmax
    is right, and without it the loss is wrong or fails. Code that reads probabilities from the model must
    from now on apply the softmax itself.

What it costs:
    Nothing; one operation is saved.

References:
    The losses that hold their own softmax or sigmoid are named in the documentation of
    torch.nn.CrossEntropyLoss and torch.nn.BCEWithLogitsLoss.
"""

from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case, random_states
from unitygain._registry import remedy
from unitygain.probe.hooks import Hooks
from unitygain.remedies._snapshot import Undo, swap

SQUASHES = (nn.Softmax, nn.Softmax2d, nn.Sigmoid)


@remedy(treats=("UG606",), changes="architecture")
def drop_output_softmax(case: Case) -> Undo:
    """Replace the softmax or sigmoid module that makes the model's output by an identity.

    Args:
        case: The case; its model is changed in place.

    Returns:
        What puts the very same module back.

    Raises:
        ValueError: If no module of that kind makes the model's output.

    Side effects:
        One module. Costs a copy of the model and one forward pass of it, to see which.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Softmax(-1))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> undo = drop_output_softmax(case)
        >>> model[1]
        Identity()
    """
    path = _maker(case.copy())
    if path is None:
        raise ValueError("no softmax or sigmoid module makes the model's output; take it out of the forward")
    last = case.model.get_submodule(path)
    return swap(case.model, None, lambda child: nn.Identity() if child is last else None, "such a softmax")


def _maker(case: Case) -> str | None:
    """Path of the squashing module whose very output the model returns on the first batch."""
    made: dict[int, tuple[str, Tensor]] = {}
    returned: list[Any] = []
    hooks = Hooks()

    def watch(path: str) -> None:
        def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if isinstance(module, SQUASHES):
                made[id(output)] = path, output
            if module is case.model:
                returned.append(output)

        hooks.on_call(case.model.get_submodule(path), lambda *_: None, see)

    for path, _ in case.model.named_modules():
        watch(path)
    try:
        with random_states(), torch.no_grad():
            case.compute_loss(case.batches[0])
    finally:
        hooks.remove()
    found = made.get(id(returned[-1])) if returned else None
    return found[0] if found and found[0] else None
