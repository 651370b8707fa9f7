"""Modules that stand in several places, and parameters and rates that came before or after a change."""

import pytest
import torch
from torch import nn

from unitygain import Case
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
