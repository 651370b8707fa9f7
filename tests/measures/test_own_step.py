"""What a case's own step makes of the gradient, on its way to the clip and to the optimizer."""

import math

import pytest
import torch
from measures.reading import measured
from torch import nn
from zoo import piled
from zoo.scalers import by_hand, by_scaler, clip

from unitygain._case import Case


def facts(step, limit: float = 1e-3, **more) -> dict[str, float | str]:
    torch.manual_seed(0)
    case = Case(
        nn.Linear(4, 1),
        lambda m, x: m(x).square().mean(),
        [torch.randn(8, 4)],
        lambda p: torch.optim.SGD(p, 0.1),
        step=step,
        clip=clip(limit),
        **more,
    )
    given = case.clip
    found = dict(measured(case, "update_ratio")["update_ratio"].facts)
    assert case.clip is given
    return found


@pytest.mark.parametrize("make", [by_hand, by_scaler])
@pytest.mark.parametrize("scale", [256.0, 65536.0])
def test_a_clip_before_the_unscaling_sees_the_scale(make, scale):
    after, before = facts(make(scale, first=False)), facts(make(scale, first=True))
    assert after["carried"] == pytest.approx(1.0, rel=1e-5)
    assert before["carried"] == pytest.approx(scale, rel=1e-5)
    assert before["clipped"] == pytest.approx(float(after["clipped"]) / scale, rel=1e-3)
    for found in (after, before):
        assert found["handed"] == pytest.approx(found["clipped"], rel=1e-3)


def test_a_step_that_calls_no_clip_tells_what_reaches_the_optimizer():
    def halved(case, batch):
        case.optimizer.zero_grad()
        loss = case.compute_loss(batch)
        (0.5 * loss).backward()
        case.optimizer.step()
        return loss.detach()

    found = facts(halved)
    assert found["handed"] == pytest.approx(0.5, rel=1e-6)
    assert math.isnan(float(found["clipped"]))
    assert math.isnan(float(found["carried"]))


def test_what_a_clip_holds_is_there_for_the_step_and_the_first_call_counts():
    class Counting:
        calls = 0

        def __call__(self, parameters):
            type(self).calls += 1
            return nn.utils.clip_grad_norm_(parameters, 1e-3)

    def step(case, batch):
        case.optimizer.zero_grad()
        loss = case.compute_loss(batch)
        loss.backward()
        before = case.clip.calls
        for _ in range(2):
            case.clip(p for p in case.model.parameters())
        assert case.clip.calls == before + 2
        case.optimizer.step()
        return loss.detach()

    torch.manual_seed(0)
    case = Case(
        nn.Linear(4, 1),
        lambda m, x: m(x).square().mean(),
        [torch.randn(8, 4)],
        lambda p: torch.optim.SGD(p, 0.1),
        step=step,
        clip=Counting(),
    )
    found = measured(case, "update_ratio")["update_ratio"].facts
    assert 0 < float(found["clipped"]) < 0.1
    assert found["carried"] == pytest.approx(1.0)


def test_what_lies_in_the_gradient_is_kept_where_nothing_clears_it():
    shares = {step: facts(step)["kept"] for step in (piled.never, piled.before, piled.afterwards)}
    assert shares[piled.never] == pytest.approx(1.0, abs=0.02)
    assert shares[piled.before] == pytest.approx(0.01, abs=0.01)
    assert math.isnan(float(shares[piled.afterwards]))
    # What shrinks it keeps that share, and a clip of the case's own is looked at before it hides the sum.
    assert facts(piled.shrunk(0.9))["kept"] == pytest.approx(0.9, abs=0.02)
    assert facts(piled.never_but_clipped)["kept"] == pytest.approx(1.0, abs=0.02)


def test_what_is_kept_over_a_step_that_adds_up_batches():
    assert facts(piled.of_several(4, cleared=False), 1.0)["kept"] == pytest.approx(1.0, abs=0.02)
    assert math.isnan(float(facts(piled.of_several(4), 1.0)["kept"]))
    # Weights that are moved by hand tell no step from the next.
    assert math.isnan(float(facts(moved_by_hand)["kept"]))


def moved_by_hand(case, batch):
    loss = piled.backward(case, batch)
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter -= 0.1 * parameter.grad
    return loss


def test_a_step_that_adds_up_batches_is_taken_until_its_optimizer_steps():
    alone, several = facts(piled.before, 1.0), facts(piled.of_several(4), 1.0)
    assert several["median"] == pytest.approx(alone["median"], rel=1e-5)
    assert several["handed"] == pytest.approx(1.0, rel=1e-5)
    calls = []

    def nothing(case, batch):
        calls.append(batch)
        return case.compute_loss(batch).detach()

    assert facts(nothing)["median"] == 0.0
    assert len(calls) == 64
