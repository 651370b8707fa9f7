"""Parameters that should learn and do not: frozen, not held by the optimizer, cut off from the loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.around import mlp
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)


class Extractor(nn.Module):
    """A convolutional encoder and a head on its features."""

    def __init__(self, channels: int, *, cut: bool, classes: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(6, classes)
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.cut):
            features = self.encoder(x).mean((2, 3))
        return self.head(features)


def no_grad(dice: Dice, sick: bool) -> Case:
    """An encoder that was left under no_grad after an evaluation."""
    channels = dice.whole(8, 12)
    return Case(lambda: Extractor(channels, cut=sick), tasks.classify, tasks.stripes(8), tasks.adam(1e-2))


class Detached(nn.Module):
    """Hidden states that are detached between the layers, and not only between the batches."""

    def __init__(self, hidden: int, *, sick: bool) -> None:
        super().__init__()
        self.lower = nn.GRU(1, hidden, batch_first=True)
        self.upper = nn.Linear(hidden, 4)
        self.sick = sick

    def forward(self, x: Tensor) -> Tensor:
        states = self.lower(x)[0]
        return self.upper((states.detach() if self.sick else states)[:, -1])


def detached(dice: Dice, sick: bool) -> Case:
    """A GRU whose states are detached before the head."""
    model = Detached(dice.whole(12, 20), sick=sick)
    return Case(model, tasks.classify, tasks.waves(24), torch.optim.Adam(model.parameters(), lr=1e-2))


def head_only(dice: Dice, sick: bool) -> Case:
    """An optimizer that was given the head's parameters."""
    model = nn.Sequential(mlp(8, dice.whole(10, 14), 6), nn.Tanh(), nn.Linear(6, 4))
    held = model[2].parameters() if sick else model.parameters()
    return Case(model, tasks.classify, tasks.folded(8), torch.optim.Adam(held, lr=1e-2))


def replaced(dice: Dice, sick: bool) -> Case:
    """An optimizer that was built before the layers were put in the place of others."""
    width = dice.whole(24, 40)
    model = nn.ModuleDict({"body": mlp(16, width, width), "head": nn.Linear(width, 5)})
    model.forward = lambda x: model["head"](model["body"](x).relu())  # type: ignore[method-assign]
    early = torch.optim.SGD(model.parameters(), lr=0.1)
    model["body"], model["head"] = mlp(16, width, width), nn.Linear(width, 5)
    optimizer = early if sick else torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(net: nn.ModuleDict, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(net["head"](net["body"](batch[0]).relu()), batch[1])

    del model.forward
    return Case(model, loss, tasks.centres(16), optimizer)  # type: ignore[arg-type]


def clamped(dice: Dice, sick: bool) -> Case:
    """Predictions that are clamped to the range of the targets, where they start outside of it."""
    model = mlp(10, dice.whole(24, 40), 1)
    nn.init.constant_(model[-1].bias, 3.0)  # type: ignore[arg-type]
    data = [(x, y.sigmoid()) for x, y in tasks.smooth(10)]

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        made = net(batch[0])
        return F.mse_loss(made.clamp(0, 1) if sick else made, batch[1])

    return Case(model, loss, data, torch.optim.Adam(model.parameters(), lr=2e-2))


def bounded(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Mean squared error of the predictions, clamped."""
    return float(F.mse_loss(model(batch[0]).clamp(0, 1), batch[1]))


def rounded(dice: Dice, sick: bool) -> Case:
    """A hard threshold in the middle of the network, which has no slope."""
    width = dice.whole(12, 20)

    class Binary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = mlp(12, width, 4), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            code = self.encode(x)
            return self.decode((10 * code).sign() if sick else (10 * code).tanh())

    return Case(Binary, tasks.classify, tasks.centres(12), tasks.adam(1e-2))


SICK = (
    Program(
        "encoder-under-no-grad",
        "cnn",
        no_grad,
        Truth("cut-off", ("UG603",), r"detach|no_grad|does not (use|reach)|not used|never", (), ()),
    ),
    Program(
        "states-detached",
        "recurrent",
        detached,
        Truth("cut-off", ("UG603",), r"detach|no_grad|does not (use|reach)|not used|never", (), ()),
    ),
    Program(
        "optimizer-of-the-head",
        "mlp",
        head_only,
        Truth("not-held", ("UG604",), r"optimizer", ("hold_parameters",), (("hold_parameters", {}),), HEAVY),
    ),
    Program(
        "optimizer-before-the-layers",
        "mlp",
        replaced,
        Truth("not-held", ("UG604",), r"optimizer", ("hold_parameters",), (("hold_parameters", {}),), HEAVY),
    ),
    Program(
        "predictions-clamped",
        "mlp",
        clamped,
        Truth("dead-link", ("UG608", "UG603"), r"clamp|clip|flat|cut off|saturat|no slope", (), (), HEAVY),
        200,
        bounded,
    ),
    Program(
        "threshold-in-the-middle",
        "mlp",
        rounded,
        Truth("dead-link", ("UG608", "UG603"), r"round|sign|threshold|no slope|flat|derivative", (), ()),
    ),
)
