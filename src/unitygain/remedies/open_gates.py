"""open_gates: shift the bias of the gate that keeps the state of an LSTM or GRU.

In torch's GRU the update gate keeps the old state, so that it plays the part of an LSTM's forget gate.

What it changes:
    One of the two biases of that gate, once, in every chosen layer and direction.

Why it helps:
    The gradient through one step is about the gate's opening. With PyTorch's default biases it is half open,
    and a hundred steps lose thirty decimals; a bias of b keeps for about exp(b) steps.

When it does not help:
    A gate that is open keeps: a task that must forget at once starts slower. A bias far above ln(steps)
    remembers longer than the sequences are and saturates the gate, whose own gradient then vanishes. What is
    forgotten for lack of a task that needs it (a loss at every step) was no fault. A plain RNN has no gate:
    orthogonal_weights is for it.

What it costs:
    Nothing per step.

References:
    Gers, Schmidhuber and Cummins, "Learning to Forget" (Neural Computation 2000). Jozefowicz, Zaremba and
    Sutskever, "An Empirical Exploration of Recurrent Network Architectures" (ICML 2015), section 2.2. Tallec
    and Ollivier, "Can recurrent neural networks warp time?" (ICLR 2018), section 2, on biases and time
    scales.
"""

import math

import torch
from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select, selects
from unitygain.remedies._snapshot import Undo, keep

GATED = (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell)


@remedy(treats=("UG401", "UG404", "UG405"), changes="initial weights")
def open_gates(case: Case, *, bias: float, sites: Select = None) -> Undo:
    """Add `bias` to the keeping gate's bias in every chosen LSTM and GRU, or cell of one, in all layers.

    Args:
        case: The case; biases are changed in place.
        bias: What is added before the sigmoid: a gate at 1/2 goes to 1/(1 + exp(-bias)).
        sites: Which module paths.

    Returns:
        What puts the biases back, bit for bit.

    Raises:
        ValueError: If `bias` is not finite, or no chosen module is an LSTM or GRU with biases.

    Side effects:
        The biases, in place.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.LSTM(2, 4)
        >>> case = Case(model, loss=lambda m, x: m(x)[0].sum(), data=[torch.ones(3, 1, 2)])
        >>> before = model.bias_ih_l0[4:8].clone()
        >>> undo = open_gates(case, bias=3.0)
        >>> torch.allclose(model.bias_ih_l0[4:8] - before, torch.tensor(3.0))
        True
    """
    if not math.isfinite(bias):
        raise ValueError(f"bias is {bias}; give a finite number")
    found = [
        (parameter, module.hidden_size)
        for path, module in case.model.named_modules()
        if isinstance(module, GATED) and selects(sites, path, module)
        for name, parameter in module.named_parameters(recurse=False)
        if name.startswith("bias_ih")
    ]
    if not found:
        raise ValueError(f"no module chosen by sites={sites!r} is an nn.LSTM or nn.GRU with biases")
    undo = keep(parameter for parameter, _ in found)
    with torch.no_grad():
        for parameter, hidden in found:
            parameter[hidden : 2 * hidden].add_(bias)
    return undo
