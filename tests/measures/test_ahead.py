"""What the optimizer's step tells of those to come: epsilon, the schedule, and what rounding takes."""

import copy
import functools
import math
from typing import Any

import pytest
import torch
from measures.reading import measured, squares
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.measures._ahead import gather


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))


def _sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


@pytest.mark.parametrize("seen", [0, 3])
@pytest.mark.parametrize("eps", [1e-8, 1.0, 100.0])
def test_what_epsilon_takes_from_a_step_is_told(eps: float, seen: int) -> None:
    case = squares(_net(), 4, 5)
    optimizer = torch.optim.Adam(case.model.parameters(), 1e-3, eps=eps)
    for _ in range(seen):
        optimizer.zero_grad()
        case.compute_loss(case.batches[0]).backward()
        optimizer.step()
    case.optimizer = optimizer
    left = measured(case, "update_ratio")["update_ratio"].facts["damped"]
    plain = copy.deepcopy((case.model, optimizer))
    plain[1].param_groups[0]["eps"] = 1e-20
    norms = []
    for model, own in ((case.model, optimizer), plain):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        own.zero_grad()
        case.loss(model, case.batches[0]).backward()
        own.step()
        after = zip(model.parameters(), before, strict=True)
        norms.append(math.hypot(*(float((new.detach() - old).norm()) for new, old in after)))
    assert left == pytest.approx(norms[0] / norms[1], rel=1e-6)
    assert math.isnan(
        measured(squares(_net(), 4, 5, optimizer=_sgd), "update_ratio")["update_ratio"].facts["damped"]
    )


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5), 2.0),
        (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9), 10.0),
        (lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1.0, step / 100)), 949.5),
        (lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20), math.nan),
        (torch.optim.lr_scheduler.ReduceLROnPlateau, math.nan),
        (None, math.nan),
    ],
)
def test_a_schedule_is_worth_so_many_full_steps(schedule: Any, expected: float) -> None:
    case = squares(_net(), 4, 5, optimizer=_sgd, schedule=schedule)
    profile = measured(case, "update_ratio")["update_ratio"]
    assert profile.facts["full_steps"] == pytest.approx(expected, rel=1e-9, nan_ok=True)


def _noam(step: int) -> float:
    return 0.1 * min((step + 1) ** -0.5, (step + 1) * 100**-1.5)


@pytest.mark.parametrize(
    ("factor", "rise", "granted"),
    [
        (_noam, 100.0, 0.01),
        (lambda step: 0.5**step, 1.0, 1.0),
        (lambda step: (step + 1) / 1e5, 1000.0, math.nan),
        (lambda step: min(step, 10) - step / 200, math.nan, 9.95),
        (lambda _: 0.0, math.nan, math.nan),
        (lambda step: 0.02 * min(step + 1, 500) / 500, 500.0, 0.02),
        (lambda step: 0.02 * min(step + 1, 502) / 502, 502.0, math.nan),
        (lambda step: 0.02 * min(step, 10) / 10, math.nan, 0.02),
    ],
)
def test_what_a_schedule_grants_of_the_rate_is_told_where_it_has_passed_its_peak(factor, rise, granted):
    schedule = functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=factor)
    facts = measured(squares(_net(), 4, 5, optimizer=_sgd, schedule=schedule), "update_ratio")[
        "update_ratio"
    ].facts
    assert facts["rise"] == pytest.approx(rise, rel=1e-9, nan_ok=True)
    assert facts["granted"] == pytest.approx(granted, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize(("most", "squared"), [(0.1, 1.0), (0.0995, 1.0), (0.12, 0.0), (1.0, 0.0)])
def test_a_factor_that_is_the_rate_squares_it(most, squared):
    schedule = functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda s: most * 0.999**s)
    facts = measured(squares(_net(), 4, 5, optimizer=_sgd, schedule=schedule), "update_ratio")[
        "update_ratio"
    ].facts
    assert (facts["squared"], facts["given"]) == (squared, 0.1)


@pytest.mark.parametrize(("rate", "lost"), [(1e-4, 1.0), (0.1, 0.0)])
def test_entries_that_rounding_leaves_where_they_are_are_counted(rate: float, lost: float) -> None:
    model = nn.Linear(5, 3, bias=False)
    nn.init.constant_(model.weight, 0.25)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return model(x.to(model.weight.dtype)).float().square().mean()

    for narrow, expected in ((True, lost), (False, 0.0)):
        case = Case(
            model.bfloat16() if narrow else model.float(),
            loss=loss,
            data=[torch.ones(4, 5)],
            optimizer=lambda p: torch.optim.Adam(p, rate),
        )
        profile = measured(case, "update_ratio")["update_ratio"]
        assert profile.facts["lost"] == expected


@pytest.mark.parametrize(
    "build",
    [
        lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9),
        lambda p: torch.optim.SGD(p, 1e-3, momentum=0.99, nesterov=True),
        lambda p: torch.optim.SGD(p, 1e-3, momentum=0.95, dampening=0.95),
        lambda p: torch.optim.SGD(p, 1e-3),
        lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9),
        lambda p: torch.optim.RMSprop(p, 1e-3, alpha=0.9, momentum=0.98),
    ],
)
def test_what_momentum_builds_up_is_what_a_gradient_that_stays_comes_to(build: Any) -> None:
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = build([weight])
    told = gather(optimizer)
    steps = []
    for _ in range(2500):
        before = weight.item()
        weight.grad = torch.tensor([0.5], dtype=torch.float64)
        optimizer.step()
        steps.append(before - weight.item())
    assert told.momentum == optimizer.param_groups[0]["momentum"]
    if told.momentum:
        assert told.built_up == pytest.approx(steps[-1] / steps[0], rel=1e-4)
    assert gather(optimizer).built_up == (1.0 if optimizer.state else told.built_up)


def test_the_largest_of_the_groups_counts_and_others_are_not_known() -> None:
    one, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups = [{"params": [one], "momentum": 0.5}, {"params": [other], "momentum": 0.99}]
    assert gather(torch.optim.SGD(groups, 0.1)) == pytest.approx((0.99, 100.0))
    assert all(map(math.isnan, gather(torch.optim.Adam([one], 0.1))))
    centered = torch.optim.RMSprop([one], 0.1, momentum=0.9, centered=True)
    assert math.isnan(gather(centered).built_up)
    facts = measured(squares(_net(), 4, 5, optimizer=_sgd), "update_ratio")["update_ratio"].facts
    assert (facts["momentum"], facts["built_up"]) == pytest.approx((0.9, 10.0))


@pytest.mark.parametrize(
    ("dtype", "eps", "facts"),
    [
        (torch.float16, 1e-8, {"broken": 1.0, "eps": 1e-8, "mended": 1.0}),
        (torch.float16, 1e-4, {"broken": 0.0}),
        (torch.bfloat16, 1e-8, {"broken": 0.0}),
    ],
)
def test_a_step_that_leaves_weights_that_are_not_finite_is_counted_and_tried_with_another_epsilon(
    dtype, eps, facts
):
    model = nn.Linear(4, 1, bias=False).to(dtype)
    case = Case(
        model,
        lambda m, x: (1e-3 * m(x)).float().mean(),
        [torch.ones(2, 4, dtype=dtype)],
        lambda parameters: torch.optim.Adam(parameters, 1e-3, eps=eps),
    )
    found = measured(case, "update_ratio")["update_ratio"].facts
    assert {name: found[name] for name in facts} == facts
    assert ("eps" in found) == (facts["broken"] == 1.0)
    # An epsilon of next to nothing is zero in float16, and nothing to compare with.
    assert math.isnan(float(found["damped"])) == (dtype is torch.float16)
