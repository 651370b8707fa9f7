"""chrono: give the units of LSTMs and GRUs memories of all lengths up to that of the sequence.

The bias of each unit's forget gate is drawn as log U(1, T - 1) for a length of T steps, and the bias of its
input gate is the opposite, so that the unit averages over about the time that it keeps.

What it changes:
    Both biases of the forget and the input gate in every chosen nn.LSTM and nn.LSTMCell; of the update gate
    in GRUs, whose one gate does both. torch adds two biases per gate: the first gets the value, the second
    zero. T is the longest sequence that the modules run over in the case's batches, where it is not given.

Why it helps:
    A gate with bias b keeps a state for about 1 + exp(b) steps. With b = log U(1, T - 1) these times are
    spread from 2 to T, so that some units reach back to the start of the sequence. At T = 100 no bias is
    above 4.59, where half of the state is left after 69 steps.

When it does not help:
    Where the needed memory is much shorter than the sequence, open gates only add noise. The gradient at
    the first step still falls by a factor of about e to the longest time that was drawn, and a loss at
    every step hides it. It does nothing against a gradient that explodes.

What it costs:
    One forward pass over each batch to see T, unless it is given; nothing per step. Input gates that start
    nearly closed make the first states small.

References:
    Tallec and Ollivier, "Can recurrent neural networks warp time?" (ICLR 2018), on the
    chrono initialiser.
"""

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._recurrent import (
    ENTERING,
    GATED,
    KEEPING,
    LSTMS,
    bias_pairs,
    count_steps,
    find_recurrent,
    set_gate,
)
from unitygain.remedies._snapshot import Undo, keep

FEWEST = 3


@remedy(treats=("UG401", "UG404", "UG405"), changes="initial weights", instead_of=("open_gates",))
def chrono(case: Case, *, sites: Select = None, steps: int | None = None, seed: int = 0) -> Undo:
    """Draw the biases of the gates that keep and let in, for memories of up to `steps` steps.

    Args:
        case: The case; biases are changed in place.
        sites: Which module paths.
        steps: The longest time that is to be remembered; that of the case's own sequences when left out.
        seed: Seed of the draw.

    Returns:
        What puts the biases back, bit for bit.

    Raises:
        ValueError: If no chosen module is an LSTM or GRU with biases, or `steps` is below 3.

    Side effects:
        The biases, in place.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.LSTM(2, 64)
        >>> case = Case(model, loss=lambda m, x: m(x)[0].sum(), data=[torch.ones(100, 1, 2)])
        >>> undo = chrono(case)
        >>> enter, keep = (model.bias_ih_l0 + model.bias_hh_l0)[:128].chunk(2)
        >>> bool((enter == -keep).all()), round(keep.exp().max().item()) <= 99
        (True, True)
    """
    chosen = [
        (path, module)
        for path, module in find_recurrent(case.model, sites, GATED)
        if any(True for _ in bias_pairs(module))
    ]
    if not chosen:
        raise ValueError(f"no module chosen by sites={sites!r} is an nn.LSTM or nn.GRU with biases")
    longest = count_steps(case, [path for path, _ in chosen]) if steps is None else steps
    if longest < FEWEST:
        raise ValueError(f"the memory is to reach over {longest} steps; chrono needs {FEWEST} or more")
    source = torch.Generator().manual_seed(seed)
    undo = keep(bias for _, module in chosen for pair in bias_pairs(module) for bias in pair)
    for _, module in chosen:
        for pair in bias_pairs(module):
            times = 1 + (longest - 2) * torch.rand(module.hidden_size, generator=source, dtype=torch.float64)
            set_gate(pair, KEEPING, module.hidden_size, times.log().to(pair[0]))
            if isinstance(module, LSTMS):
                set_gate(pair, ENTERING, module.hidden_size, -times.log().to(pair[0]))
    return undo
