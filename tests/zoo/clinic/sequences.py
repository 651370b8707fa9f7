"""Recurrent networks that do not train."""

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
RECURRENT = ("rescale_weights", "orthogonal_init", "recurrent_init", "identity_init")


class Tagger(nn.Module):
    """A recurrent layer and a head on its last state."""

    def __init__(self, rnn: nn.RNNBase, classes: int = 4) -> None:
        super().__init__()
        self.rnn = rnn
        self.fc = nn.Linear(rnn.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x)
        return self.fc(out[:, -1, :])


def long(dice: Dice, sick: bool) -> Case:
    """A vanilla RNN that must remember the first of two hundred steps."""
    steps, hidden = dice.whole(180, 220) if sick else 10, dice.whole(32, 48)

    def build() -> nn.Module:
        return Tagger(nn.RNN(6, hidden, batch_first=True))

    return Case(build, tasks.classify, tasks.first_mark(steps), tasks.adam(2e-3))


def by_hand(dice: Dice, sick: bool) -> Case:
    """The same with a cell in a loop."""
    steps, hidden = dice.whole(160, 210) if sick else 8, dice.whole(24, 40)

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.RNNCell(6, hidden)
            self.readout = nn.Linear(hidden, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.zeros(x.size(0), hidden)
            for t in range(x.size(1)):
                h = self.cell(x[:, t], h)
            return self.readout(h)

    model = Cell()
    return Case(model, tasks.classify, tasks.first_mark(steps), torch.optim.Adam(model.parameters(), 3e-3))


def growing(dice: Dice, sick: bool) -> Case:
    """A ReLU RNN whose recurrent matrix multiplies at every step."""
    steps, hidden, gain = dice.whole(30, 40), dice.whole(48, 64), dice.between(2.2, 2.6)

    def build() -> nn.Module:
        rnn = nn.RNN(1, hidden, batch_first=True, nonlinearity="relu")
        nn.init.normal_(rnn.weight_hh_l0, std=(gain if sick else 1.0) / hidden**0.5)
        return Tagger(rnn)

    return Case(build, tasks.classify, tasks.waves(steps), tasks.adam(1e-3))


def wild(dice: Dice, sick: bool) -> Case:
    """An LSTM whose matrices are standard normal."""
    steps, hidden = dice.whole(60, 90), dice.whole(24, 40)
    model = Tagger(nn.LSTM(1, hidden, batch_first=True))
    nn.init.constant_(model.rnn.bias_hh_l0[hidden : 2 * hidden], 2.0)
    for name, parameter in model.rnn.named_parameters():
        if "weight_hh" in name and sick:
            nn.init.normal_(parameter, 0.0, dice.between(1.0, 1.5))
    return Case(model, tasks.classify, tasks.waves(steps), torch.optim.Adam(model.parameters(), lr=1e-2))


def chaotic(dice: Dice, sick: bool) -> Case:
    """A two-layer tanh RNN with recurrent weights far above unit gain."""
    steps, hidden, gain = dice.whole(60, 80), dice.whole(48, 64), dice.between(3.0, 4.0)

    def build() -> nn.Module:
        rnn = nn.RNN(1, hidden, num_layers=2, batch_first=True)
        for name, parameter in rnn.named_parameters():
            if name.startswith("weight_hh"):
                nn.init.normal_(parameter, std=(gain if sick else 0.9) / hidden**0.5)
        return Tagger(rnn)

    return Case(build, tasks.classify, tasks.waves(steps), tasks.adam(1e-3))


def forgetful(dice: Dice, sick: bool) -> Case:
    """An LSTM whose forget gate starts closed."""
    steps, hidden, bias = dice.whole(24, 32), dice.whole(24, 40), -dice.between(4.0, 6.0)

    def build() -> nn.Module:
        lstm = nn.LSTM(6, hidden, batch_first=True)
        with torch.no_grad():
            lstm.bias_hh_l0[hidden : 2 * hidden].fill_(bias if sick else 2.0)
        return Tagger(lstm)

    return Case(build, tasks.classify, tasks.first_mark(steps, noise=0.3), tasks.adam(3e-3))


def overwriting(dice: Dice, sick: bool) -> Case:
    """A GRU whose update gate takes the new state whole at every step."""
    steps, hidden, bias = dice.whole(36, 46), dice.whole(24, 40), -dice.between(4.0, 6.0)
    model = Tagger(nn.GRU(6, hidden, batch_first=True))
    model.rnn.bias_ih_l0.data[hidden : 2 * hidden] = bias if sick else 3.0
    data = tasks.first_mark(steps, noise=0.3)
    return Case(model, tasks.classify, data, torch.optim.Adam(model.parameters(), lr=3e-3))


def prices(dice: Dice, sick: bool) -> Case:
    """An LSTM that reads prices in their currency."""
    steps, hidden, level = dice.whole(20, 30), dice.whole(24, 32), dice.power(3.0, 3.7)
    data = [(level * (1 + 0.1 * x) if sick else x, y) for x, y in tasks.waves(steps)]
    return Case(lambda: Tagger(nn.LSTM(1, hidden, batch_first=True)), tasks.classify, data, tasks.adam(5e-3))


SICK = (
    Program(
        "rnn-two-hundred-steps",
        "recurrent",
        long,
        Truth(
            "vanilla-rnn",
            ("UG401", "UG404"),
            r"recurrent|^weights:|no gate|gate",
            RECURRENT,
            (),
            HEAVY,
        ),
        100,
    ),
    Program(
        "rnn-cell-loop",
        "recurrent",
        by_hand,
        Truth(
            "vanilla-rnn",
            ("UG401", "UG404"),
            r"recurrent|^weights:|no gate|gate",
            RECURRENT,
            (),
            HEAVY,
        ),
        60,
    ),
    Program(
        "rnn-relu-growing",
        "recurrent",
        growing,
        Truth(
            "loud-recurrence",
            ("UG402", "UG403"),
            r"recurrent|^weights:",
            RECURRENT,
            (("rescale_weights", {"only": "weight_hh*", "gain": 1.2}),),
        ),
        250,
    ),
    Program(
        "lstm-randn-matrices",
        "recurrent",
        wild,
        Truth(
            "loud-recurrence",
            ("UG402", "UG403", "UG204"),
            r"recurrent|^weights:",
            RECURRENT,
            (("rescale_weights", {"only": "weight_hh*", "gain": 0.6}),),
        ),
        200,
    ),
    Program(
        "rnn-chaotic",
        "recurrent",
        chaotic,
        Truth(
            "loud-recurrence",
            ("UG402", "UG403"),
            r"recurrent|^weights:",
            RECURRENT,
            (("rescale_weights", {"only": "weight_hh*", "gain": 0.9}),),
        ),
        100,
    ),
    Program(
        "lstm-forget-closed",
        "recurrent",
        forgetful,
        Truth(
            "gate-bias",
            ("UG405", "UG401", "UG404"),
            r"gate|bias",
            ("open_gates",),
            (("open_gates", {"bias": 6.0}),),
        ),
        100,
    ),
    Program(
        "gru-update-open",
        "recurrent",
        overwriting,
        Truth(
            "gate-bias",
            ("UG405", "UG401", "UG404"),
            r"gate|bias",
            ("open_gates",),
            (("open_gates", {"bias": 8.0}),),
        ),
        100,
    ),
    Program(
        "lstm-prices",
        "recurrent",
        prices,
        Truth("inputs", ("UG607",), r"^inputs?:", ("unit_inputs",), (("unit_inputs", {}),), HEAVY),
        100,
    ),
)
