"""timestep_grad_share against gradients of one group alone, and where there is no time to be found."""

import math

import numpy as np
import pytest
import torch
from measures.reading import measured
from torch import Tensor, nn
from zoo import denoisers

from unitygain._case import Case
from unitygain._types import Profile
from unitygain.measures.timestep_grad_share import split
from unitygain.probe.clock import find_clocks


def look(case: Case) -> Profile | None:
    return measured(case, "timestep_grad_share").get("timestep_grad_share")


def require(profile: Profile | None) -> Profile:
    assert profile is not None
    return profile


MODELS = {
    "points": (denoisers.Denoiser, (24, 2)),
    "pixels": (denoisers.Pixels, (24, 1, 4, 4)),
    "rows": (denoisers.Rows, (24, 5)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("weight", [denoisers.one, denoisers.ratio])
def test_shares_are_those_of_the_loss_of_each_group_alone(name, weight):
    """A naive twin: the mean over all samples is a sum of terms, one for each group."""
    build, shape = MODELS[name]
    case = denoisers.case(build(), "sample", weight, shape)
    case.move(dtype=torch.float64)
    data, t, noise = case.batches[0]
    parameters, energies = list(case.model.parameters()), []
    for group in t.argsort().view(8, 3):
        loss = case.loss(case.model, (data[group], t[group], noise[group])) * 3 / len(t)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        energies.append(sum(float(g.square().sum()) for g in found if g is not None) / 3)
    profile = require(look(case))
    expected = np.array(energies) / sum(energies)
    np.testing.assert_allclose(profile.values, expected, rtol=1e-9, atol=0)
    assert [row[0] for row in profile.rows] == [3.0] * 8
    assert [row[1] for row in profile.rows] == pytest.approx(energies, rel=1e-9)
    assert profile.facts["largest"] == max(profile.values)


def test_the_size_of_the_loss_does_not_count():
    case = denoisers.case(denoisers.Rows(), "v", denoisers.one, (24, 5))
    plain, given = require(look(case)), case.loss
    case.loss = lambda model, batch: 1024 * given(model, batch)
    assert require(look(case)).values == pytest.approx(plain.values, rel=1e-5)


def test_groups_of_times_keep_equal_times_together():
    groups = split(np.array([5.0, 1.0, 5.0, 3.0, 1.0, 9.0]))
    assert [group.tolist() for group in groups] == [[1, 4], [3], [0, 2], [5]]
    parts = split(np.arange(100.0))
    assert len(parts) == 8
    assert sorted(np.concatenate(parts)) == list(range(100))


class Wrapped(nn.Module):
    """A denoiser in a module that is not told the time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = denoisers.Rows()


def test_a_denoiser_inside_a_module_is_found():
    inner = denoisers.case(denoisers.Rows(), "noise", denoisers.one, (24, 5))
    wrapped = Wrapped()
    wrapped.net.load_state_dict(inner.model.state_dict())
    loss = denoisers.error("noise", denoisers.one)
    outer = Case(wrapped, lambda m, b: loss(m.net, b), inner.batches)  # type: ignore[union-attr, arg-type]
    profile = require(look(outer))
    assert profile.values == pytest.approx(require(look(inner)).values, rel=1e-6)
    assert {site.path for site in profile.sites} == {"net"}


class Told(nn.Linear):
    """Is told a time of any shape and does not look at it."""

    def forward(self, x: Tensor, t: Tensor | float | None = None) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize(
    "t", [None, 0.5, torch.tensor(0.5), torch.full((6,), 0.5), torch.ones(6, 3), torch.ones(5)], ids=str
)
def test_without_a_time_for_every_sample_there_is_none(t):
    case = Case(Told(4, 2), lambda m, x: m(x, t).square().mean(), [torch.randn(6, 4)])
    assert look(case) is None


def test_a_column_of_times_counts():
    case = Case(Told(4, 2), lambda m, x: m(x, torch.rand(6, 1)).square().mean(), [torch.randn(6, 4)])
    assert require(look(case)).facts["groups"] == 6


def test_models_that_are_told_no_time_have_none():
    assert find_clocks(nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2), nn.MultiheadAttention(2, 1))) == {}
    assert look(Case(nn.Linear(4, 2), lambda m, x: m(x).square().mean(), [torch.randn(6, 4)])) is None


def test_a_gradient_of_zero_is_explained():
    case = Case(Told(4, 2), lambda m, x: 0 * m(x, torch.rand(6)).sum(), [torch.randn(6, 4)])
    profile = require(look(case))
    assert all(map(math.isnan, profile.values))
    assert "zero everywhere" in profile.note
