"""What is wrong around a sound model: optimizer, loss, clip, decay, what learns and what does not."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.attention import Gpt
from zoo.clinic.program import Program, Truth
from zoo.clinic.sequences import Tagger
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
RATE = r"^learning rate"


def mlp(features: int, width: int, classes: int, depth: int = 2) -> nn.Sequential:
    """Return a sound ReLU perceptron."""
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(width if k else features, width), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)  # type: ignore[arg-type]
    head = nn.Linear(width, classes)
    nn.init.normal_(head.weight, std=0.1 * width**-0.5)
    return nn.Sequential(*layers, head)


def convnet(channels: int, classes: int = 4) -> nn.Sequential:
    """Return a sound convolutional network."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * channels, classes),
    )


def hot_sgd(dice: Dice, sick: bool) -> Case:
    """SGD at a rate that was meant for another loss."""
    width, rate = dice.whole(32, 64), dice.between(8.0, 20.0) if sick else 0.1
    return Case(lambda: mlp(16, width, 5), tasks.classify, tasks.centres(16, noise=1.0), tasks.sgd(rate))


def hot_adam(dice: Dice, sick: bool) -> Case:
    """Adam at SGD's rate on a language model."""
    data, size = tasks.letters(24, 16)
    width, rate = dice.one_of(32, 48), dice.between(0.2, 0.5) if sick else 3e-3
    return Case(lambda: Gpt(size, width, 2), tasks.next_letter, data, tasks.adamw(rate))


def hot_lstm(dice: Dice, sick: bool) -> Case:
    """RMSprop far too fast on an LSTM."""
    hidden, rate = dice.whole(24, 40), dice.between(0.5, 1.0) if sick else 2e-3
    model = Tagger(nn.LSTM(1, hidden, batch_first=True))
    return Case(model, tasks.classify, tasks.waves(20), torch.optim.RMSprop(model.parameters(), lr=rate))


def cold_sgd(dice: Dice, sick: bool) -> Case:
    """A rate with one zero after the other."""
    width, rate = dice.whole(32, 64), dice.power(-7.5, -6.5) if sick else 0.1
    return Case(lambda: mlp(16, width, 5, 3), tasks.classify, tasks.centres(16), tasks.sgd(rate))


def cold_adam(dice: Dice, sick: bool) -> Case:
    """AdamW at 1e-9 on a language model."""
    data, size = tasks.letters(24)
    width, rate = dice.one_of(32, 48), dice.power(-9.5, -8.7) if sick else 2e-3
    model = Gpt(size, width, 2)
    return Case(model, tasks.next_letter, data, torch.optim.AdamW(model.parameters(), lr=rate))


def cold_conv(dice: Dice, sick: bool) -> Case:
    """Adam at a billionth on images."""
    channels, rate = dice.whole(8, 16), dice.power(-9.5, -8.5) if sick else 5e-3
    return Case(lambda: convnet(channels), tasks.classify, tasks.stripes(10), tasks.adam(rate))


def summed(dice: Dice, sick: bool) -> Case:
    """A loss that is added up over all places, at a rate for means."""
    width, steps = dice.one_of(32, 48), 24
    data, size = tasks.letters(steps, 64)

    def loss(model: nn.Module, pieces: Tensor) -> Tensor:
        logits = model(pieces[:, :-1])
        how = "sum" if sick else "mean"
        return F.cross_entropy(logits.reshape(-1, size), pieces[:, 1:].reshape(-1), reduction=how)

    return Case(lambda: Gpt(size, width, 2), loss, data, tasks.sgd(0.3))


def summed_squares(dice: Dice, sick: bool) -> Case:
    """Squared errors that are added up over batch and outputs."""
    width, outputs = dice.whole(32, 64), dice.whole(16, 32)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        squares = (model(batch[0]) - batch[1]).square()
        return squares.sum() if sick else squares.mean()

    return Case(
        lambda: mlp(12, width, outputs), loss, tasks.smooth(12, outputs), tasks.sgd(0.05, momentum=0.9)
    )


def divided(dice: Dice, sick: bool) -> Case:
    """A mean that is divided by the number of rows once more, and by the accumulation too."""
    width, extra = dice.whole(32, 64), dice.power(5.5, 6.5)
    model = mlp(16, width, 5)

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(net(batch[0]), batch[1]) / (extra if sick else 1)

    return Case(model, loss, tasks.centres(16), torch.optim.SGD(model.parameters(), lr=0.1))


def clipped(dice: Dice, sick: bool) -> Case:
    """A clip so low that only crumbs of each step are left."""
    width, most = dice.whole(32, 64), dice.power(-6, -5) if sick else 1.0

    def clip(parameters: object) -> object:
        return nn.utils.clip_grad_norm_(parameters, most)  # type: ignore[arg-type]

    model = mlp(16, width, 5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Case(model, tasks.classify, tasks.centres(16), optimizer, clip=clip)


def clipped_values(dice: Dice, sick: bool) -> Case:
    """Entries of the gradient cut off far below their size."""
    hidden, most = dice.whole(24, 40), dice.power(-7.5, -6.5) if sick else 0.1

    def clip(parameters: object) -> object:
        return nn.utils.clip_grad_value_(parameters, most)  # type: ignore[arg-type]

    def build() -> nn.Module:
        return Tagger(nn.GRU(1, hidden, batch_first=True))

    return Case(build, tasks.classify, tasks.waves(20), tasks.sgd(0.5, momentum=0.9), clip=clip)


def decayed(dice: Dice, sick: bool) -> Case:
    """Weight decay of SGD that takes more than the gradient gives."""
    width, decay = dice.whole(32, 64), dice.between(0.5, 1.5) if sick else 1e-4
    return Case(
        lambda: mlp(16, width, 5),
        tasks.classify,
        tasks.centres(16, noise=1.0),
        tasks.sgd(0.1, weight_decay=decay),
    )


def coupled(dice: Dice, sick: bool) -> Case:
    """AdamW's decay handed to Adam, where it enters the gradient and is divided by its size."""
    width, decay = dice.whole(32, 48), dice.between(0.3, 1.0) if sick else 1e-5
    model = mlp(12, width, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=decay)
    return Case(model, tasks.regress, tasks.smooth(12, 4), optimizer)


def softmaxed(dice: Dice, sick: bool) -> Case:
    """A softmax module before cross-entropy."""
    channels = dice.whole(8, 16)

    def build() -> nn.Module:
        model = convnet(channels, 8)
        return model.append(nn.Softmax(dim=1)) if sick else model

    return Case(build, tasks.classify, tasks.stripes(10, classes=8), tasks.sgd(0.05, momentum=0.9))


class Probabilities(nn.Module):
    """A classifier whose forward returns probabilities, by a function."""

    def __init__(self, width: int, *, sick: bool) -> None:
        super().__init__()
        self.net, self.sick = mlp(16, width, 8), sick

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return F.softmax(logits, dim=-1) if self.sick else logits


def sigmoid_twice(dice: Dice, sick: bool) -> Case:
    """A sigmoid module before a loss that has its own."""
    width, labels = dice.whole(32, 48), dice.whole(6, 10)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0]), F.one_hot(batch[1], labels).float())

    def build() -> nn.Module:
        return nn.Sequential(mlp(16, width, labels), *([nn.Sigmoid()] if sick else []))

    return Case(build, loss, tasks.centres(16, labels), tasks.adam(3e-3))


def likelihood(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Mean surprise about the class, by the model's probabilities or its logits."""
    made = model(batch[0])
    shares = bool((made >= 0).all()) and torch.allclose(made.sum(-1), torch.ones(len(made)))
    return float(F.nll_loss(made.clamp(min=1e-9).log(), batch[1]) if shares else tasks.classify(model, batch))


def letter(model: nn.Module, pieces: Tensor) -> float:
    """Mean cross-entropy of a letter."""
    return float(tasks.next_letter(model, pieces))


def squares(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Mean squared error."""
    return float(tasks.regress(model, batch))


SICK = (
    Program(
        "rate-too-high-sgd",
        "mlp",
        hot_sgd,
        Truth(
            "rate-high",
            ("UG601",),
            RATE,
            (),
            (("lower_learning_rate", {"factor": 0.01}),),
            (("rescale_weights", {"gain": 1.0}),),
        ),
    ),
    Program(
        "rate-too-high-gpt",
        "transformer",
        hot_adam,
        Truth(
            "rate-high",
            ("UG601",),
            RATE,
            (),
            (("lower_learning_rate", {"factor": 0.003}),),
            (("rescale_weights", {"gain": 1.0}),),
        ),
        100,
    ),
    Program(
        "rate-too-high-lstm",
        "recurrent",
        hot_lstm,
        Truth(
            "rate-high",
            ("UG601",),
            RATE,
            (),
            (("lower_learning_rate", {"factor": 0.003}),),
            (("open_gates", {"bias": 1.0}),),
        ),
        80,
    ),
    Program(
        "rate-too-low-sgd",
        "mlp",
        cold_sgd,
        Truth(
            "rate-low",
            ("UG602",),
            RATE,
            (),
            (("lower_learning_rate", {"factor": 1e6}),),
            (("rescale_weights", {"gain": 2**0.5}),),
        ),
    ),
    Program(
        "rate-too-low-gpt",
        "transformer",
        cold_adam,
        Truth(
            "rate-low",
            ("UG602",),
            RATE,
            (),
            (("lower_learning_rate", {"factor": 1e6}),),
            (("rescale_weights", {"gain": 1.0}),),
        ),
        60,
    ),
    Program(
        "rate-too-low-conv",
        "cnn",
        cold_conv,
        Truth(
            "rate-low",
            ("UG602",),
            RATE,
            (),
            (("lower_learning_rate", {"factor": 1e6}),),
            (("rescale_weights", {"gain": 2**0.5}),),
        ),
        80,
    ),
    Program(
        "loss-summed-over-places",
        "transformer",
        summed,
        Truth(
            "loss-scale",
            ("UG601",),
            r"loss.*sum|sum.*loss|^loss",
            ("loss_scale",),
            (("lower_learning_rate", {"factor": 2.0**-9}),),
            (("rescale_weights", {"gain": 1.0}),),
        ),
        60,
        letter,
    ),
    Program(
        "squares-summed",
        "mlp",
        summed_squares,
        Truth(
            "loss-scale",
            ("UG601",),
            r"loss.*sum|sum.*loss|^loss",
            ("loss_scale",),
            (("lower_learning_rate", {"factor": 2.0**-10}),),
            (("rescale_weights", {"gain": 1.0}),),
        ),
        score=squares,
    ),
    Program(
        "loss-divided-twice",
        "mlp",
        divided,
        Truth(
            "loss-small",
            ("UG602", "UG503"),
            r"^loss|^gradient:.*loss|scale of the loss",
            ("loss_scale",),
            (("lower_learning_rate", {"factor": 1e6}),),
            (("rescale_weights", {"gain": 2**0.5}),),
        ),
        score=tasks.errors,
    ),
    Program(
        "clip-too-low",
        "mlp",
        clipped,
        Truth(
            "clip",
            ("UG602",),
            r"^clip",
            ("clip_gradients",),
            (("clip_gradients", {"threshold": 1.0}),),
            (("rescale_weights", {"gain": 2**0.5}),),
        ),
    ),
    Program(
        "clip-values-too-low",
        "recurrent",
        clipped_values,
        Truth(
            "clip",
            ("UG602",),
            r"^clip",
            ("clip_gradients",),
            (("clip_gradients", {"threshold": 1.0}),),
            (("open_gates", {"bias": 1.0}),),
        ),
        100,
    ),
    Program(
        "decay-too-strong",
        "mlp",
        decayed,
        Truth(
            "decay",
            ("UG601", "UG604", "UG609"),
            r"decay",
            ("lower_weight_decay", "weight_decay"),
            (("lower_weight_decay", {"factor": 1e-3}),),
            HEAVY,
        ),
        200,
    ),
    Program(
        "decay-coupled-to-adam",
        "mlp",
        coupled,
        Truth(
            "decay",
            ("UG601", "UG604", "UG609"),
            r"decay",
            ("lower_weight_decay", "weight_decay"),
            (("lower_weight_decay", {"factor": 1e-4}),),
            HEAVY,
        ),
        200,
    ),
    Program(
        "softmax-before-entropy",
        "cnn",
        softmaxed,
        Truth(
            "double-softmax",
            ("UG606",),
            r"softmax",
            ("drop_output_softmax",),
            (("drop_output_softmax", {}),),
            (("rescale_weights", {"gain": 2**0.5}),),
        ),
        45,
        likelihood,
    ),
    Program(
        "sigmoid-before-logits-loss",
        "mlp",
        sigmoid_twice,
        Truth(
            "double-softmax",
            ("UG606",),
            r"sigmoid|softmax",
            ("drop_output_softmax",),
            (("drop_output_softmax", {}),),
            (("rescale_weights", {"gain": 2**0.5}),),
        ),
        score=tasks.errors,
    ),
)
