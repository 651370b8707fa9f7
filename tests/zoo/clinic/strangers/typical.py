"""Kept aside once: the faults that people ask about most, in plain networks, and healthy ones."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

Batches = list[tuple[Tensor, Tensor]]
HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
COLD = (("lower_learning_rate", {"factor": 0.01}),)


def quarters(x: Tensor, y: Tensor) -> Batches:
    """Return four batches of equal size."""
    return list(zip(x.chunk(4), y.chunk(4), strict=True))


def blobs(features: int, classes: int, rows: int = 192, spread: float = 0.6) -> Batches:
    """Return two clusters to each class, as make_classification does, of unit variance."""
    y = torch.arange(rows) % classes
    side = torch.randint(2, (rows,))
    x = torch.randn(classes, 2, features)[y, side] + spread * torch.randn(rows, features)
    return quarters((x - x.mean(0)) / x.std(0), y)


def rings(classes: int, rows: int = 256) -> Batches:
    """Return points of the plane on rings around zero, one radius to each class."""
    y = torch.randint(classes, (rows,))
    radius = 0.5 + y + 0.1 * torch.randn(rows)
    angle = 2 * math.pi * torch.rand(rows)
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return quarters(x / x.std(), y)


def pictures(classes: int = 6, size: int = 10, rows: int = 96) -> Batches:
    """Return grey pictures between 0 and 1: bars at places that tell the class, in noise."""
    y = torch.arange(rows) % classes
    masks = F.interpolate((torch.rand(classes, 1, 5, 5) < 0.4).float(), size=size)
    x = 0.7 * masks[y] + 0.15 * torch.rand(rows, 1, size, size)
    return quarters(x + 0.15 * torch.rand(rows, 1, 1, 1), y)


def customers(*, raw: bool, rows: int = 256) -> Batches:
    """Return a table of customers (income, age, year, balance, calls) and whether they leave."""
    z = torch.randn(rows, 5)
    y = ((z[:, 0] * z[:, 1] > 0) ^ (z[:, 4] > 0.8)).long()
    units = torch.tensor([18_000.0, 12.0, 4.0, 3_500.0, 2.0])
    middle = torch.tensor([52_000.0, 41.0, 2016.0, 9_000.0, 5.0])
    return quarters(z * units + middle if raw else z, y)


def houses(features: int, *, dollars: bool, rows: int = 256) -> Batches:
    """Return standardised descriptions of houses and their price, in dollars or standardised."""
    x = torch.randn(rows, features)
    value = torch.tanh(x @ torch.randn(features, 8) / math.sqrt(features)) @ torch.randn(8, 1)
    value = (value - value.mean()) / value.std()
    return quarters(x, 310_000 + 95_000 * value if dollars else value)


def xent(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return nn.CrossEntropyLoss()(model(batch[0]), batch[1])


def mse(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error."""
    return nn.MSELoss()(model(batch[0]), batch[1])


def unexplained(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Squared error by the variance of the targets."""
    return float(mse(model, batch).detach() / batch[1].var())


def sgd(lr: float, **more: float) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds SGD."""
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **more)


def adam(lr: float, **more: float) -> Callable[..., torch.optim.Optimizer]:
    """Return what builds Adam."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **more)


class Net(nn.Module):
    """Linear layers with one activation between them."""

    def __init__(self, sizes: list[int], act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes[:-1]))
        self.out = nn.Linear(sizes[-2], sizes[-1])
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = self.act(layer(x))
        return self.out(x)


class SmallCNN(nn.Module):
    """Two convolutions with pooling and two linear layers, as in the tutorial."""

    def __init__(self, planes: int, classes: int = 6, size: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, planes, 3, padding=1)
        self.conv2 = nn.Conv2d(planes, 2 * planes, 3, padding=1)
        self.fc1 = nn.Linear(2 * planes * (size // 4) ** 2, 32)
        self.fc2 = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


def deep_relu(dice: Dice, sick: bool) -> Case:
    """Some thirty linear layers with ReLU, weights left as nn.Linear draws them."""
    features, width, depth = dice.whole(10, 20), dice.one_of(32, 40, 48), dice.whole(24, 32)
    rate = dice.power(-3.3, -3.0)

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(features, width), nn.ReLU()]
        for _ in range(depth):
            layers += [nn.Linear(width, width), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(width, 4))
        if not sick:
            for layer in net[:-1]:
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)
        return net

    return Case(build, xent, blobs(features, 4), adam(rate))


def sigmoids(dice: Dice, sick: bool) -> Case:
    """A classifier with a sigmoid behind each of its many hidden layers."""
    features, width, depth = dice.whole(8, 16), dice.whole(24, 40), dice.whole(5, 6)
    act = nn.Sigmoid if sick else nn.ReLU
    return Case(
        lambda: Net([features, *[width] * depth, 4], act),
        xent,
        blobs(features, 4),
        sgd(dice.between(0.05, 0.1), momentum=0.9),
    )


def hot(dice: Dice, sick: bool) -> Case:
    """A convolutional net under Adam at a rate that was meant for SGD."""
    planes, rate = dice.one_of(6, 8, 12), dice.between(0.25, 0.8) if sick else 2e-3
    return Case(lambda: SmallCNN(planes), xent, pictures(), adam(rate))


def creeping(dice: Dice, sick: bool) -> Case:
    """A regression on a table whose learning rate is copied from the fine-tuning of a large model."""
    features, width = dice.whole(6, 12), dice.one_of(48, 64)
    rate = dice.power(-5.9, -5.4) if sick else 4e-3

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(features, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1)
        )

    data = houses(features, dollars=False)
    return Case(build, mse, data, lambda parameters: torch.optim.AdamW(parameters, lr=rate))


class NormBlock(nn.Module):
    """Linear, BatchNorm, ReLU, beside the identity or without it."""

    def __init__(self, width: int, *, skip: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width, bias=False)
        self.bn = nn.BatchNorm1d(width)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn(self.fc(x)))
        return x + y if self.skip else y


def normed(dice: Dice, sick: bool) -> Case:
    """Dozens of blocks with BatchNorm and no skip around any of them."""
    features, width, depth = dice.whole(8, 16), dice.one_of(32, 40), dice.whole(44, 56)
    rate = dice.between(0.02, 0.04)

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(features, width)
            self.blocks = nn.Sequential(*(NormBlock(width, skip=not sick) for _ in range(depth)))
            self.norm = nn.BatchNorm1d(width)
            self.head = nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.blocks(self.stem(x))))

    return Case(Plain, xent, blobs(features, 4), sgd(rate, momentum=0.9))


def dead(dice: Dice, sick: bool) -> Case:
    """A net with ReLU whose biases are set to a large negative number, to make it sparse."""
    features, width = dice.whole(8, 14), dice.one_of(32, 48)
    bias = -dice.between(2.5, 4.0) if sick else 0.0

    def initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.out_features == width:
                nn.init.constant_(module.bias, bias)

    return Case(
        lambda: Net([features, width, width, width, 4]).apply(initialise),
        xent,
        blobs(features, 4),
        adam(dice.power(-2.8, -2.5)),
    )


def in_units(dice: Dice, sick: bool) -> Case:
    """A table in its own units (dollars, years) fed to a net of tanh."""
    width, rate = dice.one_of(24, 32, 48), dice.power(-2.2, -1.9)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(5, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)
        )

    return Case(build, xent, customers(raw=sick), adam(rate))


def twice_softmax(dice: Dice, sick: bool) -> Case:
    """A softmax at the end of the model, and CrossEntropyLoss behind it."""
    features, width, classes = dice.whole(12, 20), dice.one_of(32, 48), dice.whole(8, 10)

    def build() -> nn.Module:
        layers = [nn.Linear(features, width), nn.ReLU(), nn.Linear(width, classes)]
        return nn.Sequential(*layers, nn.Softmax(dim=1)) if sick else nn.Sequential(*layers)

    return Case(build, xent, blobs(features, classes), sgd(dice.between(0.1, 0.2), momentum=0.9))


def constant(dice: Dice, sick: bool) -> Case:
    """All weights filled with the same number."""
    features, width, classes = dice.whole(12, 18), dice.one_of(24, 32), dice.whole(8, 10)
    value = dice.between(0.03, 0.08)

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(features, width)
            self.fc2 = nn.Linear(width, width)
            self.fc3 = nn.Linear(width, classes)
            if sick:
                for layer in (self.fc1, self.fc2, self.fc3):
                    layer.weight.data.fill_(value)
                    layer.bias.data.fill_(0.01)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))

    return Case(Classifier, xent, blobs(features, classes), adam(dice.power(-2.6, -2.3)))


class Recogniser(nn.Module):
    """A convolutional backbone to a short vector, and a head for the classes."""

    def __init__(self, planes: int, short: int, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, planes, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(planes, planes, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(9 * planes, short),
        )
        self.head = nn.Linear(short, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.backbone(x)))


def frozen(dice: Dice, sick: bool) -> Case:
    """A backbone frozen as for transfer learning, although nothing was loaded into it."""
    planes, short, rate = dice.one_of(8, 12), dice.whole(3, 4), dice.power(-2.2, -2.0)

    def build() -> nn.Module:
        net = Recogniser(planes, short, 8)
        if sick:
            for parameter in net.backbone.parameters():
                parameter.requires_grad = False
        return net

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam([p for p in parameters if p.requires_grad], lr=rate)

    return Case(build, xent, pictures(8), optimizer)


def listed(dice: Dice, sick: bool) -> Case:
    """Layers kept in a plain Python list, so that parameters() does not know them."""
    width, classes, depth = dice.whole(8, 12), dice.whole(4, 5), dice.whole(3, 4)

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Linear(2 if k == 0 else width, width) for k in range(depth)]
            self.layers = layers if sick else nn.ModuleList(layers)
            self.classifier = nn.Linear(width, classes)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.tanh(layer(x))
            return self.classifier(x)

    return Case(Stack, xent, rings(classes), adam(dice.power(-2.0, -1.8)), batches=4)


def decayed(dice: Dice, sick: bool) -> Case:
    """Adam with an L2 term that is far larger than the gradient of the loss."""
    planes, decay = dice.one_of(6, 8), dice.between(0.3, 1.0) if sick else 1e-4
    return Case(lambda: SmallCNN(planes), xent, pictures(), adam(3e-3, weight_decay=decay))


def clipped(dice: Dice, sick: bool) -> Case:
    """SGD behind a clip whose threshold is a thousandth of the gradient."""
    features, width = dice.whole(8, 14), dice.one_of(32, 48)
    threshold = dice.power(-3.6, -3.0) if sick else 1.0

    def clip(parameters: list[nn.Parameter]) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, max_norm=threshold)

    return Case(
        lambda: Net([features, width, width, 5]),
        xent,
        blobs(features, 5),
        sgd(dice.between(0.1, 0.2), momentum=0.9),
        clip=clip,
    )


def dollars(dice: Dice, sick: bool) -> Case:
    """House prices in dollars as targets of a mean squared error."""
    features, width, rate = dice.whole(6, 10), dice.one_of(32, 64), dice.power(-2.6, -2.2)

    class Regressor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(features, width)
            self.fc2 = nn.Linear(width, width)
            self.price = nn.Linear(width, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.price(F.relu(self.fc2(F.relu(self.fc1(x)))))

    return Case(Regressor, mse, houses(features, dollars=sick), adam(rate))


def he_twenty(dice: Dice, sick: bool) -> Case:
    """Twenty layers of ReLU with He's initialisation."""
    features, width = dice.whole(10, 16), dice.one_of(48, 64)

    def initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)

    return Case(
        lambda: Net([features, *[width] * 20, 4]).apply(initialise),
        xent,
        blobs(features, 4),
        adam(dice.power(-3.4, -3.0)),
    )


def xavier_eight(dice: Dice, sick: bool) -> Case:
    """Eight layers of tanh with Xavier's initialisation."""
    features, width, gain = dice.whole(8, 12), dice.one_of(32, 48), nn.init.calculate_gain("tanh")

    def build() -> nn.Module:
        net = Net([features, *[width] * 8, 3], nn.Tanh)
        for layer in net.hidden:
            nn.init.xavier_normal_(layer.weight, gain=gain)  # type: ignore[arg-type]
        return net

    return Case(build, xent, blobs(features, 3), adam(dice.power(-3.0, -2.8)))


def tutorial(dice: Dice, sick: bool) -> Case:
    """The tutorial's convolutional net on pictures between 0 and 1, Adam at 1e-3."""
    planes = dice.one_of(8, 12, 16)
    return Case(lambda: SmallCNN(planes), xent, pictures(), adam(1e-3))


def two_sigmoids(dice: Dice, sick: bool) -> Case:
    """Two hidden layers of sigmoids and one output for yes or no."""
    features, width = dice.whole(4, 8), dice.one_of(16, 24)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1].float())

    return Case(lambda: Net([features, width, width, 1], nn.Sigmoid), loss, blobs(features, 2), adam(1e-2))


def smoothed(dice: Dice, sick: bool) -> Case:
    """Smoothed labels, dropout of a half, AdamW with its usual decay."""
    features, width = dice.whole(10, 16), dice.one_of(64, 96)
    smoothing = dice.between(0.05, 0.15)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(features, width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(width, 5),
        )

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=smoothing)

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)

    return Case(build, loss, blobs(features, 5), optimizer)


def transferred(dice: Dice, sick: bool) -> Case:
    """A backbone that was trained on the same kind of pictures and is frozen; a new head is trained."""
    planes, wide = dice.one_of(8, 12), dice.one_of(16, 24)
    data = pictures(6)
    source = Recogniser(planes, wide, 6)
    trainer = torch.optim.Adam(source.parameters(), lr=5e-3)
    for step in range(60):
        trainer.zero_grad()
        xent(source, data[step % 4]).backward()
        trainer.step()
    learned = {name: value.clone() for name, value in source.backbone.state_dict().items()}

    def build() -> nn.Module:
        net = Recogniser(planes, wide, 6)
        net.backbone.load_state_dict(learned)
        net.backbone.requires_grad_(False)
        return net

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in parameters if p.requires_grad], lr=0.1, momentum=0.9)

    return Case(build, xent, data, optimizer)


def clipped_at_one(dice: Dice, sick: bool) -> Case:
    """SGD with momentum behind a clip at 1.0."""
    features, width = dice.whole(8, 12), dice.one_of(32, 64)

    def clip(parameters: list[nn.Parameter]) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, max_norm=1.0)

    return Case(
        lambda: Net([features, width, width, 4], nn.LeakyReLU),
        xent,
        blobs(features, 4),
        sgd(0.05, momentum=0.9, weight_decay=1e-4),
        clip=clip,
    )


class Residual(nn.Module):
    """A basic block with BatchNorm."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


def resnet(dice: Dice, sick: bool) -> Case:
    """A small ResNet with a cosine schedule."""
    planes, blocks, rate = dice.one_of(8, 12), dice.whole(3, 5), dice.between(0.03, 0.06)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, planes, 3, padding=1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(),
            *(Residual(planes) for _ in range(blocks)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(planes, 6),
        )

    return Case(
        build,
        xent,
        pictures(),
        sgd(rate, momentum=0.9, weight_decay=5e-4),
        schedule=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100),
    )


def autoencoder(dice: Dice, sick: bool) -> Case:
    """An autoencoder of pictures between 0 and 1 with a sigmoid at its end."""
    narrow, width = dice.whole(6, 10), dice.one_of(48, 64)

    def build() -> nn.Module:
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(100, width), nn.ReLU(), nn.Linear(width, narrow))
        decoder = nn.Sequential(nn.Linear(narrow, width), nn.ReLU(), nn.Linear(width, 100), nn.Sigmoid())
        return nn.Sequential(encoder, decoder)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[0].flatten(1))

    return Case(build, loss, pictures(), adam(2e-3))


def temperatures(dice: Dice, sick: bool) -> Case:
    """A regression of degrees around 18 under the Huber loss, with the mean as the head's first bias."""
    features, width, spread = dice.whole(5, 9), dice.one_of(32, 48), dice.between(3, 6)
    data = [(x, 18 + spread * y) for x, y in houses(features, dollars=False)]

    def build() -> nn.Module:
        net = Net([features, width, width, 1], nn.SiLU)
        nn.init.constant_(net.out.bias, 18.0)
        return net

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.smooth_l1_loss(model(batch[0]), batch[1])

    return Case(build, loss, data, adam(1e-2))


DRAWN = (
    "rescale_weights",
    "activation_init",
    "critical_init",
    "orthogonal_init",
    "lsuv",
    "unit_jacobian_init",
)
SICK: tuple[Program, ...] = (
    Program(
        "typical-deep-relu-default",
        "mlp",
        deep_relu,
        Truth(
            "small-init",
            ("UG101", "UG202", "UG205", "UG206"),
            r"(?i)initiali[sz]|\binit\b|weights? (are|is|start|too|drawn)|weights:|\bgain\b|\bHe\b|kaiming",
            DRAWN,
            (("activation_init", {}),),
            HEAVY,
        ),
        150,
    ),
    Program(
        "typical-sigmoid-stack",
        "mlp",
        sigmoids,
        Truth(
            "sigmoid-depth",
            ("UG101", "UG202", "UG205", "UG204"),
            r"(?i)sigmoid|activation",
            ("swap_to_relu", "swap_activation"),
            (("swap_to_relu", {}),),
            HEAVY,
        ),
        150,
    ),
    Program(
        "typical-adam-rate-too-high",
        "cnn",
        hot,
        Truth(
            "high-rate",
            ("UG601", "UG611"),
            r"(?i)learning.rate|step size|first (step|update)|\blr\b|updates? (is|are) too (large|big)",
            ("lower_learning_rate", "warm_up"),
            (("lower_learning_rate", {"factor": 0.004}),),
            (("clip_gradients", {"threshold": 1.0}),),
        ),
        100,
    ),
    Program(
        "typical-rate-too-low",
        "mlp",
        creeping,
        Truth(
            "low-rate",
            ("UG602",),
            r"(?i)learning.rate|step size|\blr\b|updates? (is|are) too small",
            ("lower_learning_rate", "use_adamw"),
            (("lower_learning_rate", {"factor": 1000.0}),),
            (("activation_init", {}),),
        ),
        150,
    ),
    Program(
        "typical-batchnorm-no-skips",
        "mlp",
        normed,
        Truth(
            "deep-batchnorm",
            ("UG102", "UG601", "UG611", "UG205"),
            r"(?i)batch.?norm|normali[sz]|\bskip|residual|shortcut|explod",
            ("add_residual", "bypass_norm", "gated_skip", "concat_skip"),
            (("add_residual", {}),),
            HEAVY,
        ),
        80,
    ),
    Program(
        "typical-relu-dead-by-bias",
        "mlp",
        dead,
        Truth(
            "negative-bias",
            ("UG203", "UG206", "UG202", "UG205", "UG103", "UG101", "UG603"),
            r"(?i)\bbias|dead|never (on|active|fire)|\bdies?\b",
            ("zero_biases",),
            (("zero_biases", {}),),
            HEAVY,
        ),
        120,
    ),
    Program(
        "typical-table-in-own-units",
        "tabular",
        in_units,
        Truth(
            "input-scale",
            ("UG607", "UG204", "UG206", "UG203", "UG601", "UG605", "UG205"),
            r"(?i)inputs?\b.*(scale|unit|large|rms)|(scale|size|rms) of.*input|feature|standardi|saturat",
            ("unit_inputs",),
            (),
            (("activation_init", {}),),
        ),
        150,
    ),
    Program(
        "typical-softmax-twice",
        "mlp",
        twice_softmax,
        Truth(
            "double-softmax",
            ("UG606",),
            r"(?i)softmax|probabilit|twice",
            ("drop_output_softmax",),
            (("drop_output_softmax", {}),),
            COLD,
        ),
        120,
    ),
    Program(
        "typical-constant-weights",
        "mlp",
        constant,
        Truth(
            "equal-weights",
            ("UG207", "UG205"),
            r"(?i)\bcop(y|ies)|identical|symmetr|constant|alike|(same|equal) (weight|value|row|function)",
            (*DRAWN, "sigma_reparam"),
            (("orthogonal_init", {}),),
            COLD,
        ),
        150,
    ),
    Program(
        "typical-backbone-left-frozen",
        "cnn",
        frozen,
        Truth(
            "frozen",
            ("UG603", "UG604"),
            r"(?i)frozen|freez|requires_grad|not (being )?train|never learn|do(es)? not learn",
            ("unfreeze", "hold_parameters"),
            (("unfreeze", {}),),
            COLD,
        ),
        120,
    ),
    Program(
        "typical-layers-in-a-list",
        "mlp",
        listed,
        Truth(
            "unregistered",
            ("UG603", "UG604"),
            r"(?i)\blist\b|regist|ModuleList|optimi[sz]er (does not|never)|not (held|given)|parameters\(\)",
            ("hold_parameters",),
            (),
            COLD,
        ),
        150,
    ),
    Program(
        "typical-coupled-decay-too-strong",
        "cnn",
        decayed,
        Truth(
            "weight-decay",
            ("UG609",),
            r"(?i)decay|\bL2\b|regulari[sz]",
            ("lower_weight_decay", "use_adamw"),
            (("lower_weight_decay", {"factor": 1e-4}),),
            HEAVY,
        ),
        120,
    ),
    Program(
        "typical-clip-far-too-small",
        "mlp",
        clipped,
        Truth(
            "tiny-clip",
            ("UG602",),
            r"(?i)\bclip|threshold",
            ("clip_gradients",),
            (("clip_gradients", {"threshold": 1.0}),),
            (("activation_init", {}),),
        ),
        120,
    ),
    Program(
        "typical-prices-in-dollars",
        "regression",
        dollars,
        Truth(
            "target-scale",
            ("UG605", "UG602", "UG607", "UG601", "UG611"),
            r"(?i)target|label|standardi[sz]|(scale|range|mean) of (the )?(output|prediction)",
            (),
            (),
            (("activation_init", {}),),
        ),
        150,
        unexplained,
    ),
)
HEALTHY: tuple[Program, ...] = (
    Program("typical-he-twenty-layers", "mlp", he_twenty),
    Program("typical-xavier-tanh-eight", "mlp", xavier_eight),
    Program("typical-tutorial-cnn", "cnn", tutorial),
    Program("typical-two-sigmoid-layers", "mlp", two_sigmoids, steps=200),
    Program("typical-dropout-smoothed-labels", "mlp", smoothed),
    Program("typical-head-on-trained-backbone", "cnn", transferred),
    Program("typical-clip-at-one", "mlp", clipped_at_one),
    Program("typical-small-resnet-cosine", "residual", resnet),
    Program("typical-autoencoder-sigmoid", "autoencoder", autoencoder),
    Program("typical-degrees-with-mean-bias", "regression", temperatures),
)
