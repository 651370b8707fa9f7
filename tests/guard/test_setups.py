"""The guard in real loops: accumulation, loss scaling, compile, closures, odd gradients, optimizers."""

import math

import pytest
import torch
from torch import nn

import unitygain as ug
from unitygain.guard import Guard, ScaleGuard, TrainingStopped, rewind, skip


def make(seed: int = 0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def loss_of(model, number: int, rows: int = 16):
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(number))
    return (model(x) - x[:, :1]).square().mean()


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_accumulated_gradients_are_judged_once_and_a_bad_part_spoils_one_step_alone():
    model, twin = make(), make()
    optimizer, plain = (torch.optim.AdamW(m.parameters(), 1e-2) for m in (model, twin))
    guard = Guard(model, optimizer)
    for number in range(12):
        optimizer.zero_grad()
        plain.zero_grad()
        total = 0.0
        for part in range(4):
            loss = loss_of(model, 4 * number + part) / 4
            loss = loss * math.nan if (number, part) == (5, 2) else loss
            loss.backward()
            total += loss.item()
            (loss_of(twin, 4 * number + part) / 4).backward()
        verdict = guard.step(total)
        assert verdict.stepped == (number != 5)
        if number != 5:
            plain.step()
    assert torch.equal(weights(model), weights(twin))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("given", ["GradScaler", "ScaleGuard", "already unscaled"])
def test_with_a_loss_scale_the_unscaled_gradient_is_judged_and_stepped(fused, given):
    model, twin = make(), make()
    optimizer, plain = (torch.optim.AdamW(m.parameters(), 1e-2, fused=fused) for m in (model, twin))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=5)
    twin_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=5)
    guard = Guard(model, optimizer, scaler=ScaleGuard(scaler) if given == "ScaleGuard" else scaler)
    for number in range(12):
        optimizer.zero_grad()
        plain.zero_grad()
        loss = loss_of(model, number)
        scaler.scale(loss).backward()
        if given == "already unscaled":
            scaler.unscale_(optimizer)
        verdict = guard.step(loss)
        twin_scaler.scale(loss_of(twin, number)).backward()
        twin_scaler.unscale_(plain)
        norm = nn.utils.get_total_norm([p.grad for p in twin.parameters() if p.grad is not None])
        assert verdict.grad_norm == pytest.approx(norm.item(), rel=1e-6)
        twin_scaler.step(plain)
        twin_scaler.update()
        assert scaler.get_scale() == twin_scaler.get_scale()
    assert torch.equal(weights(model), weights(twin))


def test_the_search_for_a_scale_uses_up_no_action():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    guard = Guard(model, optimizer, scaler=scaler, on_nonfinite=())
    actions = []
    for number in range(20):
        optimizer.zero_grad()
        loss = loss_of(model, number)
        scale = scaler.get_scale()
        scaler.scale(loss).backward()
        if scale > 2.0**12:
            model[0].weight.grad[0, 0] = math.inf
        actions.append(guard.step(loss).action)
    # The first overflow leaves the scale (hysteresis), the next eight halve it.
    assert actions == ["skip"] * 9 + ["step"] * 11
    assert guard.green
    assert scaler.get_scale() == 2.0**12


def test_a_disabled_scaler_is_as_none():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    guard = Guard(model, optimizer, scaler=scaler)
    scaler.scale(loss_of(model, 0)).backward()
    assert guard.step().action == "step"
    loss_of(model, 1).backward()
    model[0].weight.grad[0, 0] = math.nan
    assert guard.step().action == "skip"


def test_a_spike_under_a_loss_scale_ends_the_scalers_step_too():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    guard = Guard(model, optimizer, scaler=scaler, on_spike=(skip(1), rewind(1)))
    for number in range(35):
        optimizer.zero_grad()
        loss = loss_of(model, number) * (1e6 if number in {30, 31} else 1.0)
        scaler.scale(loss).backward()
        verdict = guard.step(loss)
        assert verdict.action == {30: "skip", 31: "rewind"}.get(number, "step")
    assert scaler.get_scale() == 16.0


def test_a_scaler_can_go_on_after_a_stop():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    guard = Guard(model, optimizer, scaler=scaler, on_spike=())
    norms = []
    for number in range(35):
        optimizer.zero_grad()
        loss = loss_of(model, number) * (1e6 if number == 30 else 1.0)
        scaler.scale(loss).backward()
        if number == 30:
            with pytest.raises(TrainingStopped, match="the weights were left as they are"):
                guard.step(loss)
        else:
            norms.append(guard.step(loss).grad_norm)
    assert max(norms[30:]) < 3 * max(norms[:30]), "the gradient is unscaled again"


def test_a_compiled_model_and_a_compiled_step():
    torch._dynamo.reset()
    model, twin = make(), make()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    optimizer, plain = (torch.optim.SGD(m.parameters(), 1e-2, momentum=0.9) for m in (model, twin))
    guard = Guard(compiled, optimizer, snapshot_every=4)
    for number in range(10):
        optimizer.zero_grad()
        loss = loss_of(compiled, number)
        loss.backward()
        if number == 6:
            model[0].weight.grad[0, 0] = math.nan
        assert guard.step(loss).stepped == (number != 6)
        if number != 6:
            plain.zero_grad()
            loss_of(twin, number).backward()
            plain.step()
    assert torch.equal(weights(model), weights(twin))
    assert torch._dynamo.utils.counters["graph_break"] == {}


def test_a_closure_is_judged_before_and_undone_after():
    model, twin = make(), make()
    kinds = {"line_search_fn": "strong_wolfe", "max_iter": 5}
    optimizer, plain = (torch.optim.LBFGS(m.parameters(), **kinds) for m in (model, twin))
    guard = Guard(model, optimizer)
    calls = []

    def closure(of=model, by=optimizer, number=0, factor=1.0):
        by.zero_grad()
        loss = loss_of(of, number) * factor
        loss.backward()
        calls.append(of)
        return loss

    for number in range(4):
        guard.step(closure=lambda: closure(number=number))
        plain.step(lambda: closure(twin, plain, number))
    assert torch.equal(weights(model), weights(twin))
    assert calls.count(model) == calls.count(twin), "the first evaluation is used, not repeated"

    before = weights(model)
    assert guard.step(closure=lambda: closure(factor=math.nan)).action == "skip"
    assert torch.equal(before, weights(model))

    def worse(seen=calls):
        return closure(factor=1.0 if len(seen) == start else math.nan)

    start = len(calls)
    optimizer.param_groups[0]["line_search_fn"] = None
    verdict = guard.step(closure=worse)
    assert verdict.events[0].quantity == "weights"
    assert torch.equal(before, weights(model))


def test_a_closure_with_a_clip_is_refused():
    model = make()
    guard = Guard(model, torch.optim.LBFGS(model.parameters()), clip=ug.clip.by_global_norm(1.0))
    with pytest.raises(ValueError, match="neither a scaler nor a clip"):
        guard.step(closure=lambda: loss_of(model, 0))


class Odd(nn.Module):
    """Tied, frozen, unused and sparse parameters, and one that only the optimizer knows."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 3, sparse=True)
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.unused = nn.Linear(3, 3)

    def forward(self, tokens):
        return self.second(self.frozen(self.first(self.table(tokens).mean(dim=1))))


def test_tied_frozen_unused_and_sparse_parameters():
    torch.manual_seed(0)
    model, temperature = Odd(), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([*model.parameters(), temperature], 1e-2)
    guard = Guard(model, optimizer, on_nonfinite=(skip(1), rewind(1)))
    frozen = model.frozen.weight.clone()
    for number in range(40):
        optimizer.zero_grad()
        tokens = torch.randint(0, 10, (8, 4), generator=torch.Generator().manual_seed(number))
        loss = (model(tokens) * temperature).square().mean()
        loss = loss * (1e5 if number == 30 else math.nan if number in {34, 35} else 1.0)
        loss.backward()
        verdict = guard.step(loss)
        expected = {30: "clip", 34: "skip", 35: "rewind"}.get(number, "step")
        assert verdict.action == expected
    assert torch.equal(frozen, model.frozen.weight)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert model.first.weight is model.second.weight


def test_the_clip_of_the_training_comes_after_the_judgement_and_is_reported():
    model = make()
    guard = Guard(model, torch.optim.SGD(model.parameters(), 1e-2), clip=ug.clip.by_global_norm(1e-3))
    loss = loss_of(model, 0)
    loss.backward()
    verdict = guard.step(loss)
    assert verdict.grad_norm > 0.1
    assert float(verdict.clip.norm_before) == pytest.approx(verdict.grad_norm)
    after = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert after == pytest.approx(1e-3, rel=1e-5)
    named = Guard(model, torch.optim.SGD(model.parameters(), 1e-2), clip=ug.clip.agc(0.01))
    assert named.step(loss).stepped, "a clip that needs names gets them"


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 1e-3),
    "AdamW with a tensor as rate": lambda p: torch.optim.AdamW(p, torch.tensor(1e-3)),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 1e-2, initial_accumulator_value=0.5),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 1e-3, centered=True, momentum=0.5),
    "Rprop": lambda p: torch.optim.Rprop(p, 1e-3),
    "Adadelta": lambda p: torch.optim.Adadelta(p),
    "NAdam": lambda p: torch.optim.NAdam(p, 1e-3),
    "Adafactor": lambda p: torch.optim.Adafactor(p, 1e-3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_after_a_rewind_an_optimizer_is_as_new(name):
    model = make()
    optimizer = OPTIMIZERS[name](model.parameters())
    guard = Guard(model, optimizer, on_nonfinite=(rewind(1, factor=1.0),))
    start = weights(model)
    rate = optimizer.param_groups[0]["lr"]
    for number in range(5):
        optimizer.zero_grad()
        loss_of(model, number).backward()
        guard.step()
    model[0].weight.grad[0, 0] = math.nan
    assert guard.step().rewound_to == 0
    assert torch.equal(start, weights(model))
    assert optimizer.param_groups[0]["lr"] is rate
    twin = make()
    fresh = OPTIMIZERS[name](twin.parameters())
    for number in range(3):
        for of, by in ((model, guard), (twin, fresh)):
            of.zero_grad()
            loss_of(of, number).backward()
            by.step()
    assert torch.equal(weights(model), weights(twin))


def test_a_rate_that_is_a_tensor_is_lowered_and_given_back():
    model = make()
    rate = torch.tensor(1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    guard = Guard(model, optimizer, on_nonfinite=(rewind(1),))
    loss_of(model, 0).backward()
    model[0].weight.grad[0, 0] = math.nan
    guard.step()
    before = weights(model)
    loss_of(model, 0).backward()
    guard.step()
    # The first step of Adam has the length of the rate, which is lowered to a tenth.
    assert (weights(model) - before).abs().max().item() == pytest.approx(1e-4, rel=1e-2)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(1e-3)


def test_healthy_trainings_are_left_alone():
    """Heavy-tailed losses of eight samples; a threshold of 6 alarms about once in 10,000 of these steps."""
    events = 0
    for seed in range(2):
        for name in ("SGD", "Adam", "RMSprop", "Adagrad"):
            model = make(seed)
            optimizer = OPTIMIZERS[name](model.parameters())
            guard = Guard(model, optimizer)
            for number in range(300):
                optimizer.zero_grad()
                loss = loss_of(model, 1000 * seed + number, rows=8)
                loss.backward()
                events += bool(guard.step(loss).events)
    assert events <= 2
