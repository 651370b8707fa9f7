"""Rehearsal: the plain loop bit for bit, nothing left behind, and clear words where it cannot be."""

import copy
import math

import pytest
import torch
from torch import nn

from unitygain import Case
from unitygain._case import CaseFailure
from unitygain._rehearsal import rehearse, train


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def data(count: int = 3) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(5)
    return [torch.randn(6, 4, generator=source) for _ in range(count)]


def make(**changes) -> Case:
    given = {"loss": lambda m, x: (m(x) - x.sum(1, keepdim=True)).square().mean(), "data": data()}
    given |= {"optimizer": lambda params: torch.optim.AdamW(params, 1e-2)}
    return Case(mlp, **(given | changes))


def test_it_is_the_plain_loop_bit_for_bit():
    case = make(
        clip=lambda params: nn.utils.clip_grad_norm_(list(params), 0.5),
        schedule=lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.9),
    )
    model = copy.deepcopy(case.model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    torch.manual_seed(11)
    losses = []
    for k in range(7):
        optimizer.zero_grad()
        loss = case.loss(model, case.batches[k % 3])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        final = math.fsum(float(case.loss(model, batch)) for batch in case.batches) / 3
    found = rehearse(case, 7, seed=11)
    assert found.losses == tuple(losses)
    assert found.final == final
    assert (found.stopped, found.steps) == ("", 7)


def test_the_case_and_the_random_states_stay_as_they_were():
    case = make()
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = rehearse(case, 5), rehearse(case, 5)
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in case.model.state_dict().items())
    assert all(p.grad is None for p in case.model.parameters())
    assert rehearse(case, 5, seed=1) != first


def test_an_optimizer_instance_goes_on_from_its_state():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    case = Case(model, loss=make().loss, data=data(), optimizer=optimizer)
    fresh = rehearse(case, 4)
    for _ in range(3):
        optimizer.zero_grad()
        case.compute_loss(case.batches[0]).backward()
        optimizer.step()
    moments = copy.deepcopy(optimizer.state_dict())
    assert rehearse(case, 4) != fresh
    assert str(optimizer.state_dict()) == str(moments)


def test_training_in_place_is_the_same_and_changes_the_case():
    case = make()
    expected = rehearse(case, 3, seed=2)
    before = case.model.state_dict()["0.weight"].clone()
    assert train(case, 3, seed=2) == expected
    assert not torch.equal(case.model.state_dict()["0.weight"], before)


def test_a_loss_that_is_not_finite_ends_it():
    found = rehearse(make(optimizer=lambda params: torch.optim.SGD(params, 1e30)), 50)
    assert found.final == math.inf
    assert found.stopped.startswith("the loss is ")
    assert found.steps < 50


def test_a_watch_sees_every_step_and_can_end_it():
    seen = []
    found = rehearse(make(), 9, watch=lambda step, loss: seen.append((step, loss)) or step == 3)
    assert seen == list(enumerate(found.losses))
    assert (found.steps, found.stopped) == (4, "ended by its watch at step 3")


def test_float16_is_trained_with_a_scaler_and_clips_unscaled_gradients():
    norms = []

    def clip(params):
        norms.append(float(nn.utils.clip_grad_norm_(list(params), 1e9)))

    still = {"optimizer": lambda params: torch.optim.SGD(params, 0.0), "data": data(1)}
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    for precision in (None, "float16"):
        rehearse(Case(model, loss=make().loss, clip=clip, precision=precision, **still), 8)
    # The scale starts at 65,536, overflows float16 for some steps, and is halved until it does not.
    assert norms[8] == math.inf
    assert norms[-1] == pytest.approx(norms[0], rel=0.02)


def test_an_optimizer_with_a_closure():
    found = rehearse(make(optimizer=lambda params: torch.optim.LBFGS(params, 0.1, max_iter=4)), 3)
    assert found.steps == 3
    assert all(map(math.isfinite, found.losses))


def test_the_cases_own_step_is_taken():
    def step(case, batch):
        case.optimizer.zero_grad()
        loss = case.compute_loss(batch)
        (2 * loss).backward()
        case.clip(case.model.parameters())
        case.optimizer.step()
        return loss

    clips = []
    sgd = {"optimizer": lambda params: torch.optim.SGD(params, 1e-3)}
    twice = rehearse(make(step=step, **sgd), 4, clip=clips.append)
    assert len(clips) == 4
    assert twice == rehearse(make(optimizer=lambda params: torch.optim.SGD(params, 2e-3)), 4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="steps is 0; take at least 1"):
        rehearse(make(), 0)
    with pytest.raises(ValueError, match="declares no optimizer"):
        rehearse(make(optimizer=None), 1)

    def broken(model, batch):
        raise KeyError("labels")

    with pytest.raises(CaseFailure, match="raised on batch 0: KeyError: 'labels'"):
        rehearse(make(loss=broken), 1)
    model = mlp()
    model.handle = (k for k in range(2))
    with pytest.raises(CaseFailure, match="cannot be copied, so nothing can be tried"):
        rehearse(Case(model, loss=make().loss, data=data(), optimizer=make().optimizer), 1)
