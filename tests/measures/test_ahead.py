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
    ],
)
def test_what_a_schedule_grants_of_the_rate_is_told_where_it_has_passed_its_peak(factor, rise, granted):
    schedule = functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=factor)
    facts = measured(squares(_net(), 4, 5, optimizer=_sgd, schedule=schedule), "update_ratio")[
        "update_ratio"
    ].facts
    assert facts["rise"] == pytest.approx(rise, rel=1e-9, nan_ok=True)
    assert facts["granted"] == pytest.approx(granted, rel=1e-9, nan_ok=True)


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
