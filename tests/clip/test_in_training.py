"""Clips in the loops that people write: accumulation, loss scaling, closures, low precision."""

import copy

import pytest
import torch
from torch import nn

from unitygain import Case, clip


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def loss(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return (100 * module(x)).square().mean()


def test_accumulated_gradients_are_clipped_as_the_sum_that_they_are():
    x = torch.randn(8, 4)
    whole, parts = (one := model()), copy.deepcopy(one)
    loss(whole, x).backward()
    for part in x.split(2):
        (loss(parts, part) / 4).backward()
    reports = [clip.by_global_norm(1.0)(each) for each in (whole, parts)]
    assert reports[1].norm_before == pytest.approx(reports[0].norm_before, rel=1e-5)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-7)


def test_under_a_loss_scale_the_unscaled_gradient_is_clipped():
    plain, scaled = (one := model()), copy.deepcopy(one)
    x = torch.randn(8, 4)
    loss(plain, x).backward()
    clip.by_global_norm(1.0)(plain)
    sgd = torch.optim.SGD(scaled.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(loss(scaled, x)).backward()
    scaler.unscale_(sgd)
    assert clip.by_global_norm(1.0)(scaled).finite
    scaler.step(sgd)
    scaler.update()
    for before, after in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(after, before - 0.1 * before.grad, rtol=1e-4, atol=1e-6)


def test_a_scaled_step_that_overflows_is_reported_and_skipped():
    scaled = model()
    before = copy.deepcopy(scaled.state_dict())
    sgd = torch.optim.SGD(scaled.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(1e34 * loss(scaled, torch.ones(2, 4))).backward()
    scaler.unscale_(sgd)
    one = clip.zscore()
    assert not one(scaled).finite
    scaler.step(sgd)
    scaler.update()
    assert scaler.get_scale() == 2.0**9
    assert all(torch.equal(before[key], value) for key, value in scaled.state_dict().items())
    assert one.state_dict()["states"][0]["steps"] == 0


def test_inside_a_closure_every_evaluation_is_clipped():
    one, bounded = model(), clip.by_global_norm(0.5)
    lbfgs, x, norms = torch.optim.LBFGS(one.parameters(), max_iter=4), torch.randn(8, 4), []

    def closure() -> torch.Tensor:
        lbfgs.zero_grad()
        value = loss(one, x)
        value.backward()
        norms.append(bounded(one).norm_after)
        return value

    lbfgs.step(closure)
    assert len(norms) >= 4
    assert max(norms) <= 0.5 * (1 + 1e-6)


def test_a_compiled_model_is_clipped_as_the_model():
    torch._dynamo.reset()
    twin = copy.deepcopy(one := model())
    compiled = torch.compile(one, backend="aot_eager", fullgraph=True)
    x = torch.randn(8, 4)
    clips = [clip.chain(clip.agc(0.1), clip.by_global_norm(1.0)) for _ in range(2)]
    for _ in range(3):
        for each, own in zip((compiled, twin), clips, strict=True):
            each.zero_grad()
            loss(each, x).backward()
            report = own(each)
            assert report.clipped
            assert report.norm_after == pytest.approx(1.0, rel=1e-6)
        for a, b in zip(one.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_a_fused_optimizer_under_a_loss_scale_steps_by_the_clipped_gradient(name):
    """Its own hooks would see gradients 1024 times too large."""
    fused, plain = (one := model()), copy.deepcopy(one)
    x, seen = torch.randn(8, 4), []
    optimizers = [
        getattr(torch.optim, name)(each.parameters(), 0.1, fused=each is fused) for each in (fused, plain)
    ]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for _ in range(3):
        optimizers[0].zero_grad()
        scaler.scale(loss(fused, x)).backward()
        scaler.unscale_(optimizers[0])
        seen.append(clip.by_global_norm(1.0)(fused))
        scaler.step(optimizers[0])
        scaler.update()
        optimizers[1].zero_grad()
        loss(plain, x).backward()
        seen.append(clip.by_global_norm(1.0)(plain))
        optimizers[1].step()
    for scaled, unscaled in zip(seen[::2], seen[1::2], strict=True):
        assert scaled.norm_before == pytest.approx(unscaled.norm_before, rel=1e-3)
    for a, b in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_case_takes_a_clip_as_it_is():
    case = Case(model(), loss, [torch.randn(4, 4)], clip=clip.by_global_norm(1.0))
    loss(case.model, case.batches[0]).backward()
    assert case.clip is not None
    assert case.clip(case.model.parameters()).norm_after == pytest.approx(1.0)


def test_gradients_of_gradients_are_clipped_too():
    one, x = model(), torch.randn(4, 4)
    value = loss(one, x)
    gradients = torch.autograd.grad(value, list(one.parameters()), create_graph=True)
    for parameter, gradient in zip(one.parameters(), gradients, strict=True):
        parameter.grad = gradient * 1.0
    assert clip.chain(clip.by_value(0.1), clip.by_global_norm(0.1))(one).norm_after == pytest.approx(0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_training_is_clipped_to_the_norm(dtype):
    one = model().to(dtype)
    for parameter in one.parameters():
        parameter.grad = torch.full_like(parameter, 3e4)
    report = clip.chain(clip.agc(1e3), clip.by_global_norm(1e-2))(one)
    assert report.finite
    norm = torch.cat([p.grad.double().flatten() for p in one.parameters()]).norm().item()
    assert norm == pytest.approx(1e-2, rel=1e-2)


@pytest.mark.parametrize("careful", [True, False])
def test_a_bad_batch_ends_training_only_where_nobody_asks_the_report(careful):
    one, bounded = model(), clip.chain(clip.zscore(warmup=5), clip.by_global_norm(1.0))
    sgd = torch.optim.SGD(one.parameters(), 0.01)
    values = []
    for step in range(80):
        x = torch.randn(16, 4) * (1e39 if step == 20 else 1.0)
        sgd.zero_grad()
        value = one(x).square().mean()
        value.backward()
        if bounded(one).finite or not careful:
            sgd.step()
            values.append(value.item())
    assert all(bool(p.isfinite().all()) for p in one.parameters()) == careful
    assert (values[-1] < 0.8 * values[0]) == careful
