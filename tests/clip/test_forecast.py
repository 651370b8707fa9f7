"""The forecast of a step: closed forms on a valley, any optimizer, and the case left as it was."""

import math

import pytest
import torch
from torch import nn

from unitygain import Case, clip
from unitygain.clip._forecast import predict_step

WIDTHS = torch.tensor([100.0, 1.0])


def valley(at: tuple[float, float], **more) -> Case:
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([at]))
    given = {"optimizer": lambda params: torch.optim.SGD(params, 0.1), "clip": clip.by_global_norm(25.0)}
    return Case(
        model,
        loss=lambda m, x: (0.5 * WIDTHS * m.weight[0] ** 2).sum(),
        data=[torch.ones(1)],
        **(given | more),
    )


def test_the_same_clipped_step_overshoots_one_way_and_not_the_other():
    steep, flat = predict_step(valley((1.0, 0.0))), predict_step(valley((0.0, 100.0)))
    assert (steep.loss, steep.after) == (50.0, 112.5)
    assert (flat.loss, flat.after) == (5000.0, 4753.125)
    assert steep.length == pytest.approx(2.5, rel=1e-6)
    assert flat.length == pytest.approx(2.5, rel=1e-6)
    assert steep.slope == pytest.approx(-250.0, rel=1e-6)
    assert steep.curvature == pytest.approx(100.0 * 2.5**2, rel=1e-6)
    assert flat.curvature == pytest.approx(1.0 * 2.5**2, rel=1e-3)
    assert steep.lowest == pytest.approx(0.4, rel=1e-6)
    assert steep.overshoots
    assert not flat.overshoots
    assert "overshoots; 0.4 of it" in str(steep)
    assert "promised 4750" in str(flat)


def test_the_lowest_point_is_the_lowest_point():
    forecast = predict_step(valley((1.0, 3.0)))
    scaled = {
        k: predict_step(valley((1.0, 3.0), clip=clip.by_global_norm(25.0 * k))) for k in (0.9, 1.0, 1.1)
    }
    best = forecast.lowest
    at_best = predict_step(valley((1.0, 3.0), clip=clip.by_global_norm(25.0 * best))).after
    assert all(at_best <= other.after for other in scaled.values())
    assert at_best < predict_step(valley((1.0, 3.0), clip=clip.by_global_norm(25.0 * best * 1.05))).after
    assert at_best < predict_step(valley((1.0, 3.0), clip=clip.by_global_norm(25.0 * best * 0.95))).after


def test_the_optimizers_own_state_takes_part_and_nothing_is_changed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    data = [torch.randn(7, 3)]
    case = Case(model, loss=lambda m, x: m(x).square().mean(), data=data, optimizer=optimizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    forecast = predict_step(case, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not optimizer.state
    torch.manual_seed(4)
    loss = case.compute_loss(case.batches[0])
    loss.backward()
    optimizer.step()
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])
    torch.manual_seed(4)
    assert forecast.loss == float(loss.detach())
    assert forecast.after == float(case.compute_loss(case.batches[0]).detach())
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()]).double()
    moved = torch.cat([(p.detach() - before[n]).flatten() for n, p in model.named_parameters()]).double()
    assert forecast.slope == pytest.approx(float(gradient @ moved), rel=1e-5)
    assert forecast.length == pytest.approx(float(moved.norm()), rel=1e-6)


def test_a_step_into_nowhere_says_so():
    forecast = predict_step(
        valley((1.0, 1.0), clip=None, optimizer=lambda params: torch.optim.SGD(params, 1e30))
    )
    assert not math.isfinite(forecast.after)
    assert forecast.overshoots
    assert "far too long" in str(forecast)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="declares no optimizer"):
        predict_step(valley((1.0, 1.0), optimizer=None))
    with pytest.raises(ValueError, match="step of its own"):
        predict_step(valley((1.0, 1.0), step=lambda case, batch: torch.zeros(())))
    with pytest.raises(ValueError, match="batch is 3; the case has 1"):
        predict_step(valley((1.0, 1.0)), batch=3)
