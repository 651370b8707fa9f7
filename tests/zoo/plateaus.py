"""Learning rates that lower the loss to that of a guess and no further, and ones that are high and learn."""

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo.dice import Dice, Draw
from zoo.patient import Patient, classify, seeded

CLASSES, TOKENS, LENGTH = 5, 12, 10
# What else a Post-LN encoder of this size may show before it is trained.
ALSO = ("UG205",)


class Encoder(nn.Module):
    """Token embedding, encoder layers of torch, and a head on the mean token."""

    def __init__(self, layers: int, width: int, *, first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=first)
        self.embed = nn.Embedding(TOKENS, width)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens)).mean(1))


def case(layers: int, width: int, rate: float, *, first: bool = False) -> Case:
    """Return the counting of small tokens, which is learnt in a few dozen steps."""
    tokens = torch.randint(TOKENS, (96, LENGTH))
    counts = (tokens < 3).sum(1).clamp(max=CLASSES - 1)
    data = list(zip(tokens.split(32), counts.split(32), strict=True))
    model = Encoder(layers, width, first=first)
    return Case(model, classify, data, lambda parameters: torch.optim.Adam(parameters, rate))


def sick() -> list[Patient]:
    """Return encoders whose rate leaves them where a guess is."""
    made = {
        "post-norm": lambda: case(6, 32, 0.03),
        "post-norm-deeper": lambda: case(8, 32, 0.02),
        "post-norm-wide": lambda: case(6, 48, 0.03),
    }
    return [
        Patient(f"plateau-{name}", "plateaus", seeded(make), ("UG611",), ALSO) for name, make in made.items()
    ]


def healthy() -> list[Patient]:
    """Return encoders that learn at the rates of others."""
    made = {
        "post-norm": lambda: case(6, 32, 1e-3),
        "post-norm-quick": lambda: case(2, 32, 5e-3),
        "pre-norm": lambda: case(6, 32, 3e-3, first=True),
        "pre-norm-quick": lambda: case(4, 32, 1e-2, first=True),
        "pre-norm-slow": lambda: case(6, 48, 1e-4, first=True),
    }
    return [
        Patient(f"climbs-{name}", "plateaus", seeded(make), near=("UG611",)) for name, make in made.items()
    ]


def drawn(dice: Dice) -> Case:
    """Return an encoder whose rate is far too high."""
    return case(dice.whole(6, 8), dice.one_of(32, 40), dice.between(0.025, 0.04))


def drawn_well(dice: Dice) -> Case:
    """Return one whose rate is a usual one."""
    return case(dice.whole(2, 4), dice.one_of(32, 40), dice.power(-3.3, -2.7), first=dice.one_of(True, False))


DRAWS = (
    Draw("plateau", "plateaus", drawn, ("UG611",), ALSO),
    Draw("climbs", "plateaus", drawn_well, near=("UG611",)),
)
