"""What `isolated` yields, and that it puts back what a caller inside may do."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from probe.fingerprint import changes, fingerprint, program
from probe.fragile import MODELS, Tokens, Uncopyable, case, compiled, floats, tokens
from torch import nn
from torch.nn.utils import parametrize

from unitygain import Case
from unitygain import _case as case_file
from unitygain.probe.isolate import isolated


def linear(**options: Any) -> Case:
    return case(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), floats(), **options)


def in_place() -> Case:
    return case(Uncopyable(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))), floats())


def test_yields_a_copy_and_says_so():
    subject = linear()
    with isolated(subject) as (twin, worked_on):
        assert worked_on == "a copy of the model"
        assert twin is not subject
        assert twin.model is not subject.model
        assert twin.batches is subject.batches
        theirs = {p.data_ptr() for p in subject.model.parameters()}
        assert not theirs & {p.data_ptr() for p in twin.model.parameters()}


def test_yields_the_model_itself_and_says_why():
    subject = in_place()
    with isolated(subject) as (twin, worked_on):
        assert twin.model is subject.model
        assert worked_on.startswith("the model itself, put back afterwards; it could not be copied")
        assert "TypeError: cannot be copied" in worked_on


def test_gradients_of_an_earlier_step_are_hidden_in_place_and_come_back():
    subject = in_place()
    before = fingerprint(subject.model)
    with isolated(subject) as (twin, _):
        assert all(p.grad is None for p in twin.model.parameters())
        twin.compute_loss(twin.batches[0]).backward()
    assert changes(before, fingerprint(subject.model)) == []


@pytest.mark.parametrize("make", [linear, in_place])
def test_random_numbers_are_seeded_inside_and_put_back(make: Any):
    subject = make()
    before = program()
    with isolated(subject, seed=7):
        first = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    assert changes(before, program()) == []
    with isolated(subject, seed=7):
        again = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    with isolated(subject, seed=8):
        other = torch.rand(3)
    assert torch.equal(first[0], again[0])
    assert (first[1] == again[1]).all()
    assert first[2] == again[2]
    assert not torch.equal(first[0], other)


@pytest.mark.parametrize("make", [linear, in_place])
def test_gradients_are_on_inside(make: Any):
    subject = make()
    with torch.inference_mode(), isolated(subject):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_everything_that_a_caller_may_do_in_place_is_undone():
    subject = in_place()
    batches = subject.batches
    before = fingerprint(subject.model)
    with isolated(subject) as (twin, _):
        layer, norm = twin.model.inner[0], twin.model.inner[1]
        with torch.no_grad():
            layer.weight.fill_(float("nan"))
        layer.bias.data = torch.zeros(3)
        layer.weight.requires_grad_(False)
        layer.extra = torch.ones(2)
        layer.register_buffer("scratch", torch.ones(2))
        norm.running_mean = torch.ones(6)
        norm.num_batches_tracked += 5
        norm.eval()
        norm.register_buffer("passing", torch.ones(2), persistent=False)
        twin.model.inner[1] = nn.Identity()
        twin.move(dtype=torch.float64)
        twin.loss = None
    assert changes(before, fingerprint(subject.model)) == []
    assert subject.batches is batches
    assert batches[0].dtype is torch.float32
    assert subject.loss is not None


def test_a_copy_is_lazy_where_the_model_is():
    subject = case(nn.Sequential(nn.LazyLinear(4)), floats())
    with isolated(subject) as (twin, _):
        twin.compute_loss(twin.batches[0]).backward()
        assert twin.model[0].weight.shape == (4, 6)
    assert nn.parameter.is_lazy(subject.model[0].weight)


def test_compiled_code_runs_module_by_module_inside():
    subject = case(compiled(), floats())
    calls = []
    inner = subject.model.get_submodule("_orig_mod.layer")
    handle = inner.register_forward_hook(lambda *_: calls.append(1))
    with isolated(subject) as (twin, _):
        twin.compute_loss(twin.batches[0])
    assert len(calls) == 3
    handle.remove()


def test_nothing_is_shared_below_the_bound():
    subject = linear()
    with isolated(subject) as (twin, _):
        assert shared(subject, twin) == set()


def test_trainable_parameters_of_a_big_model_share_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(case_file, "SMALL_BYTES", 0)
    subject = linear()
    subject.model[0].bias.requires_grad_(False)
    with isolated(subject) as (twin, _):
        assert shared(subject, twin) == {"0.weight", "1.weight", "1.bias"}
        twin.compute_loss(twin.batches[0]).backward()
        assert all(
            p is not q for p, q in zip(subject.model.parameters(), twin.model.parameters(), strict=True)
        )


@pytest.mark.parametrize("kind", MODELS)
def test_the_copy_of_a_big_model_computes_the_same(kind: str, monkeypatch: pytest.MonkeyPatch):
    build, batch = MODELS[kind]
    subject = case(build(), batch())
    losses = []
    for bound in (256 * 2**20, 0):
        monkeypatch.setattr(case_file, "SMALL_BYTES", bound)
        with isolated(subject) as (twin, _):
            loss = twin.compute_loss(twin.batches[0])
            loss.backward()
            losses.append([loss, *(p.grad for p in twin.model.parameters() if p.grad is not None)])
    assert len(losses[0]) == len(losses[1])
    assert all(torch.equal(a.to_dense(), b.to_dense()) for a, b in zip(*losses, strict=True))


def test_a_weight_that_the_forward_writes_to_is_never_shared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(case_file, "SMALL_BYTES", 0)
    subject = case(Tokens(max_norm=0.5), tokens())
    with isolated(subject) as (twin, _):
        assert "embed.weight" not in shared(subject, twin)


def test_ties_survive_the_copy_of_a_big_model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(case_file, "SMALL_BYTES", 0)
    subject = case(MODELS["tied"][0](), tokens())
    with isolated(subject) as (twin, _):
        assert twin.model.head.weight is twin.model.embed.weight


def test_parametrised_weights_are_still_computed_on_the_copy():
    subject = case(MODELS["parametrised"][0](), floats())
    with isolated(subject) as (twin, _):
        assert all(parametrize.is_parametrized(layer, "weight") for layer in twin.model)


def test_a_factory_is_called_once_and_stays_a_factory():
    calls = []

    def build() -> nn.Module:
        calls.append(1)
        return nn.Linear(6, 2)

    subject = Case(build, loss=lambda m, x: m(x).mean(), data=[floats()])
    for _ in range(2):
        with isolated(subject) as (twin, _):
            assert twin.factory is build
    assert calls == [1]


def test_an_error_inside_passes_through():
    with pytest.raises(ZeroDivisionError), isolated(in_place()):
        raise ZeroDivisionError


def shared(subject: Case, twin: Case) -> set[str]:
    mine = dict(subject.model.named_parameters())
    return {n for n, p in twin.model.named_parameters() if p.data_ptr() == mine[n].data_ptr()}
