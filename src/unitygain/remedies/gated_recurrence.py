"""gated_recurrence: the line that puts an LSTM in the place of a plain recurrence; it is not applied.

A suggestion with its code, since the code around a recurrence has to change with it.

What it changes:
    Nothing. It says which line to write: an LSTM returns another state than an RNN, (h, c) for h, so that
    the code around it has to change too, and its weights cannot be made from the RNN's.

Why it helps:
    In h' = tanh(W h + U x) the gradient passes W and a slope below 1 at every step. An LSTM's cell passes
    it through a forget gate alone, c' = f·c + i·g: with a bias that keeps f near 1 it lives for hundreds
    of steps.

When it does not help:
    An LSTM as torch draws it forgets half per step: set its forget bias too. Over thousands of steps gates
    are not enough; attention or shorter pieces of the sequence are.

What it costs:
    Four times the parameters and the work of the RNN at the same width; a GRU three times.

References:
    Hochreiter and Schmidhuber, "Long Short-Term Memory" (Neural Computation, 1997), section 3; Gers,
    Schmidhuber and Cummins, "Learning to Forget" (Neural Computation, 2000); Cho et al., "Learning Phrase
    Representations using RNN Encoder-Decoder" (EMNLP 2014), section 2.3.
"""

from typing import NoReturn

from torch import nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select, selects


@remedy(treats=("UG401", "UG402", "UG404"), changes="architecture", instead_of=("rescale_weights",))
def gated_recurrence(case: Case, *, sites: Select = None, kind: str = "LSTM") -> NoReturn:
    """Say which line puts an LSTM or GRU in the place of the first chosen plain recurrence.

    Args:
        case: The case, which stays as it is.
        sites: Which recurrent modules, by path.
        kind: ``"LSTM"`` or ``"GRU"``.

    Raises:
        ValueError: Always: with the line to write, or because no plain recurrence is chosen.

    Example:
        >>> from torch import nn
        >>> case = Case(nn.ModuleDict({"cell": nn.RNNCell(4, 8)}), lambda m, x: m["cell"](x).sum(), [])
        >>> gated_recurrence(case, kind="GRU")
        Traceback (most recent call last):
            ...
        ValueError: not applied: write model.cell = nn.GRUCell(4, 8, bias=True), which returns h as before
    """
    if kind not in {"LSTM", "GRU"}:
        raise ValueError(f"kind is {kind!r}; use 'LSTM' or 'GRU'")
    for path, module in case.model.named_modules():
        if path and selects(sites, path, module) and type(module) in {nn.RNN, nn.RNNCell}:
            state = "returns h as before" if kind == "GRU" else "returns (h, c) for h; see forget_bias too"
            raise ValueError(f"not applied: write model.{path} = {_line(module, kind)}, which {state}")
    raise ValueError("no nn.RNN or nn.RNNCell is chosen; a recurrence written by hand has no module to name")


def _line(module: nn.Module, kind: str) -> str:
    if isinstance(module, nn.RNNCell):
        return f"nn.{kind}Cell({module.input_size}, {module.hidden_size}, bias={module.bias})"
    assert isinstance(module, nn.RNN)
    more = f"num_layers={module.num_layers}, batch_first={module.batch_first}, dropout={module.dropout}"
    ways = f"bidirectional={module.bidirectional}"
    return f"nn.{kind}({module.input_size}, {module.hidden_size}, {more}, {ways})"
