"""forget_bias: start the gates that keep the state of LSTMs and GRUs open.

The effective bias of the keeping gate is set, not shifted: torch adds two biases per gate, so that setting
both to 1, as is often seen, opens it to sigmoid(2) = 0.88 instead of sigmoid(1) = 0.73.

What it changes:
    Both biases of one gate in every chosen nn.LSTM, nn.GRU and cell of one, all layers and directions. The
    gates of an LSTM are stacked as i, f, g, o, those of a GRU as r, z, n; f and z are the second quarter or
    third. The input's bias gets the value, the state's bias zero.

Why it helps:
    The gradient through one step of an LSTM is about the opening of its forget gate. Half open, it is
    halved at every step; at a bias of 1 it keeps 0.73, at 4 it keeps 0.982. In torch's GRU the update gate z
    multiplies the old state, so that it plays the same part.

When it does not help:
    A bias of 1 is a habit for tens of steps: 0.73 to the power of 100 is 1e-14. For longer memories take a
    bias of about the log of the number of steps, or `chrono`. It does nothing against a gradient that
    explodes, and little where weights or inputs are so large that they outweigh the bias.

What it costs:
    Nothing per step. Gates that are open at the start forget late: what should be forgotten has to be
    learned. A known state of a trained model is overwritten.

References:
    Gers, Schmidhuber and Cummins, "Learning to Forget" (Neural Computation 2000). Jozefowicz, Zaremba and
    Sutskever, "An Empirical Exploration of Recurrent Network Architectures" (ICML 2015), section 2.2.
"""

import math

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._recurrent import GATED, KEEPING, bias_pairs, find_recurrent, set_gate
from unitygain.remedies._snapshot import Undo, keep


@remedy(treats=("UG401", "UG404", "UG405"), changes="initial weights", instead_of=("open_gates",))
def forget_bias(case: Case, *, sites: Select = None, bias: float = 1.0) -> Undo:
    """Set the effective bias of the keeping gate in every chosen LSTM and GRU, or cell of one.

    Args:
        case: The case; biases are changed in place.
        sites: Which module paths.
        bias: The sum of the gate's two biases; the gate starts at about sigmoid(bias).

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
        >>> undo = forget_bias(case)
        >>> (model.bias_ih_l0 + model.bias_hh_l0)[4:8].tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    if not math.isfinite(bias):
        raise ValueError(f"bias is {bias}; give a finite number")
    modules = find_recurrent(case.model, sites, GATED)
    pairs = [(pair, module.hidden_size) for _, module in modules for pair in bias_pairs(module)]
    if not pairs:
        raise ValueError(f"no module chosen by sites={sites!r} is an nn.LSTM or nn.GRU with biases")
    undo = keep(bias for pair, _ in pairs for bias in pair)
    for pair, hidden in pairs:
        set_gate(pair, KEEPING, hidden, bias)
    return undo
