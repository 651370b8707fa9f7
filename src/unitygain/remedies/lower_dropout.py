"""lower_dropout: lower the share that dropout modules drop.

Puts p, the probability that a unit is dropped, where recipes have it.

What it changes:
    The p of the chosen dropout modules, and the dropout argument of nn.LSTM, nn.GRU, nn.RNN and
    nn.MultiheadAttention, wherever it is larger. No parameter is touched.

Why it helps:
    A dropout that keeps one unit in n multiplies the noise of each by sqrt(n - 1). From nine tenths on the
    next layer sees mostly noise, and every step trains a few of the weights.

When it does not help:
    Where a model overfits its few data, the dropout may have been right. A dropout that is a function
    call has its p in the forward's code, and stays.

What it costs:
    Nothing per step.

References:
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: A Simple Way to Prevent Neural
    Networks from Overfitting" (JMLR 2014), section 7.3.
"""

from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.dropouts import module_rate
from unitygain.probe.sites import Select, selects
from unitygain.remedies._snapshot import Undo


@remedy(treats=("UG612",), changes="architecture")
def lower_dropout(case: Case, *, p: float = 0.1, sites: Select = None) -> Undo:
    """Set the p of every chosen dropout that drops more to `p`.

    Args:
        case: The case; settings of its model's modules are changed in place.
        p: The probability that a unit is dropped, from 0 to below 1.
        sites: Which module paths.

    Returns:
        What puts the very same numbers back.

    Raises:
        ValueError: If `p` is not from 0 to below 1, or no chosen module drops more.

    Side effects:
        The attribute ``p`` or ``dropout`` of modules; no parameter is touched.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.97))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> undo = lower_dropout(case)
        >>> model[1].p
        0.1
    """
    if not 0 <= p < 1:
        raise ValueError(f"p is {p}; give the share to drop, from 0 to below 1, such as 0.1")
    found: list[tuple[nn.Module, str, Any]] = []
    for path, module in case.model.named_modules():
        if selects(sites, path, module) and module_rate(module) > p:
            name = "p" if isinstance(module, _DropoutNd) else "dropout"
            found.append((module, name, getattr(module, name)))
    if not found:
        raise ValueError(
            f"no module is a dropout of more than {p} here; a function call has its p in the forward's code"
        )
    for module, name, _ in found:
        setattr(module, name, p)

    def undo() -> None:
        for module, name, before in found:
            setattr(module, name, before)

    return undo
