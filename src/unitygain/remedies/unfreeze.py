"""unfreeze: let frozen parameters train.

Sets requires_grad on the chosen parameters, and gives them to the optimizer where it does not hold them.

What it changes:
    ``requires_grad`` of the chosen parameters, and the groups of an optimizer that was built without them.

Why it helps:
    A parameter without it gets no gradient and no optimizer moves it. A layer that was frozen for a warm-up
    and never freed stays at its random start.

When it does not help:
    A frozen part is often frozen on purpose: fine-tuning, a fixed embedding, a teacher. An optimizer that
    takes no further group, as LBFGS does not, has to be built again by hand (UG604).

What it costs:
    Their gradients, the optimizer's state for them, and the backward pass down to the lowest of them.

References:
    The behaviour of requires_grad is in PyTorch's notes on "Locally disabling gradient computation".
"""

import fnmatch
from contextlib import suppress

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo, backwards
from unitygain.remedies.hold_parameters import hold_parameters


@remedy(treats=("UG603", "UG604"), changes="optimizer")
def unfreeze(case: Case, *, names: str = "*") -> Undo:
    """Set requires_grad on the frozen parameters whose name matches `names`.

    Args:
        case: The case; its model is changed in place.
        names: A parameter's name, or a pattern.

    Returns:
        What freezes the same parameters again, and takes them out of the optimizer.

    Raises:
        ValueError: If no frozen floating parameter matches.

    Side effects:
        ``requires_grad`` of the chosen parameters, and ``case.optimizer`` where it does not hold them.

    Example:
        >>> from torch import nn
        >>> layer = nn.Linear(1, 1).requires_grad_(False)
        >>> case = Case(layer, loss=lambda m, x: m(x).sum(), data=[])
        >>> undo = unfreeze(case, names="bias")
        >>> [name for name, p in layer.named_parameters() if p.requires_grad]
        ['bias']
    """
    chosen = [
        parameter
        for name, parameter in case.model.named_parameters()
        if not parameter.requires_grad
        and (parameter.is_floating_point() or parameter.is_complex())
        and fnmatch.fnmatchcase(name, names)
    ]
    if not chosen:
        raise ValueError(
            f"no frozen floating parameter is named {names!r}; see the report for those that are"
        )
    for parameter in chosen:
        parameter.requires_grad_(True)

    def freeze() -> None:
        for parameter in chosen:
            parameter.requires_grad_(False)

    undos = [freeze]
    # Refused where there is no optimizer, or one that holds them already.
    with suppress(ValueError):
        undos.append(hold_parameters(case, names=names))
    return backwards(undos)
