"""Recurrent modules as explicit cells: the same numbers as the fused kernels, one step at a time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["tanh", "relu", "lstm", "gru"]
State = tuple[Tensor, ...]
Visit = Callable[["Cell", int, State, Mapping[str, Tensor]], None]
GATES: dict[Kind, tuple[str, ...]] = {
    "tanh": (),
    "relu": (),
    "lstm": ("input", "forget", "output"),
    "gru": ("reset", "update"),
}


@dataclass(frozen=True, eq=False)
class Cell:
    """One layer and direction of a recurrent module, as a function of one time step.

    The weights are the module's own tensors, so that derivatives with respect to them, the input and
    the state are those of the module.

    Args:
        kind: ``tanh``, ``relu``, ``lstm`` or ``gru``.
        layer: Number of the layer, from 0.
        reverse: Whether it runs from the last time step to the first.
        hidden_size: Width of the cell's memory.
        input_weight: Shape (gates·hidden, features).
        state_weight: Shape (gates·hidden, width of h).
        input_bias: Shape (gates·hidden,), or None.
        state_bias: Shape (gates·hidden,), or None.
        projection: Shape (proj_size, hidden) of an LSTM with `proj_size`, or None.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> gru = nn.GRU(3, 5)
        >>> cell = cells(gru)[0][0]
        >>> state, parts = cell.step(torch.ones(2, 3), cell.start(2, torch.ones(())))
        >>> state[0].shape, sorted(parts)
        (torch.Size([2, 5]), ['candidate', 'reset', 'update'])
    """

    kind: Kind
    layer: int
    reverse: bool
    hidden_size: int
    input_weight: Tensor
    state_weight: Tensor
    input_bias: Tensor | None = None
    state_bias: Tensor | None = None
    projection: Tensor | None = None

    @property
    def name(self) -> str:
        """Layer and direction, as PyTorch suffixes its parameters: ``l0``, ``l0_reverse``."""
        return f"l{self.layer}_reverse" if self.reverse else f"l{self.layer}"

    @property
    def width(self) -> int:
        """Width of h, which is also the width of the output."""
        return self.hidden_size if self.projection is None else self.projection.shape[0]

    def start(self, batch: int, like: Tensor) -> State:
        """Return the state of zeros for `batch` samples, in the dtype and on the device of `like`."""
        widths = (self.width, self.hidden_size) if self.kind == "lstm" else (self.width,)
        return tuple(like.new_zeros(batch, width) for width in widths)

    def step(self, x: Tensor, state: State) -> tuple[State, Mapping[str, Tensor]]:
        """Return the next state, and the gates and activations by name.

        Args:
            x: Input of one time step, shape (batch, features).
            state: ``(h,)``, or ``(h, c)`` for an LSTM.

        Returns:
            The next state, and tensors of shape (batch, hidden): the gates after their sigmoid, and
            ``candidate``, the nonlinearity's output. h is the first entry of the state.

        Cost: two matrix products, without fusion. No side effects.
        """
        from_input = F.linear(x, self.input_weight, self.input_bias)
        from_state = F.linear(state[0], self.state_weight, self.state_bias)
        if self.kind == "lstm":
            return self._lstm(from_input + from_state, state)
        if self.kind == "gru":
            return _gru(from_input, from_state, state)
        squash = torch.tanh if self.kind == "tanh" else torch.relu
        h = squash(from_input + from_state)
        return (h,), {"candidate": h}

    def _lstm(self, total: Tensor, state: State) -> tuple[State, Mapping[str, Tensor]]:
        into, keep, new, out = total.chunk(4, dim=-1)
        gates = {"input": into.sigmoid(), "forget": keep.sigmoid(), "output": out.sigmoid()}
        candidate = new.tanh()
        c = gates["forget"] * state[1] + gates["input"] * candidate
        h = gates["output"] * c.tanh()
        if self.projection is not None:
            h = F.linear(h, self.projection)
        return (h, c), {**gates, "candidate": candidate}


def _gru(from_input: Tensor, from_state: Tensor, state: State) -> tuple[State, Mapping[str, Tensor]]:
    reset_x, update_x, new_x = from_input.chunk(3, dim=-1)
    reset_h, update_h, new_h = from_state.chunk(3, dim=-1)
    reset, update = (reset_x + reset_h).sigmoid(), (update_x + update_h).sigmoid()
    candidate = (new_x + reset * new_h).tanh()
    return (candidate + update * (state[0] - candidate),), {
        "reset": reset,
        "update": update,
        "candidate": candidate,
    }


def cells(module: nn.RNNBase | nn.RNNCellBase) -> list[list[Cell]]:
    """Return the cells of a recurrent module as ``[layer][direction]``.

    Args:
        module: `nn.RNN`, `nn.LSTM`, `nn.GRU` or one of `nn.RNNCell`, `nn.LSTMCell`, `nn.GRUCell`.

    Raises:
        TypeError: If the module is of another class.
    """
    if isinstance(module, nn.RNNCellBase):
        return [[_cell(module, _kind(module), "", 0, reverse=False)]]
    if not isinstance(module, nn.RNNBase):
        raise TypeError(
            f"{type(module).__name__} has no known cell; give an nn.RNN, nn.LSTM, nn.GRU or their cells"
        )
    directions = (False, True) if module.bidirectional else (False,)
    return [
        [
            _cell(module, _kind(module), f"_l{layer}{'_reverse' if reverse else ''}", layer, reverse=reverse)
            for reverse in directions
        ]
        for layer in range(module.num_layers)
    ]


def unroll(
    module: nn.RNNBase, sequence: Tensor, state: Tensor | State | None = None, visit: Visit | None = None
) -> tuple[Tensor, State]:
    """Run a recurrent module step by step and return what the module returns.

    Dropout between layers is left out, and nothing is drawn at random.

    Args:
        module: The module; its weights are used as they are.
        sequence: Shape (time, batch, features), (batch, time, features) with `batch_first`, or
            (time, features) without a batch; not packed.
        state: The module's own initial state: h, or (h, c) for an LSTM; zeros if None.
        visit: Called as ``visit(cell, time, state, parts)`` after every step, where `time` is the
            position in the sequence and `state` and `parts` are those of `Cell.step`.

    Returns:
        Output and final state in the module's shapes; the final state is ``(h,)`` or ``(h, c)``.

    Cost: two matrix products per step and layer, one step after the other. No side effects.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> lstm, x = nn.LSTM(3, 5, num_layers=2).double(), torch.randn(7, 2, 3, dtype=torch.float64)
        >>> output, (h, c) = unroll(lstm, x)
        >>> torch.allclose(output, lstm(x)[0], atol=0, rtol=1e-12)
        True
    """
    batched = sequence.ndim == 3
    x = sequence if batched else sequence.unsqueeze(1)
    x = x.transpose(0, 1) if batched and module.batch_first else x
    given: State = () if state is None else (state,) if isinstance(state, Tensor) else state
    if not batched:
        given = tuple(part.unsqueeze(1) for part in given)
    finals: list[State] = []
    for layer in cells(module):
        outputs: list[Tensor] = []
        for cell in layer:
            begin = tuple(p[len(finals)] for p in given) if given else cell.start(x.shape[1], x)
            output, final = _run(cell, x, begin, visit)
            outputs.append(output)
            finals.append(final)
        x = torch.cat(outputs, dim=-1)
    ends = tuple(torch.stack(parts) for parts in zip(*finals, strict=True))
    if not batched:
        return x.squeeze(1), tuple(part.squeeze(1) for part in ends)
    return (x.transpose(0, 1) if module.batch_first else x), ends


def _run(cell: Cell, x: Tensor, state: State, visit: Visit | None) -> tuple[Tensor, State]:
    steps: list[Tensor] = []
    for time in _times(len(x), reverse=cell.reverse):
        state, parts = cell.step(x[time], state)
        steps.append(state[0])
        if visit is not None:
            visit(cell, time, state, parts)
    return torch.stack(steps[::-1] if cell.reverse else steps), state


def _times(length: int, *, reverse: bool) -> Iterator[int]:
    return iter(range(length - 1, -1, -1) if reverse else range(length))


def _kind(module: nn.RNNBase | nn.RNNCellBase) -> Kind:
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return "lstm"
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return "gru"
    return "relu" if getattr(module, "nonlinearity", "tanh") == "relu" else "tanh"


def _cell(module: nn.Module, kind: Kind, suffix: str, layer: int, *, reverse: bool) -> Cell:
    def weight(name: str) -> Tensor | None:
        return getattr(module, name + suffix, None)

    size = getattr(module, "hidden_size", None)
    into, again = weight("weight_ih"), weight("weight_hh")
    assert into is not None
    assert again is not None
    assert isinstance(size, int)
    return Cell(
        kind, layer, reverse, size, into, again, weight("bias_ih"), weight("bias_hh"), weight("weight_hr")
    )
