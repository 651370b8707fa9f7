"""A Case refuses what it cannot use, draws its data once, and copies without entangling."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unitygain import _case
from unitygain._case import Case, CaseFailure, random_states, reseed


def mean_square(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model is a int; give an nn.Module or a function"),
        ({"loss": None}, "loss is a None; give a function"),
        ({"data": torch.ones(2, 4)}, r"data is a tensor of shape \(2, 4\); give an iterable of batches"),
        ({"data": 5}, "data is a int; give an iterable"),
    ],
)
def test_refuses_the_wrong_kind(arguments: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"model": nn.Linear(4, 1), "loss": mean_square, "data": [torch.ones(2, 4)]}
    with pytest.raises(TypeError, match=message):
        Case(**(good | arguments))


def test_refuses_impossible_values() -> None:
    with pytest.raises(ValueError, match="precision 'fp8' names no dtype"):
        Case(nn.Linear(4, 1), mean_square, [torch.ones(2, 4)], precision="fp8")
    with pytest.raises(ValueError, match="batches is 0; draw at least 1"):
        Case(nn.Linear(4, 1), mean_square, [torch.ones(2, 4)], batches=0)
    with pytest.raises(ValueError, match="data gave no batch"):
        Case(nn.Linear(4, 1), mean_square, []).batches  # noqa: B018


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda m, x: m(x), r"the loss has shape \(2, 1\); reduce it to one number"),
        (lambda m, x: 3.0, "the loss returned float; it must return a scalar tensor"),
        (lambda m, x: m(x).sum().long(), "the loss has dtype torch.int64, which has no gradient"),
    ],
)
def test_refuses_a_loss_that_is_no_scalar(loss: Any, message: str) -> None:
    with pytest.raises(CaseFailure, match=message):
        Case(nn.Linear(4, 1), loss, [torch.ones(2, 4)]).compute_loss(torch.ones(2, 4))


def test_factory_must_return_a_module() -> None:
    def build() -> Any:
        return {"model": 1}

    with pytest.raises(TypeError, match=r"build\(\) returned dict; expected an nn.Module"):
        Case(build, mean_square, [torch.ones(2, 4)]).model  # noqa: B018


def test_data_is_drawn_once_without_touching_the_random_state() -> None:
    def stream() -> Iterator[Tensor]:
        while True:
            yield torch.randn(2, 4)

    case = Case(nn.Linear(4, 1), mean_square, stream(), batches=3)
    before = torch.get_rng_state()
    first = case.batches
    assert len(first) == 3
    assert case.batches is first
    assert torch.equal(before, torch.get_rng_state())


def test_factory_is_seeded_and_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    cases = [Case(lambda: nn.Linear(4, 1), mean_square, [torch.ones(2, 4)], seed=s) for s in (1, 1, 2)]
    weights = [case.model.get_parameter("weight") for case in cases]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(before, torch.get_rng_state())


def test_copy_binds_the_optimizer_to_the_copy() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    case = Case(model, mean_square, [torch.ones(2, 4)], optimizer=optimizer)
    twin = case.copy()
    before = model.weight.detach().clone()
    twin.compute_loss(twin.batches[0]).backward()
    copied = twin.build_optimizer()
    assert copied is not None
    assert copied is not optimizer
    copied.step()
    assert torch.equal(model.weight, before)
    assert not torch.equal(twin.model.get_parameter("weight"), before)
    assert model.weight.grad is None
    assert optimizer.state == {}


def test_a_large_model_shares_only_its_trainable_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_case, "SMALL_BYTES", 0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4).requires_grad_(False))
    twin = Case(model, mean_square, [torch.randn(3, 4)]).copy(share=True)
    pairs = list(zip(model.parameters(), twin.model.parameters(), strict=True))
    assert [a.data_ptr() == b.data_ptr() for a, b in pairs] == [p.requires_grad for p in model.parameters()]
    assert all(a is not b for a, b in pairs)
    twin.compute_loss(twin.batches[0]).backward()
    assert all(p.grad is None for p in model.parameters())
    assert int(model[1].num_batches_tracked) == 0


def test_batches_move_and_cast() -> None:
    case = Case(nn.Linear(4, 1), mean_square, [(torch.ones(2, 4), torch.ones(2, dtype=torch.int64))])
    case.move(dtype=torch.float64)
    assert case.batches[0][0].dtype is torch.float64
    assert case.batches[0][1].dtype is torch.int64


def test_factory_is_seeded_in_numpy_and_random_too_and_leaves_them() -> None:
    def build() -> nn.Module:
        model = nn.Linear(2, 1)
        model.weight.data = torch.tensor([[np.random.rand(), random.random()]])  # noqa: NPY002
        return model

    before = np.random.get_state()[2], random.getstate()  # noqa: NPY002
    first, again = (Case(build, mean_square, [torch.ones(1, 2)]).model for _ in range(2))
    assert torch.equal(first.weight, again.weight)
    assert (np.random.get_state()[2], random.getstate()) == before  # noqa: NPY002


def test_cuda_that_has_not_started_keeps_the_seed_it_was_to_start_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        seeds.clear()
        with random_states():
            reseed(0)
    assert seeds == [0, 7]


def test_the_loss_may_write_into_its_batch() -> None:
    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        scale = batch.pop("scale")
        x = batch["x"].mul_(scale).requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return slope.square().mean()

    batch = {"x": torch.ones(2, 4), "scale": torch.full((2, 4), 0.5)}
    case = Case(nn.Linear(4, 1), loss, [batch])
    first, again = (case.compute_loss(case.batches[0]).item() for _ in range(2))
    assert first == again
    assert set(batch) == {"x", "scale"}
    assert torch.equal(batch["x"], torch.ones(2, 4))
    assert not batch["x"].requires_grad


def test_complex_tensors_keep_step_with_a_cast() -> None:
    model = nn.Linear(4, 4, dtype=torch.complex64)
    case = Case(model, lambda m, x: m(x).abs().mean(), [torch.ones(2, 4, dtype=torch.complex64)])
    weight = model.weight.detach().clone()
    case.move(dtype=torch.float64)
    assert case.batches[0].dtype is torch.complex128
    assert torch.equal(model.weight, weight.to(torch.complex128))


def test_random_states_put_the_state_of_mps_back(monkeypatch):
    """Apple's device is not here: a stand-in for its state is drawn from instead."""
    held = [torch.tensor([7], dtype=torch.uint8)]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: held[0].clone())
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: held.__setitem__(0, state))
    with random_states():
        held[0] += 1
    assert held[0].item() == 7
