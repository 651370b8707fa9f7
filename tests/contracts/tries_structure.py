"""What the remedies that change the architecture are tried on."""

import torch
from contracts.tries import Try
from torch import nn
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


# Cases beside the zoo's, by name.
CASES = {"joined": joined, "joined-images": joined_images}
TRIES: dict[str, tuple[Try, ...]] = {
    "pre_norm": (
        Try("transformer-post-norm-24", {}, cures=("UG205",)),
        Try("transformer-post-norm-torch-24", {}, cures=("UG205",)),
        Try("transformer-post-norm-3", {}),
        Try("transformer-post-norm-torch-4", {}),
    ),
    "add_residual": (
        Try("mlp-relu-default-24", {}, cures=("UG101", "UG205")),
        Try("cnn-default-20", {}, cures=("UG101", "UG205")),
        Try("mlp-sigmoid-default-12", {}),
    ),
    "gated_skip": (
        Try("mlp-tanh-default-24", {}, cures=("UG101",)),
        Try("cnn-default-20", {}, cures=("UG101", "UG205")),
    ),
    "insert_norm": (
        Try("mlp-relu-large-weights-16", {}, cures=("UG102", "UG201")),
        Try("cnn-default-20", {}, cures=("UG101",)),
        Try("mlp-relu-default-24", {"kind": "rms"}),
    ),
    "batchnorm_gamma": (Try("cnn-resnet-20", {}),),
    "swap_to_relu": (
        Try("mlp-sigmoid-default-12", {}, cures=("UG101", "UG205")),
        Try("mlp-tanh-default-24", {}, cures=("UG101",)),
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
        Try("cnn-skip-no-norm-30", {}),
        Try("mlp-relu-default-24", {}, cures=("UG101", "UG205")),
    ),
    "sum_skip": (
        Try("joined", {}, cures=("UG101", "UG205")),
        Try("joined-images", {}, cures=("UG101", "UG205")),
    ),
    "gated_recurrence": (),  # a suggestion: it changes nothing, and says what to write
}
