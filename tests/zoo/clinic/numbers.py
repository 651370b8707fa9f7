"""Numbers that leave their range: float16 without a scaler, and NaN of one operation."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from zoo.clinic import tasks
from zoo.clinic.around import mlp
from zoo.clinic.program import Program, Truth
from zoo.dice import Dice

HEAVY = (("lower_learning_rate", {"factor": 10.0}),)
COLD = (("lower_learning_rate", {"factor": 0.01}),)


def unscaled_step(case: Case, batch: object) -> Tensor:
    """One step in autocast, without a gradient scaler."""
    optimizer = case.optimizer
    optimizer.zero_grad()
    loss = case.compute_loss(batch)
    loss.backward()
    optimizer.step()
    return loss.detach()


def underflow_conv(dice: Dice, sick: bool) -> Case:
    """A reconstruction in float16 whose loss is a mean over pixels, weighted down."""
    channels = dice.whole(8, 12)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return 1e-5 * F.mse_loss(model(batch[0]).float(), batch[0])

    model = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(channels, 1, 3, padding=1),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, eps=1e-14)
    precision = "float16" if sick else "bfloat16"
    return Case(model, loss, tasks.stripes(10), optimizer, step=unscaled_step, precision=precision)


def overflow(dice: Dice, sick: bool) -> Case:
    """A sum over many large features in float16."""
    features, scale = dice.whole(64, 96), dice.between(1500, 3000)

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix = nn.Linear(features, 64), nn.Linear(64, 64)
            self.norm, self.out = nn.LayerNorm(64), nn.Linear(64, 5)
            nn.init.normal_(self.embed.weight)
            nn.init.normal_(self.mix.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(self.mix(scale * self.embed(x)).float()))

    precision = "float16" if sick else None
    return Case(Pooled, tasks.classify, tasks.centres(features), tasks.adam(3e-3), precision=precision)


def root(dice: Dice, sick: bool) -> Case:
    """Distances of equal points: the slope of the root at zero."""
    width = dice.whole(24, 40)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        z = model(batch[0])
        squares = (z[:, None] - z[None]).square().sum(-1)
        distance = squares.sqrt() if sick else (squares + 1e-6).sqrt()
        same = batch[1][:, None] == batch[1][None]
        return torch.where(same, distance, F.relu(2 - distance)).mean()

    return Case(lambda: mlp(12, width, 6), loss, tasks.centres(12, 4), tasks.adam(3e-3))


def masked(dice: Dice, sick: bool) -> Case:
    """Attention whose mask leaves a row of padding nothing to look at."""
    width, length = dice.one_of(16, 24, 32), 10

    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(13, width)
            self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
            self.fc = nn.Linear(width, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embed(tokens)
            visible = (tokens != 12)[:, None, :] & (tokens != 12)[:, :, None]
            scores = self.q(x) @ self.k(x).mT / width**0.5
            scores = scores.masked_fill(~visible, float("-inf") if sick else -1e4)
            return self.fc((scores.softmax(-1) @ self.v(x)).mean(1))

    data = []
    for tokens, labels in tasks.majority(length):
        tokens[: len(tokens) // 2, length - 2 :] = 12
        data.append((tokens, labels))
    return Case(Pooling, tasks.classify, data, tasks.adam(1e-2))


def standardised(dice: Dice, sick: bool) -> Case:
    """Features divided by their spread, one of which has none."""
    width = dice.whole(24, 48)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x = batch[0]
        spread = x.std(0) if sick else x.std(0) + 1e-5
        return F.cross_entropy(model((x - x.mean(0)) / spread), batch[1])

    data = [(torch.cat([x, torch.ones(len(x), 1)], 1), y) for x, y in tasks.centres(9)]
    model = mlp(10, width, 5)
    return Case(model, loss, data, torch.optim.SGD(model.parameters(), lr=0.1))


def targets(dice: Dice, sick: bool) -> Case:
    """Prices of houses in their currency, under a squared error."""
    width, price = dice.whole(32, 48), dice.power(4.5, 5.5)
    data = [(x, (2 + y) * price if sick else y) for x, y in tasks.smooth(10)]
    return Case(lambda: mlp(10, width, 1), tasks.regress, data, tasks.sgd(0.01))


SICK = (
    Program(
        "float16-underflow-pixels",
        "cnn",
        underflow_conv,
        Truth(
            "underflow",
            ("UG501",),
            r"float16|loss scale|subnormal|smallest",
            ("loss_scale", "change_precision"),
            (("loss_scale", {"scale": 2.0**16}),),
            HEAVY,
        ),
        80,
    ),
    Program(
        "float16-overflow",
        "mlp",
        overflow,
        Truth(
            "overflow",
            ("UG502", "UG901"),
            r"float16|overflow|range",
            ("change_precision",),
            (("change_precision", {"precision": "bfloat16"}),),
            (("loss_scale", {"scale": 2.0**-10}),),
        ),
    ),
    Program(
        "spread-of-a-constant",
        "mlp",
        standardised,
        Truth("nan-input", ("UG901", "UG607"), r"div|input|std|0/0", (), (), COLD),
        60,
    ),
    Program(
        "targets-in-currency",
        "mlp",
        targets,
        Truth(
            "targets",
            ("UG601", "UG605", "UG609"),
            r"target",
            ("unit_targets",),
            (),
            (("rescale_weights", {"gain": 1.0}),),
        ),
    ),
)
