"""Models with a block whose gain its weights do not explain, and odd models whose weights do."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo import cnn, mlp, transformer
from zoo.dice import Dice, Draw
from zoo.patient import Patient, seeded


class Scaled(torch.autograd.Function):
    """The identity, with a backward that is not its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


class Layer(nn.Module):
    """A linear layer, an activation, and what is done to the gradient on its way back."""

    def __init__(self, width: int, activation: nn.Module, gain: float, factor: float = 1.0) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)
        nn.init.normal_(self.map.weight, std=gain / math.sqrt(width))
        nn.init.zeros_(self.map.bias)
        self.activation, self.factor = activation, factor

    def forward(self, x: Tensor) -> Tensor:
        return Scaled.apply(self.activation(self.map(x)), self.factor)


class Hooked(nn.Module):
    """A block, with a hook on the gradient that enters it from behind."""

    def __init__(self, block: nn.Module, factor: float) -> None:
        super().__init__()
        self.block, self.factor = block, factor

    def forward(self, x: Tensor, **more: Any) -> Tensor:
        out = self.block(x, **more)
        if out.requires_grad and self.factor != 1:
            out.register_hook(self.scale)
        return out

    def scale(self, gradient: Tensor) -> Tensor:
        """Return what the block gets to see."""
        return self.factor * gradient


def layers(width: int, depth: int, activation: nn.Module, gain: float, odd: dict[int, float]) -> nn.Module:
    """Return layers of which some scale the gradient, and a head."""
    stack = [Layer(width, activation, gain, odd.get(k, 1.0)) for k in range(depth)]
    return nn.Sequential(*stack, nn.Linear(width, 10))


def hooked_cnn(depth: int, layer: int, factor: float) -> nn.Module:
    """Return convolutions of which one has a hook on its gradient."""
    model = cnn.Network(depth, 16, lambda _: nn.Identity(), he=True)
    model.blocks = nn.Sequential(
        *(Hooked(b, factor if k == layer else 1.0) for k, b in enumerate(model.blocks))
    )
    return model


def hooked_transformer(layer: int, factor: float) -> nn.Module:
    """Return Pre-LN blocks of which one has a hook on its gradient."""
    model = transformer.Transformer(6, 32, first=True)
    blocks = enumerate(model.blocks)
    model.blocks = nn.ModuleList(Hooked(b, factor if k == layer else 1.0) for k, b in blocks)
    return model


def positive(width: int, depth: int, layer: int, high: float) -> nn.Module:
    """Return sigmoids of which one reads weights that are all positive, as uniform_(0, high) makes them."""
    model: Any = mlp.plain(width, depth, nn.Sigmoid, mlp.times(4.0))
    nn.init.uniform_(model[2 * layer].weight, 0, high)
    return model


def heavy(weight: Tensor) -> None:
    """Fill with numbers of which a few are large, at He's scale."""
    drawn = torch.distributions.StudentT(3.0).sample(weight.shape)
    weight.data = drawn * math.sqrt(2 / weight.shape[1]) / math.sqrt(3.0)


def sparse(weight: Tensor) -> None:
    """Fill with zeros but for a fifth, at He's scale."""
    weight.data = torch.randn_like(weight) * (torch.rand_like(weight) < 0.2) * math.sqrt(10 / weight.shape[1])


def dropout(width: int, depth: int, share: float) -> nn.Module:
    """Return ReLU layers with dropout behind each."""
    stack: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(width, width)
        nn.init.normal_(layer.weight, std=math.sqrt(2 * (1 - share) / width))
        stack.append(nn.Sequential(layer, nn.ReLU(), nn.Dropout(share)))
    return nn.Sequential(*stack, nn.Linear(width, 10))


def drawn_backward(dice: Dice) -> Case:
    """Return layers of which one has a backward that is wrong by a drawn factor."""
    width, factor = dice.whole(48, 80), dice.power(-1.6, -0.9)
    activation, gain = dice.one_of((nn.ReLU(), math.sqrt(2)), (nn.SELU(), 1.0))
    return mlp.case(layers(width, 10, activation, gain, {dice.whole(2, 7): factor}), width)


def drawn_hook(dice: Dice) -> Case:
    """Return convolutions of which one has a hook on its gradient."""
    return cnn.case(hooked_cnn(9, dice.whole(2, 6), dice.power(-1.5, -0.8)))


def drawn_scales(dice: Dice) -> Case:
    """Return layers of which each has a scale of its own: every gain is another, and all are explained."""
    width = dice.whole(64, 96)
    model: Any = mlp.plain(width, 8, nn.ReLU, mlp.he)
    for k in range(0, 8, 2):
        factor = dice.power(-0.5, 0.5)
        model[2 * k].weight.data *= factor
        model[2 * k + 2].weight.data /= factor
    return mlp.case(model, width)


def sick() -> list[Patient]:
    """Return models in which something acts beside the weights."""
    build: dict[str, tuple[Callable[[], Case], tuple[str, ...]]] = {
        "wrong-backward": (
            lambda: mlp.case(layers(64, 10, nn.ReLU(), math.sqrt(2), {4: 0.05}), 64),
            (),
        ),
        "wrong-backward-loud": (lambda: mlp.case(layers(64, 8, nn.SELU(), 1.0, {3: 8.0}), 64), ()),
        "gradient-hook-cnn": (lambda: cnn.case(hooked_cnn(9, 4, 0.1)), ()),
        "gradient-hook-transformer": (lambda: transformer.case(hooked_transformer(3, 0.1)), ()),
        "positive-weights": (
            lambda: mlp.case(positive(64, 6, 3, 0.4), 64),
            ("UG103", "UG204", "UG205", "UG101", "UG301"),
        ),
    }
    return [
        Patient(f"claims-{name}", "claims", seeded(make), ("UG105",), also)
        for name, (make, also) in build.items()
    ]


def healthy() -> list[Patient]:
    """Return models with odd weights that explain what they do."""
    build: dict[str, Callable[[], Case]] = {
        "heavy-tails": lambda: mlp.case(mlp.plain(96, 10, nn.ReLU, heavy), 96),
        "sparse": lambda: mlp.case(mlp.plain(96, 10, nn.ReLU, sparse), 96),
        "dropout": lambda: mlp.case(dropout(96, 8, 0.3), 96),
        "no-wrong-backward": lambda: mlp.case(layers(64, 10, nn.ReLU(), math.sqrt(2), {}), 64),
        "no-hook-transformer": lambda: transformer.case(hooked_transformer(3, 1.0)),
    }
    return [
        Patient(f"claims-{name}", "claims", seeded(make), near=("UG105",)) for name, make in build.items()
    ]


DRAWS = (
    Draw("wrong-backward", "claims", drawn_backward, ("UG105",)),
    Draw("gradient-hook", "claims", drawn_hook, ("UG105",)),
    Draw("scales-of-their-own", "claims", drawn_scales, near=("UG105",)),
)
