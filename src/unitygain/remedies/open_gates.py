"""open_gates: shift the bias of the gate that keeps the state of an LSTM or GRU, or of a layer's gate.

In torch's GRU the update gate keeps the old state, so that it plays the part of an LSTM's forget gate. A
layer's gate is a sigmoid that multiplies a signal, as in a highway network; its bias is that of the linear
map or convolution in front of the sigmoid, which is to be given by its path.

What it changes:
    One of the two biases of that gate, once, in every chosen layer and direction; the whole bias of a linear
    map or convolution that is given by its path.

Why it helps:
    A layer whose gate is shut passes on what entered, or nothing, and the slope of the sigmoid is as small as
    the gate: neither the layer nor its gate learns.
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
from collections.abc import Collection, Iterator

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

    Linear maps and convolutions are only shifted where `sites` gives their very path: no pattern means them.

    Args:
        case: The case; biases are changed in place.
        bias: What is added before the sigmoid: a gate at 1/2 goes to 1/(1 + exp(-bias)).
        sites: Which modules, as patterns of paths or a callable; a linear map or convolution by its path.

    Returns:
        What puts the biases back, bit for bit.

    Raises:
        ValueError: If `bias` is not finite, or no chosen module has such a gate with a bias.

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
        one
        for path, module in case.model.named_modules()
        if selects(sites, path, module)
        for one in _offsets(path, module, sites)
    ]
    if not found:
        raise ValueError(
            f"no module chosen by sites={sites!r} is an nn.LSTM or nn.GRU with biases; "
            "of another gate give the path of the layer that holds its bias"
        )
    undo = keep(offset for offset, _ in found)
    with torch.no_grad():
        for offset, rows in found:
            offset[rows].add_(bias)
    return undo


def _offsets(path: str, module: nn.Module, sites: Select) -> Iterator[tuple[nn.Parameter, slice]]:
    """Yield the biases that open a module's gate, and which of their entries do."""
    if isinstance(module, GATED):
        keeps = slice(module.hidden_size, 2 * module.hidden_size)
        for name, parameter in module.named_parameters(recurse=False):
            if name.startswith("bias_ih"):
                yield parameter, keeps
    named = (sites,) if isinstance(sites, str) else sites
    own = getattr(module, "bias", None)
    if isinstance(named, Collection) and path in named and isinstance(own, nn.Parameter):
        yield own, slice(None)
