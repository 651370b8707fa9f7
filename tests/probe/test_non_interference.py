"""Looking at a model leaves it, and the program around it, bitwise as they were."""

import gc
import random
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from probe.fingerprint import changes, fingerprint
from probe.fragile import MODELS, Broken, Noisy, Raising, Tokens, Uncopyable, case, compiled, floats, tokens
from torch import nn

from unitygain import Case, Probe, diagnose
from unitygain import _case as case_file
from unitygain._case import CaseFailure
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe

COLLECT = ("input.rms", "output.rms", "grad.rms", "entry_grad.rms", "parameter.rms", "parameter_grad.rms")
CALLERS = {"plain": nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def look(subject: Case) -> None:
    """One observed pass on an isolated case."""
    with isolated(subject) as (twin, _):
        observe(twin, COLLECT)


def look_and_train(subject: Case) -> None:
    """What a trial may do to a copy: train it, so that every parameter and buffer moves."""
    with isolated(subject) as (twin, _):
        optimizer = torch.optim.SGD([p for p in twin.model.parameters() if p.requires_grad], 0.1)
        for batch in twin.batches:
            optimizer.zero_grad()
            twin.compute_loss(batch).backward()
            optimizer.step()
        twin.model.eval()


LOOKS = {"observe": look, "diagnose": lambda subject: diagnose(subject, probes=1)}


@pytest.mark.parametrize("where", ["copy", "in place", "shared"])
@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.parametrize("kind", MODELS)
def test_nothing_changes(kind: str, how: str, where: str, monkeypatch: pytest.MonkeyPatch):
    build, batch = MODELS[kind]
    if where == "shared":
        monkeypatch.setattr(case_file, "SMALL_BYTES", 0)
    subject = case(Uncopyable(build()) if where == "in place" else build(), batch())
    before = fingerprint(subject.model)
    LOOKS[how](subject)
    assert changes(before, fingerprint(subject.model)) == []


@pytest.mark.parametrize("kind", MODELS)
def test_training_the_isolated_case_in_place_changes_nothing(kind: str):
    build, batch = MODELS[kind]
    subject = case(Uncopyable(build()), batch())
    before = fingerprint(subject.model)
    look_and_train(subject)
    assert changes(before, fingerprint(subject.model)) == []


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.parametrize("wrap", [lambda model: model, Uncopyable], ids=["copy", "in place"])
def test_caller_may_be_in_any_grad_mode(caller: str, how: str, wrap: Callable[[nn.Module], nn.Module]):
    subject = case(wrap(Noisy()), floats())
    before = fingerprint(subject.model)
    with CALLERS[caller]():
        mode = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        LOOKS[how](subject)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == mode
    assert changes(before, fingerprint(subject.model)) == []


@pytest.mark.parametrize("caller", ["no_grad", "inference_mode"])
def test_case_first_used_inside_the_callers_mode_can_still_be_trained(caller: str):
    subject = Case(lambda: nn.Linear(6, 2), loss=lambda m, x: m(x).square().mean(), data=lambda_data())
    with CALLERS[caller]():
        look(subject)
    subject.compute_loss(subject.batches[0]).backward()
    assert subject.model.weight.grad is not None  # pyright: ignore[reportAttributeAccessIssue]


def lambda_data():
    return (torch.randn(4, 6) for _ in range(4))


@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.parametrize("wrap", [lambda model: model, Uncopyable], ids=["copy", "in place"])
def test_nothing_changes_when_the_model_raises(how: str, wrap: Callable[[nn.Module], nn.Module]):
    subject = case(wrap(Broken()), floats())
    before = fingerprint(subject.model)
    with pytest.raises(CaseFailure, match=r"batch 0 in module '.*last': ArithmeticError: the third law"):
        LOOKS[how](subject)
    assert changes(before, fingerprint(subject.model)) == []


@pytest.mark.parametrize("how", LOOKS)
def test_nothing_changes_when_the_loss_has_no_gradient(how: str):
    subject = Case(nn.Linear(6, 2), loss=lambda m, x: m(x).detach().mean(), data=[floats()])
    before = fingerprint(subject.model)
    with pytest.raises(CaseFailure, match="the loss has no gradient"):
        LOOKS[how](subject)
    assert changes(before, fingerprint(subject.model)) == []


def test_a_bare_probe_leaves_no_hook_when_the_model_raises():
    model, batch = Raising(), floats()
    before = fingerprint(model)
    with pytest.raises(ArithmeticError), Probe(model):
        model(batch)
    assert changes(before, fingerprint(model)) == []


@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.parametrize("wrap", [lambda model: model, Uncopyable], ids=["copy", "in place"])
def test_the_users_hooks_stay_in_order_and_run_as_before(how: str, wrap: Callable[[nn.Module], nn.Module]):
    inner = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    subject = case(wrap(inner), floats())
    for _ in range(2):
        inner[0].register_forward_hook(unchanged)
        inner[0].register_forward_pre_hook(unchanged)
        inner[1].register_full_backward_hook(unchanged)
    inner[0].weight.register_hook(same)
    before = fingerprint(subject.model)
    LOOKS[how](subject)
    assert changes(before, fingerprint(subject.model)) == []


def unchanged(*_: object) -> None:
    """A hook of the user's that does nothing."""


def same(gradient: torch.Tensor) -> torch.Tensor:
    """A gradient hook of the user's that does nothing."""
    return gradient


@pytest.mark.parametrize("how", LOOKS)
def test_compiled_model(how: str):
    subject = case(compiled(), floats())
    before = fingerprint(subject.model, pickled=False)
    LOOKS[how](subject)
    assert changes(before, fingerprint(subject.model, pickled=False)) == []


def test_a_bare_probe_sees_the_parts_of_a_compiled_model():
    model, batch = compiled(), floats()
    before = fingerprint(model, pickled=False)
    with Probe(model) as probe:
        model(batch).sum().backward()
    assert [str(place.site) for place in probe.record().of("output")] == [
        f"_orig_mod.layer#{k}" for k in (1, 2, 3)
    ]
    model.zero_grad()
    assert changes(before, fingerprint(model, pickled=False)) == []


@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.parametrize("wrap", [lambda model: model, Uncopyable], ids=["copy", "in place"])
def test_lazy_parameters_stay_lazy(how: str, wrap: Callable[[nn.Module], nn.Module]):
    subject = case(wrap(nn.Sequential(nn.LazyLinear(4), nn.BatchNorm1d(4), nn.LazyLinear(2))), floats())
    before = fingerprint(subject.model, pickled=False)
    LOOKS[how](subject)
    assert changes(before, fingerprint(subject.model, pickled=False)) == []


@pytest.mark.parametrize("how", LOOKS)
def test_a_graph_that_the_caller_holds_can_still_be_walked(how: str):
    subject = case(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)), floats())
    waiting = subject.model(floats()).square().sum()
    LOOKS[how](subject)
    subject.model.zero_grad()
    waiting.backward()
    assert all(p.grad is not None for p in subject.model.parameters())


@pytest.mark.parametrize("how", LOOKS)
def test_the_next_training_step_is_the_same_as_without_looking(how: str):
    def trained(looks: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        random.seed(3)
        model = nn.Sequential(Noisy(), nn.Dropout(0.2), nn.Linear(6, 2))
        batch = floats()
        subject = Case(model, loss=lambda m, x: m(x).square().mean(), data=[batch])
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(3):
            if looks:
                LOOKS[how](subject)
            optimizer.zero_grad()
            subject.compute_loss(batch).backward()
            optimizer.step()
        return model.state_dict()

    plain, watched = trained(False), trained(True)
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


@pytest.mark.parametrize("how", LOOKS)
def test_an_optimizer_instance_keeps_its_state(how: str):
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    subject = Case(model, loss=lambda m, x: m(x).square().mean(), data=[floats()], optimizer=optimizer)
    subject.compute_loss(subject.batches[0]).backward()
    optimizer.step()
    before = {id(p): {k: v.clone() for k, v in s.items()} for p, s in optimizer.state.items()}
    groups = [dict(group) for group in optimizer.param_groups]
    LOOKS[how](subject)
    after = {id(p): s for p, s in optimizer.state.items()}
    assert list(after) == list(before)
    assert all(torch.equal(v, after[p][k]) for p, s in before.items() for k, v in s.items())
    for old, new in zip(groups, optimizer.param_groups, strict=True):
        assert old.keys() == new.keys()
        assert [id(p) for p in old["params"]] == [id(p) for p in new["params"]]
        assert {k: v for k, v in old.items() if k != "params"} == {
            k: v for k, v in new.items() if k != "params"
        }


def test_batches_are_not_written_to():
    batch = floats()
    kept = batch.clone()
    subject = Case(
        nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 2)),
        loss=lambda m, x: m(x).square().mean(),
        data=[batch],
    )
    look(subject)
    assert subject.batches[0] is batch
    assert torch.equal(batch, kept)
    assert not batch.requires_grad


@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.parametrize("kind", MODELS)
def test_copies_are_let_go_without_a_collection(kind: str, how: str):
    """A cycle would hold a copy of the model until the next collection, and several on top of each other."""
    build, batch = MODELS[kind]
    subject = case(build(), batch())
    LOOKS[how](subject)
    gc.collect()
    gc.disable()
    try:
        before = sum(issubclass(type(thing), nn.Parameter) for thing in gc.get_objects())
        LOOKS[how](subject)
        assert sum(issubclass(type(thing), nn.Parameter) for thing in gc.get_objects()) == before
    finally:
        gc.enable()


@pytest.mark.parametrize("how", LOOKS)
def test_nothing_is_kept_alive(how: str):
    subject = case(Tokens(), tokens())
    LOOKS[how](subject)
    gc.collect()
    before = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    LOOKS[how](subject)
    gc.collect()
    assert sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()) <= before
