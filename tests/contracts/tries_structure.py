"""What the remedies that change the architecture are tried on."""

import math

import torch
from contracts.tries import Try
from torch import nn
from zoo import cnn, mlp
from zoo.patient import classify

from unitygain._case import Case


class Joined(nn.Module):
    """A block that projects what enters it beside what its branch makes."""

    def __init__(self, branch: nn.Module, project: nn.Module) -> None:
        super().__init__()
        self.branch, self.project = branch, project

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project(torch.cat((x, torch.tanh(self.branch(x))), 1))


def joined() -> Case:
    """Blocks of concatenation and projection, at PyTorch's weights, with an optimizer instance."""
    model = nn.Sequential(
        *(Joined(nn.Linear(24, 24), nn.Linear(48, 24)) for _ in range(20)), nn.Linear(24, 5)
    )
    data = [(torch.randn(32, 24), torch.randint(5, (32,)))]
    return Case(model, classify, data, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))


def joined_images() -> Case:
    """The same of convolutions."""
    blocks = (Joined(nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(24, 12, 1)) for _ in range(20))
    model = nn.Sequential(nn.Conv2d(1, 12, 3), *blocks, nn.Flatten(), nn.Linear(12 * 6 * 6, 5))
    data = [(torch.randn(16, 1, 8, 8), torch.randint(5, (16,)))]
    return Case(model, classify, data, lambda parameters: torch.optim.SGD(parameters, 0.1))


class Normed(nn.Module):
    """A block that normalises the sum of what enters it and its branch."""

    def __init__(self, activation: nn.Module, *gains: float) -> None:
        super().__init__()
        rise, fall = nn.Linear(48, 48), nn.Linear(48, 48)
        for layer, gain in zip((rise, fall), gains, strict=True):
            nn.init.normal_(layer.weight, std=gain / math.sqrt(48))
            nn.init.zeros_(layer.bias)
        self.branch, self.norm = nn.Sequential(rise, activation, fall), nn.LayerNorm(48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.branch(x))


def normed(activation: nn.Module, *gains: float) -> Case:
    """Blocks with their norm behind the sum, of branches with these gains."""
    return mlp.case(nn.Sequential(*(Normed(activation, *gains) for _ in range(24)), nn.Linear(48, 10)), 48)


class Frozen(nn.Module):
    """A residual block whose branch ends with a norm that never saw a batch: it divides by 1."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8).eval())
        nn.init.kaiming_normal_(self.branch[0].weight, nonlinearity="relu")
        nn.init.zeros_(self.branch[0].bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x)


def frozen() -> Case:
    """Residual blocks of convolutions with frozen norms."""
    model = cnn.Network(1, 8, lambda _: nn.Identity())
    model.blocks = nn.Sequential(*(Frozen() for _ in range(30)))
    return cnn.case(model, size=4)


# Cases beside the zoo's, by name.
CASES = {
    "joined": joined,
    "joined-images": joined_images,
    "normed-sigmoid": lambda: normed(nn.Sigmoid(), 1.0, 2.0),
    "normed-tanh": lambda: normed(nn.Tanh(), 4.0, 2.0),
    "frozen-norms": frozen,
}
TRIES: dict[str, tuple[Try, ...]] = {
    "pre_norm": (
        Try("transformer-post-norm-24", {}, cures=("UG205",)),
        Try("transformer-post-norm-torch-24", {}, cures=("UG205",)),
        Try("normed-sigmoid", {}, cures=("UG101",)),
        Try("normed-tanh", {}, cures=("UG102",)),
        Try("transformer-post-norm-3", {}),
        Try("transformer-post-norm-torch-4", {}),
    ),
    "add_residual": (
        Try("mlp-relu-default-24", {}, cures=("UG101", "UG205")),
        Try("cnn-default-20", {}, cures=("UG101", "UG205")),
        Try("mlp-relu-he-shrinking-30", {}, cures=("UG202",)),
        Try("mlp-relu-one-layer-tiny", {}, cures=("UG103",)),
        Try("mlp-batchnorm-no-skip-34", {}, cures=("UG102",)),
        Try("cnn-batchnorm-no-skip-50", {}, cures=("UG102",)),
        Try("mlp-sigmoid-default-12", {}),
    ),
    "gated_skip": (
        Try("mlp-tanh-default-24", {}, cures=("UG101",)),
        Try("cnn-default-20", {}, cures=("UG101", "UG205")),
        Try("mlp-relu-he-shrinking-30", {}, cures=("UG202",)),
        Try("mlp-relu-one-layer-tiny", {}, cures=("UG103",)),
    ),
    "insert_norm": (
        Try("mlp-relu-large-weights-16", {}, cures=("UG102", "UG201")),
        Try("cnn-default-20", {}, cures=("UG101",)),
        Try("mlp-relu-he-shrinking-30", {}, cures=("UG202",)),
        Try("mlp-relu-one-layer-tiny", {}, cures=("UG103",)),
        Try("mlp-selu-one-layer-loud", {}, cures=("UG104",)),
        Try("mlp-tanh-saturated", {}, cures=("UG204",)),
        Try("mlp-relu-default-24", {"kind": "rms"}),
    ),
    "batchnorm_gamma": (
        Try("frozen-norms", {}, cures=("UG102", "UG201", "UG205")),
        Try("cnn-resnet-20", {}),
    ),
    "swap_to_relu": (
        Try("mlp-sigmoid-default-12", {}, cures=("UG101", "UG205")),
        Try("mlp-tanh-default-24", {}, cures=("UG101",)),
        Try("mlp-one-layer-saturated", {}, cures=("UG103", "UG204")),
    ),
    "restore_logit_scale": (Try("transformer-unscaled-attention", {}, cures=("UG701", "UG702")),),
    "qk_norm": (
        Try("transformer-loud-attention", {}, cures=("UG701", "UG702")),
        Try("transformer-loud-attention-torch", {}, cures=("UG701",)),
    ),
    "soft_cap": (
        Try("transformer-loud-attention", {"cap": 5.0}, cures=("UG701", "UG702")),
        Try("transformer-loud-inputs", {}, cures=("UG701", "UG702")),
        Try("transformer-loud-attention-torch", {}),
    ),
    "concat_skip": (
        Try("cnn-default-20", {}, cures=("UG101", "UG205")),
        Try("mlp-relu-one-layer-tiny", {}, cures=("UG103",)),
        Try("cnn-skip-no-norm-30", {}),
        Try("mlp-relu-default-24", {}, cures=("UG101", "UG205")),
    ),
    "sum_skip": (
        Try("joined", {}, cures=("UG101", "UG205")),
        Try("joined-images", {}, cures=("UG101", "UG205")),
    ),
    "gated_recurrence": (),  # a suggestion: it changes nothing, and says what to write
}
