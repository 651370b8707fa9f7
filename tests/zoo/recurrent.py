"""Recurrent networks: tanh, LSTM, GRU, over time."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.patient import Patient, seeded

Batch = tuple[Tensor, Tensor]


class Reader(nn.Module):
    """A recurrent layer and a head on its last state, or on every step."""

    def __init__(self, layer: nn.RNNBase, *, every_step: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(layer.hidden_size * (2 if layer.bidirectional else 1), 4)
        self.every_step = every_step

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.layer(x)
        return self.head(states if self.every_step else states[:, -1])


class Pooler(Reader):
    """Reads the mean of the states, to which every step speaks itself."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0].mean(1))


class CellReader(nn.Module):
    """A cell that the model calls itself, and a head on its last state, cut off every so many steps."""

    def __init__(self, hidden: int = 24, cut: int = 0) -> None:
        super().__init__()
        self.cell, self.head, self.cut = nn.RNNCell(8, hidden), nn.Linear(hidden, 4), cut

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.cell.hidden_size)
        for count, step in enumerate(x.unbind(1)):
            state = self.cell(step, state.detach() if self.cut and count % self.cut == 0 else state)
        return self.head(state)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the last step, or of every step."""
    scores = model(batch[0])
    target = batch[1] if scores.ndim == 2 else batch[1][:, None].expand(scores.shape[:2])
    return nn.functional.cross_entropy(scores.flatten(0, -2), target.flatten())


def case(model: nn.Module, steps: int, *, features: int = 8, pad: int = 0, scale: float = 1.0) -> Case:
    """Return the classification of noise sequences, with `pad` zero steps at the end."""
    inputs = scale * torch.randn(8, steps, features)
    inputs = torch.cat([inputs, torch.zeros(8, pad, features)], 1)
    return Case(model, loss, [(inputs, torch.randint(4, (8,)))])


class PaddedReader(Reader):
    """Reads the state at the last real step, before the padding."""

    def __init__(self, layer: nn.RNNBase, steps: int) -> None:
        super().__init__(layer)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, self.steps - 1])


def tanh(gain: float, hidden: int = 32) -> nn.RNNBase:
    """Return a tanh RNN whose recurrent matrix is orthogonal times `gain`."""
    layer = nn.RNN(8, hidden, batch_first=True)
    nn.init.orthogonal_(layer.weight_hh_l0, gain)
    nn.init.zeros_(layer.bias_hh_l0)
    nn.init.zeros_(layer.bias_ih_l0)
    return layer


def identity(gain: float, hidden: int = 32) -> nn.RNNBase:
    """Return a ReLU RNN whose recurrent matrix is `gain` times the identity (Le et al. 2015)."""
    layer = nn.RNN(8, hidden, batch_first=True, nonlinearity="relu")
    with torch.no_grad():
        layer.weight_hh_l0.copy_(gain * torch.eye(hidden))
        layer.weight_ih_l0.normal_(std=0.01)
    return layer


def noisy(gain: float, hidden: int = 64) -> nn.RNNBase:
    """Return a tanh RNN with a Gaussian recurrent matrix: chaotic above a gain of 1."""
    layer = nn.RNN(8, hidden, batch_first=True)
    nn.init.normal_(layer.weight_hh_l0, std=gain / math.sqrt(hidden))
    nn.init.normal_(layer.weight_ih_l0, std=0.01)
    return layer


def remembering(bias: float, hidden: int = 32) -> nn.RNNBase:
    """Return an LSTM whose forget gates start open."""
    layer = nn.LSTM(8, hidden, batch_first=True)
    with torch.no_grad():
        layer.bias_ih_l0[hidden : 2 * hidden] = bias
    return layer


def chaotic(layer: nn.RNNBase, factor: float) -> nn.RNNBase:
    """Multiply the recurrent weights, with small inputs."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "weight_hh" in name:
                parameter.mul_(factor)
            elif "weight_ih" in name:
                parameter.mul_(0.1)
    return layer


def shut(layer: nn.RNNBase | nn.RNNCellBase, bias: float) -> nn.RNNBase | nn.RNNCellBase:
    """Shift what enters the gate that keeps the state of an LSTM or GRU, in every layer and direction."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("bias_ih"):
                parameter[layer.hidden_size : 2 * layer.hidden_size] += bias
    return layer


def passing(layer: nn.RNNBase, diagonal: float, forward: float) -> nn.RNNBase:
    """Make a step's Jacobian a chain at small signals: every unit keeps a part and feeds the next."""
    hidden = layer.hidden_size
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.zero_()
            if "weight_ih" in name:
                parameter.normal_(std=0.01)
        shift = torch.diag(torch.ones(hidden - 1), 1)
        if isinstance(layer, nn.RNN):
            layer.weight_hh_l0.copy_(diagonal * torch.eye(hidden) + forward * shift)
        else:  # half of the old state is kept at rest, and a quarter of the candidate's weights passes
            rows = slice(2 * hidden, 3 * hidden)
            layer.weight_hh_l0[rows] = 4 * ((diagonal - 0.5) * torch.eye(hidden) + forward * shift)
    return layer


class Both(nn.Module):
    """A recurrent layer over the states of another, and a head on every step."""

    def __init__(self, first: nn.RNNBase, second: nn.RNNBase) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.head = nn.Linear(second.hidden_size, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)[0])[0])


def sick() -> list[Patient]:
    """Return the sick recurrent networks."""
    build: dict[str, tuple[Callable[[], Case], tuple[str, ...]]] = {
        "tanh-default-150": (lambda: case(Reader(nn.RNN(8, 32, batch_first=True)), 150), ("UG401",)),
        "tanh-default-zero-600": (lambda: case(Reader(nn.RNN(8, 16, batch_first=True)), 600), ("UG401",)),
        "cell-default-120": (lambda: case(CellReader(), 120), ("UG401",)),
        "cell-cut-12": (lambda: case(CellReader(cut=1), 12), ("UG603",)),
        "lstm-default-150": (lambda: case(Reader(nn.LSTM(8, 32, batch_first=True)), 150), ("UG401",)),
        "lstm-default-zero-300": (lambda: case(Reader(nn.LSTM(8, 16, batch_first=True)), 300), ("UG401",)),
        "gru-default-150": (lambda: case(Reader(nn.GRU(8, 32, batch_first=True)), 150), ("UG401",)),
        "relu-identity-1.2": (lambda: case(Reader(identity(1.2)), 80), ("UG402",)),
        "tanh-chaotic": (lambda: case(Reader(noisy(4.0)), 60), ("UG402", "UG403")),
        "lstm-chaotic": (
            lambda: case(Reader(chaotic(nn.LSTM(8, 48, batch_first=True), 12.0)), 80),
            ("UG402", "UG403"),
        ),
        "gru-chaotic": (
            lambda: case(Reader(chaotic(nn.GRU(8, 48, batch_first=True), 12.0)), 80),
            ("UG402", "UG403"),
        ),
        "relu-identity-1.5-padded": (lambda: case(PaddedReader(identity(1.5), 40), 40, pad=20), ("UG402",)),
    }
    build |= forgetful()
    further = ("UG605", "UG601", "UG404")
    patients = [
        Patient(f"rnn-{k}", "recurrent", seeded(make), codes, further) for k, (make, codes) in build.items()
    ]
    return patients + chains()


Builds = dict[str, tuple[Callable[[], Case], tuple[str, ...]]]


def forgetful() -> Builds:
    """Return networks that forget: a loss at every step hides it from the gradient, or a gate is shut."""

    def every(layer: nn.RNNBase, steps: int) -> Case:
        return case(Reader(layer, every_step=True), steps)

    def two(bias: float) -> Case:
        first, second = nn.LSTM(8, 16, batch_first=True), nn.GRU(16, 16, batch_first=True)
        return case(Both(shut(first, bias), shut(second, bias)), 12)

    return {
        "tanh-every-step-200": (lambda: every(nn.RNN(8, 24, batch_first=True), 200), ("UG404",)),
        "lstm-every-step-250": (lambda: every(nn.LSTM(8, 24, batch_first=True), 250), ("UG404",)),
        "gru-every-step-250": (lambda: every(nn.GRU(8, 24, batch_first=True), 250), ("UG404",)),
        "lstm-shut-12": (lambda: every(shut(nn.LSTM(8, 24, batch_first=True), -4.0), 12), ("UG405",)),
        "gru-shut-12": (lambda: every(shut(nn.GRU(8, 24, batch_first=True), -4.0), 12), ("UG405",)),
        "both-shut-12": (lambda: two(-3.5), ("UG405",)),
    }


def chains() -> list[Patient]:
    """Return networks of decaying units in a row, through which a gradient grows before it dies out."""

    def chain(layer: nn.RNNBase, forward: float) -> Case:
        return case(Reader(passing(layer, 0.5, forward)), 100)

    build: dict[str, Callable[[], Case]] = {
        "tanh-chain-16": lambda: chain(nn.RNN(8, 16, batch_first=True), 1.0),
        "lstm-chain-16": lambda: chain(nn.LSTM(8, 16, batch_first=True), 0.8),
        "gru-chain-24": lambda: chain(nn.GRU(8, 24, batch_first=True), 0.9),
        "relu-chain-12": lambda: chain(nn.RNN(8, 12, batch_first=True, nonlinearity="relu"), 0.9),
    }
    further = ("UG401", "UG404", "UG601", "UG605")
    return [Patient(f"rnn-{k}", "recurrent", seeded(make), ("UG406",), further) for k, make in build.items()]


def healthy() -> list[Patient]:
    """Return recurrent networks that train."""
    build: dict[str, Callable[[], Case]] = {
        "tanh-orthogonal-30": lambda: case(Reader(tanh(1.0)), 30, scale=0.1),
        "tanh-default-16": lambda: case(Reader(nn.RNN(8, 24, batch_first=True)), 16),
        "tanh-default-8": lambda: case(Reader(nn.RNN(8, 32, batch_first=True)), 8),
        "lstm-28": lambda: case(Reader(nn.LSTM(8, 32, batch_first=True)), 28),
        "lstm-64": lambda: case(Reader(nn.LSTM(8, 32, batch_first=True)), 64),
        "gru-64": lambda: case(Reader(nn.GRU(8, 24, batch_first=True)), 64),
        "lstm-every-step-100": lambda: case(Reader(nn.LSTM(8, 32, batch_first=True), every_step=True), 100),
        "gru-20-padded": lambda: case(PaddedReader(nn.GRU(8, 32, batch_first=True), 20), 20, pad=40),
        "gru-24-padded-to-150": lambda: case(PaddedReader(nn.GRU(8, 24, batch_first=True), 24), 24, pad=126),
        "tanh-default-mean-160": lambda: case(Pooler(nn.RNN(8, 24, batch_first=True)), 160),
        "lstm-remembering-100": lambda: case(Reader(remembering(4.0)), 100),
        "gru-two-ways-20": lambda: case(
            Reader(nn.GRU(8, 16, 2, batch_first=True, bidirectional=True), every_step=True), 20
        ),
        "relu-identity-1.0": lambda: case(Reader(identity(1.0)), 60),
        "tanh-gaussian-1.0-40": lambda: case(Reader(noisy(1.0)), 40),
        "lstm-half-shut-16": lambda: case(
            Reader(shut(nn.LSTM(8, 24, batch_first=True), -1.0), every_step=True), 16
        ),
        "tanh-delay-line": lambda: case(Reader(passing(nn.RNN(8, 24, batch_first=True), 0.0, 1.0)), 20),
    }
    patients = [Patient(f"rnn-{name}", "recurrent", seeded(make)) for name, make in build.items()]
    truncated = seeded(lambda: case(CellReader(cut=6), 24))
    return [*patients, Patient("rnn-cell-truncated-24", "recurrent", truncated, near=("UG603",))]
