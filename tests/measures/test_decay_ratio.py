"""What weight decay asks of a weight beside what the gradient asks, from the optimizer's own groups."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from measures.reading import by_name, measured, rms, squares
from torch import nn

from unitygain._types import Profile, Site

SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2))


def _profile(optimizer: Callable[[Any], torch.optim.Optimizer], **more: Any) -> tuple[Any, Profile]:
    torch.manual_seed(1)
    case = squares(_net(), 4, 5, optimizer=optimizer, **more)
    return case, measured(case, "decay_ratio")["decay_ratio"]


@pytest.mark.parametrize(
    ("optimizer", "label"),
    [
        (lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.3), "coupled"),
        (lambda p: ADAM(p, 0.1, weight_decay=0.3), "coupled"),
        (lambda p: ADAMW(p, 0.1, weight_decay=0.3), "decoupled"),
    ],
)
def test_ratio_and_fraction_are_those_of_the_formulas(optimizer, label: str) -> None:
    case, profile = _profile(optimizer)
    # The pass has left its gradients where the measure read them.
    for name, row in zip(("0.weight", "3.weight"), profile.rows, strict=True):
        weight = case.model.get_parameter(name)
        assert weight.grad is not None
        size, pull = rms(weight.grad), 0.3 * rms(weight)
        expected = {
            "SGD": (pull / size, 0.3),
            "Adam": (pull / size, 0.03 / math.sqrt(size**2 + pull**2)),
            "AdamW": (pull, 0.03),
        }[str(profile.facts["optimizer"])]
        assert (by_name(profile)[name], row[0]) == pytest.approx(expected, rel=1e-9, abs=0)
    assert set(profile.labels) == {label}


@pytest.mark.parametrize(("decay", "pulls"), [(1e3, True), (1e-9, False)])
def test_the_share_of_a_coupled_step_is_what_adam_really_takes(decay: float, pulls: bool) -> None:
    """A decay far above the gradient takes the whole rate off every entry; one far below takes λ·θ/|g|."""
    case, profile = _profile(lambda p: ADAM(p, 1e-3, weight_decay=decay, eps=1e-30))
    weight = case.model.get_parameter("0.weight")
    assert weight.grad is not None
    share = 1.0 if pulls else decay * rms(weight) / rms(weight.grad)
    # The other one of the two is 1e-3 of it at most, and enters by its square.
    assert profile.rows[0][0] == pytest.approx(1e-3 * share / rms(weight), rel=1e-5, abs=0)


def test_groups_decay_by_themselves_and_a_clip_is_in_front_of_the_decay() -> None:
    def groups(parameters: Any) -> torch.optim.Optimizer:
        first, *rest = parameters
        return SGD([{"params": [first], "weight_decay": 0.2}, {"params": rest}], 0.1)

    _, plain = _profile(groups)
    assert plain.labels == ("coupled", "none")
    assert plain.values[1] == 0.0
    limit = 1e-3
    case, clipped = _profile(groups, clip=lambda p: nn.utils.clip_grad_norm_(p, limit))
    # The pass's gradients are as they were: the clip was given those of a copy.
    whole = math.sqrt(sum(float(p.grad.square().sum()) for p in case.model.parameters()))
    # torch's clip adds 1e-6 to the norm that it divides by.
    assert whole > 1
    assert clipped.values[0] == pytest.approx(plain.values[0] * whole / limit, rel=2e-6, abs=0)


@pytest.mark.parametrize(
    "optimizer", [None, lambda p: SGD(p, 0.1), lambda p: torch.optim.Adadelta(p, weight_decay=0.1)]
)
def test_without_a_known_decay_there_is_no_profile(optimizer) -> None:
    case = squares(_net(), 4, 5, optimizer=optimizer)
    assert "decay_ratio" not in measured(case, "decay_ratio")


def test_only_matrices_with_a_gradient_are_read() -> None:
    case = squares(_net(), 4, 5, optimizer=lambda p: SGD(p, 0.1, weight_decay=0.1))
    case.model.get_parameter("0.weight").requires_grad_(False)
    assert measured(case, "decay_ratio")["decay_ratio"].sites == (Site("3.weight"),)
