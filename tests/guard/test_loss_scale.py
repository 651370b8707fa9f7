"""A loss scale with a floor: what torch's own does without, overflow and NaN told apart, and the alarm."""

import json
import logging
import math

import pytest
import torch
from torch import nn

from unitygain.guard import ScaleGuard


def make():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    return model, torch.optim.SGD(model.parameters(), 0.1)


def step(model, optimizer, scaler, spoil: float | None = None, loss_factor: float = 1.0):
    optimizer.zero_grad()
    loss = model(torch.ones(4, 3)).square().mean() * loss_factor
    scaler.scale(loss).backward()
    if spoil is not None:
        model.weight.grad[0, 0] = spoil
    scaler.step(optimizer)
    scaler.update()


def test_without_a_floor_a_healthy_step_after_bad_ones_destroys_the_weights():
    """From 2^16 a run of 170 bad steps leaves a scale without a reciprocal in float32."""
    ends = {}
    for name in ("torch", "guarded"):
        model, optimizer = make()
        scaler = torch.amp.GradScaler("cpu")
        scaler = scaler if name == "torch" else ScaleGuard(scaler)
        for _ in range(170):
            step(model, optimizer, scaler, spoil=math.inf)
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        step(model, optimizer, scaler)
        ends[name] = all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert ends == {"torch": False, "guarded": True}


def test_it_never_falls_below_its_floor_and_grows_as_before():
    model, optimizer = make()
    scaler = ScaleGuard(
        torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3), floor=16, hysteresis=1
    )
    scales = []
    for spoil in [math.inf] * 2 + [None] * 7:
        step(model, optimizer, scaler, spoil=spoil)
        scales.append(scaler.get_scale())
    assert scales == [32.0, 16.0, 16.0, 16.0, 32.0, 32.0, 32.0, 64.0, 64.0]


def test_hysteresis_forgives_one_overflow_until_the_scale_grows():
    model, optimizer = make()
    scaler = ScaleGuard(torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2), hysteresis=2)
    scales = []
    for spoil in (math.inf, None, math.inf, None, None, math.inf, math.inf):
        step(model, optimizer, scaler, spoil=spoil)
        scales.append(scaler.get_scale())
    assert scales == [64.0, 64.0, 32.0, 32.0, 64.0, 64.0, 32.0]


def test_an_overflow_starts_the_count_of_healthy_steps_anew():
    model, optimizer = make()
    scaler = ScaleGuard(torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3), hysteresis=2)
    scales = []
    for spoil in (None, None, math.inf, None, None, None):
        step(model, optimizer, scaler, spoil=spoil)
        scales.append(scaler.get_scale())
    assert scales == [64.0] * 5 + [128.0]


def test_a_loss_that_is_not_finite_leaves_the_scale_alone():
    model, optimizer = make()
    scaler = ScaleGuard(torch.amp.GradScaler("cpu", init_scale=64.0), hysteresis=1)
    for _ in range(10):
        step(model, optimizer, scaler, loss_factor=math.nan)
    assert scaler.get_scale() == 64.0


def test_a_gradient_that_no_scale_repairs_gives_the_scale_back():
    model, optimizer = make()
    scaler = ScaleGuard(torch.amp.GradScaler("cpu", init_scale=8.0), hysteresis=1)
    scales = []
    for spoil in [math.nan] * 6 + [None]:
        step(model, optimizer, scaler, spoil=spoil)
        scales.append(scaler.get_scale())
    assert scales == [4.0, 2.0, 1.0, 8.0, 8.0, 8.0, 8.0]


class Halved(torch.autograd.Function):
    """Passes the input, and a gradient that has been through float16."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *grads):
        return grads[0].half().to(grads[0].dtype)


class Model(nn.Module):
    """A batch norm, dropout and a gradient of 3,000 that passes through float16."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))

    def forward(self, x):
        return Halved.apply(self.layers(x)).sum() * 3000.0  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize(("init", "repairs"), [(2.0**16, 16.0), (32.0, 16.0), (16.0, 16.0)])
def test_explain_finds_the_scale_that_repairs_an_overflow(init, repairs):
    """float16 ends at 65,504: 3,000 passes at 16 and not at 32."""
    torch.manual_seed(0)
    model = Model()
    scaler = ScaleGuard(torch.amp.GradScaler("cpu", init_scale=init))
    scaler.scale(torch.zeros(()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    event = scaler.explain(lambda: model(torch.randn(6, 3)), model)
    assert (event.name, event.threshold) == ("overflow", repairs)
    assert ("an overflow" in event.message) == (init != repairs)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_explain_says_when_no_scale_helps():
    weight = nn.Parameter(torch.zeros(3))
    scaler = ScaleGuard(torch.amp.GradScaler("cpu", init_scale=256.0))
    scaler.scale(torch.zeros(()))
    event = scaler.explain(lambda: weight.sqrt().sum() * 0.0, [weight])
    assert event.name == "nonfinite"
    assert event.message == "the gradient is finite at no loss scale from 256 to 1: NaN, no overflow"


def test_the_alarm_is_logged_once(caplog):
    model, optimizer = make()
    scaler = ScaleGuard(torch.amp.GradScaler("cpu", init_scale=4.0), hysteresis=1, patience=10)
    with caplog.at_level(logging.WARNING, "unitygain"):
        for _ in range(20):
            step(model, optimizer, scaler, spoil=math.inf)
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(":")[0] for message in messages] == [
        "step 3 overflowed at a loss scale of 1, which is its floor",
        "the loss scale is stuck at 4",
    ]


def test_its_state_continues_bit_for_bit():
    spoils = [math.inf, None, math.inf, math.inf, None, None, math.nan, math.nan, math.nan, None, None, None]
    settings = {"init_scale": 4.0, "growth_interval": 2}
    for cut in range(len(spoils)):
        model, optimizer = make()
        whole = ScaleGuard(torch.amp.GradScaler("cpu", **settings))
        expected = []
        for spoil in spoils:
            step(model, optimizer, whole, spoil=spoil)
            expected.append(whole.get_scale())
        model, optimizer = make()
        first, second = (ScaleGuard(torch.amp.GradScaler("cpu", **settings)) for _ in range(2))
        found = []
        for number, spoil in enumerate(spoils):
            if number == cut:
                second.load_state_dict(json.loads(json.dumps(first.state_dict())))
            scaler = first if number < cut else second
            step(model, optimizer, scaler, spoil=spoil)
            found.append(scaler.get_scale())
        assert found == expected
        assert second.state_dict() == whole.state_dict()


def test_settings_that_cannot_be_meant_are_refused():
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(ValueError, match="floor is 0"):
        ScaleGuard(scaler, floor=0)
    with pytest.raises(ValueError, match="hysteresis is 0"):
        ScaleGuard(scaler, hysteresis=0)


def test_other_errors_of_the_scaler_are_passed_on():
    model, optimizer = make()
    scaler = ScaleGuard(torch.amp.GradScaler("cpu"))
    scaler.scale(model(torch.ones(1, 3)).sum()).backward()
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="after step"):
        scaler.unscale_(optimizer)
