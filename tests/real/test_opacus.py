"""Clips of single samples against Opacus: its gradients of samples, and its clipped sum without noise."""

import copy
import importlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unitygain import clip

# What Opacus and torch's hooks warn of inside of Opacus is not ours to mend.
pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]
SAMPLES = 12


@pytest.fixture(scope="module")
def opacus() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("opacus.optimizers", reason="make check installs Opacus")
        return importlib.import_module("opacus")


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def sequences() -> nn.Module:
    return nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 8), nn.GELU(), nn.Flatten(), nn.Linear(32, 3))


def images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3)
    )


MODELS = {
    "linear": (perceptron, lambda: torch.randn(SAMPLES, 6).double(), "linear"),
    "embedding": (sequences, lambda: torch.randint(0, 11, (SAMPLES, 4)), "vmap"),
    "convolution": (images, lambda: torch.randn(SAMPLES, 2, 5, 5).double(), "vmap"),
}


def loss_of(reduction: str) -> Any:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction=reduction)

    return loss


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", MODELS)
def test_clipped_samples_are_those_of_opacus(opacus: Any, kind: str, reduction: str) -> None:
    make, draw, method = MODELS[kind]
    model, batch, loss = make().double(), (draw(), torch.randint(0, 3, (SAMPLES,))), loss_of(reduction)
    wrapped, again = (
        opacus.GradSampleModule(copy.deepcopy(model), loss_reduction=reduction) for _ in range(2)
    )
    for one in (wrapped, again):
        loss(one, batch).backward()
    flat = torch.cat([p.grad_sample.flatten(1) for p in wrapped.parameters()], 1)
    norms = torch.linalg.vector_norm(flat, dim=1)
    c = norms.median().item()  # half of the samples are cut

    optimizer = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), 1.0),
        noise_multiplier=0.0,
        max_grad_norm=c,
        expected_batch_size=SAMPLES,
        loss_reduction=reduction,
    )
    optimizer.pre_step()
    # Opacus divides by the norm and 1e-6: thresholds that are as much lower make it the same number.
    bounds = c * norms / (norms + 1e-6)
    report = clip.per_sample(model, loss, batch, bounds, reduction=reduction)
    after = clip.grad_samples(again, bounds, reduction=reduction)
    assert report.method == method
    assert 0.4 < report.frac_clipped < 0.6
    torch.testing.assert_close(report.norms, norms, rtol=1e-10, atol=0)
    torch.testing.assert_close(after.norms, norms, rtol=1e-10, atol=0)
    for theirs, ours, left in zip(wrapped.parameters(), model.parameters(), again.parameters(), strict=True):
        for mine in (ours.grad, left.grad):
            # Float64, and sums over samples and places that may cancel to a part in a million.
            torch.testing.assert_close(mine, theirs.grad, rtol=1e-8, atol=0)
