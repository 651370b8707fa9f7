"""Drawn by seed: dtypes, steps, optimizers, the loss's link, inputs, attention, and what is not finite."""

from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from zoo import optimizers, precision, sound, training, transformer
from zoo.dice import Dice, Draw
from zoo.patient import classify

KINDS = ("mlp", "cnn", "residual", "recurrent", "transformer")


def loss_times(low: float, high: float, *kinds: str, dtype: str | None = None) -> Any:
    """Return what builds a case whose loss is multiplied by a drawn power of ten."""

    def make(dice: Dice) -> Case:
        kind, factor = dice.one_of(*kinds), dice.power(low, high)
        return sound.case(kind, loss=precision.times(factor), precision=dtype)

    return make


def amplified(low: float, high: float) -> Any:
    """Return what builds a case in float16 whose first weights are large."""

    def make(dice: Dice) -> Case:
        factor = dice.power(low, high)
        return precision.half(
            "mlp", precision.amplify(factor), loss=precision.times(1024.0) if high < 3 else classify
        )

    return make


def descent(low: float, high: float, *kinds: str) -> Any:
    """Return what builds a case with gradient descent of a drawn rate."""
    return lambda dice: sound.case(dice.one_of(*kinds), optimizer=optimizers.sgd(dice.power(low, high)))


def adam(low: float, high: float) -> Any:
    """Return what builds a case with AdamW of a drawn rate."""
    return lambda dice: sound.case(dice.one_of(*KINDS), optimizer=optimizers.adam(dice.power(low, high)))


def momentum(dice: Dice) -> Case:
    """Return a case with gradient descent, momentum and a sound rate."""
    return sound.case(dice.one_of(*KINDS), optimizer=optimizers.sgd(dice.power(-3, -1.3), momentum=0.9))


def heavy(dice: Dice) -> Case:
    """Return a case whose weight decay outweighs its gradient."""
    rate = dice.power(-3, -2)
    build = dice.one_of(
        optimizers.coupled(rate, dice.between(0.5, 1.5)),
        optimizers.adam(rate, weight_decay=dice.between(0.06, 0.2) / rate),
        optimizers.sgd(0.1, weight_decay=dice.between(0.6, 1.5)),
    )
    return sound.case(dice.one_of("mlp", "cnn", "transformer"), optimizer=build)


def light(dice: Dice) -> Case:
    """Return a case with weight decay as recipes have it."""
    build = dice.one_of(
        optimizers.coupled(1e-3, dice.power(-5, -2)),
        optimizers.adam(dice.power(-4, -2), weight_decay=dice.power(-2, -0.5)),
        optimizers.sgd(dice.power(-2, -1), momentum=0.9, weight_decay=dice.power(-5, -3)),
    )
    return sound.case(dice.one_of(*KINDS), optimizer=build)


def hot(dice: Dice) -> Case:
    """Return a case with momentum at a rate that its first steps cannot stand."""
    return sound.case(
        dice.one_of("cnn", "residual"), optimizer=optimizers.sgd(dice.power(0.8, 1.3), momentum=0.9)
    )


def perceptron(dice: Dice) -> nn.Sequential:
    """Return a sound perceptron of drawn size."""
    return sound.mlp(dice.whole(2, 5), dice.whole(24, 48))


def head_times(low: float, high: float, *kinds: str, loss: Any = classify) -> Any:
    """Return what builds a case whose head is multiplied by a drawn power of ten."""

    def make(dice: Dice) -> Case:
        return sound.case(dice.one_of(*kinds), training.loud_head(dice.power(low, high)), loss=loss)

    return make


def softmax_twice(dice: Dice) -> Case:
    """Return a perceptron that ends in a softmax before a cross-entropy."""
    return Case(
        nn.Sequential(perceptron(dice), nn.Softmax(-1)), classify, [sound.batch("mlp", dice.whole(8, 64))]
    )


def probabilities(dice: Dice) -> Case:
    """Return a perceptron that ends in a sigmoid before a loss of probabilities."""
    model = nn.Sequential(perceptron(dice), nn.Sigmoid())
    return Case(model, training.probabilities, [sound.batch("mlp", dice.whole(16, 64))])


def inputs(scales: tuple[float, float], shifts: tuple[float, float], *kinds: str) -> Any:
    """Return what builds a case with inputs of a drawn scale, shifted by a multiple of it."""

    def make(dice: Dice) -> Case:
        scale = dice.power(*scales)
        return training.scaled(dice.one_of(*kinds), scale, dice.between(*shifts) * scale)

    return make


class Layers(nn.Module):
    """Residual layers of which the forward uses the first ones."""

    def __init__(self, count: int, used: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(sound.FEATURES, sound.FEATURES) for _ in range(count))
        self.head = nn.Linear(sound.FEATURES, sound.CLASSES)
        self.used = used

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[: self.used]:
            x = x + torch.tanh(layer(x))
        return self.head(x)


def forgotten(dice: Dice) -> Case:
    """Return a model of which some layers are never called."""
    count = dice.whole(3, 6)
    return Case(Layers(count, dice.whole(1, count - 1)), classify, [sound.batch("mlp")])


def frozen_first(dice: Dice) -> Case:
    """Return a model whose first layers are frozen, as in fine-tuning."""
    count = dice.whole(3, 6)
    model = Layers(count, count)
    model.layers[: dice.whole(1, count - 1)].requires_grad_(False)
    return Case(model, classify, [sound.batch("mlp")])


def holding(dice: Dice) -> Any:
    """Return a choice of parameters that leaves a drawn part of them out."""
    kept = dice.between(0.2, 0.8)

    def choose(model: nn.Module) -> Any:
        parameters = list(model.parameters())
        return parameters[: max(1, int(kept * len(parameters)))]

    return choose


def not_held(dice: Dice) -> Case:
    """Return a case whose optimizer holds the first parameters only."""
    return optimizers.held(dice.one_of(*KINDS), holding(dice))


def grouped(dice: Dice) -> Case:
    """Return a case whose optimizer holds all parameters, in two groups of drawn size."""
    first = holding(dice)

    def groups(model: nn.Module) -> Any:
        chosen = first(model)
        rest = [p for p in model.parameters() if all(p is not other for other in chosen)]
        return [{"params": chosen}, {"params": rest, "weight_decay": 0.0}]

    return optimizers.held(dice.one_of(*KINDS), groups)


def clamped(dice: Dice) -> Case:
    """Return a cross-entropy of logits that a clamp has cut off, against a class that they rule out."""
    bound, factor = dice.between(12.0, 30.0), dice.power(7, 9)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        scores = model(batch[0])
        logits = (factor * (scores - scores.mean(-1, keepdim=True))).clamp(-bound, bound)
        return nn.functional.cross_entropy(logits, logits.argmin(-1))

    return sound.case(dice.one_of("mlp", "cnn"), loss=loss)


def term_cut(dice: Dice) -> Case:
    """Return a case whose cross-entropy has lost its gradient before a small penalty was added."""
    weight, way = dice.power(-4, -2.5), dice.one_of("detach", "no_grad", "item")

    def loss(model: nn.Module, batch: Any) -> Tensor:
        logits = model(batch[0])
        with torch.set_grad_enabled(way != "no_grad"):
            term = nn.functional.cross_entropy(logits, batch[1])
        rest = weight * logits.square().mean()
        return rest + term.item() if way == "item" else term.detach() + rest

    return sound.case(dice.one_of(*KINDS), loss=loss)


def term_kept(dice: Dice) -> Case:
    """Return a case with a small detached penalty beside the loss, or with a constant that outweighs it."""
    weight, constant = dice.power(-4, -2.5), dice.between(2.0, 9.0)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        logits = model(batch[0])
        rest = weight * logits.square().mean().detach()
        return (
            nn.functional.cross_entropy(logits, batch[1]) + rest + constant * batch[0].detach().abs().mean()
        )

    return sound.case(dice.one_of("mlp", "cnn", "residual"), loss=loss)


def all_clamped(dice: Dice) -> Case:
    """Return a cross-entropy of logits that a clamp has made equal: the loss of a guess, and no gradient."""
    bound, factor = dice.between(12.0, 30.0), dice.power(7, 9)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return classify(lambda x: (factor * (0.1 + model(x).square())).clamp(max=bound), batch)

    return sound.case(dice.one_of(*KINDS), loss=loss)


def attention(low: float, high: float) -> Any:
    """Return what builds a Pre-LN transformer whose queries and keys are multiplied."""

    def make(dice: Dice) -> Case:
        model = transformer.Transformer(dice.whole(3, 5), dice.one_of(32, 48), dice.one_of(2, 4), first=True)
        return transformer.case(transformer.loud(model, dice.between(low, high)))

    return make


def logarithm(floor: bool) -> Any:
    """Return what builds a perceptron with a logarithm of a ReLU in it, on a floor or not."""

    def make(dice: Dice) -> Case:
        layers: list[Any] = list(perceptron(dice))
        floored = nn.Sequential(Floored(dice.power(-3, -0.5)), nn.LayerNorm(layers[0].out_features))
        part = floored if floor else precision.Logarithm()
        place = 2 * dice.whole(1, len(layers) // 2)
        return Case(nn.Sequential(*layers[:place], part, *layers[place:]), classify, [sound.batch("mlp")])

    return make


class Floored(nn.Module):
    """The logarithm of a ReLU and a little more."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        return (x.relu() + self.least).log()


def spoiled(dice: Dice) -> Case:
    """Return a case with a NaN or an infinity somewhere in the inputs."""
    kind = dice.one_of("mlp", "cnn", "recurrent")
    data, labels = sound.batch(kind)
    data[dice.whole(0, len(data) - 1)].view(-1)[dice.whole(0, data[0].numel() - 1)] = dice.one_of(
        torch.nan, torch.inf, -torch.inf
    )
    return sound.case(kind, data=[(data, labels)])


DRAWS = (
    Draw(
        "float16-small-loss",
        "precision",
        loss_times(-6.5, -5, "mlp", "residual", "transformer", dtype="float16"),
        ("UG501",),
    ),
    Draw("float16-near-the-end", "precision", amplified(3.8, 4.2), ("UG502",), ("UG501", "UG901")),
    Draw("float32-tiny-loss", "precision", loss_times(-39, -37.5, "recurrent", "transformer"), ("UG503",)),
    Draw(
        "step-descent-huge", "optimizers", descent(1.7, 2.3, "mlp", "cnn", "residual"), ("UG601",), ("UG611",)
    ),
    Draw("step-adam-huge", "optimizers", adam(0, 0.5), ("UG601",), ("UG611",)),
    Draw("step-momentum-huge", "optimizers", hot, ("UG611",), ("UG601",)),
    Draw("step-descent-tiny", "optimizers", descent(-9, -7, "mlp", "cnn", "residual"), ("UG602",)),
    Draw("step-adam-tiny", "optimizers", adam(-8, -6.5), ("UG602",)),
    Draw("unused-layers", "training", forgotten, ("UG603",)),
    Draw("logits-all-clamped", "training", all_clamped, ("UG603",)),
    Draw("optimizer-holds-a-part", "optimizers", not_held, ("UG604",)),
    Draw("loud-head", "training", head_times(1.5, 2, "mlp", "cnn", "residual"), ("UG605",)),
    Draw("softmax-twice", "training", softmax_twice, ("UG606",)),
    Draw("inputs-in-hundreds", "training", inputs((2.3, 4), (-4, 4), "mlp", "cnn"), ("UG607",), ("UG605",)),
    Draw("loss-link-clamped", "training", clamped, ("UG608",), ("UG605", "UG603")),
    Draw("loss-term-cut", "training", term_cut, ("UG608",), ("UG603", "UG602", "UG609")),
    Draw("loss-term-kept", "training", term_kept, near=("UG608",)),
    Draw("decay-heavy", "optimizers", heavy, ("UG609",)),
    Draw("loud-attention", "transformer", attention(11, 16), ("UG701", "UG702"), ("UG102", "UG605", "UG607")),
    Draw("log-of-zero", "precision", logarithm(floor=False), ("UG901",)),
    Draw("spoiled-inputs", "precision", spoiled, ("UG901",)),
    Draw(
        "float16-scaled-loss",
        "precision",
        loss_times(1, 3, "mlp", "cnn", "residual", "transformer", dtype="float16"),
        near=("UG501",),
    ),
    Draw("float16-large-outputs", "precision", amplified(0, 2), near=("UG502",)),
    Draw("float32-small-loss", "precision", loss_times(-33.3, -32.5, "mlp", "residual"), near=("UG503",)),
    Draw("step-adam-fine-tuning", "optimizers", adam(-5, -4.3), near=("UG602",)),
    Draw("step-adam", "optimizers", adam(-4, -2), near=("UG601", "UG602", "UG611")),
    Draw("step-momentum", "optimizers", momentum, near=("UG601", "UG602", "UG611")),
    Draw("frozen-first", "training", frozen_first, near=("UG603",)),
    Draw("optimizer-of-two-groups", "optimizers", grouped, near=("UG604",)),
    Draw("head", "training", head_times(-1, 0.17, *KINDS[:-1]), near=("UG605",)),
    Draw("sigmoid-and-probabilities", "training", probabilities, near=("UG606",)),
    Draw("inputs", "training", inputs((-1, 0.5), (-0.5, 0.5), *KINDS[:-1]), near=("UG607",)),
    Draw(
        "loss-satisfied",
        "training",
        head_times(1.0, 1.6, "mlp", "cnn", loss=training.satisfied),
        near=("UG605", "UG608"),
    ),
    Draw("decay-light", "optimizers", light, near=("UG609",)),
    Draw("attention", "transformer", attention(1.0, 3.0), near=("UG701", "UG702")),
    Draw("log-on-a-floor", "precision", logarithm(floor=True), near=("UG901",)),
)
