"""Matrices that are multiplied by hand: their gains, and those of the signal and the gradient over them."""

import itertools
import math
from typing import Any

import pytest
import torch
from measures.reading import measured
from torch import Tensor, nn
from zoo import by_hand

from unitygain._case import Case
from unitygain.remedies import rescale_weights

SITES = {
    "own": [f"layers.{i}.W" for i in range(5)],
    "list": [f"weights.{i}" for i in range(6)],
    "stack": [f"stack#{i}" for i in range(1, 6)],
}


def case(kind: str) -> Case:
    torch.manual_seed(1)
    case = by_hand.make(kind, 5, 1.3, torch.tanh)
    case.move(dtype=torch.float64)
    return case


def matrices(kind: str, model: Any) -> list[tuple[Tensor, int]]:
    """The matrices in order, with the dimension that a product sums over."""
    if kind == "own":
        return [(layer.W, 0) for layer in model.layers]
    return [(w, 0) for w in model.weights] if kind == "list" else [(w, 1) for w in model.stack]


@pytest.mark.parametrize("kind", SITES)
def test_each_matrix_has_the_gain_of_its_own_entries(kind):
    subject = case(kind)
    profile = measured(subject, "weight_gain")["weight_gain"]
    found = {str(site): value for site, value in profile.items() if str(site) in SITES[kind]}
    expected = [
        math.sqrt(w.shape[dim]) * float(w.detach().square().mean().sqrt())
        for w, dim in matrices(kind, subject.model)
    ]
    assert list(found) == SITES[kind]
    assert list(found.values()) == pytest.approx(expected, rel=1e-12)
    labels = dict(zip(map(str, profile.sites), profile.labels, strict=True))
    followed = SITES[kind][:5]
    assert {labels[name] for name in followed} == {"matrix→tanh"}


@pytest.mark.parametrize("kind", ["list", "stack"])
def test_gains_run_from_what_enters_one_to_what_enters_the_next(kind):
    subject = case(kind)
    model: Any = subject.model
    entering: list[Tensor] = []
    x, labels = subject.batches[0]
    signal = model.into(x) if kind == "stack" else x.requires_grad_()
    for matrix, dim in matrices(kind, model):
        signal.retain_grad() if signal.requires_grad else None
        entering.append(signal)
        signal = torch.tanh(signal @ (matrix if dim == 0 else matrix.T))
    last = model.out(signal) if kind == "stack" else torch.atanh(signal)
    nn.functional.cross_entropy(last, labels).backward()
    profiles = measured(case(kind), "forward_gain", "backward_gain")
    rms = [float(tensor.detach().square().mean().sqrt()) for tensor in entering]
    assert profiles["forward_gain"].values == pytest.approx([b / a for a, b in itertools.pairwise(rms)])
    back = [float(tensor.grad.norm()) for tensor in entering if tensor.grad is not None]
    gains = [a / b for a, b in itertools.pairwise(back)]
    assert profiles["backward_gain"].values[-4:] == pytest.approx(gains[-4:], rel=1e-9)
    assert [str(site) for site in profiles["forward_gain"].sites] == SITES[kind][: len(rms) - 1]


class Kernels(nn.Module):
    """Convolutions whose kernels are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.ParameterList(0.3 * torch.randn(4, 4 if i else 1, 3, 3) for i in range(5))

    def forward(self, x: Tensor) -> Tensor:
        for kernel in self.kernels:
            x = torch.relu(nn.functional.conv2d(x, kernel, padding=1))
        return x


def test_kernels_count_as_matrices():
    torch.manual_seed(0)
    model = Kernels()
    subject = Case(model, lambda m, x: m(x).square().mean(), [torch.randn(3, 1, 6, 6)])
    profiles = measured(subject, "weight_gain", "forward_gain")
    expected = [
        math.sqrt(kernel[0].numel()) * float(kernel.detach().double().square().mean().sqrt())
        for kernel in model.kernels
    ]
    assert profiles["weight_gain"].values == pytest.approx(expected, rel=1e-6)
    assert set(profiles["weight_gain"].labels) == {"matrix→relu"}
    assert [str(site) for site in profiles["forward_gain"].sites] == [f"kernels.{i}" for i in range(4)]


def test_blocks_that_repeat_are_the_trunk():
    profile = measured(case("own"), "forward_gain")["forward_gain"]
    assert [str(site) for site in profile.sites] == [f"layers.{i}" for i in range(5)]


def test_a_matrix_that_is_multiplied_often_counts_once():
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.Parameter(torch.eye(4))

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(9):
                x = torch.tanh(x @ self.recurrent)
            return x

    loop = Case(Loop(), lambda m, x: m(x).square().mean(), [torch.randn(3, 4)])
    profiles = measured(loop, "weight_gain", "forward_gain")
    assert [str(site) for site in profiles["weight_gain"].sites] == ["recurrent"]
    assert "forward_gain" not in profiles


def test_a_matrix_of_any_name_is_rescaled_where_it_is_asked_for_by_its_name():
    subject = case("list")
    model: Any = subject.model
    before = [w.detach().clone() for w in model.weights]
    undo = rescale_weights(subject, sites=("weights.2",), gain=1.0)
    changed = [not torch.equal(w, b) for w, b in zip(model.weights, before, strict=True)]
    assert changed == [False, False, True, False, False, False]
    undo()
    assert all(torch.equal(w, b) for w, b in zip(model.weights, before, strict=True))
    with pytest.raises(ValueError, match="no weight of a linear map"):
        rescale_weights(subject)
