"""Perceptrons that do not train: initial weights, activations, biases, inputs, branches, normalisation."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

ROOT = math.sqrt(2)
INIT = ("UG101", "UG202", "UG205", "UG102", "UG201")
HEAVY = (("lower_learning_rate", {"factor": 10.0}),)


def tower(dice: Dice, sick: bool) -> Case:
    """ReLU layers as nn.Linear makes them, in a factory."""
    width, depth = dice.whole(48, 80), dice.whole(20, 28)

    def build() -> nn.Module:
        layers = [nn.Linear(20, width), nn.ReLU()]
        for _ in range(depth):
            layers += [nn.Linear(width, width), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Linear(width, 5))
        for layer in [] if sick else model[:-1]:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        return model

    return Case(build, tasks.classify, tasks.centres(20), tasks.adam(3e-4))


class Listed(nn.Module):
    """Layers in a list, with functional activations."""

    def __init__(self, width: int, depth: int, activation=F.relu, classes: int = 4) -> None:
        super().__init__()
        self.fc_in = nn.Linear(16, width)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.fc_out = nn.Linear(width, classes)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.fc_in(x))
        for layer in self.hidden:
            x = self.activation(layer(x))
        return self.fc_out(x)


def listed(dice: Dice, sick: bool) -> Case:
    """Xavier's weights, meant for tanh, under ReLU."""
    width, depth = dice.whole(96, 128), dice.whole(16, 20)

    def build() -> nn.Module:
        model = Listed(width, depth, classes=5)
        for parameter in model.parameters():
            if parameter.ndim == 2 and sick:
                nn.init.xavier_uniform_(parameter)
            elif parameter.ndim == 2:
                nn.init.kaiming_uniform_(parameter, nonlinearity="relu" if len(parameter) > 5 else "linear")
            else:
                nn.init.zeros_(parameter)
        return model

    return Case(build, tasks.classify, tasks.centres(16), tasks.sgd(0.005, momentum=0.9))


def tiny(dice: Dice, sick: bool) -> Case:
    """Weights of standard deviation 0.01, as papers of 2012 had them."""
    width, depth = dice.whole(40, 72), dice.whole(7, 10)
    model = Listed(width, depth, torch.tanh, classes=5)
    for name, parameter in model.named_parameters():
        if "weight" in name:
            nn.init.normal_(parameter, 0.0, 0.01 if sick else 1 / math.sqrt(parameter.shape[1]))
    return Case(model, tasks.classify, tasks.centres(16), torch.optim.SGD(model.parameters(), 0.05))


def sigmoids(dice: Dice, sick: bool) -> Case:
    """A stack of sigmoid modules with Xavier's weights."""
    width, depth = dice.whole(40, 64), dice.whole(8, 12)
    kind = nn.Sigmoid if sick else nn.Tanh

    def block(wide: int) -> list[nn.Module]:
        layer = nn.Linear(wide, width)
        nn.init.xavier_normal_(layer.weight)
        return [layer, kind()]

    def build() -> nn.Module:
        layers = block(12) + [part for _ in range(depth) for part in block(width)]
        return nn.Sequential(*layers, nn.Linear(width, 5))

    return Case(build, tasks.classify, tasks.centres(12), tasks.adam(1e-3))


def logistic(dice: Dice, sick: bool) -> Case:
    """Sigmoids called as a function between layers of a list."""
    depth, width = dice.whole(7, 10), dice.whole(32, 64)
    model = Listed(width, depth, torch.sigmoid if sick else torch.tanh)
    for layer in model.hidden:
        nn.init.xavier_uniform_(layer.weight)
    return Case(model, tasks.classify, tasks.centres(16, 4), tasks.sgd(0.1, momentum=0.9))


def loud(dice: Dice, sick: bool) -> Case:
    """Weights drawn by torch.randn, with no thought for the width."""
    width, depth = dice.whole(48, 64), dice.whole(8, 11)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(width if k else 16, width) for k in range(depth)))
            self.out = nn.Linear(width, 5)
            for layer in self.layers:
                scale = 1.0 if sick else layer.in_features**-0.5
                layer.weight.data = scale * torch.randn(layer.out_features, layer.in_features)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.tanh(layer(x))
            return self.out(x)

    return Case(Net, tasks.classify, tasks.centres(16, rows=512, noise=1.0), tasks.sgd(0.05))


def squash(width: int, depth: int, features: int, outputs: int = 4) -> nn.Sequential:
    """Return tanh layers at their own gain."""
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(width if k else features, width), nn.Tanh()]
        nn.init.xavier_normal_(layers[-2].weight)  # type: ignore[arg-type]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def raw_inputs(dice: Dice, sick: bool) -> Case:
    """Measurements in their own units before tanh."""
    scale, width, depth = dice.power(2.3, 3.0), dice.whole(32, 64), dice.whole(2, 3)
    data = [(scale * (1 + 0.03 * x) if sick else x, y) for x, y in tasks.smooth(8, rows=512)]
    return Case(lambda: squash(width, depth, 8, 1), tasks.regress, data, tasks.adam(2e-3))


def pushed(dice: Dice, sick: bool) -> Case:
    """Biases far out on the flat side of tanh."""
    model = squash(dice.whole(32, 64), 4, 10)
    for layer in model[:-1:2]:
        nn.init.constant_(layer.bias, dice.between(4, 6) if sick else 0.0)  # type: ignore[arg-type]
    return Case(model, tasks.classify, tasks.centres(10, 4), tasks.adam(1e-3))


def dead(dice: Dice, sick: bool) -> Case:
    """ReLU units that a bias keeps shut."""
    width, bias = dice.whole(32, 64), -dice.between(4, 8)

    def build() -> nn.Module:
        model = nn.Sequential(
            nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 5)
        )
        for layer in (model[0], model[2]):
            nn.init.kaiming_normal_(layer.weight)  # type: ignore[arg-type]
            nn.init.constant_(layer.bias, bias if sick else 0.1)  # type: ignore[arg-type]
        return model

    return Case(build, tasks.classify, tasks.centres(16), tasks.adam(1e-3))


class Branch(nn.Module):
    """A residual block without normalisation."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.kaiming_normal_(self.fc1.weight)
        nn.init.kaiming_normal_(self.fc2.weight)
        self.fc2.weight.data.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.relu(self.fc1(x)))


def branches(dice: Dice, sick: bool) -> Case:
    """Residual blocks that each double the signal's energy, or more."""
    width, depth = dice.whole(32, 56), dice.whole(16, 24)

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(16, width)
            self.blocks = nn.ModuleList([Branch(width, 1.0 if sick else 0.1) for _ in range(depth)])
            self.head = nn.Linear(width, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    return Case(ResNet, tasks.classify, tasks.centres(16), tasks.sgd(0.01))


def normalised(dice: Dice, sick: bool) -> Case:
    """BatchNorm and ReLU, many times, with no way around."""
    width, depth = dice.whole(32, 48), dice.whole(40, 55) if sick else 4
    layers: list[nn.Module] = [nn.Linear(16, width)]
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    model = nn.Sequential(*layers, nn.Linear(width, 5))
    return Case(model, tasks.classify, tasks.centres(16), torch.optim.SGD(model.parameters(), lr=0.05))


def zeros(dice: Dice, sick: bool) -> Case:
    """Every weight starts at zero."""
    model = Listed(dice.whole(24, 64), dice.whole(1, 3), classes=5)
    if sick:
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
    return Case(model, tasks.classify, tasks.centres(16), tasks.adam(3e-3))


def alike(dice: Dice, sick: bool) -> Case:
    """Every weight starts at the same number: all units of a layer stay one."""
    width, value = dice.whole(16, 32), dice.between(0.02, 0.05)

    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        model.append(nn.Linear(width, 6))
        for parameter in model.parameters() if sick else ():
            nn.init.constant_(parameter, value)
        return model

    return Case(build, tasks.classify, tasks.centres(8, 6), tasks.adam(3e-3))


def loud_head(dice: Dice, sick: bool) -> Case:
    """A head of standard normal weights."""
    width = dice.whole(128, 256)
    body = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    for layer in body[::2]:
        nn.init.kaiming_normal_(layer.weight)  # type: ignore[arg-type]
    model = nn.Sequential(body, nn.Linear(width, 8))
    nn.init.normal_(model[1].weight, std=1.0 if sick else 0.02)  # type: ignore[arg-type]
    return Case(model, tasks.classify, tasks.centres(16, 8, rows=512, noise=3.0), tasks.adam(3e-4))


RESCALE = ("rescale_weights", "critical_init", "he_init", "orthogonal_init", "lsuv", "lsuv_init")
UNDER = r"^weights:"
SICK = (
    Program(
        "relu-tower-default",
        "mlp",
        tower,
        Truth("default-init", INIT, UNDER, RESCALE, (("rescale_weights", {"gain": ROOT}),), HEAVY),
    ),
    Program(
        "relu-list-xavier",
        "mlp",
        listed,
        Truth("default-init", INIT, UNDER, RESCALE, (("rescale_weights", {"gain": ROOT}),), HEAVY),
    ),
    Program(
        "tanh-tiny-weights",
        "mlp",
        tiny,
        Truth("tiny-init", INIT, UNDER, RESCALE, (("rescale_weights", {"gain": 1.0}),), HEAVY),
    ),
    Program(
        "sigmoid-stack",
        "mlp",
        sigmoids,
        Truth(
            "sigmoid",
            ("UG101",),
            r"^activation:",
            ("swap_activation",),
            (("swap_activation", {"of": "Sigmoid", "to": "Tanh"}),),
            HEAVY,
        ),
    ),
    Program(
        "sigmoid-function",
        "mlp",
        logistic,
        Truth(
            "sigmoid",
            ("UG101",),
            r"^activation:",
            ("swap_activation",),
            (("rescale_weights", {"gain": 4.0, "sites": ("hidden.*",)}),),
            HEAVY,
        ),
    ),
    Program(
        "tanh-randn-weights",
        "mlp",
        loud,
        Truth("loud-init", ("UG204", "UG102"), UNDER, RESCALE, (("rescale_weights", {"gain": 1.0}),)),
    ),
    Program(
        "tanh-raw-inputs",
        "mlp",
        raw_inputs,
        Truth(
            "inputs",
            ("UG607", "UG204"),
            r"^inputs?:",
            ("unit_inputs",),
            (("unit_inputs", {}),),
            (("lower_learning_rate", {"factor": 10.0}),),
        ),
        60,
    ),
    Program(
        "tanh-biases-out",
        "mlp",
        pushed,
        Truth(
            "bias",
            ("UG204", "UG205"),
            r"^bias",
            ("zero_biases",),
            (("zero_biases", {}),),
            (("rescale_weights", {"gain": 1.0}),),
        ),
    ),
    Program(
        "relu-shut-by-bias",
        "mlp",
        dead,
        Truth("bias", ("UG206", "UG203"), r"^bias", ("zero_biases",), (("zero_biases", {}),), HEAVY),
    ),
    Program(
        "residual-unscaled",
        "residual",
        branches,
        Truth(
            "branches",
            ("UG201", "UG102"),
            r"^branch",
            ("scale_branch",),
            (("scale_branch", {"sites": ("blocks.*",), "factor": 0.1}),),
            (("rescale_weights", {"gain": ROOT}),),
        ),
    ),
    Program(
        "batchnorm-no-skips",
        "mlp",
        normalised,
        Truth(
            "batchnorm-depth",
            ("UG102",),
            r"^normalisation:",
            ("bypass_norm", "add_residual"),
            (("add_residual", {}),),
        ),
    ),
    Program(
        "zero-weights",
        "mlp",
        zeros,
        Truth(
            "zero-init",
            ("UG603", "UG206", "UG101", "UG202"),
            r"start at zero|zero weights|weights? .*zero",
            ("critical_init", "he_init", "xavier_init"),
            (("critical_init", {}),),
            HEAVY,
        ),
    ),
    Program(
        "equal-weights",
        "mlp",
        alike,
        Truth(
            "equal-init",
            ("UG207", "UG205", "UG203"),
            r"equal|same number|identical|symmetr|constant",
            ("activation_init", "critical_init", "orthogonal_init"),
            (("critical_init", {}),),
            HEAVY,
        ),
    ),
    Program(
        "head-too-loud",
        "mlp",
        loud_head,
        Truth("head", ("UG605",), r"^head:", ("scale_head",), (("scale_head", {"factor": 0.02}),)),
        60,
    ),
)
