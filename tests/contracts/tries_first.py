"""What the remedies that take causes away are tried on."""

import math

import torch
from contracts.tries import Try
from torch import Tensor, nn
from zoo import mlp
from zoo.optimizers import sgd

from unitygain._case import Case


class Normed(nn.Module):
    """A norm or none, a linear map of gain 1, and an activation."""

    def __init__(self, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.norm, self.map, self.activation = norm, nn.Linear(64, 64), activation
        nn.init.normal_(self.map.weight, std=1 / math.sqrt(64))
        nn.init.zeros_(self.map.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.map(self.norm(x)))


class Squared(nn.Module):
    """relu(x)**2, whose slope grows with what enters it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x).square()


def quiet() -> Case:
    """A norm that makes quiet inputs loud, and all gradients behind it."""
    norms = (nn.LayerNorm(64), *(nn.Identity() for _ in range(9)))
    model = nn.Sequential(*(Normed(norm, nn.SELU()) for norm in norms), nn.Linear(64, 10))
    return mlp.case(model, 64, scale=0.01)


def steep() -> Case:
    """Squares of ReLU, of which one block's are steep because of its bias."""
    model = nn.Sequential(*(Normed(nn.LayerNorm(64), Squared()) for _ in range(12)), nn.Linear(64, 10))
    nn.init.constant_(model.get_parameter("5.map.bias"), 100.0)
    return mlp.case(model, 64)


def below() -> Case:
    """Inputs below zero, and weights of the first layer that are all positive."""
    model = mlp.plain(64, 4, nn.ReLU, mlp.he)
    first = model.get_parameter("0.weight")
    first.data = first.data.abs()
    return mlp.case(model, 64, shift=-10.0)


def loud() -> Case:
    """Inputs in hundreds, whose gradients make SGD's first step large."""
    made = mlp.case(mlp.plain(64, 3, nn.ReLU, mlp.he), 64, scale=100.0)
    made.optimizer = sgd(0.05)
    return made


# Cases beside the zoo's, by name.
CASES = {"quiet-normed": quiet, "steep-squares": steep, "inputs-below-zero": below, "inputs-loud-sgd": loud}
TRIES: dict[str, tuple[Try, ...]] = {
    "rescale_weights": (
        Try("mlp-relu-default-24", {"gain": 2**0.5}, cures=("UG101",)),
        Try("cnn-default-20", {"gain": 2**0.5, "sites": "blocks.*"}, cures=("UG101",)),
        Try("rnn-tanh-default-150", {"gain": 1.2, "only": "weight_hh_l*"}, cures=("UG401", "UG404")),
        Try("generative-generator", {"gain": 1.0}),
        Try("transformer-post-norm-torch-4", {"gain": 1.0}),
        Try("mlp-relu-large-weights-16", {"gain": 2**0.5}, cures=("UG102", "UG201", "UG605")),
        Try("mlp-relu-he-shrinking-30", {"gain": 2**0.5}, cures=("UG202",)),
        Try("mlp-relu-one-layer-tiny", {"gain": 2**0.5}, cures=("UG103",)),
        Try("mlp-selu-one-layer-loud", {"gain": 1.0}, cures=("UG104",)),
        Try("mlp-tanh-saturated", {"gain": 1.0}, cures=("UG204",)),
        Try("rnn-tanh-chaotic", {"gain": 1.0, "only": "weight_hh_l*"}, cures=("UG402", "UG403")),
        Try("rnn-lstm-chain-16", {"gain": 1.0, "only": "weight_hh_l*"}, cures=("UG406",)),
    ),
    "zero_biases": (
        Try("mlp-relu-born-dead", {}, cures=("UG206",)),
        Try("mlp-one-layer-saturated", {}, cures=("UG103", "UG204", "UG205")),
        Try("mlp-relu-mostly-dead", {}, cures=("UG203",)),
        Try("steep-squares", {}, cures=("UG104",)),
        Try("rnn-lstm-28", {}),
        Try("transformer-pre-norm-torch-12", {}),
    ),
    "scale_branch": (
        Try(
            "mlp-residual-unscaled-40",
            {"sites": "[0-9]*", "factor": 0.1},
            cures=("UG102", "UG201", "UG605"),
        ),
        Try("cnn-skip-no-norm-30", {"sites": "blocks.*", "factor": 0.1}, cures=("UG102", "UG201", "UG205")),
        Try("transformer-post-norm-24", {"sites": "blocks.*.attention", "factor": 0.1}, cures=("UG205",)),
        Try(
            "transformer-post-norm-torch-24",
            {"sites": "encoder.layers.*.self_attn", "factor": 0.1},
            cures=("UG205",),
        ),
        Try("flow-additive-loud", {"sites": "*", "factor": 0.1}, cures=("UG703",)),
    ),
    "scale_head": (
        Try("loss-loud-head", {"factor": 0.05}, cures=("UG605",)),
        Try("loss-loud-head-lstm", {"factor": 0.05}, cures=("UG605",)),
        Try("mlp-relu-he-20", {"factor": 0.1}),
        Try("cnn-he-12", {"factor": 0.1, "site": "head"}),
    ),
    "swap_activation": (
        Try("mlp-sigmoid-default-12", {"of": "Sigmoid"}, cures=("UG101",)),
        Try("mlp-gelu-default-20", {"to": "SELU"}, cures=("UG205",)),
        Try("loss-of-a-flat-curvature", {"of": "ReLU", "to": "Tanh"}, cures=("UG608",)),
        Try("cnn-he-12", {"to": "GELU"}),
    ),
    "bypass_norm": (
        Try("cnn-batchnorm-no-skip-50", {}, cures=("UG102",)),
        Try("quiet-normed", {}, cures=("UG104",)),
        Try("transformer-pre-norm-12", {"sites": "blocks.*"}),
    ),
    "open_gates": (
        Try("rnn-lstm-default-150", {"bias": 4.0}, cures=("UG401",)),
        Try("rnn-gru-default-150", {"bias": 4.0}, cures=("UG401",)),
        Try("rnn-lstm-default-zero-300", {"bias": 4.0}, cures=("UG404",)),
        Try("rnn-lstm-shut-12", {"bias": 4.0}, cures=("UG405",)),
    ),
    "calm_attention": (
        Try("transformer-loud-attention", {"factor": 0.1}, cures=("UG701", "UG702")),
        Try("transformer-loud-attention-torch", {"factor": 0.1}, cures=("UG701",)),
    ),
    "change_precision": (
        Try("float16-near-the-end", {"precision": "bfloat16"}, cures=("UG502",)),
        Try("nan-float16-overflow", {"precision": "bfloat16"}, cures=("UG502", "UG901")),
        Try("soft", {"precision": None}),
    ),
    "drop_output_softmax": (
        Try("softmax-twice", {}, cures=("UG606",)),
        Try("softmax-twice-cnn", {}, cures=("UG606",)),
        Try("soft", {}),
    ),
    "loss_scale": (
        Try("float16-small-loss", {"scale": 2.0**14}, cures=("UG501",)),
        Try("float16-small-loss-cnn", {"scale": 2.0**14}, cures=("UG501",)),
        Try("float32-sigmoids-23", {"scale": 2.0**14}, cures=("UG503",)),
        Try("mlp-relu-he-20", {"scale": 8.0}),
    ),
    "lower_learning_rate": (
        Try("step-sgd-huge", {"factor": 1e-3}, cures=("UG601", "UG611")),
        Try("step-sgd-tiny", {"factor": 1e5}, cures=("UG602",)),
        Try("soft", {"factor": 0.1}),
        Try("mlp-relu-he-20", {"factor": 0.1}),
    ),
    "lower_dropout": (
        Try("dropout-keep-probability", {}, cures=("UG612",)),
        Try("dropout-between-lstms", {"p": 0.3}, cures=("UG612",)),
        Try("dropout-in-attention", {"p": 0.0}),
    ),
    "lower_weight_decay": (
        Try("decay-coupled-adam", {"factor": 1e-3}, cures=("UG609",)),
        Try("decay-of-matrices", {"factor": 1e-3}, cures=("UG609",)),
        Try("decay-decoupled", {"factor": 0.0}),
    ),
    "swap_loss": (
        Try("game-points-won", {"variant": "non_saturating"}, cures=("UG704",)),
        Try("denoiser-points-sample-unbounded", {"variant": "min_snr"}, cures=("UG705",)),
    ),
    "hold_parameters": (
        Try("optimizer-before-new-head", {}, cures=("UG604",)),
        Try("optimizer-of-the-layers", {}, cures=("UG604",)),
        Try("optimizer-of-a-copy", {}, cures=("UG604",)),
    ),
    "unfreeze": (
        Try("frozen-in-between", {}, cures=("UG603",)),
        Try("frozen-untrained", {}, cures=("UG603",)),
        Try("soft", {}),
    ),
    "unit_inputs": (
        Try("transformer-loud-inputs", {}, cures=("UG605", "UG607", "UG701", "UG702")),
        Try("mlp-tanh-inputs-in-hundreds", {}, cures=("UG204", "UG607")),
        Try("mlp-relu-mostly-dead", {}, cures=("UG203",)),
        Try("inputs-below-zero", {}, cures=("UG206",)),
        Try("inputs-loud-sgd", {}, cures=("UG601",)),
        Try("generative-denoiser", {}),
    ),
}
