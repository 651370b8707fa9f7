"""The remedies that change what the loss is or sees: penalties, lengths of sequences, weights of times."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import PATIENTS, games

from unitygain import theory
from unitygain._case import Case
from unitygain._rehearsal import train
from unitygain.remedies import (
    gradient_penalty,
    min_snr,
    mirrored_diffusion_clip,
    r1,
    sequence_warmup,
)

PATIENT = {patient.name: patient for patient in PATIENTS}


def judge_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the discriminator's own loss on real points and on generated ones."""
    real, noise = batch
    fake = model.generator(noise).detach()
    return F.softplus(-model.discriminator(real)).mean() + F.softplus(model.discriminator(fake)).mean()


def critic_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return minus the distance that the critic sees between real and generated points."""
    real, noise = batch
    return model.discriminator(model.generator(noise).detach()).mean() - model.discriminator(real).mean()


def judging(loss=judge_loss, rate: float = 0.01) -> Case:
    """Return the training of a discriminator of points far from the generated ones."""
    model = games.Game(*games.points())
    data = [(3 + torch.randn(64, 2), torch.randn(64, 8)) for _ in range(4)]
    optimizer = torch.optim.Adam(model.discriminator.parameters(), rate)
    return Case(model, loss, data, optimizer)


def slope(case: Case, points: Tensor) -> Tensor:
    """Naive twin: the gradient of each point's logit, one by one."""
    judge = case.model.discriminator
    return torch.stack([torch.func.grad(lambda x: judge(x[None]).squeeze())(point) for point in points])


def test_r1_is_half_gamma_times_the_squared_slope_at_real_points():
    case = judging()
    batch = case.batches[0]
    before = case.compute_loss(batch)
    undo = r1(case, gamma=4.0)
    expected = 4.0 / 2 * slope(case, batch[0]).square().sum(1).mean()
    # Two sums of 64 float32 numbers in different order.
    torch.testing.assert_close(case.compute_loss(batch) - before, expected, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(case.compute_loss(batch), before)
    undo()
    assert case.loss is judge_loss


def test_a_lazy_r1_is_paid_at_one_step_of_four_and_is_the_same_on_average():
    """At weights that stand still: 4 times the penalty of every step, then three losses without any."""
    case = judging()
    batch, twin = case.batches[0], case.copy()
    before = case.compute_loss(batch)
    undo = r1(case, gamma=4.0)
    often = case.compute_loss(batch) - before
    undo()
    r1(case, gamma=4.0, every=4)
    extra = []
    for _ in range(9):
        case.compute_loss(batch)  # read, and not stepped
        loss = case.compute_loss(batch)
        extra.append((loss - before).detach())
        loss.backward()
    # Losses and their penalties are rounded to float32 of a few units.
    torch.testing.assert_close(torch.stack(extra[::4]), (4 * often).detach().expand(3), atol=1e-5, rtol=1e-5)
    assert all(float(one) == 0 for index, one in enumerate(extra) if index % 4)
    case.loss(twin.model, batch).backward()  # Another model's steps are its own: its first one pays.
    assert case.loss(twin.model, batch).item() == before.item()
    with pytest.raises(ValueError, match="every is 0"):
        r1(case, every=0)


def test_the_penalty_is_the_squared_distance_of_the_slope_from_one_between_the_points():
    case = judging(critic_loss)
    real, noise = case.batches[0]
    before = case.compute_loss(case.batches[0])
    gradient_penalty(case, weight=3.0)
    torch.manual_seed(7)
    after = case.compute_loss(case.batches[0])
    torch.manual_seed(7)
    part = torch.rand(64, 1)
    between = part * real + (1 - part) * case.model.generator(noise).detach()
    expected = 3.0 * (slope(case, between).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(after - before, expected, atol=1e-6, rtol=1e-5)


def test_r1_keeps_the_discriminator_from_being_sure():
    """After the same steps the generator's gradient through a punished discriminator is larger."""

    def undecided(case: Case) -> float:
        train(case, 60)
        with torch.no_grad():
            return float(torch.sigmoid(case.model(case.batches[0][1])).mean())

    torch.manual_seed(1)
    plain = judging()
    punished = plain.copy()
    r1(punished)
    assert undecided(punished) > 5 * undecided(plain)


def test_the_penalty_keeps_the_slope_of_a_critic_near_one():
    torch.manual_seed(1)
    plain = judging(critic_loss)
    punished = plain.copy()
    gradient_penalty(punished)
    train(plain, 60)
    train(punished, 60)
    points = plain.batches[0][0]
    assert float(slope(plain, points).detach().norm(dim=1).mean()) > 3
    assert 0.5 < float(slope(punished, points).detach().norm(dim=1).mean()) < 1.5


def test_a_sigmoid_at_the_end_is_left_out_of_the_slope():
    case = judging()
    case.model.discriminator.append(nn.Sigmoid())
    case.loss = lambda m, b: 0 * m.discriminator(b[0]).sum()
    r1(case, gamma=2.0)
    judge = case.model.discriminator[:-1]
    rows = [torch.func.grad(lambda x: judge(x[None]).squeeze())(point) for point in case.batches[0][0]]
    expected = torch.stack(rows).square().sum(1).mean()
    torch.testing.assert_close(case.compute_loss(case.batches[0]), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("remedy", [r1, gradient_penalty])
def test_a_game_without_real_samples_is_refused(remedy):
    with pytest.raises(
        ValueError, match="of which 0 are tensors of the batch; declare the discriminator's own"
    ):
        remedy(PATIENT["game-points-won"].make_case())
    with pytest.raises(ValueError, match="no part of the model is called a discriminator"):
        remedy(PATIENT["mlp-relu-he-20"].make_case())
    with pytest.raises(ValueError, match=r"is 0\.0; give a positive number"):
        remedy(judging(), **{"gamma" if remedy is r1 else "weight": 0.0})


def reading(steps: int = 40) -> Case:
    """Return a case that tells how long its sequences are; targets have the same length."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        states = model(batch[0])[0]
        assert states.shape[:2] == batch[1].shape
        return 0 * states.sum() + states.shape[1]

    model = nn.LSTM(2, 3, batch_first=True)
    data = [(torch.randn(4, steps, 2), torch.randint(3, (4, steps)))]
    return Case(model, loss, data, torch.optim.SGD(model.parameters(), 0.1))


def test_sequences_grow_with_the_steps_of_each_model_alone():
    case = reading()
    undo = sequence_warmup(case, start=10, steps=6, multiple_of=5)
    twin = case.copy()
    assert train(case, 8).losses == (10, 15, 20, 25, 30, 35, 40, 40)
    assert train(twin, 3).losses == (10, 15, 20)
    # A loss that is only read moves no clock.
    assert train(twin, 1).losses == (25,)
    undo()
    assert train(case, 1).losses == (40,)


def test_short_sequences_have_a_gradient_where_long_ones_have_none():
    case = PATIENT["rnn-tanh-default-zero-600"].make_case()

    def early() -> float:
        """The gradient that the first step's input gives the weights: rms over that of the loss."""
        x = case.batches[0][0].clone().requires_grad_()
        case.loss(case.model, (x, case.batches[0][1])).backward()
        return float(x.grad[:, 0].abs().max())

    assert early() == 0
    sequence_warmup(case, start=8)
    assert early() > 1e-7


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (lambda: reading(8), {}, "the sequences have 8 steps; give a start below"),
        (lambda: PATIENT["mlp-relu-he-20"].make_case(), {}, "which axis of the batch is time is not known"),
        (lambda: PATIENT["mlp-relu-he-20"].make_case(), {"axis": 5}, "which axis of the batch is time"),
        (lambda: PATIENT["mlp-relu-he-20"].make_case(), {"axis": 1}, "does not take sequences of 8 steps"),
        (reading, {"steps": 0}, "steps is 0"),
    ],
)
def test_what_is_no_sequence_is_refused(make, given, message):
    with pytest.raises(ValueError, match=message):
        sequence_warmup(make(), **given)


def test_min_snr_is_the_variant_of_that_name():
    case = PATIENT["denoiser-points-sample-unbounded"].make_case()
    given = case.loss
    undo = min_snr(case)
    assert case.loss is case.variants["min_snr"]
    undo()
    assert case.loss is given
    case = PATIENT["denoiser-rows-v-unbounded"].make_case()
    with pytest.raises(ValueError, match=r"no variant 'min_snr' \(declared: plain\); give Case\(variants="):
        min_snr(case)


def test_the_threshold_of_a_step_is_that_of_its_times():
    """The naive twin is the formula at the times that the batch holds; the model is told t/1000."""
    case = PATIENT["denoiser-points-noise"].make_case()
    weights = theory.bound_weights(theory.linear_schedule())
    undo = mirrored_diffusion_clip(case, weights=weights, c=1e-3)
    case.compute_loss(case.batches[0]).backward()
    times = case.batches[0][1].numpy()
    expected = 1e-3 * (weights.mean() / weights[times]).mean()
    report = case.clip(case.model.parameters())
    assert report.norm_before > expected
    assert report.norm_after == pytest.approx(expected, rel=1e-5)
    undo()
    assert case.clip is None
    assert not any(module._forward_pre_hooks for module in case.model.modules())


def test_a_copy_is_clipped_at_its_own_times():
    case = PATIENT["denoiser-points-noise"].make_case()
    case.optimizer = lambda parameters: torch.optim.SGD(parameters, 0.1)
    mirrored_diffusion_clip(case, weights=theory.bound_weights(theory.linear_schedule()), c=1e-3)
    assert math.isfinite(train(case.copy(), 2).final)


def test_a_mirrored_clip_without_weights_or_times_is_refused():
    with pytest.raises(ValueError, match="does not say how its loss weighs the times; give weights="):
        mirrored_diffusion_clip(PATIENT["denoiser-points-noise"].make_case())
    with pytest.raises(ValueError, match="no module's forward takes a time"):
        mirrored_diffusion_clip(PATIENT["mlp-relu-he-20"].make_case(), weights=[1.0])
    case = PATIENT["denoiser-points-noise"].make_case()
    mirrored_diffusion_clip(case, weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="no module was told a time in this step"):
        case.clip(case.model.parameters())
