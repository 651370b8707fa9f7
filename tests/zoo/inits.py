"""Healthy networks as they are drawn at the start, eight families: what the study of false alarms runs on.

Each is at or near its critical point and of a depth that trains; widths, depths, initialisers and batches are
drawn. Many are deeper than a fifth of their width, where one draw wanders by a factor.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import unitygain.measures
import unitygain.rules
from unitygain._case import Case
from unitygain._diagnose import GAINS, judge, measure_all
from unitygain._registry import MEASURES, RULES
from unitygain._types import Profile
from unitygain.probe.isolate import isolated
from zoo.patient import classify, labelled

assert unitygain.measures
assert unitygain.rules

CLASSES, FEATURES, TOKENS = 10, 16, 24
WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256)
# The half-stable point of GELU (Roberts, Yaida and Hanin 2022, chapter 5; `unitygain.theory.critical`).
GELU_WEIGHT, GELU_BIAS = 1.98305826, 0.17292239


def set_weights(dice: random.Random, layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    """Give a layer weights of variance gain²/fan_in, of a kind that the dice choose, and no bias."""
    kind = dice.choice(("normal", "uniform", "orthogonal", "truncated"))
    deviation = gain / math.sqrt(layer.weight[0].numel())
    if kind == "uniform":
        nn.init.uniform_(layer.weight, -math.sqrt(3) * deviation, math.sqrt(3) * deviation)
    elif kind == "orthogonal":
        rows, columns = layer.weight.shape[0], layer.weight[0].numel()
        nn.init.orthogonal_(layer.weight, gain * max(1.0, math.sqrt(rows / columns)))
    elif kind == "truncated":
        nn.init.trunc_normal_(
            layer.weight, std=deviation / 0.88, a=-2 * deviation / 0.88, b=2 * deviation / 0.88
        )
    else:
        nn.init.normal_(layer.weight, std=deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def set_head(model: nn.Module) -> None:
    """Give the last linear map small weights: the loss starts near that of a guess."""
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(head.weight, std=0.5 * head.in_features**-0.5)
    nn.init.zeros_(head.bias)


def chain(
    dice: random.Random,
    act: Callable[[], nn.Module],
    gain: float,
    depth: int,
    norm: Callable[[int], nn.Module] | None = None,
    rows: tuple[int, ...] = (2, 16, 64),
) -> Case:
    """Return a plain network of one width; with few rows one draw wanders as far as the null law allows."""
    width = dice.choice(WIDTHS)
    layers: list[nn.Module] = []
    for index in range(depth):
        linear = nn.Linear(FEATURES if index == 0 else width, width)
        set_weights(dice, linear, gain)
        layers += [linear, *([norm(width)] if norm else []), act()]
    model = nn.Sequential(*layers, nn.Linear(width, CLASSES))
    set_head(model)
    return Case(model, classify, labelled(dice.choice(rows), FEATURES))


def relu(dice: random.Random) -> Case:
    """Plain ReLU under He's variance."""
    return chain(dice, nn.ReLU, math.sqrt(2), dice.randint(3, 32))


def tanh(dice: random.Random) -> Case:
    """Plain tanh at its critical point without bias: Xavier's variance."""
    return chain(dice, nn.Tanh, 1.0, dice.randint(3, 32))


def gelu(dice: random.Random) -> Case:
    """Plain GELU at its half-stable point, with the biases that belong to it."""
    case = chain(dice, nn.GELU, math.sqrt(GELU_WEIGHT), dice.randint(3, 16))
    for layer in [module for module in case.model.modules() if isinstance(module, nn.Linear)][:-1]:
        nn.init.normal_(layer.bias, std=math.sqrt(GELU_BIAS))
    return case


def conv(dice: random.Random) -> Case:
    """Convolutions with ReLU under He's variance."""
    width, depth, side = dice.choice((16, 24, 32, 48)), dice.randint(3, 16), dice.choice((8, 12))
    layers: list[nn.Module] = []
    for index in range(depth):
        layer = nn.Conv2d(3 if index == 0 else width, width, 3, padding=1)
        set_weights(dice, layer, math.sqrt(2))
        layers += [layer, nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))
    set_head(model)
    return Case(model, classify, labelled(16, 3, side, side))


class Residual(nn.Module):
    """x + scale·W₂ relu(W₁ x)."""

    def __init__(self, dice: random.Random, width: int, scale: float) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        self.scale = scale
        set_weights(dice, self.up, math.sqrt(2))
        set_weights(dice, self.down, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.down(self.act(self.up(x)))


def residual(dice: random.Random) -> Case:
    """Residual blocks without normalisation, the branches divided by the root of the depth."""
    width, depth = dice.choice(WIDTHS), dice.randint(3, 32)
    stem = nn.Linear(FEATURES, width)
    set_weights(dice, stem, 1.0)
    blocks = (Residual(dice, width, dice.choice((1.0, 0.5)) / math.sqrt(depth)) for _ in range(depth))
    model = nn.Sequential(stem, *blocks, nn.Linear(width, CLASSES))
    set_head(model)
    return Case(model, classify, labelled(dice.choice((16, 32)), FEATURES))


class Transformer(nn.Module):
    """Embeddings, Pre-LN layers, a last LayerNorm, scores from the mean token."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        width = dice.choice((16, 32, 64, 128))
        self.embed, self.place = nn.Embedding(TOKENS, width), nn.Parameter(0.5 * torch.randn(16, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(dice.randint(3, 12))
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(1))


def transformer(dice: random.Random) -> Case:
    """A Pre-LN transformer as PyTorch draws it."""
    model = Transformer(dice)
    set_head(model)
    return Case(model, classify, [(torch.randint(TOKENS, (8, 16)), torch.randint(CLASSES, (8,)))])


class Reader(nn.Module):
    """A recurrent layer and a head on its last state."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(layer.hidden_size, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


def recurrent(dice: random.Random) -> Case:
    """An LSTM or GRU as PyTorch draws it, over few steps."""
    kind, hidden = dice.choice((nn.LSTM, nn.GRU)), dice.choice((16, 32, 64, 128))
    layer = kind(FEATURES, hidden, num_layers=dice.choice((1, 2)), batch_first=True)
    model = Reader(layer)
    set_head(model)
    return Case(model, classify, labelled(16, dice.randint(6, 16), FEATURES))


def normalised(dice: random.Random) -> Case:
    """ReLU behind LayerNorm up to 32 layers deep, or behind BatchNorm up to 8."""
    if dice.random() < 0.5:
        return chain(dice, nn.ReLU, math.sqrt(2), dice.randint(3, 32), nn.LayerNorm)
    return chain(dice, nn.ReLU, math.sqrt(2), dice.randint(3, 8), nn.BatchNorm1d, (32, 64))


FAMILIES: dict[str, Callable[[random.Random], Case]] = {
    "plain ReLU": relu,
    "plain tanh": tanh,
    "plain GELU": gelu,
    "convolution": conv,
    "residual": residual,
    "Pre-LN transformer": transformer,
    "LSTM, GRU": recurrent,
    "LayerNorm, BatchNorm": normalised,
}


def draw(family: str, seed: int) -> Case:
    """Return one network of a family; the same seed gives the same one, and nothing else is disturbed."""
    with torch.random.fork_rng():
        torch.manual_seed(1000 * list(FAMILIES).index(family) + seed)
        return FAMILIES[family](random.Random(f"{family} {seed}"))


def study(family: str, seed: int) -> dict[str, Any]:
    """Diagnose one network and say what alarmed and which p-values it has."""
    read = GAINS | {name for rule in RULES.values() for name in (*rule.needs, *rule.wants)}
    chosen = [measure for name, measure in MEASURES.items() if name in read]
    with isolated(draw(family, seed)) as (case, _):
        profiles, _, _ = measure_all(case, None, 8, 0, lambda *_: None, chosen)
    loud = {f.code: f for f in judge(profiles, RULES.values()) if f.severity != "info"}
    found = [profiles[name].facts for name in sorted(GAINS) if name in profiles]
    places = [float(facts["p_worst_site"]) for facts in found if "p_worst_site" in facts]
    loops = [float(facts["redrawn_p"]) for facts in found if "redrawn_p" in facts]
    unity = [float(facts["unity_p"]) for facts in found if "unity_p" in facts]
    return {
        "warning": bool(loud),
        "error": any(f.severity == "error" for f in loud.values()),
        "codes": sorted(loud),
        "said": [f"{family} {seed}: {f.code} {f.severity}: {f.message}" for f in loud.values()],
        # Several p-values of one report: the least of them times their number.
        "places": min([1.0, *(p * len(places) for p in places)]) if places else None,
        "loops": min([1.0, *(p * len(loops) for p in loops)]) if loops else None,
        "unity": min([1.0, *(p * len(unity) for p in unity)]) if unity else None,
        "each": [*places, *loops],
        "deep": deep(profiles),
    }


def deep(profiles: dict[str, Profile]) -> bool:
    """Whether the trunk's variance of the log squared gain says that chance alone gives a factor."""
    facts = profiles["backward_gain"].facts if "backward_gain" in profiles else {}
    return float(facts.get("unity_db_high", 0.0)) - float(facts.get("unity_db_low", 0.0)) > 20
