"""UG615: the betas of an optimizer, by its own state and as plain numbers."""

import math

import pytest
import torch
from rules.profiles import judged
from torch import nn
from zoo.betas import Belief, Lion

import unitygain.rules  # noqa: F401 (fills the table)
from unitygain._types import Profile, Site
from unitygain.measures._ahead import read_betas


def stepped(kind, *betas: tuple[float, ...]):
    """Return an optimizer of one group for each pair, after a step."""
    groups = [{"params": [nn.Parameter(torch.ones(2))], "betas": pair} for pair in betas]
    optimizer = kind(groups, lr=1e-3, betas=(0.9, 0.999))
    for group in groups:
        group["params"][0].grad = torch.ones(2)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam, Belief])
def test_the_group_that_is_worst_is_read(kind):
    read = read_betas(stepped(kind, (0.9, 0.999), (0.999, 0.9), (0.5, 0.9)))
    assert read[:2] == (0.999, 0.9)
    assert read.beta_ratio == pytest.approx(0.999**2 / 0.9**0.5)


@pytest.mark.parametrize("kind", [torch.optim.Adamax, Lion])
def test_optimizers_without_a_mean_of_squares_have_none(kind):
    assert math.isnan(read_betas(stepped(kind, (0.999, 0.9))).beta_ratio)


def test_optimizers_without_betas_have_none():
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    sgd = torch.optim.SGD([weight], 0.1)
    sgd.step()
    assert math.isnan(read_betas(sgd).beta1)


def found(first: float, second: float):
    facts = {"beta1": first, "beta2": second, "beta_ratio": first**2 / second**0.5, "optimizer": "Adam"}
    return judged("UG615", Profile("update_ratio", "ratio", (Site("weight"),), (0.01,), facts=facts))


@pytest.mark.parametrize(
    ("betas", "words"), [((0.999, 0.9), "they have changed places"), ((0.9, 0.5), "too large")]
)
def test_the_cause_says_what_is_remembered(betas, words):
    [finding] = found(*betas)
    assert words in finding.causes[0].text
    assert finding.value > 1
    assert finding.fix.startswith("betas=(0.9, 0.999)")


@pytest.mark.parametrize(
    "betas", [(0.5, 0.9), (0.0, 0.99), (0.9, 0.95), (0.95, 0.95), (0.9, 0.999), (0.99, 0.999), (0.8, 0.6)]
)
def test_recipes_are_left_alone(betas):
    assert found(*betas) == []
