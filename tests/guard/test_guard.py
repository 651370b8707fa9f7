"""What a guard does in a plain loop: nothing where all is well, else its actions in their order."""

import copy
import io
import logging
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from unitygain.detectors import Spike
from unitygain.guard import Guard, TrainingStopped, accept, clip, lower_lr, rewind, skip


def make(lr: float = 0.05, momentum: float = 0.9):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
    return model, torch.optim.SGD(model.parameters(), lr, momentum=momentum)


def batch(step: int) -> torch.Tensor:
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(step))


def step(model, optimizer, guard, number: int, spoil=None, scale: float = 1.0):
    """One step of the plain loop; `spoil` is written into a gradient, `scale` multiplies the loss."""
    optimizer.zero_grad()
    x = batch(number)
    loss = scale * (model(x) - x.sum(dim=1, keepdim=True).sin()).square().mean()
    loss.backward()
    if spoil is not None:
        model[0].weight.grad[0, 0] = spoil
    return optimizer.step() if guard is None else guard.step(loss)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def states():
    return np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def test_a_healthy_run_is_the_run_without_a_guard_bit_for_bit():
    ends = []
    for guarded in (False, True):
        model, optimizer = make()
        guard = Guard(model, optimizer, snapshot_every=10) if guarded else None
        for number in range(60):
            step(model, optimizer, guard, number)
        ends.append((weights(model), optimizer.state_dict(), states()))
    assert equal(ends[0][0], ends[1][0])
    moments = [end[1]["state"][0]["momentum_buffer"] for end in ends]
    assert torch.equal(*moments)
    assert ends[0][2] == ends[1][2]
    assert ends[0][1]["param_groups"] == ends[1][1]["param_groups"]


def test_python_draws_no_random_number_either(tmp_path):
    """In a process of its own: the checks of shapes under pytest draw which entries they look at."""
    code = (
        "import random, sys, torch\n"
        "from unitygain.guard import Guard\n"
        "model = torch.nn.Linear(2, 1)\n"
        "guard = Guard(model, torch.optim.SGD(model.parameters(), 0.1), folder=sys.argv[1])\n"
        "before = random.getstate(), torch.get_rng_state().tolist()\n"
        "for value in (1.0, float('nan'), 1.0):\n"
        "    model.zero_grad(); loss = model(torch.full((3, 2), value)).sum()\n"
        "    loss.backward(); guard.step(loss)\n"
        "print(before == (random.getstate(), torch.get_rng_state().tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("spoil", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_left_out_leaves_no_trace_but_its_count(spoil):
    model, optimizer = make()
    guard = Guard(model, optimizer)
    for number in range(5):
        step(model, optimizer, guard, number)
    before, moments = weights(model), copy.deepcopy(optimizer.state_dict())
    verdict = step(model, optimizer, guard, 5, spoil=spoil)
    assert (verdict.action, verdict.stepped, verdict.position) == ("skip", False, 6)
    assert "in the gradients of 0.weight" in verdict.events[0].message
    assert equal(before, weights(model)), "the buffers too: the forward pass had moved them"
    assert torch.equal(
        moments["state"][0]["momentum_buffer"], optimizer.state_dict()["state"][0]["momentum_buffer"]
    )
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_that_is_not_finite_is_enough():
    model, optimizer = make()
    guard = Guard(model, optimizer)
    step(model, optimizer, guard, 0)
    optimizer.zero_grad()
    model(batch(1)).mean().backward()
    assert guard.step(math.nan).action == "skip"
    model(batch(1)).mean().backward()
    assert guard.step().action == "step", "without a loss the gradient alone is judged"


def test_actions_follow_one_another_and_the_end_is_a_report():
    model, optimizer = make()
    guard = Guard(model, optimizer, on_nonfinite=(skip(2), lower_lr(0.5, times=1), rewind(1)))
    for number in range(4):
        step(model, optimizer, guard, number)
    actions = [step(model, optimizer, guard, number, spoil=math.nan).action for number in range(4, 8)]
    assert actions == ["skip", "skip", "lower_lr", "rewind"]
    with pytest.raises(TrainingStopped) as stop:
        step(model, optimizer, guard, 8, spoil=math.nan)
    assert stop.value.last_good == 4
    assert len(stop.value.tried) == 4
    text = str(stop.value)
    assert "training stopped at step 9: grad_norm is nan at step 9" in text
    assert "last healthy step: 4" in text
    assert "tried before: step 8: rewind to step 0" in text


def test_empty_ladders_stop_at_once():
    model, optimizer = make()
    guard = Guard(model, optimizer, on_nonfinite=(), on_spike=())
    with pytest.raises(TrainingStopped, match="nothing is allowed"):
        step(model, optimizer, guard, 0, spoil=math.nan)


def test_a_single_good_step_does_not_refill_the_ladder_but_calm_does():
    model, optimizer = make()
    guard = Guard(model, optimizer, on_nonfinite=(skip(3),), calm=4)
    number = 0
    for spoil in (math.nan, None, math.nan, None, math.nan, None):
        step(model, optimizer, guard, number, spoil=spoil)
        number += 1
    assert not guard.green
    recovered = [step(model, optimizer, guard, number + i).recovered for i in range(4)]
    assert recovered == [False, False, True, False]
    assert guard.green
    for i in range(3):
        assert step(model, optimizer, guard, 20 + i, spoil=math.nan).action == "skip"


def test_a_spike_is_clipped_to_the_usual_norm_and_never_remembered():
    model, optimizer = make(momentum=0.0)
    guard = Guard(model, optimizer)
    norms = [step(model, optimizer, guard, number).grad_norm for number in range(40)]
    before = weights(model)
    verdict = step(model, optimizer, guard, 40, scale=1e6)
    assert verdict.action == "clip"
    assert verdict.stepped
    moved = [(after.detach() - before[name]).square().sum() for name, after in model.named_parameters()]
    length = math.sqrt(sum(float(square) for square in moved)) / 0.05
    assert length == pytest.approx(float(np.median(norms)), rel=1e-5)
    history = guard.watch.detectors[1].state_dict()["history"]
    assert history == norms


def test_without_a_history_a_spike_is_not_clipped_but_left_out():
    model, optimizer = make()
    guard = Guard(model, optimizer)
    for number in range(5):
        step(model, optimizer, guard, number)
    assert step(model, optimizer, guard, 5, scale=1e8).action == "skip"


def test_a_lowered_rate_acts_in_the_step_alone_and_comes_back():
    model, optimizer = make()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.99**epoch)
    guard = Guard(model, optimizer, on_nonfinite=(lower_lr(0.25, times=1, restore=8),))
    step(model, optimizer, guard, 0)
    schedule.step()
    step(model, optimizer, guard, 1, spoil=math.nan)
    assert guard.lr_factor == 0.25
    factors = []
    for number in range(2, 13):
        factors.append(step(model, optimizer, guard, number).lr_factor)
        schedule.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.99**number, rel=1e-12)
    assert factors[0] == 0.25
    assert factors[4] == pytest.approx(0.5, rel=1e-12)
    assert factors[8:] == [1.0] * 3


def test_a_lowered_rate_is_the_rate_of_the_step():
    model, optimizer = make(momentum=0.0)
    guard = Guard(model, optimizer, on_nonfinite=(lower_lr(0.125, times=1, restore=None),))
    step(model, optimizer, guard, 0, spoil=math.nan)
    model.eval()
    before = weights(model)
    step(model, optimizer, guard, 1)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(
            parameter.detach(), before[name] - 0.05 * 0.125 * parameter.grad, rtol=1e-6, atol=1e-9
        )
    assert guard.lr_factor == 0.125, "without restore it stays"


def test_a_rewind_brings_back_the_very_weights_and_forgets_the_moments():
    model, optimizer = make()
    guard = Guard(model, optimizer, on_nonfinite=(rewind(2),), snapshot_every=10)
    for number in range(10):
        step(model, optimizer, guard, number)
    at_ten = weights(model)
    for number in range(10, 17):
        step(model, optimizer, guard, number)
    verdict = step(model, optimizer, guard, 17, spoil=math.nan)
    assert (verdict.action, verdict.rewound_to, verdict.position) == ("rewind", 10, 18)
    assert equal(at_ten, weights(model))
    assert not optimizer.state
    assert guard.position == 18, "the data goes on"
    assert guard.lr_factor == pytest.approx(0.1)
    second = step(model, optimizer, guard, 18, spoil=math.nan)
    assert second.rewound_to == 0, "the newer one led into the same trouble"


def test_broken_weights_go_straight_to_the_rewind():
    model, optimizer = make()
    guard = Guard(model, optimizer)
    for number in range(5):
        step(model, optimizer, guard, number)
    with torch.no_grad():
        model[4].weight[0, 0] = math.nan
    assert step(model, optimizer, guard, 5).action == "rewind"
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_stopping_with_broken_weights_hands_back_good_ones():
    model, optimizer = make()
    guard = Guard(model, optimizer, on_nonfinite=(skip(3),), on_spike=(rewind(1),))
    step(model, optimizer, guard, 0)
    with torch.no_grad():
        model[4].weight[0, 0] = math.nan
    with pytest.raises(TrainingStopped, match="are those of step 0 again") as stop:
        step(model, optimizer, guard, 1)
    assert stop.value.restored == 0
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_averaged_weights_are_taken_back_too():
    model, optimizer = make()
    average = torch.optim.swa_utils.AveragedModel(model)
    guard = Guard(model, optimizer, on_nonfinite=(rewind(1),), also=(average,))
    start = {name: value.clone() for name, value in average.state_dict().items()}
    for number in range(3):
        step(model, optimizer, guard, number)
        average.update_parameters(model)
    step(model, optimizer, guard, 3, spoil=math.nan)
    assert equal(start, average.state_dict())


def test_a_level_that_stays_is_accepted_once():
    model, optimizer = make(lr=1e-4)
    guard = Guard(model, optimizer, on_spike=(skip(2), accept(1)), calm=5)
    for number in range(30):
        step(model, optimizer, guard, number)
    actions = [step(model, optimizer, guard, number, scale=1e3).action for number in range(30, 40)]
    assert actions == ["skip", "skip", "accept"] + ["step"] * 7
    assert guard.green


def test_a_huge_batch_behind_a_batch_norm_shows_in_its_variances_alone():
    model, optimizer = make()
    guard = Guard(model, optimizer)
    for number in range(40):
        step(model, optimizer, guard, number)
    before = weights(model)["1.running_var"]
    optimizer.zero_grad()
    loss = (model(batch(40) * 1e5) - batch(40).sum(dim=1, keepdim=True).sin()).square().mean()
    loss.backward()
    verdict = guard.step(loss)
    assert [event.quantity for event in verdict.events] == ["running_var_norm"]
    assert torch.equal(before, weights(model)["1.running_var"])


SETTINGS = {
    "on_nonfinite": (skip(1), lower_lr(0.5, times=1, restore=10), rewind(2)),
    "on_spike": (clip(2), skip(1), rewind(1)),
    "snapshot_every": 7,
    "calm": 6,
}


def run(model, optimizer, guard, numbers):
    """Steps with faults at fixed places; returns what was done."""
    done = []
    for number in numbers:
        torch.manual_seed(number)
        spoil = math.nan if number in {12, 13, 31, 36, 37, 38} else None
        done.append(str(step(model, optimizer, guard, number, spoil, 1e5 if number in {27, 28, 29} else 1.0)))
    return done


@pytest.mark.parametrize("cut", [5, 13, 14, 28, 37])
@pytest.mark.parametrize("disk", [False, True])
def test_a_resumed_run_goes_on_bit_for_bit(cut, disk, tmp_path):
    settings = SETTINGS | ({"folder": tmp_path} if disk else {})
    model, optimizer = make()
    expected = run(model, optimizer, Guard(model, optimizer, **SETTINGS), range(60))
    assert {"rewind to step 27", "rewind to step 20", "lower_lr", "clip"} <= {
        line.split(": ")[1].split(" (")[0] for line in expected
    }, "the comparison would be empty"
    first, first_optimizer = make()
    guard = Guard(first, first_optimizer, **settings)
    found = run(first, first_optimizer, guard, range(cut))
    file = io.BytesIO()
    torch.save([first.state_dict(), first_optimizer.state_dict(), guard.state_dict()], file)
    file.seek(0)
    second, second_optimizer = make(lr=1.0)
    again = Guard(second, second_optimizer, **settings)
    saved = torch.load(file, weights_only=True)
    second.load_state_dict(saved[0])
    second_optimizer.load_state_dict(saved[1])
    again.load_state_dict(saved[2])
    found += run(second, second_optimizer, again, range(cut, 60))
    assert found == expected
    assert equal(weights(model), weights(second))


def test_a_state_of_another_guard_is_refused():
    model, optimizer = make()
    state = Guard(model, optimizer).state_dict()
    with pytest.raises(ValueError, match=r"of the actions \['skip', 'rewind'\]; this guard has \['skip'\]"):
        Guard(model, optimizer, on_nonfinite=(skip(1),)).load_state_dict(state)
    with pytest.raises(ValueError, match="of 4 detectors; this guard has 2"):
        Guard(model, optimizer, detectors=[Spike()]).load_state_dict(state)
    with pytest.raises(ValueError, match="version 99"):
        Guard(model, optimizer).load_state_dict(state | {"version": 99})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_nonfinite": (clip(),)}, "would make the weights NaN"),
        ({"calm": 0}, "calm is 0"),
        ({"snapshot_every": 0}, "snapshot_every is 0"),
        ({"keep": 0}, "keep is 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Guard(*make(), **arguments)


def test_actions_are_checked():
    with pytest.raises(ValueError, match="skip: times is 0"):
        skip(0)
    with pytest.raises(ValueError, match="lower_lr: the rate is multiplied by 2"):
        lower_lr(2.0)
    with pytest.raises(ValueError, match="restore is 0"):
        rewind(restore=0)
    with pytest.raises(TypeError, match="this is a str"):
        Guard(*make(), on_spike=("skip",))  # pyright: ignore[reportArgumentType]


def test_a_loss_of_several_numbers_is_refused():
    model, optimizer = make()
    with pytest.raises(ValueError, match=r"shape \(16, 1\)"):
        Guard(model, optimizer).step(model(batch(0)))


def test_what_it_does_is_logged(caplog):
    model, optimizer = make()
    guard = Guard(model, optimizer, calm=2)
    with caplog.at_level(logging.INFO, "unitygain"):
        for number in range(3):
            step(model, optimizer, guard, number)
        assert not caplog.records
        step(model, optimizer, guard, 3, spoil=math.nan)
        step(model, optimizer, guard, 4)
        step(model, optimizer, guard, 5)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("step 4: skip (grad_norm is nan at step 4")
    assert lines[1] == "step 6: recovered, 2 healthy steps in a row"
    assert all(record.levelno == logging.WARNING for record in caplog.records)
