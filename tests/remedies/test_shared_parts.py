"""Modules that stand in several places, and parameters and rates that came before or after a change."""

import pickle

import pytest
import torch
from torch import nn

from unitygain import Case
from unitygain._rehearsal import train
from unitygain.remedies import (
    decay_to_radius,
    insert_norm,
    lower_learning_rate,
    mirrored_diffusion_clip,
    swap_activation,
    swap_to_relu,
    use_adamw,
)


def total(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x).square().sum()


def test_an_activation_in_two_places_is_replaced_in_both():
    act = nn.Tanh()
    model = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 1))
    case = Case(model, total, [torch.randn(3, 4)])
    for remedy, kind in ((swap_activation, nn.Tanh), (swap_to_relu, nn.ReLU)):
        undo = remedy(case)
        assert type(model[1]) is kind
        assert model[1] is model[3]
        undo()
        assert model[1] is act
        assert model[3] is act


def test_an_activation_that_also_ends_the_model_stays():
    """The sigmoid before the loss is the one between the maps: a ReLU there would change what is learnt."""

    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.act = nn.Linear(4, 4), nn.Linear(4, 1), nn.Sigmoid()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.last(self.act(self.first(x))))

    case = Case(Once(), total, [torch.randn(3, 4)])
    with pytest.raises(ValueError, match="no chosen sigmoid or tanh module stands between two linear maps"):
        swap_to_relu(case)
    assert isinstance(case.model.act, nn.Sigmoid)


def test_decay_finds_its_matrices_where_another_change_added_parameters():
    layers = [part for _ in range(3) for part in (nn.Linear(4, 4), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(4, 4))
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight.mul_(6)
    case = Case(model, total, [torch.randn(3, 4)], lambda params: torch.optim.SGD(params, 0.1))
    decay_to_radius(case, radius=0.5)
    insert_norm(case)
    for subject in (case, case.copy()):
        names = {id(p): name for name, p in subject.model.named_parameters()}
        optimizer = subject.build_optimizer()
        assert optimizer is not None
        decayed = [names[id(p)] for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]]
        assert decayed == ["0.held.weight", "2.held.weight", "4.held.weight", "6.weight"]


def test_a_lower_rate_holds_under_a_schedule_that_is_made_again():
    """A schedule leaves its first value in the groups of an instance, and the next one begins there."""
    layer = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), 0.5)

    def schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)

    schedule(optimizer)
    before = dict(optimizer.param_groups[0])
    undo = lower_learning_rate(Case(layer, total, [torch.ones(1, 1)], optimizer), factor=0.1)
    schedule(optimizer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    undo()
    assert {name: optimizer.param_groups[0][name] for name in before} == before


def test_adamw_keeps_the_decay_that_momentum_built_up():
    """A weight without gradient shrinks as fast under both, once the momentum is there."""
    layer = nn.Linear(1, 1, bias=False)
    sgd = torch.optim.SGD(layer.parameters(), 0.01, momentum=0.9, weight_decay=0.02)
    case = Case(layer, total, [torch.ones(1, 1)], sgd)
    sizes = []
    for _ in range(200):
        layer.weight.grad = torch.zeros_like(layer.weight)
        sgd.step()
        sizes.append(layer.weight.item())
    use_adamw(case)
    (group,) = case.optimizer.param_groups
    assert 1 - group["lr"] * group["weight_decay"] == pytest.approx(sizes[-1] / sizes[-2], rel=1e-4)


class Timed(nn.Linear):
    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


@pytest.mark.parametrize(
    ("time", "norm"), [(3.0, 0.1 * 2.5 / 4), (0.3, 0.1 * 2.5 / 2), (0.99, 0.1 * 2.5 / 4)]
)
def test_floating_times_are_indices_or_parts_of_the_length(time, norm):
    told = torch.full((2,), time)
    case = Case(Timed(1, 1), lambda m, b: m(*b).sum(), [(torch.ones(2, 1), told)])
    mirrored_diffusion_clip(case, weights=[1.0, 2.0, 3.0, 4.0], c=0.1)
    case.compute_loss(case.batches[0]).backward()
    assert case.clip(case.model.parameters()).norm_after == pytest.approx(norm)


@pytest.mark.parametrize("time", [1.5, 4.0, -0.5])
def test_a_time_outside_the_weights_is_refused(time):
    case = Case(Timed(1, 1), lambda m, b: m(*b).sum(), [(torch.ones(2, 1), torch.full((2,), time))])
    mirrored_diffusion_clip(case, weights=[1.0, 2.0, 3.0, 4.0])
    case.compute_loss(case.batches[0]).backward()
    with pytest.raises(ValueError, match="time"):
        case.clip(case.model.parameters())


WEIGHTS = [1.0, 2.0, 3.0, 4.0]


def mirrored_case(model: nn.Module, loss) -> Case:
    """A case whose loss is large, clipped at 0.1 at a time of the mean weight."""
    case = Case(model, loss, [(torch.ones(2, 1), torch.tensor([0, 0]))])
    mirrored_diffusion_clip(case, weights=WEIGHTS, c=0.1)
    return case


def clipped(case: Case) -> float:
    case.model.zero_grad()
    (100 * case.compute_loss(case.batches[0])).backward()
    return case.clip(case.model.parameters()).norm_after


def test_a_step_that_tells_no_time_is_not_clipped_at_the_last_one():
    class Optional(Timed):
        def forward(self, x: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
            return nn.Linear.forward(self, x)

    case = mirrored_case(Optional(1, 1), lambda m, b: m(*b).sum())
    assert clipped(case) == pytest.approx(0.1 * 2.5 / 1)
    case.loss = lambda m, b: m(b[0]).sum()
    with pytest.raises(ValueError, match="no module was told a time in this step"):
        clipped(case)


def test_a_time_that_is_a_number_is_a_time():
    times = iter([3, 0.5])
    case = mirrored_case(Timed(1, 1), lambda m, b: m(b[0], next(times)).sum())
    assert clipped(case) == pytest.approx(0.1 * 2.5 / 4)
    assert clipped(case) == pytest.approx(0.1 * 2.5 / 3)


def test_a_call_that_does_not_train_tells_no_time():
    def with_teacher(model: nn.Module, batch: tuple) -> torch.Tensor:
        student = model(*batch)
        with torch.no_grad():
            teacher = model(batch[0], torch.tensor([3, 3]))
        return (student - teacher + 1).sum()

    case = mirrored_case(Timed(1, 1), with_teacher)
    assert clipped(case) == pytest.approx(0.1 * 2.5 / 1)
    case.loss = lambda m, b: m(*b).sum()
    (100 * case.compute_loss(case.batches[0])).backward()
    with torch.no_grad():
        case.model(torch.ones(2, 1), torch.tensor([3, 3]))
    assert case.clip(case.model.parameters()).norm_after == pytest.approx(0.1 * 2.5 / 1)


def test_the_outermost_module_tells_the_time():
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Timed(1, 1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            if bool((t > 2).all()):
                raise RuntimeError("too late")
            return self.inner(x, torch.sin(t.float())[:, None] * torch.ones(2, 8))

    case = mirrored_case(Outer(), lambda m, b: m(*b).sum())
    assert clipped(case) == pytest.approx(0.1 * 2.5 / 1)
    with pytest.raises(RuntimeError, match="too late"):
        case.model(torch.ones(2, 1), torch.tensor([3, 3]))
    assert clipped(case) == pytest.approx(0.1 * 2.5 / 1)


def whole(model: nn.Module, batch: tuple) -> torch.Tensor:
    return model(*batch).sum()


def test_a_case_with_a_mirrored_clip_pickles_and_keeps_its_own_times():
    case = mirrored_case(Timed(1, 1), whole)
    twin = pickle.loads(pickle.dumps(case))
    twin._batches = ((torch.ones(2, 1), torch.tensor([3, 3])),)
    assert clipped(case) == pytest.approx(0.1 * 2.5 / 1)
    assert clipped(twin) == pytest.approx(0.1 * 2.5 / 4)
    assert clipped(case.copy()) == pytest.approx(0.1 * 2.5 / 1)


def test_parameters_that_a_change_adds_are_trained_by_lbfgs():
    layers = [nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
    case = Case(model, total, [torch.randn(3, 4)], optimizer)
    train(case, 2)
    params = list(optimizer.param_groups[0]["params"])
    remembered = dict(optimizer.state[params[0]])
    assert remembered["old_dirs"]
    undo = insert_norm(case)
    added = [p for p in model.parameters() if all(p is not other for other in params)]
    before = [p.detach().clone() for p in added]
    assert added
    assert len(optimizer.param_groups) == 1
    train(case, 2)
    assert not any(map(torch.equal, before, added))
    undo()
    assert all(one is other for one, other in zip(optimizer.param_groups[0]["params"], params, strict=True))
    after = optimizer.state[params[0]]
    assert after.keys() == remembered.keys()
    assert all(after[key] is value for key, value in remembered.items())
    train(case, 1)
